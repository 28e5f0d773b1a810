"""Keys are found where real clients put them."""

from collections.abc import Mapping, Sequence

import confluent_kafka

from app.catalog.spec import PartitionerName
from app.demo.broker import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, table, tables

PARTITIONS = 4
KEYS = [f"k{number}" for number in range(40)]

#: librdkafka's names of ours.
OF_LIBRDKAFKA: Mapping[PartitionerName, str] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
}


def produce_as_librdkafka(bootstrap: str, topic: str, partitioner: str, keys: Sequence[str]) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "partitioner": partitioner})
    for key in keys:
        producer.produce(topic, key=key, value="1")
    assert producer.flush(30) == 0


async def test_each_partitioner_of_librdkafka_finds_every_key_and_proves_every_miss(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topics = {name: unique(name) for name in OF_LIBRDKAFKA}
    for name, topic in topics.items():
        await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
        produce_as_librdkafka(kafka.bootstrap_servers, topic, OF_LIBRDKAFKA[name], KEYS)
    entries = [table(name, topic, partitioner=name) for name, topic in topics.items()]
    with make_worker(kafka.bootstrap_servers, tables(*entries), group=unique("partitioners")) as worker:
        await worker.wait_ready()
        for name in topics:
            assert {(await worker.get(f"/tables/{name}/{key}")).status for key in KEYS} == {200}
            assert {(await worker.get(f"/tables/{name}/absent-{key}")).status for key in KEYS} == {404}


async def test_a_wrong_partitioner_is_told_with_the_one_that_fits(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("wrong")
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    produce_as_librdkafka(kafka.bootstrap_servers, topic, "fnv1a_random", KEYS)
    wrong = tables(table("one", topic, partitioner="murmur2"))
    with make_worker(kafka.bootstrap_servers, wrong, group=unique("partitioners")) as worker:
        await worker.wait_ready()

        async def refused() -> bool:
            return (await worker.get("/tables/one/absent")).status == 503

        await until(refused, "a miss is inconclusive")
        told = "partitioner says: `partitioner: fnv1a` would put the "

        async def named() -> bool:
            return told in (await worker.get("/tables/one/absent")).json["detail"]

        await until(named, "the one partitioner that fits the keys of all partitions is named by the answer")
        [reason] = (await worker.document("/readyz"))[1]["reasons"]
        assert told in reason
        assert "`partitioner: fnv1a`" in worker.log_file.read_text()
