"""The demonstration: a real Kafka from pip packages, real flights and two workers.

Tests and benchmarks start their brokers from here too.
"""
