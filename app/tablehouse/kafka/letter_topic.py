"""Reads a dead-letter topic from start to end, and puts letters back into their sources."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.kafka.producers import REFUSALS, refusal, stop_producer
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.kafka.skips import Skips
from tablehouse.kafka.topic_admin import TopicAdmin
from tablehouse.kafka.topics import partition_count
from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import LetterRead, read_letter
from tablehouse.tasks.definitions import tables_with_changelogs
from tablehouse.tasks.log import Bounds, LogRecord, LogUnavailable

#: Called regularly with the number of records read so far, and the maximum number to read.
Progress = Callable[[int, int], None]


class NotTaken(Exception):
    """The source topic does not accept the record."""


class LetterTopic:
    """A dead-letter topic and the sources of its letters; must be entered as a context manager before use.

    `name` is the topic, and `foreign` counts the records found by letters() that no worker has written.

    All methods raise LogUnavailable or aiokafka's KafkaError if brokers do not answer. None has a time limit; callers
    set a deadline.
    """

    def __init__(self, connection: Connection, topic: str, group: str) -> None:
        self._connection = connection
        self.name = topic
        self._group = group
        self.foreign = 0
        self._decisions = KafkaLogReader(connection)
        self._reader = KafkaLogReader(connection, skips=Skips(self._decisions, group))
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        try:
            await self._reader.start()
            await self._decisions.start()
        except BaseException:
            await self._disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._disconnect()
        if self._producer is not None:
            await stop_producer(self._producer)

    async def _disconnect(self) -> None:
        await self._reader.stop()
        await self._decisions.stop()

    async def letters(self, progress: Progress) -> AsyncIterator[LetterRead]:
        """Yield the current letters, each partition from its start; raises TopicError if the topic does not exist."""
        partitions = await self._partitions()
        bounds = await self._reader.bounds(partitions)
        total, read = sum(place.end - place.start for place in bounds.values()), 0
        for partition in partitions:
            async for records in self._read(partition, *self._known(bounds, partition)[:2]):
                read += len(records)
                progress(read, total)
                for record in records:
                    letter = read_letter(partition.partition, record)
                    if letter is None:
                        self.foreign += 1
                    else:
                        yield letter

    async def tables(self) -> set[str]:
        """Return all tables of the group that have a changelog, with or without letters."""
        async with TopicAdmin(self._connection) as admin:
            return tables_with_changelogs(self._group, await admin.names())

    async def letter(self, partition: int, offset: int) -> LetterRead:
        """Return one letter; raises TopicError if there is none."""
        place = TopicPartition(self.name, partition)
        if place not in await self._partitions():
            raise TopicError(f"topic {self.name} has no partition {partition}")
        begin, end, *_ = self._known(await self._reader.bounds([place]), place)
        if begin <= offset < end:
            record = await self._reader.peek(place, offset)
            letter = read_letter(partition, record) if record is not None and record.offset == offset else None
            if letter is not None:
                return letter
        raise TopicError(
            f"there is no dead letter at offset {offset} of {place}, which has offsets {begin} to {end - 1}"
        )

    async def newest(self, source: TopicPartition, keys: Mapping[bytes, int]) -> dict[bytes, int]:
        """Return the offset of the newest record of each key that has a record after the given offset."""
        begin, end, held, _ = self._known(await self._reader.bounds([source]), source)
        if held:
            # A letter put back after a record that cannot be read yet would replace a newer row.
            raise LogUnavailable(f"an open transaction holds back {held} offsets of {source} from {end} on")
        found: dict[bytes, int] = {}
        async for records in self._read(source, max(begin, min(keys.values()) + 1), end):
            for record in records:
                key = record.key
                if key is not None and record.offset > keys.get(key, record.offset):
                    found[key] = record.offset
        return found

    async def put_back(self, letter: LetterRead) -> int:
        """Append a letter's record to its source partition, with the current time, and return its offset there.

        Raises NotTaken.
        """
        producer = await self._started_producer()
        key, value, headers = letter.original
        batch = producer.create_batch()
        batch.append(timestamp=time.time_ns() // 1_000_000, key=key, value=value, headers=list(headers))
        batch.close()
        try:
            future = await producer.send_batch(batch, letter.source.topic, partition=letter.source.partition)
            return int((await future).offset)
        except REFUSALS as error:
            # The rejected batch has used up sequence numbers, so the broker would reject this producer's next one.
            self._producer = None
            await stop_producer(producer)
            if isinstance(error, MessageSizeTooLargeError):
                raise NotTaken(
                    f"topic {letter.source.topic} does not accept a batch of {batch.size()} bytes"
                ) from error
            raise NotTaken(refusal(error)) from error

    async def _started_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **self._connection.arguments(), acks="all", enable_idempotence=True, linger_ms=0
            )
            rebootstrap(producer.client, self._connection)
            try:
                await producer.start()
            except BaseException:
                await stop_producer(producer)
                raise
            self._producer = producer
        return self._producer

    async def _partitions(self) -> list[TopicPartition]:
        count = await partition_count(self._connection, self.name)
        if count is None:
            raise TopicError(
                f"there is no topic {self.name}; check the settings group and dead_letter_topic, or no worker of the "
                "group has needed one yet"
            )
        return [TopicPartition(self.name, number) for number in range(count)]

    @staticmethod
    def _known(bounds: Mapping[TopicPartition, Bounds], partition: TopicPartition) -> Bounds:
        """Return the bounds of a partition; raises LogUnavailable if they are unknown."""
        if partition not in bounds:
            raise LogUnavailable(f"the offsets of {partition} could not be listed")
        return bounds[partition]

    async def _read(self, partition: TopicPartition, begin: int, end: int) -> AsyncIterator[Sequence[LogRecord]]:
        """Yield the records from `begin` up to `end`, in slices."""
        reached = begin
        if reached >= end:
            return
        async with self._reader.read(partition, begin) as cursor:
            while reached < end:
                piece = await cursor.next()
                reached = piece.next_offset
                yield [record for record in piece.records if record.offset < end]
