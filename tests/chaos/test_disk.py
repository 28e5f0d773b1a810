"""Disks that are full, and stores that were damaged: never a wrong value, and whole again from the changelog."""

import asyncio
import shutil
from pathlib import Path

import pytest

from app.demo.broker import EmbeddedKafka
from tests.chaos.disk import DAMAGES, fill
from tests.chaos.scene import HEALED, amount, scene
from tests.support.kafka import produce
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: As much as a small worker keeps in memory before it has to write to its disk.
_LARGE, _COUNT = 64 * 1024, 1600


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_never_believed(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path, damage: str
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(1, 10)):
            victim = cluster.random.choice(cluster.workers)
            await cluster.load.more(100)
            # Gracefully, so that everything is in its files.
            await cluster.leave(victim)
            DAMAGES[damage](victim.data_dir, cluster.random)
            await cluster.start(victim)
            await cluster.settled()
            if damage != "a deleted data directory":

                async def quarantined(worker: WorkerProcess = victim) -> bool:
                    return await worker.metric("tablehouse_store_quarantines_total") > 0

                await until(quarantined, "the damage is found and counted", HEALED)


async def test_a_full_disk_stops_ingest_and_not_reads(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path, small_disk: Path
) -> None:
    def prepare(workers: list[WorkerProcess]) -> None:
        workers[0].settings["data_dir"] = str(small_disk / "data")

    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, prepare=prepare) as cluster:
        full, other = cluster.workers
        for _ in range(amount(1, 5)):
            ballast = await asyncio.to_thread(fill, small_disk)
            # More than fits into memory, so the disk is needed.
            large = [(b"large-%d" % number, b'"%s"' % (b"x" * _LARGE), None) for number in range(_COUNT)]
            await produce(cluster.bootstrap, cluster.topic, large)

            async def stopped() -> bool:
                tasks = await full.tasks()
                return any(task["state"] == "suspended" and "store" in (task["reason"] or "") for task in tasks)

            await until(stopped, "a task of the full disk has stopped", HEALED)
            before = {(task["table"], task["partition"]): task["position"] for task in await full.tasks()}
            await cluster.load.more(300)
            after = {
                (task["table"], task["partition"]): (task["position"], task["state"]) for task in await full.tasks()
            }
            assert any(after[place] == (position, "suspended") for place, position in before.items()), (before, after)
            await cluster.answered(full, 10, lambda answer: answer.status == 200)
            await cluster.served(other)
            ballast.unlink()
            assert shutil.disk_usage(small_disk).free > 0
            await cluster.settled()
