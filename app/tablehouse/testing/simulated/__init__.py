"""A group of workers without Kafka, RocksDB or real time: a simulated broker, group, clock and store, with a seed."""
