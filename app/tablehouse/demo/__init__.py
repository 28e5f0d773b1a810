"""The demo: a real Kafka from pip packages, real flights and two workers."""
