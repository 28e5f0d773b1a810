"""Disks that are full, and stores that were damaged: never a wrong value, and whole again from the changelog."""

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.disk import behead_manifests, cut_manifests, delete, fill, flip_bytes
from tests.chaos.scene import HEALED, WHOLE, amount, paths, scene
from tests.support.kafka import produce
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: As much as a small worker keeps in memory before it has to write to its disk.
_LARGE, _COUNT = 64 * 1024, 1600


Damage = Callable[[Path, random.Random], None]

DAMAGES = [
    pytest.param(flip_bytes, True, id="a flipped byte in every SST"),
    pytest.param(behead_manifests, True, id="a MANIFEST cut in its head in every store"),
    pytest.param(cut_manifests, False, id="a MANIFEST cut somewhere in every store", marks=pytest.mark.whole),
    pytest.param(delete, False, id="a deleted data directory"),
]


@pytest.mark.parametrize(("damage", "counted"), DAMAGES)
async def test_a_damaged_store_is_never_believed(
    kafka: EmbeddedKafka,
    make_worker: MakeWorker,
    tmp_path: Path,
    damage: Damage,
    counted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        for _ in range(amount(1, 10)):
            victim = cluster.random.choice(cluster.workers)
            await cluster.load.more(100)
            # Gracefully, so that everything is in its files.
            await cluster.leave(victim)
            damage(victim.data_dir, cluster.random)
            await cluster.grown()
            before = paths([victim])["copies warmed up"]
            await cluster.start(victim)
            await cluster.settled()
            if damage is delete:
                assert paths([victim])["copies warmed up"] > before, victim.log_end()
            if counted:

                async def quarantined(worker: WorkerProcess = victim) -> bool:
                    return await worker.metric("tablehouse_store_quarantines_total") > 0

                await until(quarantined, "the damage is found and counted", HEALED)


async def stopped(worker: WorkerProcess) -> dict[tuple[str, int], int]:
    """Return how far each task of a worker is whose store takes nothing more."""
    tasks = [task for task in await worker.tasks() if "store" in (task["reason"] or "")]
    return {(task["table"], task["partition"]): task["position"] for task in tasks}


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

            async def refuses() -> bool:
                tasks = await full.tasks()
                # What still fits into memory is found to have no place at the next flush, after half a minute at most.
                everything = len(await stopped(full)) == len(tasks)
                return any(task["state"] == "suspended" for task in tasks) and (everything or not WHOLE)

            await until(refuses, "the tasks of the full disk have stopped", HEALED)
            before = await stopped(full)
            assert before
            await cluster.load.more(300)
            after = {(task["table"], task["partition"]): task["position"] for task in await full.tasks()}
            assert {place: after[place] for place in before} == before
            await cluster.answered(full, 10, lambda answer: answer.status == 200)
            await cluster.answered(other, 10, lambda answer: answer.status == 200 and answer.role == "active")
            ballast.unlink()
            assert shutil.disk_usage(small_disk).free > 0
            await cluster.settled()
