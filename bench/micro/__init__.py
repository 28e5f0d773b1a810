"""How long the parts take, without Kafka and without a socket; `python -m bench.micro`."""
