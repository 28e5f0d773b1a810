"""Three brokers, of which one is away: what is created then, and what a worker says of too few replicas."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tablehouse.kafka.broker_time import measure, prepare_probe
from tablehouse.kafka.client import Connection
from tablehouse.kafka.probe import probe_epochs
from tablehouse.kafka.producers import stop_producer
from tablehouse.tasks.clock import MeasuredClock, SystemClock
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.topics import partitions_of, settings_of
from tests.support.worker import MakeWorker, table, tables

#: Seconds that the controller may take to notice that a broker has gone, and others to lead its partitions.
FENCED = 40.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Start three brokers whose topics need two replicas in sync, as hosted ones have it."""
    properties = {"min.insync.replicas": "2", "default.replication.factor": "1"}
    with EmbeddedKafka(tmp_path_factory.mktemp("cluster"), brokers=3, properties=properties) as brokers:
        yield brokers


@asynccontextmanager
async def one_away(cluster: EmbeddedKafka) -> AsyncIterator[None]:
    """Kill the last broker, wait until the others know, and start it again at the end."""
    cluster.kill(2)

    async def noticed() -> bool:
        try:
            return len(await _up(cluster)) == 2
        except KafkaError:
            return False

    try:
        await until(noticed, "the controller has noticed that a broker is away", FENCED)
        yield
    finally:
        cluster.restart(2)


async def _up(cluster: EmbeddedKafka) -> list[int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    await admin.start()
    try:
        return [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
    finally:
        await admin.close()


async def test_topics_made_while_a_broker_is_away_have_as_many_replicas_as_with_all_of_them(
    cluster: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    # Two replicas of each partition, and a partition on each broker.
    await create_topic(cluster.bootstrap_servers, topic, 3, {"min.insync.replicas": "1"}, replication_factor=2)
    await produce(cluster.bootstrap_servers, topic, [(b"a", b'{"n":1}', None)])
    assert {broker for found in await partitions_of(cluster, topic) for broker in found["replicas"]} == {1, 2, 3}

    async with one_away(cluster):
        worker = make_worker(cluster.bootstrap_servers, tables(table("t", topic)), group=group)
        worker.start()
        await worker.wait_ready()

        assert (await worker.get("/tables/t/a")).body == b'{"n":1}'
        for name in ("t-changelog", "dead-letters", "epoch-probe", "clock-probe"):
            found = await partitions_of(cluster, f"{group}-{name}")
            assert {len(partition["replicas"]) for partition in found} == {3}, name
        assert (await settings_of(cluster, f"{group}-t-changelog"))["min.insync.replicas"] == "2"
        assert await worker.metric("tablehouse_changelog_replicas_missing", table="t") == 0


async def test_a_changelog_with_too_few_replicas_is_used_and_named(
    cluster: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(cluster.bootstrap_servers, topic, 1, replication_factor=3)
    thin = make_worker(cluster.bootstrap_servers, tables(table("t", topic)), group=group, replication_factor="1")
    thin.start()
    await thin.wait_ready()
    assert await thin.metric("tablehouse_changelog_replicas_missing", table="t") == 0
    thin.terminate()
    await thin.wait_exit()

    worker = make_worker(cluster.bootstrap_servers, tables(table("t", topic)), group=group)
    worker.start()
    await worker.wait_ready()

    said = (
        f"changelog {group}-t-changelog of table t has 1 replica and should have 3: add some with "
        "kafka-reassign-partitions.sh, then set min.insync.replicas=2"
    )

    async def named() -> bool:
        _, readiness = await worker.document("/readyz?verbose")
        assert said in readiness["reasons"], readiness
        return True

    await until(named, "the changelog is named")
    assert await worker.metric("tablehouse_changelog_replicas_missing", table="t") == 2
    assert said in worker.log_text()


async def test_probes_do_not_wait_for_a_replica_that_acks_all_would_need(cluster: EmbeddedKafka) -> None:
    group, connection, clock = unique("group"), Connection(cluster.bootstrap_servers, "test"), SystemClock()
    every_replica = {"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "3"}
    for probe in ("epoch-probe", "clock-probe"):
        await create_topic(cluster.bootstrap_servers, f"{group}-{probe}", 1, every_replica, replication_factor=3)

    async with one_away(cluster):
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all")
        await producer.start()
        try:
            with pytest.raises((TimeoutError, KafkaError)):
                await asyncio.wait_for(producer.send_and_wait(f"{group}-epoch-probe", b"", partition=0), 3.0)
        finally:
            await stop_producer(producer)
        await probe_epochs(connection, group)
        await prepare_probe(connection, group)
        await measure(connection, group, clock, MeasuredClock(clock))


async def test_a_table_waits_for_brokers_that_its_replicas_need_and_says_which_setting_helps(
    cluster: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(cluster.bootstrap_servers, topic, 1)
    worker = make_worker(cluster.bootstrap_servers, tables(table("t", topic)), group=group, replication_factor="4")
    worker.start()

    async def waits() -> bool:
        _, readiness = await worker.document("/readyz?verbose")
        assert readiness is not None
        said = " ".join(readiness["reasons"])
        assert f"creating changelog {group}-t-changelog with 4 replicas, which needs as many brokers" in said, said
        assert "(replication_factor sets another number)" in said
        return True

    await until(waits, "the worker says what it waits for", 60.0)
    assert worker.exit_code is None
