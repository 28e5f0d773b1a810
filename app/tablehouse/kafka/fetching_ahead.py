"""Changes the fetch size of a running aiokafka consumer; aiokafka itself only sets it at the start."""

from aiokafka import AIOKafkaConsumer


def fetch_ahead(consumer: AIOKafkaConsumer, size: int) -> None:
    """Fetch at most `size` bytes ahead of each partition from the next request on."""
    consumer._max_partition_fetch_bytes = size
    if consumer._fetcher is not None:
        consumer._fetcher._max_partition_fetch_bytes = size
