"""Records the decision to skip unreadable offsets, and writes a dead letter about it."""

import time
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.kafka.producers import stop_producer
from tablehouse.kafka.record_batches import ReadRecord
from tablehouse.kafka.skips import Skip, Skips, skip_topic
from tablehouse.kafka.topics import partition_count, prepare_dead_letters
from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import EVERY_TABLE, DeadLetter
from tablehouse.tasks.ingest import BadRecord
from tablehouse.tasks.log import NO_TIMESTAMP, LogReader, LogUnavailable, Unreadable

#: The writer named in the letter, in place of a worker.
_WRITER = "tablehouse skip"


class Decided(NamedTuple):
    """A decision, and whether it was made by this call or earlier."""

    skip: Skip
    is_new: bool


class SkipRefused(Exception):
    """The offsets are not skipped, because that would lose records or change nothing."""


class _MachineClock:
    """Implements BrokerClock with this machine's clock, which is accurate enough for a letter."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


async def skip(
    connection: Connection, group: str, dead_letter_topic: str, source: TopicPartition, first: int, last: int
) -> Decided:
    """Make the group's workers skip the offsets from `first` to `last`, none of which can be read.

    Nothing is written if this was decided before.

    Raises SkipRefused for a changelog, if one of the offsets can be read, or if only part of a batch would be skipped;
    TopicError if the topic does not exist; LettersUndelivered, LogUnavailable and aiokafka's KafkaError if brokers do
    not answer. After an error, the letter may exist without the decision, and is written again the next time.
    """
    if source.topic.startswith(f"{group}-") and source.topic.endswith("-changelog"):
        raise SkipRefused(
            f"{source.topic} is a changelog, whose offsets cannot be skipped; give its table a new version"
        )
    await _require_partition(connection, source)
    await _require_partition(connection, TopicPartition(skip_topic(group), 0))
    reader = KafkaLogReader(connection)
    try:
        await reader.start()
        decisions = Skips(reader, group)
        await decisions.read()
        earlier = decisions.decision(source, first, last)
        if earlier is not None:
            return Decided(earlier, is_new=False)
        problem = await _require_unreadable(reader, source, first, last)
    finally:
        await reader.stop()
    decision = Skip(source.topic, source.partition, first, last, problem, _MachineClock().now_ms())
    await _write_letter(connection, group, dead_letter_topic, decision)
    await _append(connection, group, decision)
    return Decided(decision, is_new=True)


async def _require_partition(connection: Connection, place: TopicPartition) -> None:
    count = await partition_count(connection, place.topic)
    if count is None:
        raise TopicError(f"there is no topic {place.topic}; check the setting group and the topic's name")
    if place.partition >= count:
        raise TopicError(
            f"topic {place.topic} has {count} partitions, numbered from 0, and no partition {place.partition}"
        )


async def _require_unreadable(reader: LogReader, source: TopicPartition, first: int, last: int) -> str:
    """Return why the offsets cannot be read; they may include offsets without records."""
    found = await reader.bounds([source])
    if source not in found:
        raise LogUnavailable(f"the offsets of {source} could not be listed")
    begin, end = found[source].start, found[source].end
    if not begin <= first <= last < end:
        raise SkipRefused(f"{source} has offsets {begin} to {end - 1}; {first} to {last} are not among them")
    problems: list[str] = []
    offset = first
    while offset <= last:
        try:
            async with reader.read(source, offset) as cursor:
                piece = await cursor.next()
        except Unreadable as error:
            if error.first > last:
                break
            if error.first < first or error.last > last:
                raise SkipRefused(
                    f"{error}; these offsets can only be skipped together: --from {min(first, error.first)} "
                    f"--to {max(last, error.last)}"
                ) from error
            problems.append(str(error))
            offset = error.last + 1
        else:
            if piece.records and piece.records[0].offset <= last:
                raise SkipRefused(f"offset {piece.records[0].offset} of {source} can be read; nothing was skipped")
            offset = piece.next_offset
    if not problems:
        raise SkipRefused(f"{source} has no record at offsets {first} to {last}; nothing was skipped")
    return "; ".join(problems)


async def _write_letter(connection: Connection, group: str, dead_letter_topic: str, decision: Skip) -> None:
    topic = await prepare_dead_letters(connection, dead_letter_topic, decision.topic)
    letters = KafkaDeadLetters(connection, topic, group, _WRITER, _MachineClock())
    detail = f"offsets {decision.first} to {decision.last} are skipped, as decided by an operator: {decision.problem}"
    bad = BadRecord(ReadRecord(decision.first, NO_TIMESTAMP, None, None, ()), "unreadable", detail)
    try:
        await letters.send([DeadLetter(EVERY_TABLE, decision.source, bad)])
    finally:
        await letters.stop()


async def _append(connection: Connection, group: str, decision: Skip) -> None:
    producer = AIOKafkaProducer(**connection.arguments(), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(skip_topic(group), key=decision.key, value=decision.encode(), partition=0)
    finally:
        await stop_producer(producer)
