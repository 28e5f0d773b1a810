"""A broker that restarts, or is gone: nobody restarts because of it, and reads go on."""

import asyncio
from pathlib import Path

import pytest

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.scene import Scene, amount, scene
from tests.support.outages import killed
from tests.support.polling import until
from tests.support.worker import MakeWorker

#: Seconds that a worker gets to shut down: twice what all that it waits for in vain takes together. At the deadline
#: the process ends at once, so what is allowed beyond is for this one to notice on a busy machine.
_SHUTDOWN, _NOTICED = 15, 2


async def live_for(cluster: Scene, seconds: float) -> None:
    """Check for a time that every worker is live and answers with rows, as active or marked as suspended."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        for worker in cluster.workers:
            assert (await worker.document("/livez"))[0] == 200, worker.log_end()
            await cluster.answered(worker, 10, lambda answer: answer.status == 200)


async def test_the_broker_restarts(own_kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path) -> None:
    async with scene(own_kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        processes = [worker.pid for worker in cluster.workers]
        for _ in range(amount(1, 5)):
            await asyncio.to_thread(own_kafka.restart)
            await cluster.settled()
        assert [worker.pid for worker in cluster.workers] == processes


async def test_the_broker_is_gone_for_a_while(
    own_kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(own_kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        processes = [worker.pid for worker in cluster.workers]
        async with killed(own_kafka):
            await live_for(cluster, amount(15, 60))
            for worker in cluster.workers:
                await cluster.answered(worker, 10, lambda answer: answer.role == "suspended")
        await cluster.settled()
        assert [worker.pid for worker in cluster.workers] == processes


async def test_sigterm_while_the_broker_is_gone(
    own_kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(own_kafka.bootstrap_servers, make_worker, tmp_path, shutdown_timeout=f"{_SHUTDOWN}s") as cluster:
        for worker in cluster.workers:
            cluster.harmed(worker)
        async with killed(own_kafka):
            for worker in cluster.workers:
                worker.terminate()
            for worker in cluster.workers:
                assert await worker.wait_exit(_SHUTDOWN + _NOTICED) == 0, worker.log_end()
        await cluster.start(*cluster.workers)
        await cluster.settled()


@pytest.mark.whole
async def test_a_worker_is_killed_while_the_broker_is_gone(
    own_kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(own_kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        victim = cluster.workers[0]
        async with killed(own_kafka):
            cluster.kill(victim)
            victim.start()

            async def live() -> bool:
                return (await victim.document("/livez"))[0] == 200

            await until(live, "the worker is live without a broker")
        await victim.wait_ready()
        cluster.healed(victim)
        await cluster.settled()
