"""Workers of an older version are replaced one by one, each on its data directory, while they are read and written."""

import asyncio
from pathlib import Path

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.paths import paths_in
from tests.chaos.scene import PARTITIONS, Scene, scene
from tests.chaos.writer import Writer
from tests.support.older import older_program
from tests.support.oracle import replay_source
from tests.support.worker import MakeWorker, WorkerProcess


async def test_workers_of_an_older_version_are_replaced_one_by_one_with_what_they_have(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    program = await asyncio.to_thread(older_program)

    def make_older(workers: list[WorkerProcess]) -> None:
        for worker in workers:
            worker.command = [str(program), "worker"]

    # With a standby of every partition on each of the others, a worker has a store of all that it is ever given.
    upgraded = scene(
        kafka.bootstrap_servers,
        make_worker,
        tmp_path,
        workers=3,
        hangs=False,
        standbys=2,
        writable=True,
        prepare=make_older,
    )
    async with upgraded as cluster:
        urls = [worker.url for worker in cluster.workers]
        async with Writer(urls, cluster.tables[0].name, cluster.random.randrange(1 << 32)) as writer:
            await cluster.grown()
            order = cluster.random.sample(cluster.workers, len(cluster.workers))
            began: dict[str, int] = {}
            for number, worker in enumerate(order, start=1):
                await cluster.load.more(100)
                await cluster.leave(worker)
                began[worker.url] = len(worker.log_text())
                worker.command = worker.COMMAND
                await cluster.start(worker)
                if older := order[number:]:
                    await _ask_each_other(cluster, older, order[:number])
            await cluster.settled()
        for worker in order:
            taken = paths_in(worker.log_text()[began[worker.url] :])
            assert taken["replays from a checkpoint"] >= len(cluster.tables) * PARTITIONS, taken
            assert taken["replays from the start"] == taken["quarantines"] == 0, taken
    writer.judge(await replay_source(cluster.bootstrap, cluster.topic, PARTITIONS))


async def _ask_each_other(cluster: Scene, older: list[WorkerProcess], newer: list[WorkerProcess]) -> None:
    """Wait until each worker has given its caller rows of actives of the other version."""

    async def ask(asked: WorkerProcess, answering: list[WorkerProcess]) -> None:
        ids = {cluster.id_of(worker) for worker in answering}
        await cluster.answered(asked, 3, lambda one: (one.status, one.role) == (200, "active") and one.served_by in ids)

    await asyncio.gather(
        *(ask(worker, newer) for worker in older),
        *(ask(worker, older) for worker in newer),
    )
