"""Reads partitions from any offset, outside the consumer group and through its rebalances."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, OffsetOutOfRangeError

from app.kafka.client import Connection
from app.model import TopicPartition
from app.tasks.log import Bounds, LogRecord, LogSlice, LogUnavailable, OffsetOutOfRange

#: Records a slice has at most. Parsing them cannot be interrupted, at about 1.5 us each, so this bounds a reader's
#: wait.
RECORDS_A_SLICE = 1000

#: How long one wait for records lasts before the cursor looks around, in seconds.
_POLL = 1.0


class _Cursor:
    """Implements Cursor."""

    def __init__(self, reader: "_Reader", partition: TopicPartition, offset: int) -> None:
        self.partition = KafkaPartition(*partition)
        self.offset = offset
        self._reader = reader

    async def next(self) -> LogSlice:
        """Wait for the next slice."""
        while True:
            records, position = await self._reader.fetch(self)
            if records or position > self.offset:
                self.offset = position
                return LogSlice(records, position)


class _Reader:
    """One group-less consumer, and the cursors that are open on it: at most one for a partition."""

    def __init__(self, connection: Connection) -> None:
        self.consumer = AIOKafkaConsumer(
            **connection.arguments(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=250,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        self.cursors: dict[KafkaPartition, _Cursor] = {}
        self._assigned = True
        self._starting: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Connect, once; raises aiokafka's KafkaError when no broker is there, and tries again when called again."""
        starting = self._starting
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception() is not None)):
            starting = self._starting = asyncio.ensure_future(self.consumer.start())
        await asyncio.shield(starting)

    def add(self, cursor: _Cursor) -> None:
        self.cursors[cursor.partition] = cursor
        self._assigned = False

    def remove(self, cursor: _Cursor) -> None:
        del self.cursors[cursor.partition]
        self._assigned = False

    async def fetch(self, cursor: _Cursor) -> tuple[Sequence[LogRecord], int]:
        """Return what follows the cursor, and the offset after that; both may be as they were."""
        if not self._assigned:
            # Replaces the whole assignment, so that many cursors opened at once cost one.
            self.consumer.assign(list(self.cursors))
            for other in self.cursors.values():
                self.consumer.seek(other.partition, other.offset)
            self._assigned = True
        try:
            found = await self.consumer.getmany(
                cursor.partition, timeout_ms=int(_POLL * 1000), max_records=RECORDS_A_SLICE
            )
            position = await self.consumer.position(cursor.partition)
        except OffsetOutOfRangeError as error:
            raise OffsetOutOfRange(
                f"{cursor.partition.topic}[{cursor.partition.partition}] at {cursor.offset}"
            ) from error
        except (ConsumerStoppedError, IllegalStateError, KafkaError) as error:
            raise LogUnavailable(
                f"reading {cursor.partition.topic}[{cursor.partition.partition}]: {error!r}"
            ) from error
        return found.get(cursor.partition, ()), position


class KafkaLogReader:
    """Implements LogReader on a pool of consumers: a partition that is read twice at once takes a second one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._readers = [_Reader(connection)]

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError when no broker is there."""
        await self._readers[0].start()

    async def stop(self) -> None:
        """Disconnect."""
        for reader in self._readers:
            with suppress(KafkaError):
                await reader.consumer.stop()

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """Ask for the first offset and the last stable one of each partition."""
        consumer = self._readers[0].consumer
        wanted = [KafkaPartition(*partition) for partition in partitions]
        try:
            # The end is asked for last, so that it can never lie before the start.
            starts = await consumer.beginning_offsets(wanted)
            ends = await consumer.end_offsets(wanted)
        except (ConsumerStoppedError, KafkaError) as error:
            raise LogUnavailable(f"listing offsets: {error!r}") from error
        return {
            partition: Bounds(starts[kafka_partition], ends[kafka_partition])
            for partition, kafka_partition in zip(partitions, wanted, strict=True)
        }

    @asynccontextmanager
    async def read(self, partition: TopicPartition, offset: int) -> AsyncIterator[_Cursor]:
        """Open a cursor."""
        reader = self._reader_without(KafkaPartition(*partition))
        cursor = _Cursor(reader, partition, offset)
        # Before the first await, so that nobody else takes the partition on this reader meanwhile.
        reader.add(cursor)
        try:
            try:
                await reader.start()
            except KafkaError as error:
                raise LogUnavailable(f"no broker could be reached: {error!r}") from error
            yield cursor
        finally:
            reader.remove(cursor)

    def _reader_without(self, partition: KafkaPartition) -> _Reader:
        for reader in self._readers:
            if partition not in reader.cursors:
                return reader
        reader = _Reader(self._connection)
        self._readers.append(reader)
        return reader
