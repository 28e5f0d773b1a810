"""All shards of a worker: opened, owned, suspended and closed as assignments come and go."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import NotOwner, PartitionRestoring, PositionNotReached, SourceUnavailable
from tablehouse.model import Consistency, Ownership, SourceEnd, TaskState, TaskStatus, TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.rows import RowLayoutError
from tablehouse.stores.store import ShardStore, StoreClosed, StoreCorrupt, StoreError
from tablehouse.tasks import background
from tablehouse.tasks.definitions import codec_of, family_name, identity_of
from tablehouse.tasks.log import LaneControl, LogRecord, LogUnavailable, PartitionMissing
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES, LARGE_BATCH_BYTES
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.questions import Question
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.shard import Shard
from tablehouse.tasks.source_ends import SOURCE_ENDS_INTERVAL
from tablehouse.tasks.task import FIRST_PAUSE, LONGEST_PAUSE, Task

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

#: Seconds between flushes. There is no write-ahead log, so this bounds the tail that is replayed after a SIGKILL.
FLUSH_INTERVAL = 30.0

#: Source records that may wait in the inboxes of a worker, and the least that each shard gets of them, however many
#: there are; what they take in bytes is bounded beside that.
QUEUED_RECORDS = 64_000
LEAST_QUEUED = 1_000

#: The part of the memory budget that the records in the inboxes of a worker may take. Half as much again may be kept
#: for tasks that are about to join.
QUEUED_SHARE = 16

#: The bytes of large batches that wait in all inboxes together from which on nothing is fetched for any lane.
CROWDED_BYTES = 4 * LARGE_BATCH_BYTES

#: A store that has failed is opened anew this often at most, in seconds, and only when so many bytes are free: RocksDB
#: writes nothing any more after a failure in its background, such as a full disk, and can be read until it is closed.
REOPEN_INTERVAL = 30.0
REOPEN_FREE = 64 << 20

#: How long rows may be counted for one answer, in seconds.
COUNTING_SECONDS = 0.25

#: How many databases are opened or closed at once; each takes a core for a part of a second.
OPENERS = 2


def limits(shards: int, memory_budget: int) -> tuple[int, int]:
    """Return how many records, and bytes of records, may wait in each inbox of a worker with so many shards."""
    records = max(LEAST_QUEUED, min(2 * LANE_BATCH, QUEUED_RECORDS // shards))
    return records, min(4 * LANE_BATCH_BYTES, memory_budget // QUEUED_SHARE // shards)


@dataclass(slots=True)
class _Held:
    shard: Shard
    store: ShardStore
    tasks: dict[str, Task]
    active: bool
    opened: asyncio.Task[None] | None = None
    leaving: bool = False
    #: Whether what was on the disk was thrown away.
    destroyed: bool = False
    #: Whether the source was missing when its end was last listed.
    source_missing: bool = False


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What all shards of a worker have in common.

    `partitions` are the counts by source topic; `store_of` makes the store of a shard, not open yet; `memory_budget` is
    in bytes, for everything that a worker holds.
    """

    group: str
    catalog: Catalog
    partitions: Mapping[str, int]
    directory: DataDirectory
    store_of: Callable[[TopicPartition], ShardStore]
    memory_budget: int


@dataclass(slots=True)
class Shards:
    """The shards this worker holds; the local side of every read."""

    settings: ShardSettings
    lane: LaneControl
    ports: Ports
    reader: Reader
    _held: dict[TopicPartition, _Held] = field(default_factory=dict)
    _closing: dict[TopicPartition, asyncio.Task[None]] = field(default_factory=dict)
    _generation: int | None = None
    _openers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENERS))
    _topics: dict[str, str] = field(default_factory=dict)
    _reopened_at: dict[TopicPartition, float] = field(default_factory=dict)
    _listings: dict[TopicPartition, asyncio.Task[None]] = field(default_factory=dict)
    #: Shards in which a large batch waits or is being ingested, as far as was seen.
    _crowding: set[TopicPartition] = field(default_factory=set)
    _failures: Recurring = field(init=False)

    def __post_init__(self) -> None:
        self._failures = Recurring(log, self.ports.clock.monotonic)
        self._topics = {name: table.source.topic for name, table in self.settings.catalog.tables.items()}

    @property
    def tasks(self) -> list[Task]:
        """Return the tasks of every shard held, whatever their state."""
        return [task for held in self._held.values() for task in held.tasks.values()]

    # Assignments

    def assign(
        self, generation: int, actives: Collection[TopicPartition], standbys: Collection[TopicPartition]
    ) -> None:
        """Own and follow exactly these shards in this generation; returns at once, each serves as soon as it can.

        A shard that is held already stays open, whichever of the two it was.
        """
        self._generation = generation
        for source in [source for source in self._held if source not in actives and source not in standbys]:
            self._close(source)
        for source in sorted({*actives, *standbys}):
            active = source in actives
            held = self._held.get(source)
            if held is None:
                self._take(source, active=active)
            else:
                held.active = active
                if held.opened is not None and held.opened.done():
                    self._set_to_work(held)
        for held in self._held.values():
            held.shard.limit, held.shard.limit_bytes = limits(max(1, len(actives)), self.settings.memory_budget)

    async def warm(self, shards: Collection[TopicPartition], acceptable_lag: int) -> list[TopicPartition]:
        """Return those of these shards that can be taken over: each of their tasks can be read, and keeps_up().

        Within the changelog readers' deadline for each.
        """
        return [source for source in sorted(shards) if await self._is_warm(source, acceptable_lag)]

    async def _is_warm(self, source: TopicPartition, acceptable_lag: int) -> bool:
        held = self._held.get(source)
        if held is None or any(task.state < TaskState.STANDBY for task in held.tasks.values()):
            return False
        for task in held.tasks.values():
            if not await task.keeps_up(acceptable_lag):
                return False
        return True

    async def suspend(self, patience: float, reason: str) -> None:
        """Stop owning and following, and keep the stores open and readable until the next assignment.

        Gives what is in flight `patience` seconds.
        """
        self._generation = None
        for held in self._held.values():
            held.shard.stop()
        await asyncio.gather(*(task.suspend(patience, reason) for task in self.tasks))

    async def stop(self, patience: float) -> None:
        """Suspend, flush and close everything; bounded by what RocksDB takes to flush."""
        await self.suspend(patience, "the worker is stopping")
        await asyncio.to_thread(self._write_down, self.positions(), dict(self._held))
        for source in list(self._held):
            self._close(source)
        if self._closing:
            await asyncio.wait(list(self._closing.values()))

    def _take(self, source: TopicPartition, *, active: bool) -> None:
        held = self._held[source] = self._new(source, active=active)
        held.opened = background.start(self._open(source, held), f"open {source}", self.ports.on_fatal)

    def _store_failed(self, source: TopicPartition, held: _Held) -> None:
        """Open a store anew, whose rows in memory may be ahead of what it will have then, so with new tasks."""
        now, last = self.ports.clock.monotonic(), self._reopened_at.get(source)
        if self._held.get(source) is not held or (last is not None and now - last < REOPEN_INTERVAL):
            return
        try:
            free = self.settings.directory.free()
        except OSError:
            return
        if free < REOPEN_FREE:
            return
        self._reopened_at[source] = now
        log.warning("store is opened anew after a failure", shard=str(source))
        self._close(source)
        self._take(source, active=held.active)

    def _new(self, source: TopicPartition, *, active: bool) -> _Held:
        settings, ports = self.settings, self.ports
        store = settings.store_of(source)
        shard = Shard(source, self.lane)
        count = settings.partitions[source.topic]
        held = _Held(shard, store, {}, active)
        for table in settings.catalog.tables_of(source.topic):
            held.tasks[table.name] = Task(
                identity_of(settings.group, table, source.partition, count),
                source.partition,
                codec_of(table, source.partition, count, self.ports.known),
                store.task(family_name(table)),
                shard,
                ports,
                partial(self._store_failed, source, held),
            )
        return held

    def _set_to_work(self, held: _Held) -> None:
        if self._generation is not None and not held.leaving:
            # Until its source's end is known, nobody knows how stale a standby is, and it answers nothing.
            self._start_listing(held.shard.source)
            for task in held.tasks.values():
                if held.active:
                    task.own(self._generation)
                else:
                    task.follow(self._generation)

    async def _open(self, source: TopicPartition, held: _Held) -> None:
        closing = self._closing.get(source)
        if closing is not None:
            await asyncio.wait({closing})
        families = [family_name(table) for table in self.settings.catalog.tables_of(source.topic)]
        pause = FIRST_PAUSE
        failures = Recurring(log, self.ports.clock.monotonic)
        while not held.leaving:
            try:
                async with self._openers:
                    await self._open_or_destroy(source, held, families)
            except StoreError as error:
                for task in held.tasks.values():
                    task.reason = str(error)
                failures.error("open", "store cannot be opened; trying again", shard=str(source), error=str(error))
                await self.ports.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                failures.end("open", "store is open", shard=str(source))
                self._set_to_work(held)
                return

    async def _open_or_destroy(self, source: TopicPartition, held: _Held, families: Sequence[str]) -> None:
        """Open a store; raises StoreError, after having thrown the store away when it was corrupt."""
        try:
            await asyncio.to_thread(held.store.open, families)
        except StoreCorrupt as error:
            log.error("store quarantined; it is rebuilt from the changelog", shard=str(source), error=str(error))
            for task in held.tasks.values():
                self.ports.metrics.store_quarantines.labels(task.table).inc()
            held.destroyed = True
            await asyncio.to_thread(held.store.destroy)
            raise

    def _close(self, source: TopicPartition) -> None:
        held = self._held.pop(source)
        held.leaving = True

        async def close() -> None:
            if held.opened is not None:
                # It has waited for an earlier closing of the same shard.
                await asyncio.wait({held.opened})
            await asyncio.gather(*(task.suspend(0, "the partition moved") for task in held.tasks.values()))
            for task in held.tasks.values():
                task.close()
            try:
                async with self._openers:
                    await asyncio.to_thread(held.store.close)
            except StoreError as error:
                # What was not flushed is in the changelog.
                log.warning("store not flushed at closing", shard=str(source), error=str(error))

        closing = background.start(close(), f"close {source}", self.ports.on_fatal)
        self._closing[source] = closing

        def closed(_: asyncio.Task[None]) -> None:
            if self._closing.get(source) is closing:
                del self._closing[source]

        closing.add_done_callback(closed)

    # The lane

    def offer(self, source: TopicPartition, records: Sequence[LogRecord], next_offset: int) -> bool:
        """Hand over what was fetched; False when it has to be fetched again."""
        held = self._held.get(source)
        if held is None or not held.shard.offer(records, next_offset):
            return False
        if held.shard.waiting_bytes > LARGE_BATCH_BYTES:
            self._crowding.add(source)
        return True

    def are_crowded(self) -> bool:
        """Return whether large batches wait, all shards together, for as many bytes as one worker may hold of them."""
        if not self._crowding:
            return False
        waiting = {source: held.shard.waiting_bytes for source in self._crowding if (held := self._held.get(source))}
        self._crowding = {source for source, size in waiting.items() if size > LARGE_BATCH_BYTES}
        return sum(waiting.values()) >= CROWDED_BYTES

    def expected(self, source: TopicPartition) -> int | None:
        """Return the source offset that a shard's lane wants next; None while it stands still."""
        held = self._held.get(source)
        return None if held is None else held.shard.expected

    def lost(self, source: TopicPartition) -> None:
        """Take note that a source has not got the offset that its lane wants next."""
        held = self._held.get(source)
        if held is not None:
            held.shard.lost()

    def committable(self) -> dict[TopicPartition, int]:
        """Return, for each shard owned of which every table has applied something, the source offset to go on at."""
        offsets: dict[TopicPartition, int] = {}
        for source, held in self._held.items():
            if not held.active:
                continue
            reached = [task.committable for task in held.tasks.values()]
            known = [offset for offset in reached if offset is not None]
            if known and len(known) == len(reached):
                offsets[source] = min(known)
        return offsets

    def positions(self) -> dict[str, dict[int, int]]:
        """Return how far each shard is, those on disk that are not held now included: what placement goes by.

        A shard is as far as its last table. What is being rebuilt counts for as far as that has got, what cannot be
        trusted for nothing, and a store that is not open yet for what was last saved of it.
        """
        positions = self.settings.directory.positions()
        for source, held in self._held.items():
            tasks = held.tasks.values()
            opening = any(task.state is TaskState.OPENING for task in tasks)
            if opening and not held.destroyed:
                continue
            worthless = opening or any(task.state is TaskState.QUARANTINED for task in tasks)
            position = -1 if worthless else min((task.applied for task in tasks), default=-1)
            positions.setdefault(source.topic, {})[source.partition] = position
        return positions

    # Reads

    def _task(self, table: str, partition: int) -> Task:
        held = self._held.get(TopicPartition(self._topics[table], partition))
        if held is None:
            raise NotOwner(f"this worker does not hold partition {partition} of table {table}")
        return held.tasks[table]

    def answer(self, table: str, partition: int, question: Question[Result], consistency: Consistency) -> Result:
        """Answer a question about a partition here and now, in one slice of work.

        Raises NotOwner where the partition is not held, and what the question raises, but for the store's errors: those
        are a PartitionRestoring.
        """
        task = self._task(table, partition)
        try:
            return question.answer(task, self.reader, consistency)
        except (StoreCorrupt, RowLayoutError) as error:
            # The next answer says that the store cannot be trusted.
            task.distrust(error)
            return question.answer(task, self.reader, consistency)
        except StoreError as error:
            # Another copy may be on a better disk.
            self._failures.error(
                (table, partition), "store cannot be read", table=table, partition=partition, error=str(error)
            )
            raise _unreadable(table, partition, error) from error

    async def wait_for_position(self, table: str, partition: int, offset: int, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until a source offset is applied here.

        Raises PositionNotReached after `timeout` seconds, and NotOwner where the partition is not held or is lost.
        """
        if not await self._task(table, partition).wait_for(offset, timeout):
            task = self._task(table, partition)
            raise PositionNotReached(
                f"partition {partition} of table {table} is at position {task.applied} here, not yet at {offset}"
                + (f": {task.reason}" if task.reason else ""),
                table=table,
                partition=partition,
                position=task.applied,
            )

    # Writes that rest on what is read here

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        """Return where the source ends now, once all of it is applied here, what open transactions hold back included.

        Raises SourceUnavailable when no broker tells within `timeout` seconds, and what wait_for_position() raises.
        """
        source, loop = self._task(table, partition).source, asyncio.get_running_loop()
        listed_at = loop.time()
        try:
            async with asyncio.timeout(timeout):
                end = (await self.ports.sources.bounds([source]))[source].high_watermark
        except (LogUnavailable, TimeoutError) as error:
            raise SourceUnavailable(
                f"nothing was written to partition {partition} of table {table}, since the end of {source} is not "
                f"known: {str(error) or 'the brokers do not answer in time'}",
                table=table,
                partition=partition,
            ) from None
        await self.wait_for_position(table, partition, end - 1, max(0.0, listed_at + timeout - loop.time()))
        return SourceEnd(end, listed_at)

    def ownership(self, table: str, partition: int) -> Ownership:
        """Return under which claim a partition is owned here; raises NotOwner unless it is, and the lease proves it."""
        task = self._task(table, partition)
        if task.state is not TaskState.ACTIVE or not self.ports.lease.holds(task.generation):
            raise NotOwner(f"this worker cannot prove that it owns partition {partition} of table {table}")
        return task.ownership

    def statuses(self) -> list[TaskStatus]:
        """Return the status of every task."""
        return [task.status() for task in self.tasks]

    async def count_rows(self) -> None:
        """Count the rows of tasks that have few, so that statuses() says exactly how many; within COUNTING_SECONDS.

        Those left out say it roughly, or as it was when they were counted last.
        """
        clock = self.ports.clock
        until = clock.monotonic() + COUNTING_SECONDS
        for task in self.tasks:
            if task.store.count_rows():
                if clock.monotonic() > until:
                    return
                await self.ports.turns.wait()

    # Upkeep

    async def keep_flushed(self) -> None:
        """Flush what was written, every FLUSH_INTERVAL, until cancelled."""
        while True:
            await self.ports.sleep(FLUSH_INTERVAL)
            for source, held in list(self._held.items()):
                try:
                    await asyncio.to_thread(held.store.flush)
                except StoreError as error:
                    self._failures.error(source, "store not flushed", shard=str(source), error=str(error))
                    if not isinstance(error, StoreClosed):
                        # A store that is not written to would keep its memtables, which all stores share.
                        self._store_failed(source, held)
                else:
                    self._failures.end(source, "store is flushed again", shard=str(source))
            await asyncio.to_thread(self._write_down, self.positions(), dict(self._held))

    def _write_down(self, positions: Mapping[str, Mapping[int, int]], shards: Mapping[TopicPartition, _Held]) -> None:
        """Save positions for the next process, and measure the disk; blocks."""
        metrics, directory = self.ports.metrics, self.settings.directory
        try:
            # First, since a full disk fails what follows.
            directory.measure(metrics)
            directory.save_positions(positions)
            for source, held in shards.items():
                metrics.store_size.labels(source.topic, str(source.partition)).set(held.store.size())
        except (OSError, StoreError) as error:
            self._failures.error("directory", "the data directory fails", path=str(directory.path), error=str(error))
        else:
            self._failures.end("directory", "the data directory works again", path=str(directory.path))

    async def watch_source_ends(self) -> None:
        """List the end of each source held, every SOURCE_ENDS_INTERVAL and with each assignment, until cancelled.

        Each by itself: a source whose end nobody tells makes the lag of no other unknown.
        """
        try:
            while True:
                self._listings = {source: listing for source, listing in self._listings.items() if not listing.done()}
                for source in self._held:
                    self._start_listing(source)
                await self.ports.sleep(SOURCE_ENDS_INTERVAL)
        finally:
            for listing in self._listings.values():
                listing.cancel()

    def _start_listing(self, source: TopicPartition) -> None:
        """List the end of a source, unless that is under way."""
        listing = self._listings.get(source)
        if listing is None or listing.done():
            self._listings[source] = background.start(self._list_end(source), f"end of {source}", self.ports.on_fatal)

    async def _list_end(self, source: TopicPartition) -> None:
        listed_at, held = self.ports.clock.monotonic(), self._held.get(source)
        if held is None:
            return
        positions = {name: task.applied for name, task in held.tasks.items()}
        try:
            bounds = (await self.ports.sources.bounds([source]))[source]
        except PartitionMissing:
            self._note_missing_source(held)
            return
        except LogUnavailable:
            return
        if self._held.get(source) is held:
            held.source_missing = False
            for name, task in held.tasks.items():
                task.observe_source_end(bounds, listed_at, positions[name])

    @staticmethod
    def _note_missing_source(held: _Held) -> None:
        for task in held.tasks.values():
            task.observe_source_missing()
        if held.source_missing:
            # Twice in a row: no broker that has only just started.
            held.shard.lost()
        held.source_missing = True


def _unreadable(table: str, partition: int, error: StoreError) -> PartitionRestoring:
    return PartitionRestoring(
        f"partition {partition} of table {table} cannot be read here: {error}", table=table, partition=partition
    )
