"""A Kafka Streams service that does the job of one Tablehouse worker."""
