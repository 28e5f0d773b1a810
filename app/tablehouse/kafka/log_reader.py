"""Reads partitions from any offset, outside the consumer group and through its rebalances."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
)

from tablehouse.kafka.client import Connection
from tablehouse.kafka.fetch_refusals import raise_refusals
from tablehouse.kafka.fetching_ahead import fetch_ahead
from tablehouse.kafka.offset_listing import OffsetListing, Unlisted
from tablehouse.kafka.raw_records import raw
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.kafka.skips import SKIPPED, Skips
from tablehouse.masking import in_words
from tablehouse.model import TopicPartition
from tablehouse.tasks.clock import SystemClock
from tablehouse.tasks.log import (
    Bounds,
    LogRecord,
    LogSlice,
    LogUnavailable,
    OffsetOutOfRange,
    PartitionMissing,
    StoodStill,
    Unreadable,
)
from tablehouse.tasks.retention import STOOD_STILL

log = structlog.get_logger(__name__)

#: Maximum records per slice. Neither parsing them, at about 1 us each, nor writing them can be interrupted, so this
#: bounds how long a read waits. (ROWS_PER_CHUNK of stores/rocksdb.py has the same value.)
RECORDS_PER_SLICE = 500

#: Maximum bytes per partition of a fetch, if memory allows.
SLICE_FETCH_BYTES = 2 * 1024 * 1024

#: A peek only needs the first batch. Claims are smaller than this, so one response has those of all partitions. If
#: batches are larger, a broker sends the first one whole, regardless of the limit, and those of other partitions in
#: later responses.
PEEK_FETCH_BYTES = 4096

#: Minimum seconds between assignments of a reader, per assigned partition. An assignment recreates the state of each
#: partition, at about 20 us, and discards data fetched ahead; without a pause, opening thousands of partitions one by
#: one would leave no time for reading.
_ASSIGNMENT_PAUSE = 0.0002

#: Seconds that disconnecting may take.
STOP_TIMEOUT = 2.0

#: Seconds that a cursor waits for records before it checks its position.
_POLL_SECONDS = 1.0

#: Seconds without a slice after which a cursor checks whether the log has more records: aiokafka waits silently for a
#: missing leader or a deleted topic. An election takes a few seconds and is worth waiting for.
SILENCE_SECONDS = 10.0

#: Seconds that this check may take.
_CHECK_TIMEOUT_SECONDS = 3.0

#: A clock in seconds that continues while the machine sleeps, unlike `monotonic`.
_elapsed = SystemClock().monotonic

_Listed = asyncio.Task[dict[TopicPartition, Bounds | Unlisted]]
_Listing = Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, Bounds]]]


class _Cursor:
    """Implements Cursor."""

    def __init__(self, reader: "_Reader", bounds: _Listing, partition: TopicPartition, offset: int) -> None:
        self.partition = KafkaPartition(*partition)
        self.offset = offset
        self._reader = reader
        self._bounds = bounds
        self._polled_at = _elapsed()

    async def next(self) -> LogSlice:
        """Wait for the next slice."""
        began = since = monotonic()
        overdue = False
        while True:
            records, position = await self._reader.fetch(self)
            before, self._polled_at = self._polled_at, _elapsed()
            if self._polled_at - before > STOOD_STILL:
                raise StoodStill(f"{self} was idle for {(self._polled_at - before) / 3600:.0f} h")
            if records or position > self.offset:
                self.offset = position
                return LogSlice(records, position)
            now = monotonic()
            if overdue:
                raise LogUnavailable(f"reading {self}: no records for {now - began:.0f} s, although the log has more")
            if now - since >= SILENCE_SECONDS:
                # At the end of the log, silence is expected. Wait once more in case it has just grown.
                overdue = await self._is_behind(now - began)
                since = monotonic()

    async def _is_behind(self, seconds: float) -> bool:
        """Return whether the log has offsets that were not read; raises LogUnavailable if its end is unknown."""
        partition = TopicPartition(*self.partition)
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
                return (await self._bounds([partition]))[partition].end > self.offset
        except (LogUnavailable, TimeoutError) as error:
            raise LogUnavailable(
                f"reading {self}: no records for {seconds:.0f} s; {str(error) or 'the brokers do not answer'}"
            ) from error

    def __str__(self) -> str:
        return f"{self.partition.topic}[{self.partition.partition}] at offset {self.offset}"


class _Reader:
    """One consumer without a group, and its open cursors: at most one per partition."""

    def __init__(self, connection: Connection, fetch_bytes: int, skips: Skips | None) -> None:
        self._skips = skips
        self.consumer = AIOKafkaConsumer(
            **connection.arguments(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            key_deserializer=raw,
            fetch_max_wait_ms=250,
            max_partition_fetch_bytes=fetch_bytes,
        )
        rebootstrap(self.consumer._client, connection)
        raise_refusals(self.consumer)
        self.cursors: dict[KafkaPartition, _Cursor] = {}
        #: The consumer's assignment. Partitions without a cursor stay assigned but paused, since a changed assignment
        #: discards the data fetched ahead of all partitions.
        self._assigned: set[KafkaPartition] = set()
        #: Earliest time of the next assignment, on the monotonic clock.
        self._assignable_at = 0.0
        self._starting: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Connect once; raises aiokafka's KafkaError if no broker is reachable, and can then be called again."""
        starting = self._starting
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception() is not None)):
            starting = self._starting = asyncio.ensure_future(self.consumer.start())
        await asyncio.shield(starting)
        # Otherwise nothing is fetched from a broker while any of its partitions has buffered records.
        self.consumer._fetcher._prefetch_backoff = 0.0

    async def stop(self) -> None:
        """Disconnect. A start in progress ends first; otherwise it would continue and leave its connection open."""
        if self._starting is not None:
            try:
                await asyncio.wait({self._starting})
            finally:
                self._starting.cancel()
        await self.consumer.stop()

    def add(self, cursor: _Cursor) -> None:
        self.cursors[cursor.partition] = cursor
        if cursor.partition in self._assigned:
            self.consumer.seek(cursor.partition, cursor.offset)
            self.consumer.resume(cursor.partition)

    def remove(self, cursor: _Cursor) -> None:
        del self.cursors[cursor.partition]
        if cursor.partition in self._assigned:
            self.consumer.pause(cursor.partition)

    async def fetch(self, cursor: _Cursor) -> tuple[Sequence[LogRecord], int]:
        """Return the next records and the offset after them; there may be no records and no progress."""
        if cursor.partition not in self._assigned:
            await asyncio.sleep(self._assignable_at - monotonic())
        # Another cursor may have assigned it in the meantime.
        if cursor.partition not in self._assigned:
            self._assign()
        try:
            found = await self.consumer.getmany(
                cursor.partition, timeout_ms=int(_POLL_SECONDS * 1000), max_records=RECORDS_PER_SLICE
            )
            position = await self.consumer.position(cursor.partition)
        except OffsetOutOfRangeError as error:
            raise OffsetOutOfRange(str(cursor)) from error
        except UnreadableBatch as error:
            return await self._skip_unreadable(cursor, error)
        except (ConsumerStoppedError, IllegalStateError, KafkaError) as error:
            raise LogUnavailable(f"reading {cursor}: {in_words(error)}") from error
        return found.get(cursor.partition, ()), position

    async def _skip_unreadable(self, cursor: _Cursor, error: UnreadableBatch) -> tuple[Sequence[LogRecord], int]:
        """Continue after unreadable offsets if an operator has decided to skip them; otherwise raise Unreadable."""
        source = TopicPartition(*cursor.partition)
        offset = max(error.first, cursor.offset)
        after = None if self._skips is None else await self._skips.look_up(source, offset, error)
        if after is None:
            raise Unreadable(error.problem, source, error.first, error.last, may_pass=error.is_refused) from error
        log.warning(SKIPPED, source=str(source), first=offset, last=after - 1, error=error.problem)
        self.consumer.seek(cursor.partition, after)
        return (), after

    def _assign(self) -> None:
        """Assign all open cursors, so that many opened at once need one assignment."""
        self.consumer.assign(list(self.cursors))
        for cursor in self.cursors.values():
            self.consumer.seek(cursor.partition, cursor.offset)
        self._assigned = set(self.cursors)
        self._assignable_at = monotonic() + _ASSIGNMENT_PAUSE * len(self._assigned)


class _Pool:
    """Consumers of the same configuration: a partition that is read twice at once needs a second one."""

    def __init__(self, connection: Connection, fetch_bytes: int, bounds: _Listing, skips: Skips | None) -> None:
        self._connection = connection
        self._bounds = bounds
        self._fetch_bytes = fetch_bytes
        self._skips = skips
        self.readers = [_Reader(connection, fetch_bytes, skips)]

    @asynccontextmanager
    async def read(self, partition: TopicPartition, offset: int) -> AsyncIterator[_Cursor]:
        reader = self._reader_without(KafkaPartition(*partition))
        cursor = _Cursor(reader, self._bounds, partition, offset)
        # Before the first await, so that no other cursor takes the partition on this reader.
        reader.add(cursor)
        try:
            try:
                await reader.start()
            except KafkaError as error:
                raise LogUnavailable(f"no broker reachable: {error!r}") from error
            yield cursor
        finally:
            reader.remove(cursor)

    def fetch_ahead(self, size: int) -> None:
        self._fetch_bytes = size
        for reader in self.readers:
            fetch_ahead(reader.consumer, size)

    def _reader_without(self, partition: KafkaPartition) -> _Reader:
        for reader in self.readers:
            if partition not in reader.cursors:
                return reader
        reader = _Reader(self._connection, self._fetch_bytes, self._skips)
        self.readers.append(reader)
        return reader


class KafkaLogReader:
    """Implements LogReader; fetch_bytes is the maximum fetched ahead per partition.

    `skips` are an operator's decisions to skip offsets; only for a reader of sources.
    """

    def __init__(
        self, connection: Connection, fetch_bytes: int = SLICE_FETCH_BYTES, skips: Skips | None = None
    ) -> None:
        self._slices = _Pool(connection, fetch_bytes, self.bounds, skips)
        self._peeks = _Pool(connection, PEEK_FETCH_BYTES, self.bounds, skips)
        # On separate connections: a broker answers the requests of a connection one by one, and a consumer's fetch may
        # wait for records.
        client = AIOKafkaClient(**connection.arguments())
        rebootstrap(client, connection)
        self._offsets = OffsetListing(client)
        #: The pending listing of each leader, and its partitions.
        self._listings: dict[int, tuple[_Listed, set[TopicPartition]]] = {}
        self._asking: set[_Listed] = set()

    def fetch_ahead(self, size: int) -> None:
        """Fetch at most `size` bytes ahead of each partition from now on."""
        self._slices.fetch_ahead(size)

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError if no broker is reachable."""
        await self._slices.readers[0].start()
        await self._offsets.start()

    async def stop(self) -> None:
        """Disconnect, within STOP_TIMEOUT."""
        # A pending listing would connect again.
        for listing in self._asking:
            listing.cancel()
        readers = (*self._slices.readers, *self._peeks.readers)
        closing = [*(reader.stop() for reader in readers), self._offsets.stop()]
        stopping = [asyncio.ensure_future(one) for one in closing]
        await asyncio.wait(stopping, timeout=STOP_TIMEOUT)
        for one in stopping:
            if not one.done():
                one.cancel()
            elif not one.cancelled():
                one.exception()  # a failed disconnect of a reader has no consequences

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """List the first and the last stable offset of each partition.

        Many tasks call this at once after a rebalance: all calls for one leader in one iteration of the event loop
        share a listing. A leader that does not answer only delays calls for its own partitions.
        """
        listings = {partition: self._listing_with(partition) for partition in partitions}
        if listings:
            await asyncio.wait(set(listings.values()))
        if any(listing.cancelled() for listing in listings.values()):
            raise LogUnavailable("this reader has stopped")
        found: dict[TopicPartition, Bounds] = {}
        unlisted: dict[TopicPartition, Unlisted] = {}
        for partition, listing in listings.items():
            answer = listing.result()[partition]
            if isinstance(answer, Unlisted):
                unlisted[partition] = answer
            else:
                found[partition] = answer
        if found or not unlisted:
            return found
        if all(answer.missing for answer in unlisted.values()):
            raise PartitionMissing("; ".join(dict.fromkeys(answer.why for answer in unlisted.values())))
        why = ", ".join(f"{partition}: {answer.why}" for partition, answer in unlisted.items())
        raise LogUnavailable(f"listing offsets of {why}")

    def _listing_with(self, partition: TopicPartition) -> _Listed:
        leader = self._offsets.leader(partition)
        if leader not in self._listings:
            wanted: set[TopicPartition] = set()
            asking = asyncio.create_task(self._list_soon(leader, wanted))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
            self._listings[leader] = asking, wanted
        listing, partitions = self._listings[leader]
        partitions.add(partition)
        return listing

    async def _list_soon(self, leader: int, wanted: set[TopicPartition]) -> dict[TopicPartition, Bounds | Unlisted]:
        await asyncio.sleep(0)
        del self._listings[leader]
        return await self._offsets.bounds(wanted)

    async def peek(self, partition: TopicPartition, offset: int) -> LogRecord | None:
        """Return the first record at or after an offset; None if the next slice has no records."""
        async with self._peeks.read(partition, offset) as cursor:
            piece = await cursor.next()
        return piece.records[0] if piece.records else None

    def read(self, partition: TopicPartition, offset: int) -> AbstractAsyncContextManager[_Cursor]:
        """Open a cursor."""
        return self._slices.read(partition, offset)
