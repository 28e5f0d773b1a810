"""A real worker process while its broker is gone."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, check_equal
from tests.support.kafka import create_topic, produce, unique
from tests.support.outages import killed, paused
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, make_worker, tables

__all__ = ["make_worker"]

#: Longer than an append is waited for.
OUTAGE = 15.0  # seconds


def rows(start: int, end: int) -> list[tuple[bytes, bytes, int | None]]:
    return [(b"k%d" % (number % 200), b'{"n":%d}' % number, None) for number in range(start, end)]


class Scene:
    """One ready worker with 2,000 records applied."""

    def __init__(self, kafka: EmbeddedKafka, make: MakeWorker, **settings: str) -> None:
        self.kafka = kafka
        self.table = Checked("t", unique("source"), 2)
        self.group = unique("group")
        self.worker: WorkerProcess = make(
            kafka.bootstrap_servers, tables(self.table.entry()), group=self.group, **settings
        )

    async def start(self) -> None:
        """Start the worker, and return when it has applied everything."""
        await create_topic(self.kafka.bootstrap_servers, self.table.topic, self.table.partitions)
        await self.produce(0, 2000)
        self.worker.start()
        await self.worker.wait_active()

    async def produce(self, start: int, end: int) -> None:
        await produce(self.kafka.bootstrap_servers, self.table.topic, rows(start, end))

    async def check_equal(self) -> None:
        await check_equal(self.kafka.bootstrap_servers, self.group, [self.worker], [self.table])

    async def suspended(self) -> bool:
        """Say whether rows are marked as suspended, and missing ones unavailable."""
        found, missing = await self.worker.get("/tables/t/k1"), await self.worker.get("/tables/t/never")
        assert found.status == 200, found
        if found.headers["tablehouse-role"] == "active":
            return False
        assert found.headers["tablehouse-role"] == "suspended"
        assert missing.status == 503, missing
        assert missing.json["code"] == "partition_restoring"
        assert int(missing.headers["retry-after"]) >= 1
        return True

    async def alive(self) -> None:
        """Check that the worker lives and takes requests."""
        assert (await self.worker.get("/livez")).status == 200
        assert (await self.worker.get("/readyz")).status == 200


async def test_while_the_broker_stands_still_reads_go_on_marked_and_it_heals(
    rough_kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    scene = Scene(rough_kafka, make_worker)
    await scene.start()
    producing = asyncio.create_task(scene.produce(2000, 12_000))
    await until(ingesting(scene.worker, 2500), "records are being applied")
    with paused(rough_kafka):
        begin = time.monotonic()
        await until(scene.suspended, "reads are marked")
        await until(over(begin, scene), "the outage is over")
        assert await scene.suspended()

    await producing
    await scene.check_equal()
    await scene.alive()


async def test_a_broker_that_was_killed_and_comes_back_is_found_again(
    rough_kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    scene = Scene(rough_kafka, make_worker)
    await scene.start()
    async with killed(rough_kafka):
        await until(scene.suspended, "reads are marked")
        await scene.alive()

    await scene.produce(2000, 3000)
    await scene.check_equal()
    await scene.alive()


async def test_told_to_stop_while_the_broker_stands_still_it_ends_in_time_and_loses_nothing(
    rough_kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    scene = Scene(rough_kafka, make_worker, shutdown_timeout="6s")
    await scene.start()
    producing = asyncio.create_task(scene.produce(2000, 12_000))
    await until(ingesting(scene.worker, 2500), "records are being applied")
    with paused(rough_kafka):
        scene.worker.terminate()
        # A broker that stands still is waited for longer than that. At the deadline the process ends at once and says
        # so; the rest is for this one to notice on a busy machine.
        assert await scene.worker.wait_exit(6 + 4) == 1, scene.worker.log_end()
    await producing
    scene.worker.start()
    await scene.worker.wait_active()
    await scene.check_equal()


async def test_told_to_stop_before_it_ever_found_a_broker_it_ends_well(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    del kafka  # whose files are needed, and not the broker
    worker = make_worker("127.0.0.1:9", tables(Checked("t", "nowhere", 1).entry()), group=unique("group"))
    worker.start()

    async def waits() -> bool:
        answer = await worker.get("/readyz")
        assert answer.status == 503
        assert "127.0.0.1:9" in answer.body.decode()
        return True

    await until(connected(waits), "it says which broker it waits for")
    worker.terminate()
    assert await worker.wait_exit(15) == 0


def connected(ask: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """Count a connection that fails as not yet."""

    async def asked() -> bool:
        with contextlib.suppress(OSError):
            return await ask()
        return False

    return asked


def ingesting(worker: WorkerProcess, records: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return await worker.metric("tablehouse_ingest_records_total", table="t") >= records

    return ask


def over(begin: float, scene: Scene) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        await scene.alive()
        return time.monotonic() - begin > OUTAGE

    return ask
