"""How fast Tablehouse is, measured beside Kafka Streams and stock Faust; `python -m bench --help`."""
