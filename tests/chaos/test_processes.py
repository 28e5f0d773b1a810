"""Workers that are killed, paused, stopped, started and multiplied while they are read and written."""

import time
from pathlib import Path

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.checker import Span
from tests.chaos.scene import HEALED, PARTITIONS, WHOLE, Scene, amount, paths, scene
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: What takeover_interval is unless set; scenes have it at a second.
_SHIPPED_INTERVAL = "1m"


async def test_sigkill_at_random_moments(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(3, 50)):
            victim = cluster.random.choice(cluster.workers)
            (survivor,) = (worker for worker in cluster.workers if worker is not victim)
            await cluster.load.more(cluster.random.randrange(1, 400))
            cluster.kill(victim)
            if cluster.random.random() < 1 / 3:
                await cluster.settled(survivor)
            await cluster.load.more(cluster.random.randrange(1, 200))
            await cluster.start(victim)
        await cluster.settled()


async def test_sigstop_past_the_session_time_out_and_sigcont(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(1, 10)):
            zombie, survivor = cluster.random.sample(cluster.workers, 2)
            cluster.harmed(zombie)
            zombie.pause()
            await cluster.settled(survivor)
            alone_since = alone_until = time.monotonic()
            await cluster.load.more(300)
            zombie.resume()
            while True:
                asked = time.monotonic()
                if not await cluster.shared(survivor):
                    break
                # It had everything a moment after this, so nobody else had anything before.
                alone_until = asked
            cluster.strangers.setdefault(cluster.id_of(zombie), []).append(Span(alone_since, alone_until))
            await cluster.settled()
            cluster.healed(zombie)
            late = [one for one in cluster.answers(zombie, alone_since) if one.answered <= alone_until]
            assert late, "the zombie has answered nothing while it owned nothing, which proves nothing"
        taken = paths(cluster.workers)
        assert taken["claims"] > 0, taken
        assert taken["promotions of standbys"] > 0, taken
        assert taken["replays from a checkpoint"] > 0, taken
        if WHOLE:
            # Of so many stops at least one fell on a batch, which the broker refused when the worker went on.
            fenced = [await worker.metric("tablehouse_changelog_batches_fenced_total") for worker in cluster.workers]
            assert sum(fenced) > 0, (fenced, taken)


async def test_joins_and_leaves_in_a_row(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3, start=2, hangs=False) as cluster:
        guest = cluster.workers[2]
        await cluster.grown()
        for number in range(amount(2, 20)):
            await cluster.start(guest)
            if number == 0:
                # It came with nothing, and owns something once it has restored that.
                await cluster.settled()
                assert paths([guest])["promotions of standbys"] > 0, guest.log_end()
            await cluster.load.more(cluster.random.randrange(1, 200))
            await cluster.leave(guest)
        assert paths([guest])["copies warmed up"] > 0, paths([guest])
        await cluster.settled()


async def test_one_worker_becomes_four_and_then_two(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=4, start=1, hangs=False) as cluster:
        await cluster.grown()
        await cluster.start(*cluster.workers[1:])
        await cluster.settled(*cluster.workers)
        taken = paths(cluster.workers[1:])
        assert taken["copies warmed up"] > 0, taken
        for leaver in cluster.random.sample(cluster.workers, 2):
            await cluster.leave(leaver)
        await cluster.settled()
        assert len(cluster.running) == 2


async def test_a_rolling_restart(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3, hangs=False) as cluster:
        for worker in cluster.workers:
            # From its next start on.
            worker.settings["takeover_interval"] = _SHIPPED_INTERVAL
        for _ in range(amount(1, 5)):
            for worker in cluster.workers:
                await cluster.load.more(50)
                await cluster.leave(worker)
                # Whoever rolls them out looks at nothing but whether the worker is ready.
                await cluster.start(worker)
        await until(cluster.whole, "every partition has an owner", HEALED)
        for worker in cluster.workers:
            await cluster.served(worker)


async def frozen(cluster: Scene, victim: WorkerProcess) -> None:
    """Stop a worker with SIGSTOP, for a moment or until the others own everything, and let it run on."""
    cluster.harmed(victim)
    victim.pause()
    if cluster.random.random() < 2 / 3:
        others = [worker for worker in cluster.workers if worker is not victim]
        await until(lambda: cluster.shared(*others), "the others own everything", HEALED)
    await cluster.load.more(cluster.random.randrange(1, 400))
    victim.resume()
    # Before this it may answer late what it was asked meanwhile.
    await cluster.settled()
    cluster.healed(victim)


async def killed(cluster: Scene, victim: WorkerProcess) -> None:
    """Kill a worker, and start it again in its session's time or after it."""
    cluster.kill(victim)
    await cluster.load.more(cluster.random.randrange(1, 3000))
    await cluster.start(victim)


async def killed_at_once(cluster: Scene, victim: WorkerProcess) -> None:
    """Kill a worker and start it again at once."""
    cluster.kill(victim)
    await cluster.start(victim)


async def left(cluster: Scene, victim: WorkerProcess) -> None:
    """Stop a worker gracefully, and start it again."""
    await cluster.leave(victim)
    await cluster.load.more(cluster.random.randrange(1, 400))
    await cluster.start(victim)


async def test_faults_of_all_kinds_at_random_moments(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    faults = [frozen, killed, killed_at_once, left]
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3) as cluster:
        for number in range(amount(len(faults), 30)):
            if number % len(faults) == 0:
                cluster.random.shuffle(faults)
            await cluster.load.more(cluster.random.randrange(1, 600))
            await faults[number % len(faults)](cluster, cluster.random.choice(cluster.workers))
        await cluster.settled()
        taken = paths(cluster.workers)
        print(taken)  # noqa: T201 - what has happened at all is shown
        assert taken["claims"] > 0, taken
        assert taken["replays from a checkpoint"] > 0, taken


async def test_every_partition_has_one_owner_after_all_workers_were_killed_at_once(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(1, 10)):
            await cluster.load.more(cluster.random.randrange(1, 400))
            for worker in cluster.workers:
                cluster.kill(worker)
            await cluster.load.more(100)
            await cluster.start(*cluster.workers)
            await cluster.settled()

            async def owned_once() -> bool:
                owned = [task for worker in cluster.workers for task in await worker.owned()]
                places = [(task["table"], task["partition"]) for task in owned]
                return len(places) == len(set(places)) == len(cluster.tables) * PARTITIONS

            await until(owned_once, "every partition has one owner", HEALED)
