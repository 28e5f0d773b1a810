"""A worker: the real shards, tasks and reader, in a process that can be killed and stopped."""

import asyncio
import io
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from tablehouse.catalog.spec import Catalog
from tablehouse.formats.variants import Known
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, ShardId, TaskState, TopicPartition
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.store import StoreClosed, StoreCorrupt
from tablehouse.tasks.clock import MEASURING_INTERVAL, MeasuredClock
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.log import LogUnavailable
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.questions import Get
from tablehouse.tasks.reads import Reader, ReadResult
from tablehouse.tasks.served import Served
from tablehouse.tasks.shards import Shards, ShardSettings
from tablehouse.tasks.task import Task
from tablehouse.telemetry import Metrics
from tablehouse.testing.simulated.group import HEARTBEAT_INTERVAL, MemberLease
from tablehouse.testing.simulated.lane import SimulatedLane
from tablehouse.testing.simulated.loop import Process
from tablehouse.testing.simulated.ports import (
    MachineClock,
    SimulatedClock,
    SimulatedDeadLetters,
    SimulatedReader,
    SimulatedTurns,
    SimulatedWriter,
    measure,
)
from tablehouse.testing.simulated.schemas import SimulatedSchemas
from tablehouse.testing.simulated.store import Disk, Folder, MemoryShard, random_crash
from tablehouse.testing.simulated.world import WALL_SPEED, World
from tests.model.tables import Table

#: Seconds a batch in flight is given at a rebalance.
SUSPEND_TIMEOUT_SECONDS = 1.0
MAX_STALENESS = 30.0

#: How much faster or slower a machine's clock may run than a broker's: ten times the error of quartz.
MAX_DRIFT = 1e-3

#: Seconds between two attempts to use a broker.
_RETRY = 2.0

#: Creating metrics takes a millisecond, so all workers of all simulations share them.
METRICS = Metrics("0")


class Worker:
    """One data directory, and the process that uses it, if there is one."""

    def __init__(self, world: World, name: str, tables: Sequence[Table]) -> None:
        self.name = name
        self.tables = list(tables)
        self.disks: dict[tuple[TopicPartition, str], Disk] = {}
        self.folders: dict[TopicPartition, Folder] = {}
        self.positions: dict[str, dict[int, int]] = {}
        self.failures: list[Exception] = []
        self.incarnation = 0
        #: How many seconds the clock of its machine counts in one of a broker's.
        self.speed = 1 + world.choose.uniform(-MAX_DRIFT, MAX_DRIFT)
        #: Bytes free on its disk.
        self.free = 1 << 40
        self._world = world
        self.process: Process | None = None
        self.running: _Run | None = None

    def start(self) -> None:
        """Start a process on the data directory."""
        self.incarnation += 1
        process = self.process = Process(f"{self.name}-{self.incarnation}")
        self.running = _Run(self._world, self, process.name)

        def ended(main: "asyncio.Task[None]") -> None:
            error = None if main.cancelled() else main.exception()
            if isinstance(error, Exception):
                self.failures.append(error)
            if self.process is process:
                self.process = self.running = None

        process.start(self.running.main()).add_done_callback(ended)

    def leave(self) -> None:
        """SIGTERM: the process leaves the group, closes its stores, and ends."""
        if self.running is not None:
            self.running.leaving = True

    def kill(self, kept: int | None = None) -> None:
        """SIGKILL: memory is lost, and only the first `kept` unflushed writes stay; by default a random number."""
        if self.process is None:
            return
        self.process.stop()
        self.process = self.running = None
        for folder in self.folders.values():
            folder.holder = None
        for disk in self.disks.values():
            if kept is None:
                random_crash(disk, self._world.choose)
            else:
                disk.crash(kept)

    @property
    def alive(self) -> bool:
        """Return whether a process exists, stopped or not."""
        return self.process is not None

    @property
    def answers(self) -> bool:
        """Return whether a process exists that is not stopped."""
        return self.process is not None and not self.process.stopped

    def tasks(self) -> list[Task]:
        """Return all tasks of the running process."""
        return [] if self.running is None else self.running.shards.tasks

    def task(self, source: TopicPartition, table: str) -> Task | None:
        """Return one task."""
        return next((task for task in self.tasks() if task.source == source and task.table == table), None)

    def active(self) -> bool:
        """Return whether the worker has tasks and all of them are ACTIVE."""
        tasks = self.tasks()
        return bool(tasks) and all(task.state is TaskState.ACTIVE for task in tasks)

    def read(self, task: Task, key: bytes, consistency: Consistency = DEFAULT_CONSISTENCY) -> ReadResult:
        """Read as a request to this worker would."""
        if self.running is None or self.process is None:
            raise AssertionError("nobody runs here")
        shards, answers = self.running.shards, list[ReadResult]()
        # Work that a read starts, such as a rebuild after damage, belongs to the process.
        self.process.run(
            lambda: answers.append(shards.answer(task.table, task.source.partition, Get(key), consistency))
        )
        return answers[0]

    def distrust(self, task: Task) -> None:
        """Make a reader find damage in a task's store."""
        if self.process is not None:
            self.process.run(lambda: task.distrust(StoreCorrupt("a checksum does not match")))

    def disk(self, source: TopicPartition, table: str) -> Disk:
        """Return the disk of one task."""
        return self.disks.setdefault((source, table), Disk())

    def serve(self, tables: Sequence[Table]) -> None:
        """Serve these tables from now on, in the running process and after a restart."""
        self.tables = list(tables)
        if self.process is not None and self.running is not None:
            shards, served = self.running.shards, self.running.served()
            self.process.run(lambda: shards.serve(served))

    def folder(self, source: TopicPartition) -> Folder:
        """Return the folder of one shard."""
        return self.folders.setdefault(source, Folder(self.failures.append))


class _Directory(DataDirectory):
    """A data directory that saves positions as the one on disk does."""

    def __init__(self, worker: Worker, member: str) -> None:
        super().__init__(Path.cwd(), io.StringIO(), member, worker.incarnation)
        self._worker = worker

    def free(self) -> int:
        """See DataDirectory."""
        return self._worker.free

    def positions(self) -> dict[str, dict[int, int]]:
        """See DataDirectory."""
        return {topic: dict(known) for topic, known in self._worker.positions.items()}

    def save_positions(self, positions: Mapping[str, Mapping[int, int]]) -> None:
        """See DataDirectory."""
        self._worker.positions = {topic: dict(known) for topic, known in positions.items()}


class _Run:
    """The state of one process."""

    def __init__(self, world: World, worker: Worker, member: str) -> None:
        self.world = world
        self.worker = worker
        self.member = member
        self.stores: dict[TopicPartition, MemoryShard] = {}
        self.lease = MemberLease(member, world.group, world.hop)
        self.lane = SimulatedLane(world)
        self.leaving = False
        self._clock = MachineClock(world, worker.speed)
        self._broker_clock = MeasuredClock(self._clock)
        self._schemas = schemas = SimulatedSchemas(world)
        self.shards = Shards(
            ShardSettings(
                "model",
                _Directory(worker, member),
                self._store_of,
                64 << 20,
            ),
            self.served(),
            self.lane,
            Ports(
                changelog=SimulatedReader(world),
                sources=SimulatedReader(world),
                writer=SimulatedWriter(world),
                dead_letters=SimulatedDeadLetters(world),
                lease=self.lease,
                clock=SimulatedClock(),
                broker_clock=self._broker_clock,
                metrics=METRICS,
                doubts=Doubts(lambda: None),
                known=Known(schemas),
                turns=SimulatedTurns(),
                sleep=asyncio.sleep,
                on_fatal=worker.failures.append,
                worker_id=member,
            ),
            Reader(self.lease, MAX_STALENESS),
        )

    def served(self) -> Served:
        """Return the tables that the worker serves now."""
        sources = self.world.sources
        return Served(
            Catalog(
                {
                    table.name: table.spec(source.topic, self._schemas)
                    for source in sources
                    for table in self.worker.tables
                }
            ),
            {source.topic: len(sources) for source in sources},
        )

    def _store_of(self, shard: ShardId) -> MemoryShard:
        source = TopicPartition(*shard)
        world, worker, folder = self.world, self.worker, self.worker.folder(source)
        if folder.holder is not None:
            world.paths["a shard returned while it was closed"] += 1
        self.stores[source] = MemoryShard(
            folder, lambda name: worker.disk(source, name), world.hop, lambda: world.happens(world.weather.disk_full)
        )
        return self.stores[source]

    async def main(self) -> None:
        """Join, own what is assigned, and suspend at every rebalance, until told to leave."""
        while not self.leaving and not await self._measured():  # noqa: ASYNC110 - attempts, not a poll
            await asyncio.sleep(_RETRY)
        upkeep = [
            self._keep(coroutine)
            for coroutine in (
                self.lane.run(self.shards),
                self.shards.keep_flushed(),
                self.shards.watch_source_ends(),
                self._keep_committing(),
                self._keep_measuring(),
            )
        ]
        while not self.leaving:
            self.shards.positions()
            await self.world.hop("join")
            await self.world.group.join(self.member)
            await self.world.hop("joined")
            generation = self.lease.generation = self.world.group.generation
            assigned = self.world.group.assigned(self.member)
            followed = self.world.group.followed(self.member)
            self.lane.assign(assigned)
            self.shards.assign(
                generation, [ShardId(*source) for source in assigned], [ShardId(*source) for source in followed]
            )
            while not self.leaving and await self.lease.beat() == "good":  # noqa: ASYNC110 - heartbeats, not a poll
                await asyncio.sleep(HEARTBEAT_INTERVAL)
            await self.shards.suspend(SUSPEND_TIMEOUT_SECONDS, "the group is rebalancing")
        self.world.group.leave(self.member)
        for kept in upkeep:
            kept.cancel()
        await self.shards.stop(SUSPEND_TIMEOUT_SECONDS)

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        def ended(task: "asyncio.Task[None]") -> None:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                self.worker.failures.append(error)

        upkeep = asyncio.create_task(coroutine)
        upkeep.add_done_callback(ended)
        return upkeep

    async def _keep_measuring(self) -> None:
        while True:
            await asyncio.sleep(MEASURING_INTERVAL / WALL_SPEED)
            if not await self._measured():
                self.world.paths["counting on from an old time"] += 1

    async def _measured(self) -> bool:
        """Ask for the brokers' time, and return whether a broker answered."""
        try:
            await measure(self.world, self._clock, self._broker_clock)
        except LogUnavailable:
            return False
        return True

    async def _keep_committing(self) -> None:
        """Commit from time to time."""
        while True:
            await asyncio.sleep(0.5 + self.world.choose.random())
            await self.world.hop("commit")
            for source, offset in self.shards.committable().items():
                applied = {task.table: task.position.total for task in self.shards.tasks if task.source == source}
                self.world.on_commit(source, offset, applied)


def rows_of(worker: Worker, source: TopicPartition, table: str) -> dict[bytes, bytes]:
    """Return the rows of one task of a running worker by stored key."""
    if worker.running is None or worker.task(source, table) is None:
        raise StoreClosed(f"{worker.name} does not hold {source}")
    return {key[1:]: row for key, row in worker.running.stores[source].task(table).rows().items()}
