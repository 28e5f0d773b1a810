"""What is in a dead-letter topic of a real broker."""

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError


class Letter(NamedTuple):
    """A record of the topic, its headers by name; the last counts."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int

    def header(self, name: str) -> str:
        """Return a header's text."""
        return dict(self.headers)[name].decode()

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return table, source topic and offset."""
        connect = "__connect.errors."
        table = self.header("__tablehouse.errors.table")
        return table, self.header(f"{connect}topic"), int(self.header(f"{connect}offset"))


async def letters(bootstrap: str, topic: str, partition: int = 0) -> list[Letter]:
    """Return all records of a partition, as of now; none where the topic does not exist."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (found,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if found["error_code"] == UnknownTopicOrPartitionError.errno:
        return []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=1 << 26
    )
    await consumer.start()
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        read: list[Letter] = []
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(place, timeout_ms=1000)).values():
                read += [Letter(one.offset, one.key, one.value, one.headers, one.timestamp) for one in records]
        return read
    finally:
        await consumer.stop()
