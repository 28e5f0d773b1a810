"""Keys, values and partitioners: bytes in, bytes out; nothing here knows a Kafka client or HTTP."""
