"""Workers that are killed, paused, stopped, started and multiplied while they are read and written."""

import time
from pathlib import Path

from app.demo.broker import EmbeddedKafka
from tests.chaos.checker import Span
from tests.chaos.scene import HEALED, PARTITIONS, WHOLE, amount, paths, scene
from tests.support.polling import until
from tests.support.worker import MakeWorker


async def test_sigkill_at_random_moments(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(6, 50)):
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
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3, start=2) as cluster:
        guest = cluster.workers[2]
        for _ in range(amount(2, 20)):
            await cluster.start(guest)
            await cluster.load.more(cluster.random.randrange(1, 200))
            await cluster.leave(guest)
        await cluster.settled()


async def test_pauses_kills_and_stops_at_random_moments(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3) as cluster:
        for _ in range(amount(4, 40)):
            victim = cluster.random.choice(cluster.workers)
            await cluster.load.more(cluster.random.randrange(1, 400))
            fault = cluster.random.choice(("pause", "kill", "stop"))
            if fault == "pause":
                # Up to some seconds, of which the session has three.
                cluster.harmed(victim)
                victim.pause()
                await cluster.load.more(cluster.random.randrange(1, 4000))
                victim.resume()
                await cluster.served(victim)
                cluster.healed(victim)
            elif fault == "kill":
                cluster.kill(victim)
                await cluster.load.more(cluster.random.randrange(1, 400))
                await cluster.start(victim)
            else:
                await cluster.leave(victim)
                await cluster.start(victim)
        await cluster.settled()
        if WHOLE:
            taken = paths(cluster.workers)
            wanted = ("claims", "promotions of standbys", "replays from a checkpoint", "hand-overs to a warm worker")
            assert all(taken[name] for name in wanted), taken


async def test_one_worker_becomes_four_and_then_two(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=4, start=1) as cluster:
        await cluster.start(*cluster.workers[1:])
        await cluster.settled(*cluster.workers)
        assert paths(cluster.workers)["hand-overs to a warm worker"] > 0, "who joined must have had to restore"
        for leaver in cluster.random.sample(cluster.workers, 2):
            await cluster.leave(leaver)
        await cluster.settled()
        assert len(cluster.running) == 2


async def test_a_rolling_restart(kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, workers=3) as cluster:
        for _ in range(amount(1, 5)):
            for worker in cluster.workers:
                await cluster.load.more(50)
                await cluster.leave(worker)
                await cluster.start(worker)
                await cluster.settled()


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
