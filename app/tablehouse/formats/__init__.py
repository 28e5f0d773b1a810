"""Keys, values and partitioners: bytes in, bytes out, without a Kafka client and without HTTP."""
