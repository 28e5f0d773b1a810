"""A worker: the real shards' lanes, tasks and reader, in a process that can be killed and stopped."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.model import TaskState, TopicPartition
from app.stores.store import StoreClosed, StoreCorrupt
from app.tasks.log import LogRecord
from app.tasks.ports import Ports
from app.tasks.reads import Reader, ReadResult
from app.tasks.shard import Shard
from app.tasks.task import Task
from app.telemetry import Metrics
from tests.model.group import HEARTBEAT_INTERVAL, MemberLease
from tests.model.lane import SimulatedLane
from tests.model.loop import Process
from tests.model.ports import SimulatedClock, SimulatedReader, SimulatedWriter
from tests.model.store import Disk, MemoryStore, random_crash
from tests.model.tables import Table
from tests.model.world import World

#: Seconds a batch in flight is given at a rebalance.
PATIENCE = 1.0
MAX_STALENESS = 30.0

#: Metrics cost a millisecond to make, and nothing here reads them.
_METRICS = Metrics("0")


@dataclass(slots=True)
class Held:
    """One shard of a running worker."""

    shard: Shard
    tasks: dict[str, Task] = field(default_factory=dict)
    stores: dict[str, MemoryStore] = field(default_factory=dict)


class Worker:
    """One data directory, and the process that runs on it, if one does."""

    def __init__(self, world: World, name: str, tables: Sequence[Table]) -> None:
        self.name = name
        self.tables = list(tables)
        self.disks: dict[tuple[TopicPartition, str], Disk] = {}
        self.failures: list[Exception] = []
        self.incarnation = 0
        self._world = world
        self.process: Process | None = None
        self.running: _Run | None = None

    def start(self) -> None:
        """Start a process on the data directory."""
        self.incarnation += 1
        self.process = Process(f"{self.name}-{self.incarnation}")
        self.running = _Run(self._world, self, self.process.name)
        self.process.start(self.running.main()).add_done_callback(self._ended)

    def _ended(self, main: "asyncio.Task[None]") -> None:
        error = None if main.cancelled() else main.exception()
        if isinstance(error, Exception):
            self.failures.append(error)

    def kill(self, kept: int | None = None) -> None:
        """SIGKILL: memory is gone, of what was not flushed the first `kept` writes stay (at random without)."""
        if self.process is None:
            return
        self.process.stop()
        self.process = self.running = None
        for disk in self.disks.values():
            if kept is None:
                random_crash(disk, self._world.choose)
            else:
                disk.crash(kept)

    @property
    def alive(self) -> bool:
        """Say whether a process runs, stopped or not."""
        return self.process is not None

    @property
    def answers(self) -> bool:
        """Say whether a process runs that is not stopped."""
        return self.process is not None and not self.process.stopped

    def tasks(self) -> list[Task]:
        """Return all tasks of the running process."""
        if self.running is None:
            return []
        return [task for held in self.running.held.values() for task in held.tasks.values()]

    def task(self, source: TopicPartition, table: str) -> Task | None:
        """Return one task."""
        held = None if self.running is None else self.running.held.get(source)
        return None if held is None else held.tasks.get(table)

    def active(self) -> bool:
        """Say whether all its tasks are ACTIVE, and it has some."""
        tasks = self.tasks()
        return bool(tasks) and all(task.state is TaskState.ACTIVE for task in tasks)

    def read(self, task: Task, key: bytes) -> ReadResult:
        """Read as a request to this worker would."""
        if self.running is None:
            raise AssertionError("nobody runs here")
        return self.running.reader.read(task, key)

    def distrust(self, task: Task) -> None:
        """Have a reader find damage in a task's store."""
        if self.process is not None:
            self.process.run(lambda: task.distrust(StoreCorrupt("a checksum does not match")))

    def disk(self, source: TopicPartition, table: str) -> Disk:
        """Return the disk of one task."""
        return self.disks.setdefault((source, table), Disk())


class _Run:
    """What one process has in memory."""

    def __init__(self, world: World, worker: Worker, member: str) -> None:
        self.world = world
        self.worker = worker
        self.member = member
        self.held: dict[TopicPartition, Held] = {}
        self.lease = MemberLease(member, world.group, world.hop)
        self.reader = Reader(self.lease, MAX_STALENESS)
        self.lane = SimulatedLane(world, self._offer, self._expected, self._lost)
        self.committed: dict[TopicPartition, int] = {}
        self.leaving = False
        self.gone = False
        self.ports = Ports(
            changelog=SimulatedReader(world),
            sources=SimulatedReader(world),
            writer=SimulatedWriter(world),
            lease=self.lease,
            clock=SimulatedClock(world, world.choose.randint(-300_000, 300_000)),
            metrics=_METRICS,
            sleep=asyncio.sleep,
            on_fatal=worker.failures.append,
            worker_id=member,
        )

    def _offer(self, source: TopicPartition, records: Sequence[LogRecord], following: int) -> bool:
        held = self.held.get(source)
        return held is not None and held.shard.offer(records, following)

    def _expected(self, source: TopicPartition) -> int | None:
        held = self.held.get(source)
        return None if held is None else held.shard.expected

    def _lost(self, source: TopicPartition) -> None:
        held = self.held.get(source)
        if held is not None:
            held.shard.lost()

    async def main(self) -> None:
        """Join, own what is given, suspend at every rebalance, until told to leave."""
        lanes = asyncio.create_task(self.lane.run())
        upkeep = asyncio.create_task(self._keep_up())
        while not self.leaving:
            await self.world.hop("join")
            await self.world.group.join(self.member)
            await self.world.hop("joined")
            generation = self.lease.generation = self.world.group.generation
            assigned = self.world.group.assigned(self.member)
            self.lane.assign(assigned)
            await self._assign(generation, assigned)
            while not self.leaving and await self.lease.beat() == "good":  # noqa: ASYNC110 - heartbeats, not a poll
                await asyncio.sleep(HEARTBEAT_INTERVAL)
            await self._suspend()
        lanes.cancel()
        upkeep.cancel()
        for source in list(self.held):
            await self._close(source)
        self.world.group.leave(self.member)
        self.gone = True

    async def _suspend(self) -> None:
        for held in self.held.values():
            held.shard.stop()
        tasks = [task for held in self.held.values() for task in held.tasks.values()]
        await asyncio.gather(*(task.suspend(PATIENCE, "the group is rebalancing") for task in tasks))

    async def _assign(self, generation: int, assigned: Sequence[TopicPartition]) -> None:
        for source in [source for source in self.held if source not in assigned]:
            await self._close(source)
        for source in assigned:
            if source not in self.held:
                await self.world.hop("open")
                self.held[source] = self._new(source)
            for task in self.held[source].tasks.values():
                task.own(generation)

    def _new(self, source: TopicPartition) -> Held:
        held = Held(Shard(source, self.lane))
        for table in self.worker.tables:
            store = held.stores[table.name] = MemoryStore(self.worker.disk(source, table.name), self.world.hop)
            held.tasks[table.name] = Task(
                table.identity(source), source.partition, table.codec(source), store, held.shard, self.ports
            )
        return held

    async def _close(self, source: TopicPartition) -> None:
        held = self.held.pop(source)
        await asyncio.gather(*(task.suspend(0, "the partition moved") for task in held.tasks.values()))
        for task in held.tasks.values():
            task.close()
        for store in held.stores.values():
            await self.world.hop("store.flush")
            store.disk.flush()
            store.close()

    async def _keep_up(self) -> None:
        """Flush, list source ends and commit now and then."""
        while True:
            await asyncio.sleep(0.5 + self.world.choose.random())
            for source, held in list(self.held.items()):
                bounds = await self._ends(source)
                for task in held.tasks.values():
                    if bounds is not None:
                        task.observe_source_end(*bounds)
                await self.world.hop("commit")
                offsets = [task.committable for task in held.tasks.values()]
                self.committed[source] = min((offset for offset in offsets if offset is not None), default=0)
                if self.world.choose.random() < 0.3:
                    for store in held.stores.values():
                        store.disk.flush()

    async def _ends(self, source: TopicPartition) -> tuple[int, float] | None:
        listed_at = asyncio.get_running_loop().time()
        try:
            bounds = await self.ports.sources.bounds([source])
        except Exception:  # noqa: BLE001 - the next listing will do
            return None
        return bounds[source].end, listed_at


def rows_of(worker: Worker, source: TopicPartition, table: str) -> dict[bytes, bytes]:
    """Return the rows of one task of a running worker by stored key."""
    held = None if worker.running is None else worker.running.held.get(source)
    if held is None:
        raise StoreClosed(f"{worker.name} does not hold {source}")
    return {key[1:]: row for key, row in held.stores[table].rows().items()}
