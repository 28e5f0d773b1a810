"""Scripted histories: helpers with which a directed test says what happens when."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tablehouse.model import TaskState, TopicPartition
from tablehouse.tasks.task import Task
from tablehouse.testing.simulated.broker import HOUR_MS, Log, Pair
from tablehouse.testing.simulated.loop import Process, run_virtual
from tablehouse.testing.simulated.world import WALL_SPEED, World
from tests.model.checks import Checks
from tests.model.tables import Table
from tests.model.worker import Worker, rows_of

SOURCE = TopicPartition("source", 0)

#: The virtual seconds in an hour of the wall clock.
HOUR = HOUR_MS / 1000 / WALL_SPEED


class Scenario:
    """A world with one source partition and without random faults."""

    def __init__(self, *names: str, workers: int = 1, seed: int = 1) -> None:
        self.tables = [Table(name) for name in names or ("count",)]
        spare = [Table("upsert-new"), Table("count-new")]
        self.world = World(seed, [SOURCE], [table.changelog(SOURCE) for table in (*self.tables, *spare)])
        self.checks = Checks(self.world, self.tables)
        self.workers = [Worker(self.world, f"w{number}", self.tables) for number in range(workers)]

    @property
    def source(self) -> Log:
        """Return the source partition."""
        return self.world.sources[SOURCE]

    @property
    def changelog(self) -> Log:
        """Return the first table's changelog."""
        return self.world.changelogs[self.tables[0].changelog(SOURCE)]

    def produce(self, *pairs: Pair) -> None:
        """Append to the source, one batch per record."""
        for pair in pairs:
            self.source.append([pair], timestamp=1000)

    def task(self, worker: Worker | None = None, table: str | None = None) -> Task:
        """Return a task of a worker; by default the first task of the first worker."""
        task = (worker or self.workers[0]).task(SOURCE, table or self.tables[0].name)
        if task is None:
            raise AssertionError("the worker does not hold the partition")
        return task

    async def caught_up(self, worker: Worker | None = None) -> None:
        """Wait until a worker owns everything and has applied all records."""
        worker = worker or self.workers[0]

        def done() -> bool:
            for failure in worker.failures:
                raise failure
            return worker.active() and all(task.position.total + 1 == self.source.end for task in worker.tasks())

        await self.world.until(done, f"{worker.name} caught up", 200)

    async def started(self, *pairs: Pair) -> None:
        """Produce, start the first worker, and wait until it has caught up."""
        self.produce(*pairs)
        self.workers[0].start()
        await self.caught_up()

    async def hands_over(self, to: Worker) -> None:
        """Wait until another worker owns the partition and has caught up."""

        def gone_over() -> bool:
            process = to.process
            if process is not None and self.world.group.assignment.get(SOURCE) != process.name:
                self.world.group.rebalance()
            return process is not None and self.world.group.assignment.get(SOURCE) == process.name and to.active()

        await self.world.until(gone_over, f"{to.name} owns", 400)
        await self.caught_up(to)

    async def follows(self, standby: Worker) -> None:
        """Wait until a worker has replayed everything as a standby."""

        def done() -> bool:
            for failure in standby.failures:
                raise failure
            return bool(standby.tasks()) and all(
                task.state is TaskState.STANDBY and task.position.total + 1 == self.source.end
                for task in standby.tasks()
            )

        await self.world.until(done, "it follows", 200)

    def check(self, worker: Worker | None = None) -> None:
        """Compare every table with the source and with its changelog."""
        self.checks.final(worker or self.workers[0])

    def rows(self, worker: Worker | None = None, table: str | None = None) -> dict[bytes, bytes]:
        """Return the payloads of a worker's table, by key."""
        worker = worker or self.workers[0]
        stored = rows_of(worker, SOURCE, table or self.tables[0].name)
        return {key: row[18:] for key, row in stored.items()}

    def hold_batches(self, table: str | None = None) -> None:
        """Hold batches of rows on the wire from now on; only those of one table if it is given."""
        changelog = None if table is None else Table(table).changelog(SOURCE)
        self.world.hold = lambda request: not request.claims and changelog in {None, request.partition}

    def release(self) -> None:
        """Let new appends through again; those already held stay held."""
        self.world.hold = lambda _request: False

    def read_all_at_every_hop(self, worker: Worker) -> None:
        """Read every key that ever existed, and check the answers, wherever the worker awaits something."""

        def on_hop(_process: Process, _point: str) -> None:
            for task in worker.tasks() if worker.answers else []:
                for key in self.checks.expected(SOURCE, task.table).every_key():
                    self.checks.read(worker, SOURCE, task, key)

        self.world.on_hop = on_hop

    async def leaves(self, worker: Worker) -> None:
        """Make a worker leave the group and end."""
        worker.leave()
        await self.world.until(lambda: not worker.alive, f"{worker.name} has left")

    def at(self, point: str, action: Callable[[], object], worker: Worker | None = None) -> Callable[[], bool]:
        """Do something the first time a worker is at a point; return a function that says whether that has happened."""
        done: list[str] = []

        def on_hop(process: Process, where: str) -> None:
            if where == point and not done and (worker is None or worker.process is process):
                done.append(where)
                action()

        self.world.on_hop = on_hop
        return lambda: bool(done)


def simulated(
    *names: str, workers: int = 1, seeds: Sequence[int] = (1,)
) -> Callable[[Callable[[Scenario], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Decorate a coroutine function as a test that gets a Scenario with these tables and workers."""

    def decorate(scenario: Callable[[Scenario], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def test() -> None:
            for seed in seeds:

                async def run(seed: int = seed) -> None:
                    await scenario(Scenario(*names, workers=workers, seed=seed))

                run_virtual(run())

        test.__name__, test.__doc__, test.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
        return test

    return decorate
