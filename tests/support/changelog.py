"""Changelog writers and readers on a real broker."""

import contextlib
from collections.abc import AsyncIterator

from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.kafka.client import Connection
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LogRecord
from tests.support.kafka import create_topic, unique

BATCH_SIZE = 1024 * 1024


def connection(bootstrap: str, request_timeout: float = 10.0) -> Connection:
    return Connection(bootstrap, "test", request_timeout)


@contextlib.asynccontextmanager
async def changelog_writer(
    bootstrap: str, *, batch_size: int = BATCH_SIZE, request_timeout: float = 10.0
) -> AsyncIterator[KafkaChangelogWriter]:
    """Run a writer, as one worker has it; request_timeout is in seconds."""
    writer = KafkaChangelogWriter(connection(bootstrap, request_timeout), lambda _topic: batch_size)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


@contextlib.asynccontextmanager
async def log_reader(bootstrap: str, *, request_timeout: float = 10.0) -> AsyncIterator[KafkaLogReader]:
    """Run a reader; request_timeout is in seconds."""
    reader = KafkaLogReader(connection(bootstrap, request_timeout))
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def new_log(bootstrap: str, partitions: int = 1, **settings: str) -> list[TopicPartition]:
    """Create a topic stamped as changelogs are, its settings spelled with _ for a dot, and return its partitions."""
    topic, stamped = unique("log"), {"message.timestamp.type": "LogAppendTime"}
    given = {name.replace("_", "."): value for name, value in settings.items()}
    await create_topic(bootstrap, topic, partitions, stamped | given)
    return [TopicPartition(topic, partition) for partition in range(partitions)]


async def read_to(reader: KafkaLogReader, partition: TopicPartition, start: int, end: int) -> list[LogRecord]:
    """Read what lies between two offsets."""
    found: list[LogRecord] = []
    async with reader.read(partition, start) as cursor:
        reached = start
        while reached < end:
            piece = await cursor.next()
            found += piece.records
            reached = piece.next_offset
    return found


async def content(reader: KafkaLogReader, partition: TopicPartition) -> list[tuple[int, bytes | None]]:
    """Return (offset, value) of every record of a partition."""
    bounds = (await reader.bounds([partition]))[partition]
    records = await read_to(reader, partition, bounds.start, bounds.end)
    return [(record.offset, record.value) for record in records]
