"""Random histories: a seed determines everything that happens."""

import asyncio
import random

import structlog

from tablehouse.model import Consistency, Epoch, ReadMode, TopicPartition
from tablehouse.tasks.records import CLAIM_KEY, Claim, encode, epoch_headers
from tablehouse.testing.simulated.broker import HOUR_MS, Log, Pair
from tablehouse.testing.simulated.loop import Process
from tablehouse.testing.simulated.world import LATEST, WALL_SPEED, Weather, World
from tests.model.checks import Checks
from tests.model.oracle import OVERSIZED
from tests.model.tables import Table
from tests.model.worker import Worker

#: Virtual seconds with faults.
DURATION = 30.0

#: How far the brokers' clocks may be apart; and that plus how far they may be set at once. Together with the minute by
#: which a machine's clock may be slow, this is the half of the compaction lag by which a worker may be behind.
MAX_APART_MS = 25 * 60 * 1000
MAX_OFF_MS = 29 * 60 * 1000

#: Faults are this many times more likely at these points, where they matter most.
_FRAGILE = {"store": 8, "claim": 20, "append": 5, "letters": 20, "read": 3, "schema": 5, "time": 3}

_KEYS = [b"k%d" % number for number in range(6)]


class History:
    """One random history."""

    def __init__(self, seed: int) -> None:
        choose = self.choose = random.Random(seed)
        sources = [TopicPartition("source", number) for number in range(choose.choice((1, 1, 2)))]
        self.tables = [
            Table(name, on_error=choose.choice(("dead_letter", "skip"))) for name in ("upsert", "count", "toggle")
        ]
        del self.tables[choose.randint(1, 3) :]
        if choose.random() < 0.5:
            self.tables.reverse()
        changelogs = [table.changelog(source) for source in sources for table in self.tables]
        self.world = World(choose.getrandbits(32), sources, changelogs, choose.choice((350, 700, 5000)))
        self.checks = Checks(self.world, self.tables)
        self.workers = [Worker(self.world, f"w{number}", self.tables) for number in range(choose.randint(1, 3))]
        self.world.on_commit = self.checks.committed
        self.world.group.follows = choose.choice((0.0, 0.5, 1.0))
        self.world.probe_ahead_ms = choose.choice((0, choose.randint(-MAX_APART_MS, MAX_APART_MS)))
        self._faults = choose.choice((0.0, 0.002, 0.01))
        #: Whether shards move all the time; other faults are then rare.
        self._restless = choose.random() < 0.3
        if self._restless:
            self._faults /= 10
        self._number = 0
        #: The probabilities that a record is in a transaction, and that the open one ends before the next record.
        self._transactional: float
        self._ending: float
        self._transactional, self._ending = choose.choice(((0.0, 0.0), (0.02, 0.02), (0.2, 0.5)))
        self._away = False
        self._settling = False

    async def run(self) -> None:
        """Run the history with faults, then without, and compare the tables with the sources."""
        world, choose = self.world, self.choose
        if choose.random() < 0.1:
            self._wear_epochs_out()
        for source in world.sources:
            for _ in range(choose.randint(0, 30)):
                self._produce(source)
        weather = world.weather = self._weather()
        world.on_hop = self._at_hop
        for worker in self.workers:
            worker.start()
        producing = [world.outside(self._keep_producing(source)) for source in world.sources]
        reading = world.outside(self._keep_reading())
        ended_at = asyncio.get_running_loop().time() + DURATION
        while asyncio.get_running_loop().time() < ended_at:
            await asyncio.sleep(choose.random() * 2)
            self._fate()
            if choose.random() < 0.01:
                ended_at += await self._leave_for_a_day()
            self._raise_failures(reading, *producing)
        self._settling = True
        world.calm()
        for task in producing:
            task.cancel()
        self._end_transactions()
        await self._settle()
        await asyncio.sleep(2)
        self._raise_failures(reading)
        self.checks.final(self.workers[0])
        self._no_letter_of_a_row()
        if weather.late or weather.sent_again:
            # Appends that are still in a socket are refused.
            await asyncio.sleep(LATEST)
            self._raise_failures(reading)
            self.checks.final(self.workers[0])

    def _end_transactions(self) -> None:
        for log in self.world.sources.values():
            if log.in_transaction:
                log.end_transaction(commit=self.choose.random() < 0.5)

    def _no_letter_of_a_row(self) -> None:
        for source in self.world.sources:
            for table in self.tables:
                found, expected = self.checks.lettered(source, table.name), self.checks.expected(source, table.name)
                bad = {*expected.bad, *expected.oversized} if table.on_error == "dead_letter" else set()
                if not found <= bad:
                    raise AssertionError(f"{table.name} of {source} has dead letters of {found}, and {bad} are bad")

    async def _settle(self) -> None:
        """Kill all workers but one, and wait until that one owns everything and has caught up."""
        world, (owner, *others) = self.world, self.workers
        for worker in others:
            if worker.process is not None:
                worker.process.go_on()
            worker.kill()
        for disk in owner.disks.values():
            disk.damaged = False
        if owner.process is not None and owner.process.stopped:
            owner.process.go_on()
        if owner.running is not None and owner.running.leaving:
            await world.until(lambda: not owner.alive, "the worker has left")
        if owner.process is None:
            owner.start()
        count = len(world.sources) * len(self.tables)

        def caught_up() -> bool:
            self._raise_failures()
            return (
                owner.active()
                and len(world.group.members()) == 1
                and len(owner.tasks()) == count
                and all(
                    task.position.total + 1 == world.sources[task.source].end
                    and task.generation == world.group.generation
                    for task in owner.tasks()
                )
            )

        try:
            await world.until(caught_up, "everything caught up", 400)
        except AssertionError:
            raise AssertionError(f"never caught up: {[task.status() for task in owner.tasks()]}") from None

    def _raise_failures(self, *running: "asyncio.Task[None]") -> None:
        for task in running:
            if task.done() and not task.cancelled() and task.exception() is not None:
                task.result()
        for worker in self.workers:
            for failure in worker.failures:
                raise failure

    def _weather(self) -> Weather:
        choose = self.choose
        if choose.random() < 0.2:
            return Weather()
        return Weather(
            late=choose.choice((0, 0.02, 0.1)),
            never=choose.choice((0, 0, 0.02)),
            lost_acknowledgement=choose.choice((0, 0.02, 0.05)),
            sent_again=choose.choice((0, 0.1)),
            unavailable=choose.choice((0, 0, 0.01)),
            slow_hop=choose.choice((0, 0.01, 0.05)),
            slow_thread=choose.choice((0.05, 0.5)),
            disk_full=choose.choice((0, 0, 0.1)),
            hop=choose.choice((0.001, 0.02, 0.1)),
        )

    # Load

    def _produce(self, source: TopicPartition) -> None:
        choose, log = self.choose, self.world.sources[source]
        self._number += 1
        key: bytes | None = choose.choice(_KEYS)
        value: bytes | None = b"v%d" % self._number
        dice = choose.random()
        if dice < 0.15:
            value = None
        elif dice < 0.18:
            key = None
        elif dice < 0.20:
            key = b"!key"
        elif dice < 0.22:
            value = b"!value"
        elif dice < 0.235:
            value = b"x" * OVERSIZED
        elif dice < 0.35:
            # From time to time a new schema.
            value = b"?%d:%d" % (self._number // 20, self._number)
        elif dice < 0.40:
            log.skip(choose.randint(1, 4))
        self._append(log, (key, value), self._number * 1000 + choose.randint(-5000, 0))

    def _append(self, log: Log, pair: Pair, timestamp: int) -> None:
        """Append to a source, either in a transaction that stays open for a while, or after an open one began."""
        choose = self.choose
        if log.in_transaction:
            if choose.random() < self._ending:
                log.end_transaction(commit=choose.random() < 0.5)
        elif choose.random() < self._transactional:
            self.world.paths["a transaction begins"] += 1
            log.begin_transaction([pair], timestamp)
            return
        log.append([pair], timestamp=timestamp)

    async def _keep_producing(self, source: TopicPartition) -> None:
        pause = self.choose.choice((0.1, 0.3, 2.0))
        while True:
            await asyncio.sleep(2 if self._away else self.choose.random() * pause)
            if not self._away:
                self._produce(source)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(self.choose.random() * (3 if self._settling or self._away else 0.3))
            for worker in self.workers:
                if worker.answers:
                    self._read_something(worker)

    def _read_something(self, worker: Worker) -> None:
        tasks = worker.tasks()
        if tasks:
            task = self.choose.choice(tasks)
            mode = self.choose.choice((*[ReadMode.PREFER_ACTIVE] * 4, *ReadMode))
            self.checks.read(worker, task.source, task, self.choose.choice(_KEYS), Consistency(mode))

    def _at_hop(self, process: Process, point: str) -> None:
        """Read, crash or stop wherever a worker awaits something."""
        choose = self.choose
        worker = next((worker for worker in self.workers if worker.process is process), None)
        if worker is None:
            return
        if choose.random() < 0.05:
            # A read in the middle of the worker's other work.
            self._read_something(worker)
        if choose.random() < self._faults * _FRAGILE.get(point.partition(".")[0], 1):
            self.world.paths[f"fault at {point}"] += 1
            if choose.random() < 0.5:
                worker.kill()
                if choose.random() < 0.8:
                    self._later(choose.random() * choose.choice((0.2, 10)), worker)
            else:
                self._stop(worker)

    def _later(self, delay: float, worker: Worker) -> None:
        async def start() -> None:
            await asyncio.sleep(delay)
            if worker.process is None and not self._settling:
                worker.start()

        self.world.outside(start())

    def _stop(self, worker: Worker) -> None:
        process = worker.process
        if process is None or process.stopped:
            return
        process.stop()

        async def go_on() -> None:
            await asyncio.sleep(self.choose.random() * self.choose.choice((1, 12, 40)))
            if worker.process is process and process.stopped:
                process.go_on()

        self.world.outside(go_on())

    def _fate(self) -> None:
        """Cause a random event that is unrelated to what the workers are doing."""
        choose, world = self.choose, self.world
        dice = choose.random()
        log = choose.choice(list(world.changelogs.values()))
        if self._restless and choose.random() < 0.5:
            world.group.rebalance()
        if dice < 0.3:
            for changelog in world.changelogs.values():
                before, reached = choose.choice(places := changelog.cleanable()), choose.choice(places)
                if changelog.compact(before, reached if reached < before else None):
                    world.paths["compaction"] += 1
        elif dice < 0.42:
            world.group.rebalance()
        elif dice < 0.43 and not world.broker_set_ms:
            world.broker_set_ms = choose.choice((-1, 1)) * choose.randint(1, MAX_OFF_MS - abs(world.probe_ahead_ms))
            world.paths["the brokers' clocks are set"] += 1
        elif dice < 0.44:
            world.no_probe_until = asyncio.get_running_loop().time() + choose.random() * choose.choice((5, 40))
        elif dice < 0.46:
            log.append([(b"a stranger's", b"record")])
        elif dice < 0.49:
            world.no_registry_until = asyncio.get_running_loop().time() + choose.random() * choose.choice((2, 15))
        else:
            self._befall(choose.choice(self.workers))

    def _befall(self, worker: Worker) -> None:
        choose = self.choose
        dice = choose.random()
        if dice < 0.08 and worker.process is not None:
            worker.kill()
        elif dice < 0.35 and worker.process is None:
            worker.start()
        elif dice < 0.45:
            self._stop(worker)
        elif dice < 0.50 and worker.answers and worker.tasks():
            worker.distrust(choose.choice(worker.tasks()))
        elif dice < 0.56:
            worker.leave()
        elif dice < 0.64:
            self._break_something(worker)

    def _break_something(self, worker: Worker) -> None:
        """Damage a file of rows, which reads detect, or one without which the store cannot be opened."""
        source = self.choose.choice(list(self.world.sources))
        if self.choose.random() < 0.5:
            worker.folder(source).corrupt = True
        else:
            worker.disk(source, self.choose.choice(self.tables).name).damaged = True

    async def _leave_for_a_day(self) -> float:
        """Stop all workers for so long that compaction removes tombstones; return the seconds that this took."""
        for worker in self.workers:
            worker.kill()
        self._away = True
        left_at = asyncio.get_running_loop().time()
        for changelog in self.world.changelogs.values():
            await asyncio.sleep(HOUR_MS / 1000 / WALL_SPEED)
            changelog.compact(changelog.cleanable()[-1])
        await asyncio.sleep(self.choose.uniform(20, 30) * HOUR_MS / 1000 / WALL_SPEED)
        for changelog in self.world.changelogs.values():
            if changelog.compact(changelog.cleanable()[-1]):
                self.world.paths["tombstones gone"] += 1
        self._away = False
        return asyncio.get_running_loop().time() - left_at

    def _wear_epochs_out(self) -> None:
        for source in self.world.sources:
            for table in self.tables:
                wear_out(self.world, table, source, 32764)


def wear_out(world: World, table: Table, source: TopicPartition, number: int) -> None:
    """Write claims to a changelog, as if it had been claimed `number` times before."""
    epoch, identity = Epoch(0, number), table.identity(source)
    claim = Claim((0, number), b"nonce", 0, "nobody", dict(identity.fingerprint), b"log id")
    pairs = [(CLAIM_KEY, encode(claim))]
    world.changelogs[identity.changelog].produce((0, number), 0, pairs, epoch_headers(epoch))


def count_paths(paths: dict[str, int]) -> structlog.types.Processor:
    """Return a processor that counts the engine's log lines by event and reason, and prints nothing."""

    def count(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        name = str(event["event"])
        if name == "partition cannot go on":
            name = str(event["reason"]).partition(":")[0]
        paths[name] = paths.get(name, 0) + 1
        raise structlog.DropEvent

    return count
