"""The line between workers, while both reach the broker: cut, and slow."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.proxy import Proxy, proxies
from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.scene import KEYS, PARTITIONS, Scene, amount, scene
from tests.support.cluster import client
from tests.support.oracle import replay_source
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: Connections that a worker has to another one: one for short questions and one for those that wait or are long, and a
#: few for the status that /cluster asks for.
_MAX_CONNECTIONS = 8

#: The least that a question for a row takes on a link: the digest of its table alone has as many bytes.
_BYTES_OF_A_QUESTION = 32

#: Hops that one question takes at most: every other worker, which is one here, is asked for the key's partition, and
#: asked again only when it said "not mine" or a newer snapshot names it again.
_MAX_HOPS = 2


@asynccontextmanager
async def connected(
    kafka: EmbeddedKafka, make_worker: MakeWorker, folder: Path, standbys: int = 1
) -> AsyncIterator[tuple[Scene, list[Proxy]]]:
    """Start two workers who reach each other by proxies."""
    async with proxies(0, 0) as lines:

        def prepare(workers: list[WorkerProcess]) -> None:
            for worker, line in zip(workers, lines, strict=True):
                line.target_port = int(worker.settings["internal_port"])
                worker.settings["advertised_url"] = line.url

        async with scene(kafka.bootstrap_servers, make_worker, folder, prepare=prepare, standbys=standbys) as cluster:
            yield cluster, lines


async def hops(cluster: Scene) -> float:
    """Count the hops from worker to worker so far."""
    return sum([await worker.metric("tablehouse_forward_requests_total") for worker in cluster.workers])


async def in_proportion(cluster: Scene, made: float, since: float, until_when: float) -> None:
    """Wait until so many questions of a time, but those to the owner, are known that the hops in it are no loop."""
    own = {worker.url: cluster.id_of(worker) for worker in cluster.workers}

    async def enough() -> bool:
        # Those that were being answered when that time began made hops in it, too.
        begin = since - cluster.rules().request_timeout
        history = [one for one in cluster.recording.refresh() if begin <= one.asked <= until_when]
        asked = [one for one in history if (one.served_by, one.role) != (own[one.url], "active")]
        assert 0 < made <= _MAX_HOPS * len(asked), f"{made:g} hops for {len(asked)} questions for other workers"
        return True

    await until(enough, "hops are in proportion to what was asked")


async def test_the_line_between_workers_is_cut_and_mended(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with connected(kafka, make_worker, tmp_path) as (cluster, lines):

        async def gives_its_own(worker: WorkerProcess) -> None:
            await cluster.answered(worker, 20, lambda one: one.status == 200 and one.role == "active")

        async def cannot_reach(worker: WorkerProcess) -> None:
            await cluster.answered(worker, 20, lambda one: one.status == 503 and one.code == "owner_unreachable")

        for _ in range(amount(1, 10)):
            cut_at, before = time.monotonic(), await hops(cluster)
            for line in lines:
                line.cut()
            await asyncio.gather(
                *(says(worker) for worker in cluster.workers for says in (gives_its_own, cannot_reach))
            )
            for line in lines:
                line.mend()
            made, mended_at = await hops(cluster) - before, time.monotonic()
            await in_proportion(cluster, made, cut_at, mended_at)
            await cluster.settled()


async def test_one_slow_peer_holds_up_only_its_own_partitions(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with connected(kafka, make_worker, tmp_path, standbys=0) as (cluster, lines), client() as http:
        asked, line = cluster.workers[0], lines[1]
        table = cluster.tables[0]
        own = {task["partition"] for task in await asked.tasks()}
        history = (await replay_source(cluster.bootstrap, cluster.topic, PARTITIONS)).history
        local = [key for key in KEYS if history[key][0].partition in own]
        remote = [key for key in KEYS if history[key][0].partition not in own]

        async def arrived() -> bool:
            return line.passed_on >= 4 * len(remote) * _BYTES_OF_A_QUESTION

        for _ in range(amount(1, 10)):
            line.forget()
            line.delay = 3.0
            waiting = [asyncio.create_task(http.get(asked.url + table.path(key))) for key in remote * 4]
            await until(arrived, "the slow worker was asked for all of them")
            here = await asyncio.gather(*(http.get(asked.url + table.path(key)) for key in local * 4))
            assert {answer.status for answer in here} == {200}
            assert not any(task.done() for task in waiting), "those who wait for the slow peer still do"
            assert len(waiting) > 2 * _MAX_CONNECTIONS >= line.most_connections
            there = await asyncio.gather(*waiting)
            assert {answer.status for answer in there} <= {200, 503, 504}, {answer.status for answer in there}
            line.delay = 0.0
            await cluster.settled()
