"""Two workers under load while one of them is killed, paused, stopped or joins: nothing is lost and nothing made up."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, check_equal, client
from tests.support.kafka import create_topic, produce, unique
from tests.support.load import Load, Watch
from tests.support.oracle import replay_source
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

PARTITIONS = 4
KEYS = [f"key-{number}".encode() for number in range(300)]


@dataclass
class Scene:
    """Two workers, a writer and readers that go on through whatever a test does to the workers."""

    bootstrap: str
    group: str
    tables: Sequence[Checked]
    workers: list[WorkerProcess]
    load: Load
    watch: Watch

    async def owns_everything(self, worker: WorkerProcess) -> bool:
        """Say whether a worker has every partition of every table, active."""
        return len(await worker.owned()) == len(self.tables) * PARTITIONS

    async def shared(self) -> bool:
        """Say whether every partition is active somewhere, and each worker has some."""
        tasks = [await worker.owned() for worker in self.workers]
        return all(tasks) and sum(map(len, tasks)) == len(self.tables) * PARTITIONS


@asynccontextmanager
async def scene(
    kafka: EmbeddedKafka,
    make_worker: MakeWorker,
    *,
    may_fail: Sequence[int] = (),
    start: int = 2,
    standbys: int = 1,
    **settings: str,
) -> AsyncIterator[Scene]:
    """Start everything; at the end, stop the load, check equality, and judge every answer that the readers got.

    may_fail are the indexes of workers to which connections may fail. Of the two workers, `start` are started. They
    have `settings`.
    """
    bootstrap, topic, group = kafka.bootstrap_servers, unique("faults"), unique("faults")
    checked = [Checked(name, topic, PARTITIONS, standbys=standbys) for name in ("first", "second")]
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    await create_topic(bootstrap, topic, PARTITIONS)
    definition = tables(*(table.entry() for table in checked))
    workers = [make_worker(bootstrap, definition, group=group, **settings) for _ in range(2)]
    for worker in workers[:start]:
        worker.start()
    async with Load(bootstrap, topic, KEYS, seed) as load:
        await all_ready(*workers[:start])
        async with Watch([worker.url for worker in workers], checked[0], KEYS, seed) as watch:
            set_up = Scene(bootstrap, group, checked, workers, load, watch)
            if start == len(workers):
                await until(set_up.shared, "both workers have partitions", 30.0)
            yield set_up
            await load.more(200)
    print(watch.summary())  # noqa: T201 - shown when the test fails
    await check_equal(bootstrap, group, [worker for worker in workers if worker.exit_code is None], checked)
    expected = await replay_source(bootstrap, topic, PARTITIONS)
    watch.judge(
        expected,
        {workers[index].url for index in may_fail},
        {worker.url for worker in workers if worker.was_paused},
    )


async def test_kill_9_of_a_worker_loses_nothing_and_the_survivor_serves_all(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with scene(kafka, make_worker, may_fail=[1]) as cluster:
        survivor, killed = cluster.workers
        await cluster.load.more(400)
        killed.kill()
        await until(lambda: cluster.owns_everything(survivor), "the survivor owns everything", 30.0)
        await cluster.watch.served(survivor.url)
        await cluster.load.more(200)
        killed.start()
        await killed.wait_ready()
        await until(cluster.shared, "both workers have partitions again", 30.0)
        await cluster.watch.served(killed.url)


async def test_a_killed_worker_that_is_back_before_its_session_is_over_takes_its_partitions_up_again(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with scene(kafka, make_worker, may_fail=[1]) as cluster:
        other, killed = cluster.workers
        for _ in range(3):
            await cluster.load.more(100)
            killed.kill()
            killed.start()
            await killed.wait_ready()
            await until(cluster.shared, "both workers have partitions again", 30.0)
            await cluster.watch.served(other.url)


async def test_a_zombie_changes_nothing(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    async with scene(kafka, make_worker) as cluster:
        survivor, zombie = cluster.workers
        await cluster.load.more(400)
        zombie.pause()
        await until(lambda: cluster.owns_everything(survivor), "the survivor owns everything", 30.0)
        await cluster.watch.served(survivor.url)
        await cluster.load.more(400)
        # These wait in its sockets, and are the first things it answers when it runs on.
        cluster.watch.ask_once(zombie.url)
        await cluster.load.more(100)
        zombie.resume()
        await until(cluster.shared, "the zombie has joined again", 30.0)
        await cluster.watch.served(zombie.url)
        # What it still held was refused by the broker, because of the survivor's claims.
        assert await zombie.metric("tablehouse_rebalances_total") >= 2
        assert "has a newer epoch" in zombie.log_text()
        for worker in cluster.workers:
            assert await worker.metric("tablehouse_foreign_changelog_writes_total") == 0


@pytest.mark.parametrize("with_data", [True, False], ids=["with its data", "with an empty data directory"])
async def test_a_worker_leaves_gracefully_and_comes_back(
    kafka: EmbeddedKafka,
    make_worker: MakeWorker,
    with_data: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with scene(kafka, make_worker, may_fail=[1]) as cluster:
        remaining, leaver = cluster.workers
        await cluster.load.more(200)
        leaver.terminate()
        assert await leaver.wait_exit() == 0
        await until(lambda: cluster.owns_everything(remaining), "the one that remains owns everything", 30.0)
        await cluster.watch.served(remaining.url)
        if not with_data:
            shutil.rmtree(leaver.data_dir)
        leaver.start()
        await leaver.wait_ready()
        await until(cluster.shared, "both workers have partitions again", 30.0)
        await cluster.watch.served(leaver.url)


async def test_a_worker_that_is_told_to_stop_in_the_middle_of_a_rebalance_ends_well(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    # The group waits for a paused worker until its session is over. It must be long: the third worker has to join
    # before, and a worker that stops without leaving the group would be waited for as long.
    session = "60s"
    async with scene(kafka, make_worker, may_fail=[0, 1], session_timeout=session) as cluster:
        stopped, paused = cluster.workers
        await cluster.load.more(100)
        paused.pause()
        definition = stopped.tables_file.read_text("utf-8")
        third = make_worker(cluster.bootstrap, definition, group=cluster.group, session_timeout=session)
        third.start()

        async def live() -> bool:
            # Before that it is ended by a signal as any process is.
            status, _ = await third.document("/livez")
            return status == 200

        async def rebalancing() -> bool:
            return any(task["reason"] == "the group is rebalancing" for task in await stopped.tasks())

        await until(rebalancing, "the group is rebalancing", 30.0)
        await until(live, "the third worker takes signals", 30.0)
        stopped.terminate()
        assert await stopped.wait_exit() == 0, stopped.log_end()
        paused.resume()
        third.terminate()
        assert await third.wait_exit() == 0, third.log_end()
        for worker in (stopped, third):
            assert "could not be left" not in worker.log_text()
        stopped.start()
        await stopped.wait_ready()
        await until(cluster.shared, "both workers have partitions again", 30.0)
        for worker in cluster.workers:
            await cluster.watch.served(worker.url)


async def test_a_second_worker_starts_in_the_middle_of_ingest(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    async with scene(kafka, make_worker, may_fail=[1], start=1) as cluster:
        first, second = cluster.workers
        backlog = [(key, b'{"n":"%d of %s"}' % (number, key), None) for number in range(300) for key in KEYS]
        producing = asyncio.create_task(produce(cluster.bootstrap, cluster.tables[0].topic, backlog))
        second.start()
        await second.wait_ready()
        await until(cluster.shared, "both workers have partitions", 30.0)
        await producing
        await cluster.watch.served(first.url)
        await cluster.watch.served(second.url)
        for worker in cluster.workers:
            assert await worker.metric("tablehouse_ingest_records_total", table="second") > 0


async def test_while_the_owner_hangs_its_keys_are_503_within_the_deadline_and_the_others_are_served(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with scene(kafka, make_worker, standbys=0) as cluster, client() as http:
        asked, hanging = cluster.workers
        partitions = {task["partition"] for task in await asked.tasks()}
        hanging.pause()
        by_partition = {
            records[-1].partition: key
            for key, records in (
                await replay_source(cluster.bootstrap, cluster.tables[0].topic, PARTITIONS)
            ).history.items()
        }
        for partition, key in by_partition.items():
            answer = await http.get(asked.url + cluster.tables[0].path(key))
            if partition in partitions:
                assert answer.status == 200, answer
            elif answer.status != 200:
                assert answer.json["code"] in {"owner_unreachable", "partition_unassigned", "partition_restoring"}
                assert int(answer.headers["retry-after"]) >= 1
        hanging.resume()
        await until(cluster.shared, "both workers have partitions again", 30.0)
        await cluster.watch.served(hanging.url)


async def test_another_worker_on_a_dead_ones_address_is_asked_forwards_nothing_and_waits_for_the_ghost_to_leave(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    # The other worker has to listen before the group is done with the dead one, and takes seconds to start.
    set_up = scene(kafka, make_worker, may_fail=[1], standbys=0, session_timeout="20s")
    async with set_up as cluster, client() as http:
        asked, dead = cluster.workers
        own = {task["partition"] for task in await asked.tasks()}
        history = (await replay_source(cluster.bootstrap, cluster.tables[0].topic, PARTITIONS)).history
        key = next(key for key, records in history.items() if records[-1].partition not in own)
        dead.kill()
        # Its data is another one's, so its id is too; its URL is the one that snapshots have the dead worker at.
        dead.settings["data_dir"] = str(dead.folder / "other")
        dead.start()

        async def refused() -> bool:
            answer = await http.get(asked.url + cluster.tables[0].path(key))
            assert answer.status in {200, 503}, answer
            return answer.status == 503 and any(
                "the asking one means" in tried["reason"] for tried in answer.json["tried"]
            )

        await until(refused, "the worker that has taken the address says that another one is meant", 20.0)
        assert await dead.metric("tablehouse_forward_requests_total") == 0
        await dead.wait_ready()
        await until(cluster.shared, "both workers have partitions again", 30.0)
        await cluster.watch.served(dead.url)
