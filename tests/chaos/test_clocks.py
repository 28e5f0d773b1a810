"""Clocks that jump: what a worker's machine takes for the time of day is nothing to it."""

import time
from pathlib import Path

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.clocks import SetClock
from tests.chaos.scene import HEALED, Scene, amount, paths, scene
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: Seconds without a rebalance after which none is on its way: workers ask for one each second while they want one.
_STEADY = 3.0

#: Tables of a scene.
_TABLES = 2


async def test_clocks_jump_by_hours(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    clocks: list[SetClock] = []

    def prepare(workers: list[WorkerProcess]) -> None:
        clocks.extend(map(SetClock, workers))

    # Each line in the log asks for the time, which takes long here: with one for each request a worker stands still.
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, prepare=prepare, log_level="info") as cluster:
        shares: list[float] = []
        for number in range(amount(2, 12)):
            generation = await _steady_generation(cluster)
            # Beyond what records are safe from compaction for, and beyond what tombstones are kept for.
            hours = cluster.random.sample([-2, 2] if number % 2 else [-30, 30], 2)
            for clock, ahead in zip(clocks, hours, strict=True):
                await clock.set(ahead)
            assert await _generations(cluster) == generation, "somebody has lost its place in the group"
            await cluster.load.more(200)
            for worker in cluster.workers:
                await cluster.served(worker)
                await cluster.answered(worker, 20, lambda one: one.status == 200 and one.role == "standby")
            # One that starts asks how old its store is, where that lacks anything.
            leaver = cluster.random.choice(cluster.workers)
            await cluster.leave(leaver)
            await cluster.load.more(cluster.random.randrange(1, 400))
            await cluster.start(leaver)
            await cluster.settled()
            restored = await leaver.metric("tablehouse_restore_records_total")
            shares.append(restored / (_TABLES * cluster.load.acknowledged))
        taken = paths(cluster.workers)
        assert taken["quarantines"] == 0, taken
        # From the start it would be all of them.
        assert min(shares) < 0.5, shares


async def _steady_generation(cluster: Scene) -> set[int]:
    """Wait until the group has rebalanced for the last time, and return its generation."""
    seen: set[int] = set()
    since = time.monotonic()

    async def steady() -> bool:
        nonlocal seen, since
        if (now := await _generations(cluster)) != seen:
            seen, since = now, time.monotonic()
        return len(seen) == 1 and time.monotonic() - since > _STEADY

    await until(steady, "the group stands still", HEALED)
    return seen


async def _generations(cluster: Scene) -> set[int]:
    """Return the generations that the workers are in."""
    return {worker.generation_in((await worker.document("/readyz?verbose"))[1]) for worker in cluster.workers}
