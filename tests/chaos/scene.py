"""Workers under load, a client that records everything, and the judgement at the end: what every fault happens to."""

import asyncio
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tablehouse.testing import processes
from tests.chaos.checker import Rules, Span, judge
from tests.chaos.history import Answer, Recording
from tests.chaos.ledger import Ledger
from tests.chaos.paths import TAKEN, listed, paths_in
from tests.chaos.recorder import WAYS, Plan
from tests.support.cluster import Checked, check_equal
from tests.support.kafka import create_topic, unique
from tests.support.load import Load
from tests.support.oracle import Expected, replay_source
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

#: CHAOS=whole takes the faults as long and as often as they are meant; without it they fit into every run of the tests.
WHOLE = os.environ.get("CHAOS") == "whole"

PARTITIONS = 4
KEYS = [f"key-{number}".encode() for number in range(200)]
#: Keys that are deleted and created again all the time; the others in KEYS stay.
FLEETING = [f"fleeting-{number}".encode() for number in range(100)]
NEVER = [f"never-{number}".encode() for number in range(200)]

#: So few records that who comes with nothing has to be warmed up before it owns anything. They have to be more than a
#: partition gets between two heartbeats, which are up to 150 here: for that long an owner goes on after another member
#: has asked for a rebalance and stands still, and with less nobody would ever have caught up with it.
ACCEPTABLE_LAG = 300

#: Lies shown of a history that has many.
_SHOWN = 5

#: Seconds between two looks at who owns what, which are much fewer than a generation lasts.
_BETWEEN_LOOKS = 0.2

#: Seconds until a cluster has to serve everything again after a fault.
HEALED = 60.0


def amount(here: int, whole: int) -> int:
    """Return how often or how long: in every run, and in the whole."""
    return whole if WHOLE else here


@dataclass
class Scene:
    """What a fault is done to. Faults that make connections fail are announced with `harmed`, or are lies."""

    bootstrap: str
    group: str
    topic: str
    tables: Sequence[Checked]
    workers: list[WorkerProcess]
    random: random.Random
    load: Load
    recording: Recording
    hangs: bool = True
    outages: dict[str, list[Span]] = field(default_factory=dict)
    leaves: dict[str, list[Span]] = field(default_factory=dict)
    strangers: dict[str, list[Span]] = field(default_factory=dict)
    floor: dict[int, int] = field(default_factory=dict)
    #: Who said to be the active of what in which generation: by generation, table and partition.
    owners: dict[tuple[int, str, int], set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def running(self) -> list[WorkerProcess]:
        """The workers that have a process."""
        return [worker for worker in self.workers if worker.process is not None and worker.exit_code is None]

    def harmed(self, worker: WorkerProcess) -> None:
        """Take note that connections to a worker may fail from now on."""
        self.outages.setdefault(worker.url, []).append(Span(time.monotonic()))

    def healed(self, worker: WorkerProcess) -> None:
        """Take note that connections to a worker may fail no more."""
        spans = self.outages[worker.url]
        spans[-1] = Span(spans[-1].begin, time.monotonic())

    def kill(self, worker: WorkerProcess) -> None:
        """End a worker by SIGKILL."""
        self.harmed(worker)
        worker.kill()

    async def leave(self, worker: WorkerProcess) -> None:
        """End a worker by SIGTERM: it answers everybody for as long as it listens, which is judged."""
        begin = time.monotonic()
        spans = self.leaves.setdefault(worker.url, [])
        spans.append(Span(begin))
        worker.terminate()
        assert await worker.wait_exit() == 0, worker.log_end()
        self.harmed(worker)
        spans[-1] = Span(begin, time.monotonic())

    async def start(self, *workers: WorkerProcess) -> None:
        """Start workers, again or for the first time, and wait until they are ready."""
        for worker in workers:
            worker.start()
        await all_ready(*workers)
        for worker in workers:
            self.healed(worker)

    async def grown(self) -> None:
        """Wait until there is so much in every partition that who has nothing of it is not near to its owner."""

        async def enough() -> bool:
            counted = Counter(record.partition for record in self.load.written)
            return all(counted[number] > 2 * ACCEPTABLE_LAG for number in range(PARTITIONS))

        await until(enough, "every partition has grown", HEALED)

    async def shared(self, *workers: WorkerProcess) -> bool:
        """Say whether every partition is active on one of these workers, and each of them has some."""
        held = [await worker.owned() for worker in workers]
        return all(held) and sum(map(len, held)) == len(self.tables) * PARTITIONS

    async def whole(self) -> bool:
        """Say whether every partition is active on one of the workers that run."""
        held = [await worker.owned() for worker in self.running]
        return sum(map(len, held)) == len(self.tables) * PARTITIONS

    async def settled(self, *workers: WorkerProcess, seconds: float = HEALED) -> None:
        """Wait until these workers (all that run, if none is named) share and answer everything."""
        among = workers or tuple(self.running)
        names = ", ".join(worker.folder.name for worker in among)
        await until(lambda: self.shared(*among), f"{names} share every partition", seconds)
        await asyncio.gather(*(self.served(worker, seconds) for worker in among))

    async def served(self, worker: WorkerProcess, seconds: float = HEALED, count: int = 24) -> None:
        """Wait until a worker answers that many plain questions in a row as an active does, from now on."""
        since = time.monotonic()

        async def serves() -> bool:
            latest = [one for one in self.answers(worker, since) if one.plain][-count:]
            wrong = [one for one in latest if one.status not in {200, 404} or one.role != "active"]
            assert not wrong, wrong[-1]
            return len(latest) == count

        await until(serves, f"{worker.folder.name} answers everything", seconds)

    def answers(self, worker: WorkerProcess, since: float) -> list[Answer]:
        """Return what was asked of a worker since a time, and is answered."""
        return [one for one in self.recording.refresh() if one.url == worker.url and one.asked >= since]

    async def answered(self, worker: WorkerProcess, count: int, wanted: Callable[[Answer], bool]) -> None:
        """Wait until that many more answers of a worker are as wanted."""
        since = time.monotonic()

        async def enough() -> bool:
            found = self.answers(worker, since)
            seen = Counter((one.status, one.code, one.role) for one in found)
            assert sum(map(wanted, found)) >= count, seen
            return True

        await until(enough, f"{worker.folder.name} gives {count} such answers", HEALED)

    @staticmethod
    def id_of(worker: WorkerProcess) -> str:
        """Return the id by which a worker's answers name it."""
        return str(msgspec.json.decode((worker.data_dir / "worker.json").read_bytes())["worker_id"])

    async def watch_owners(self, worker: WorkerProcess) -> None:
        """Note who owns what until cancelled: what a worker says of its generation and its tasks is of one moment."""
        while True:
            _, seen = await worker.document("/readyz?verbose")
            if seen is not None:
                generation = worker.generation_in(seen)
                for task in seen["tasks"]:
                    if task["state"] == "active":
                        self.owners[generation, task["table"], task["partition"]].add(worker.folder.name)
            await asyncio.sleep(_BETWEEN_LOOKS)

    def rules(self) -> Rules:
        """Return what the checker has to know."""
        return Rules(
            outages=self.outages,
            leaves=self.leaves,
            floor=self.floor,
            strangers=self.strangers,
            hangs=self.hangs,
            ledger=Ledger(self.load.written),
        )


@asynccontextmanager
async def scene(
    bootstrap: str,
    make_worker: MakeWorker,
    folder: Path,
    *,
    workers: int = 2,
    start: int | None = None,
    uncompared: Collection[str] = (),
    hangs: bool = True,
    standbys: int = 1,
    writable: bool = False,
    prepare: Callable[[list[WorkerProcess]], None] = lambda _: None,
    **settings: str,
) -> AsyncIterator[Scene]:
    """Start everything; at the end stop the load, compare with the oracle, and judge every answer.

    Of the workers, `start` are started, by default all; `prepare` may change them before. Tables that are
    `uncompared` are left out of the comparison, for a fault after which they cannot be equal. hangs=False says that
    nobody has a reason to run out of time.
    """
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed}: CHAOS_SEED={seed} draws the same again")  # noqa: T201 - shown when the test fails
    topic, group = unique("chaos"), unique("chaos")
    checked = [Checked(name, topic, PARTITIONS, standbys=standbys, writable=writable) for name in ("first", "second")]
    await create_topic(bootstrap, topic, PARTITIONS)
    definition = tables(*(table.entry() for table in checked))
    # The paths that workers take are in their lines for debugging.
    settings = {
        "acceptable_lag": str(ACCEPTABLE_LAG),
        "takeover_interval": "1s",
        "log_level": "debug",
        **settings,
    }
    made = [make_worker(bootstrap, definition, group=group, **settings) for _ in range(workers)]
    prepare(made)
    async with Load(bootstrap, topic, KEYS, seed, fleeting=FLEETING, patience=180.0) as load:
        floor = dict((await replay_source(bootstrap, topic, PARTITIONS)).ends)
        first, later = made[:start], made[len(made) if start is None else start :]
        recording = Recording(folder / "history")
        cluster = Scene(
            bootstrap, group, topic, checked, made, random.Random(seed), load, recording, hangs, floor=floor
        )
        for worker in made:
            cluster.harmed(worker)
        await cluster.start(*first)
        await until(lambda: cluster.shared(*first), "the workers share every partition", HEALED)
        plan = Plan(
            [worker.url for worker in [*first, *later]],
            [table.name for table in checked],
            [key.decode() for key in [*KEYS, *FLEETING, *NEVER]],
            str(folder / "history"),
            seed,
        )
        with _recording(plan, folder):
            async with _watching(cluster):
                yield cluster
            await load.more(100)
    await _judge(cluster, uncompared)


def paths(workers: Sequence[WorkerProcess]) -> dict[str, int]:
    """Count how often the workers, with all the processes they had, went each path of the protocol."""
    return paths_in("\n".join(worker.log_text() for worker in workers))


@asynccontextmanager
async def _watching(cluster: Scene) -> AsyncIterator[None]:
    """Watch while the block runs who owns what: in no generation two of the workers own the same."""
    watches = [asyncio.create_task(cluster.watch_owners(worker)) for worker in cluster.workers]
    try:
        yield
    finally:
        for watch in watches:
            watch.cancel()
        ended = await asyncio.gather(*watches, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    assert cluster.owners, "nobody was seen to own anything"
    twice = {what: names for what, names in cluster.owners.items() if len(names) > 1}
    assert not twice, f"owned by more than one in the same generation: {twice}"


@contextmanager
def _recording(plan: Plan, folder: Path) -> Iterator[None]:
    """Record while the block runs, and until what was asked in it is answered."""
    described, log = folder / "plan.json", folder / "recorder.log"
    described.write_bytes(msgspec.json.encode(plan))
    process = processes.spawn([sys.executable, "-m", "tests.chaos.recorder", str(described)], log=log)
    try:
        yield
    finally:
        ended = process.poll()
        processes.end([process], grace=2 * plan.patience)
        print(processes.last_lines(log))  # noqa: T201 - shown when the test fails
    assert ended is None, "the recorder ended before its time"
    assert process.returncode == 0, f"the recorder ended with {process.returncode}"


async def _judge(cluster: Scene, uncompared: Collection[str]) -> None:
    expected = await replay_source(cluster.bootstrap, cluster.topic, PARTITIONS)
    history = cluster.recording.refresh()
    print(summary(history))  # noqa: T201 - availability is counted, and shown
    taken = paths(cluster.workers)
    TAKEN.update(taken)
    print(listed(taken))  # noqa: T201 - what has happened at all is counted, and shown
    lies = judge(history, expected, cluster.rules())
    assert not lies, f"{len(lies)} of {len(history)} answers are lies:\n" + "\n".join(map(str, lies[:_SHOWN]))
    assert {answer.status for answer in history} >= {200, 404}, "the history proves nothing"
    asked = {(one.query.partition("min_position=")[0].rstrip("&"), bool(one.token)) for one in history}
    assert asked >= {(way.query, way.own) for way in WAYS}, f"not every way to ask was taken: {asked}"
    compared = [table for table in cluster.tables if table.name not in uncompared]
    strangers = {table.name: NEVER for table in compared}
    await check_equal(cluster.bootstrap, cluster.group, cluster.running, compared, strangers)
    await _check_committed(cluster, expected)


async def _check_committed(cluster: Scene, expected: Expected) -> None:
    """Check that no committed offset is past its topic's end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(cluster.group)
    finally:
        await admin.close()
    found = {number: committed[TopicPartition(cluster.topic, number)].offset for number in expected.ends}
    assert all(0 < found[number] <= end for number, end in expected.ends.items()), (found, expected.ends)


def summary(history: Sequence[Answer]) -> str:
    """Count answers by status, code and role, and say how available keys with a row were."""
    counted = Counter((one.status, one.code, one.role) for one in history)
    lines = [f"{number:6} {' '.join(map(str, what))}" for what, number in sorted(counted.items())]
    existing = [one for one in history if one.key.startswith("key-") and one.plain]
    answered = [one for one in existing if one.status]
    share = sum(one.status == 200 for one in answered) / max(1, len(answered))
    lines.insert(
        0,
        f"{len(history)} questions; of plain ones for rows {len(existing) - len(answered)} connections failed, "
        f"and of the answers {share:.1%} were 200",
    )
    return "\n".join(lines)
