"""Reads some records of each partition of a topic, without a group and without writing anything."""

import asyncio
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from tablehouse.errors import TopicError
from tablehouse.inspection.sample import SampledRecord, TopicSample
from tablehouse.kafka.client import Connection
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.kafka.topic_admin import TopicAdmin
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds, LogRecord, LogUnavailable, OffsetOutOfRange

#: Records to read from the start and from the end of each partition, and maximum records of a topic.
RECORDS_PER_END, MAX_RECORDS = 100, 10_000

#: Maximum bytes per fetch of a partition.
_FETCH_BYTES = 256 * 1024

#: Seconds that reading one end of a partition may take. At the end of a log there may be no record after an offset,
#: which only a timeout can tell.
_END_TIMEOUT_SECONDS = 3.0

#: Number of partitions that are read concurrently.
_CONCURRENT_READS = 16


def _no_topic(missing: Sequence[str], names: Sequence[str]) -> str:
    what = "there is no topic" if len(missing) == 1 else "there are no topics"
    close = dict.fromkeys(one for topic in missing for one in get_close_matches(topic, names, n=1))
    hint = f"did you mean {' and '.join(close)}?" if close else "check the spelling and bootstrap_servers"
    return f"{what} {', '.join(missing)}: {hint}"


async def sample_topics(
    connection: Connection, topics: Sequence[str], per_end: int = RECORDS_PER_END
) -> list[TopicSample]:
    """Sample topics, all of which must exist; raises TopicError, LogUnavailable and aiokafka's KafkaError."""
    async with TopicAdmin(connection) as admin:
        described = await admin.describe(topics)
        missing = [topic for topic in topics if topic not in described]
        if missing:
            raise TopicError(_no_topic(missing, await admin.names()))
        settings = await admin.settings(topics)
    reader = KafkaLogReader(connection, _FETCH_BYTES)
    try:
        await reader.start()
        return [
            await _sample(reader, topic, described[topic].partitions, settings[topic].values["cleanup.policy"], per_end)
            for topic in topics
        ]
    finally:
        await reader.stop()


async def _sample(reader: KafkaLogReader, topic: str, partitions: int, cleanup: str, per_end: int) -> TopicSample:
    places = [TopicPartition(topic, number) for number in range(partitions)]
    bounds = await reader.bounds(places)
    per_end = max(1, min(per_end, MAX_RECORDS // 2 // partitions))
    turns = asyncio.Semaphore(_CONCURRENT_READS)
    unread = [f"{place} has no leader" for place in places if place not in bounds]

    async def read(place: TopicPartition) -> Mapping[int, LogRecord]:
        async with turns:
            return await _read(reader, place, bounds[place], per_end, unread)

    found = await asyncio.gather(*(read(place) for place in places if place in bounds))
    records = [
        SampledRecord(place, record.offset, record.timestamp, record.key, record.value, record.headers)
        for place, of_partition in zip([place for place in places if place in bounds], found, strict=True)
        for _, record in sorted(of_partition.items())
    ]
    known = {place.partition: (one.start, one.end) for place, one in bounds.items()}
    return TopicSample(topic, partitions, cleanup, known, records, unread)


async def _read(
    reader: KafkaLogReader, place: TopicPartition, bounds: Bounds, per_end: int, unread: list[str]
) -> Mapping[int, LogRecord]:
    """Read both ends of a partition; adds the reason to `unread` if one cannot be read."""
    found: dict[int, LogRecord] = {}
    for start in dict.fromkeys((bounds.start, max(bounds.start, bounds.end - per_end))):
        if start >= bounds.end:
            continue
        try:
            async with asyncio.timeout(_END_TIMEOUT_SECONDS):
                await _read_from(reader, place, start, min(bounds.end, start + per_end), per_end, found)
        except TimeoutError:
            # There are only holes after an offset, or a broker is slow; the rest of the sample is still valid.
            continue
        except (LogUnavailable, OffsetOutOfRange) as error:
            unread.append(str(error) or f"{place} cannot be read at offset {start}")
    return found


async def _read_from(
    reader: KafkaLogReader, place: TopicPartition, start: int, end: int, max_records: int, found: dict[int, LogRecord]
) -> None:
    before = len(found)
    async with reader.read(place, start) as cursor:
        offset = start
        while offset < end and len(found) - before < max_records:
            piece = await cursor.next()
            for record in piece.records[: max_records - (len(found) - before)]:
                found[record.offset] = record
            offset = piece.next_offset
