"""All shards of a worker: owned, followed, suspended and given up as assignments change."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from tablehouse.catalog.spec import TableSpec
from tablehouse.errors import NotOwner, PartitionRestoring, PositionNotReached, SourceUnavailable
from tablehouse.model import Consistency, Ownership, ShardId, SourceEnd, TaskState, TaskStatus, TopicPartition
from tablehouse.positions import Position
from tablehouse.recurring import Recurring
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.rows import RowLayoutError
from tablehouse.stores.store import ShardStore, StoreCorrupt, StoreError
from tablehouse.tasks.definitions import codec_of, family_name, identity_of
from tablehouse.tasks.flushing import Flushing
from tablehouse.tasks.inbox_limits import inbox_limits
from tablehouse.tasks.lane import Lane
from tablehouse.tasks.log import LaneControl, LogRecord, LogUnavailable
from tablehouse.tasks.pipeline import LARGE_BATCH_BYTES
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.questions import Question
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.served import Served, goes_on
from tablehouse.tasks.shard import Shard
from tablehouse.tasks.shard_stores import ShardStores
from tablehouse.tasks.source_listings import SourceListings
from tablehouse.tasks.task import Task

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

#: Nothing is fetched for any lane while large batches of this many bytes wait in all inboxes together.
CROWDED_BYTES = 4 * LARGE_BATCH_BYTES

#: Maximum time to count rows for one answer, in seconds.
COUNTING_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """The settings that all shards of a worker share.

    `store_of` makes the store of a shard, not yet open; `memory_budget` is in bytes, for everything that a worker
    holds.
    """

    group: str
    directory: DataDirectory
    store_of: Callable[[ShardId], ShardStore]
    memory_budget: int


@dataclass(slots=True)
class Shards:
    """The shards that this worker holds; they answer reads locally.

    `served` has the tables that shards have tasks for; serve() changes it.
    """

    settings: ShardSettings
    served: Served
    lanes: LaneControl
    ports: Ports
    reader: Reader
    _held: dict[ShardId, Shard] = field(default_factory=dict)
    #: The same shards by the source partition that their lanes read.
    _by_input: dict[TopicPartition, Shard] = field(default_factory=dict)
    _generation: int | None = None
    _shard_of: dict[str, Callable[[int], ShardId]] = field(default_factory=dict)
    #: The inputs of shards in which a large batch was seen to wait or to be ingested.
    _crowding: set[TopicPartition] = field(default_factory=set)
    _failures: Recurring = field(init=False)
    _stores: ShardStores = field(init=False)
    _listings: SourceListings = field(init=False)
    _flushing: Flushing = field(init=False)

    def __post_init__(self) -> None:
        directory, ports = self.settings.directory, self.ports
        self._failures = Recurring(log, ports.clock.monotonic)
        self._shard_of = self._shards_by_table()
        self._stores = ShardStores(directory, ports)
        self._listings = SourceListings(lambda: self._held, ports)
        self._flushing = Flushing(lambda: self._held, self.positions, directory, ports, self._on_store_failed)

    @property
    def tasks(self) -> list[Task]:
        """Return the tasks of every shard held, in any state."""
        return [task for shard in self._held.values() for task in shard.tasks.values()]

    # Tables

    def serve(self, served: Served) -> None:
        """Replace the tables that shards have tasks for; returns at once, and each task starts as soon as it can.

        Tasks whose tables stay as they are keep running. A shard without tables is given up; a new shard comes with the
        next assignment.
        """
        before, self.served = self.served.catalog, served
        self._shard_of = self._shards_by_table()
        for shard in list(self._held.values()):
            tables = {table.name: table for table in served.catalog.tables_in(shard.id.name)}
            if not tables:
                self._give_up(shard)
                continue
            leaving = [
                shard.tasks.pop(name)
                for name in list(shard.tasks)
                if name not in tables or not goes_on(before.tables[name], tables[name])
            ]
            shard.coming.difference_update(task.table for task in leaving)
            new = {name: table for name, table in tables.items() if name not in shard.tasks}
            coming = {family_name(table): self._new_task(shard, table) for table in new.values()}
            shard.tasks.update(zip(new, coming.values(), strict=True))
            shard.coming.update(new)
            if leaving or coming:
                self._stores.start_exchange(
                    shard, leaving, coming, partial(self._take_in, shard, list(coming.values()))
                )

    def _take_in(self, shard: Shard, tasks: Sequence[Task]) -> None:
        """Start tasks that now have their stores, unless their tables were removed meanwhile."""
        for task in tasks:
            if shard.tasks.get(task.table) is task:
                shard.coming.discard(task.table)
                if self._generation is not None and not shard.is_leaving:
                    self._listings.start(shard.id)
                    shard.set_one_to_work(task.table, self._generation)

    def _shards_by_table(self) -> dict[str, Callable[[int], ShardId]]:
        return {name: table.shard for name, table in self.served.catalog.tables.items()}

    # Assignments

    def assign(self, generation: int, actives: Collection[ShardId], standbys: Collection[ShardId]) -> None:
        """Own and follow exactly these shards in this generation; returns at once, and each serves as soon as it can.

        A shard that is already held stays open, also when its role changes. Shards without a table are ignored: the
        assignment may be older than the removal of their last table.
        """
        self._generation = generation
        for shard in [shard for id_, shard in self._held.items() if id_ not in actives and id_ not in standbys]:
            self._give_up(shard)
        names = set(self.served.catalog.shard_names)
        for shard_id in sorted(shard for shard in {*actives, *standbys} if shard.name in names):
            is_active = shard_id in actives
            held = self._held.get(shard_id)
            if held is None:
                self._take(shard_id, is_active=is_active)
            else:
                held.is_active = is_active
                if held.is_open:
                    self._set_to_work(held)
        for shard in self._held.values():
            shard.lane.limit, shard.lane.limit_bytes = inbox_limits(max(1, len(actives)), self.settings.memory_budget)

    async def warm(self, shards: Collection[ShardId], acceptable_lag: int) -> list[ShardId]:
        """Return those of these shards that are ready to take over; see Shard.is_warm().

        Each takes at most the timeout of the changelog reader.
        """
        held = [self._held.get(shard) for shard in sorted(shards)]
        return [shard.id for shard in held if shard is not None and await shard.is_warm(acceptable_lag)]

    async def suspend(self, patience: float, reason: str) -> None:
        """Stop owning and following, and keep the stores open and readable until the next assignment.

        Batches in flight get `patience` seconds to be applied.
        """
        self._generation = None
        for shard in self._held.values():
            shard.lane.stop()
        await asyncio.gather(*(task.suspend(patience, reason) for task in self.tasks))

    async def stop(self, patience: float) -> None:
        """Suspend, flush and close everything; takes as long as RocksDB takes to flush."""
        await self.suspend(patience, "the worker is stopping")
        await self._flushing.save_positions()
        for shard in list(self._held.values()):
            self._give_up(shard)
        await self._stores.wait_until_closed()

    def _take(self, shard_id: ShardId, *, is_active: bool) -> None:
        shard = self._new(shard_id, is_active=is_active)
        self._held[shard_id] = self._by_input[shard.lane.source] = shard
        families = [family_name(table) for table in self.served.catalog.tables_in(shard_id.name)]
        self._stores.start_opening(shard, families, partial(self._set_to_work, shard))

    def _give_up(self, shard: Shard) -> None:
        del self._held[shard.id], self._by_input[shard.lane.source]
        self._stores.start_closing(shard)

    def _on_store_failed(self, shard: Shard) -> None:
        """Reopen a failed store, with new tasks: what the old ones know may be ahead of the store after reopening."""
        if self._held.get(shard.id) is shard and self._stores.may_reopen(shard.id):
            log.warning("store is opened again after a failure", shard=str(shard.id))
            self._give_up(shard)
            self._take(shard.id, is_active=shard.is_active)

    def _new(self, shard_id: ShardId, *, is_active: bool) -> Shard:
        tables = self.served.catalog.tables_in(shard_id.name)
        # The tables of a shard are plain ones: all have the same input.
        (source,) = {source for table in tables for source in table.inputs(shard_id.partition)}
        shard = Shard(shard_id, Lane(source, self.lanes), self.settings.store_of(shard_id), is_active)
        shard.tasks.update((table.name, self._new_task(shard, table)) for table in tables)
        return shard

    def _new_task(self, shard: Shard, table: TableSpec) -> Task:
        partition, count = shard.id.partition, self.served.partitions[shard.id.name]
        return Task(
            identity_of(self.settings.group, table, partition, count),
            partition,
            codec_of(table, partition, count, self.ports.known),
            shard.store.task(family_name(table)),
            shard.lane,
            self.ports,
            partial(self._on_store_failed, shard),
        )

    def _set_to_work(self, shard: Shard) -> None:
        if self._generation is not None and not shard.is_leaving:
            # Until its source's end is listed, the staleness of a standby is unknown, so it cannot answer.
            self._listings.start(shard.id)
            shard.set_to_work(self._generation)

    # The lanes

    def offer(self, source: TopicPartition, records: Sequence[LogRecord], next_offset: int) -> bool:
        """Hand fetched records to their lane; return False when they have to be fetched again."""
        shard = self._by_input.get(source)
        if shard is None or not shard.lane.offer(records, next_offset):
            return False
        if shard.lane.waiting_bytes > LARGE_BATCH_BYTES:
            self._crowding.add(source)
        return True

    def are_crowded(self) -> bool:
        """Return whether the large batches that wait in all shards have reached CROWDED_BYTES."""
        if not self._crowding:
            return False
        waiting = {
            source: shard.lane.waiting_bytes for source in self._crowding if (shard := self._by_input.get(source))
        }
        self._crowding = {source for source, size in waiting.items() if size > LARGE_BATCH_BYTES}
        return sum(waiting.values()) >= CROWDED_BYTES

    def expected(self, source: TopicPartition) -> int | None:
        """Return the next source offset that a lane accepts; None while it is stopped."""
        shard = self._by_input.get(source)
        return None if shard is None else shard.lane.expected

    def lost(self, source: TopicPartition) -> None:
        """Record that a source no longer has the next offset of its lane."""
        shard = self._by_input.get(source)
        if shard is not None:
            shard.lane.lost()

    def committable(self) -> dict[TopicPartition, int]:
        """Return the offset to continue at for each input of the owned shards; see Shard.committable."""
        owned = [shard.committable for shard in self._held.values() if shard.is_active]
        return {source: offset for reached in owned for source, offset in reached.items()}

    def positions(self) -> dict[str, dict[int, int]]:
        """Return the position of each shard as one number, by name and partition; placement uses them.

        Includes shards on disk that are not held now. For a store that is not open yet it is the position saved last.
        """
        positions = self.settings.directory.positions()
        for (name, partition), shard in self._held.items():
            position = shard.position
            if position is not None:
                positions.setdefault(name, {})[partition] = position
        return positions

    # Reads

    def _task(self, table: str, partition: int) -> Task:
        shard_of = self._shard_of.get(table)
        shard = None if shard_of is None else self._held.get(shard_of(partition))
        if shard is None:
            raise NotOwner(f"this worker does not hold partition {partition} of table {table}")
        return shard.tasks[table]

    def answer(self, table: str, partition: int, question: Question[Result], consistency: Consistency) -> Result:
        """Answer a question about a partition locally, in one slice of work.

        Raises NotOwner where the partition is not held, and what the question raises; the store's errors become
        PartitionRestoring.
        """
        task = self._task(table, partition)
        try:
            return question.answer(task, self.reader, consistency)
        except (StoreCorrupt, RowLayoutError) as error:
            # The second answer raises that the store is quarantined.
            task.distrust(error)
            return question.answer(task, self.reader, consistency)
        except StoreError as error:
            # The error makes the caller try another copy, whose disk may be fine.
            self._failures.error(
                (table, partition), "store cannot be read", table=table, partition=partition, error=str(error)
            )
            raise _unreadable(table, partition, error) from error

    async def wait_for_position(
        self,
        table: str,
        partition: int,
        required: Position,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        """Wait until all of a position is applied here.

        Raises PositionNotReached after `timeout` seconds, and NotOwner where the partition is not held or is lost.
        """
        if not await self._task(table, partition).wait_for(required, timeout):
            task = self._task(table, partition)
            position, lacking = task.position.in_json(partition), task.position.lacking(required) or required
            raise PositionNotReached(
                f"partition {partition} of table {table} is at position {position} here, not yet at "
                f"{lacking.in_json(partition)}" + (f": {task.reason}" if task.reason else ""),
                table=table,
                partition=partition,
                position=position,
            )

    # Writes that depend on local reads

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        """Return the present end of the source once everything before it is applied here.

        The end is the high watermark, so this waits for open transactions too. Raises SourceUnavailable when no broker
        answers within `timeout` seconds, and what wait_for_position() raises.
        """
        source, loop = self._task(table, partition).source, asyncio.get_running_loop()
        name = self.served.catalog.tables[table].input_name(source)
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
        required = Position((name,), (end - 1,))
        await self.wait_for_position(table, partition, required, max(0.0, listed_at + timeout - loop.time()))
        return SourceEnd(end, listed_at)

    def ownership(self, table: str, partition: int) -> Ownership:
        """Return the claim under which a partition is owned here; raises NotOwner unless the lease proves it."""
        task = self._task(table, partition)
        if task.state is not TaskState.ACTIVE or not self.ports.lease.holds(task.generation):
            raise NotOwner(f"this worker cannot prove that it owns partition {partition} of table {table}")
        return task.ownership

    def statuses(self) -> list[TaskStatus]:
        """Return the status of every task."""
        return [task.status() for task in self.tasks]

    async def count_rows(self) -> None:
        """Count the rows of tasks that have few, for exact numbers in statuses(); takes about COUNTING_SECONDS.

        Other tasks report an estimate, or their last count.
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
        """Flush all stores every FLUSH_INTERVAL, until cancelled."""
        await self._flushing.keep_flushed()

    async def watch_source_ends(self) -> None:
        """List the end of each input held, every SOURCE_ENDS_INTERVAL and with each assignment, until cancelled."""
        await self._listings.watch()


def _unreadable(table: str, partition: int, error: StoreError) -> PartitionRestoring:
    return PartitionRestoring(
        f"partition {partition} of table {table} cannot be read here: {error}", table=table, partition=partition
    )
