"""Keys are found where real clients put them."""

import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import confluent_kafka
from yarl import URL

from tablehouse.catalog.spec import PartitionerName
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, table, tables

PARTITIONS = 4
NOW = int(time.time() * 1000)
KEYS = [f"k{number}" for number in range(40)]

#: librdkafka's names of ours.
OF_LIBRDKAFKA: Mapping[PartitionerName, str] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
}


def produce_as_librdkafka(
    bootstrap: str, topic: str, partitioner: str, keys: Sequence[str], value: str = "1", timestamp: int = NOW
) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "partitioner": partitioner})
    for key in keys:
        producer.produce(topic, key=key, value=value, timestamp=timestamp)
    assert producer.flush(30) == 0


async def batch_get(worker: WorkerProcess, keys: Sequence[str]) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.post(f"{worker.url}/tables/one:batch-get", json={"keys": list(keys)}) as answer,
    ):
        rows: list[dict[str, Any]] = (await answer.json())["rows"]
        return rows


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
            return bool((await worker.get("/tables/one/absent")).json.get("code") == "misplaced_keys")

        await until(refused, "a miss is inconclusive")
        told = "partitioner says: `partitioner: fnv1a` would put the "

        async def named() -> bool:
            return told in (await worker.get("/tables/one/absent")).json["detail"]

        await until(named, "the one partitioner that fits the keys of all partitions is named by the answer")
        [reason] = (await worker.document("/readyz"))[1]["reasons"]
        assert told in reason
        assert "`partitioner: fnv1a`" in worker.log_file.read_text()


def json_table(topic: str, spellings: str = "", version: int = 1) -> str:
    key = f"{{format: json, field: id{spellings}}}"
    return tables(table("one", topic, key=key) + f"    version: {version}\n    writable: true\n")


async def test_json_keys_that_python_spells_are_found_as_the_worker_itself_suggests(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("spelled")
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    spaced = [json.dumps({"id": key}) for key in KEYS]
    produce_as_librdkafka(kafka.bootstrap_servers, topic, "murmur2_random", spaced)
    with make_worker(kafka.bootstrap_servers, json_table(topic), group=unique("partitioners")) as worker:
        await worker.wait_ready()

        async def refused() -> bool:
            return bool((await worker.get("/tables/one/%22absent%22")).json.get("code") == "misplaced_keys")

        await until(refused, "a miss is inconclusive")
        assert "with `spellings: [python]`" in (await worker.get("/tables/one/%22absent%22")).json["detail"]

        worker.terminate()
        assert await worker.wait_exit() == 0
        worker.tables_file.write_text(json_table(topic, ", spellings: [python]", version=2))
        worker.start()
        await worker.wait_ready()
        assert {(await worker.get(f"/tables/one/%22{key}%22")).status for key in KEYS} == {200}
        assert {(await worker.get(f"/tables/one/%22absent-{key}%22")).status for key in KEYS} == {404}


async def test_of_a_key_that_producers_spell_in_two_ways_the_newest_row_is_served_and_a_delete_deletes_both(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("spelled")
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    compact = [json.dumps({"id": key}, separators=(",", ":")) for key in KEYS]
    spaced = [json.dumps({"id": key}) for key in KEYS]
    for number, keys in enumerate((spaced, compact)):
        produce_as_librdkafka(kafka.bootstrap_servers, topic, "murmur2_random", keys, str(number), NOW + number)
    definition = json_table(topic, ", spellings: [python, compact]")
    with make_worker(kafka.bootstrap_servers, definition, group=unique("partitioners")) as worker:
        await worker.wait_ready()
        assert {(await worker.get(f"/tables/one/%22{key}%22")).body for key in KEYS} == {b"1"}
        assert {(await worker.get(f"/tables/one/%22absent-{key}%22")).status for key in KEYS} == {404}
        produce_as_librdkafka(kafka.bootstrap_servers, topic, "murmur2_random", spaced[:1], "2", NOW + 2)

        async def newer() -> bool:
            return (await worker.get(f"/tables/one/%22{KEYS[0]}%22")).body == b"2"

        await until(newer, "the newer row in the other spelling is served")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.delete(URL(f"{worker.url}/tables/one/%22{KEYS[0]}%22?wait=visible", encoded=True)) as deleted,
        ):
            assert deleted.status == 200, await deleted.text()
        assert (await worker.get(f"/tables/one/%22{KEYS[0]}%22")).status == 404


async def test_of_keys_that_are_written_anywhere_the_last_record_is_the_answer_on_every_worker_and_after_a_rebuild(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group, seed = unique("anywhere"), unique("partitioners"), 20130101
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    chance = random.Random(seed)
    history = [(chance.choice(KEYS), chance.choice([b"1", b"2", b"3", None])) for _ in range(400)]
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number, (key, value) in enumerate(history):
        where = chance.randrange(PARTITIONS)
        producer.produce(topic, key=key, value=value, partition=where, timestamp=NOW + number)
    assert producer.flush(30) == 0
    last = dict(history)
    deleted_elsewhere = [key for key in KEYS if last.get(key) is None]
    assert deleted_elsewhere, seed
    definition = tables(table("one", topic, partitioner="any", standbys=0))
    workers = [make_worker(kafka.bootstrap_servers, definition, group=group) for _ in range(2)]

    async def check() -> None:
        for worker in workers:
            for key in KEYS:
                answer = await worker.get(f"/tables/one/{key}")
                expected = (404, None) if last.get(key) is None else (200, last[key])
                assert (answer.status, answer.body if answer.status == 200 else None) == expected, (key, seed)
            batch = await batch_get(worker, KEYS)
            assert [row.get("value") for row in batch] == [
                None if (value := last.get(key)) is None else json.loads(value) for key in KEYS
            ]

    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def each_holds_its_half() -> bool:
        return [len(await worker.tasks()) for worker in workers] == [PARTITIONS // 2] * 2

    await until(each_holds_its_half, "each worker holds its half")
    await check()
    for worker in workers:
        worker.kill()
        # Without its rows it has to restore them, and the marks of deleted keys, from the changelog.
        shutil.rmtree(worker.data_dir)
        worker.start()
    await all_ready(*workers)
    await until(each_holds_its_half, "each worker holds its half again", 60)
    await check()
