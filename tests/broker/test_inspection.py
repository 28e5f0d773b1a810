"""`tablehouse init`, `check --bootstrap-servers` and `peek` over topics of real producers; nothing is left behind."""

import asyncio
import json
import struct
from pathlib import Path

import yaml
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from tablehouse.cli.main import main
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique


async def run(kafka: EmbeddedKafka, *arguments: str) -> Result:
    """Run a command that looks at topics."""
    words = [*arguments, "--bootstrap-servers", kafka.bootstrap_servers]
    return await asyncio.to_thread(CliRunner().invoke, main, words)


async def made(kafka: EmbeddedKafka, partitions: int = 3, cleanup: str = "compact") -> str:
    """Create a topic and return its name."""
    topic = unique("inspected")
    await create_topic(kafka.bootstrap_servers, topic, partitions, {"cleanup.policy": cleanup})
    return topic


def produce_by_librdkafka(kafka: EmbeddedKafka, topic: str, records: list[tuple[bytes, bytes]]) -> None:
    """Produce as confluent-kafka does by default."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for key, value in records:
        producer.produce(topic, key=key, value=value)
    assert producer.flush(30) == 0


async def names(kafka: EmbeddedKafka) -> tuple[set[str], set[str]]:
    """Return the topics and the groups that there are."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        return set(await admin.list_topics()), {group for group, *_ in await admin.list_consumer_groups()}
    finally:
        await admin.close()


async def test_init_writes_what_each_producer_did_and_leaves_nothing_behind(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    texts, longs = await made(kafka), await made(kafka)
    await asyncio.to_thread(
        produce_by_librdkafka, kafka, texts, [(b"o%d" % n, json.dumps({"n": n}).encode()) for n in range(60)]
    )
    await produce(kafka.bootstrap_servers, longs, [(struct.pack(">q", n), b"text", None) for n in range(60)])
    before = await names(kafka)
    found = await run(kafka, "init", texts, longs)
    assert (found.exit_code, found.stderr) == (0, "")
    first, second = (table["source"] for table in yaml.safe_load(found.stdout)["tables"])
    assert first == {"topic": texts, "key": "string", "value": "json", "partitioner": "crc32"}
    assert second == {"topic": longs, "key": "long", "value": "string", "partitioner": "murmur2"}
    file = tmp_path / "tables.yaml"
    file.write_text(found.stdout, "utf-8")
    checked = await run(kafka, "check", str(file))
    assert (checked.exit_code, checked.stdout, checked.stderr) == (0, f"{file}: 2 tables, ok\n", "")
    assert await names(kafka) == before


async def test_records_of_both_ends_are_looked_at(kafka: EmbeddedKafka) -> None:
    topic = await made(kafka, 1)
    middle = [(b"m%d" % n, b"x", 0) for n in range(50)]
    await produce(kafka.bootstrap_servers, topic, [(b"first", b"{}", 0), *middle, (b"last", b"{}", 0)])
    found = await run(kafka, "init", topic, "--records", "1")
    assert f"Topic {topic}: 1 partition, 2 of 52 records were inspected." in found.stdout
    assert yaml.safe_load(found.stdout)["tables"][0]["source"]["value"] == "json"


async def test_a_topic_that_has_lost_records_is_said_and_an_empty_one_has_no_table(kafka: EmbeddedKafka) -> None:
    topic, empty = await made(kafka, cleanup="delete"), await made(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"k%d" % n, b"{}", None) for n in range(60)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=1)})
    finally:
        await admin.close()
    found = await run(kafka, "init", topic, empty)
    assert found.exit_code == 1
    assert "cleanup.policy is delete, and records were removed already" in found.stdout.replace("\n  #", "")
    assert f"{empty}: key: the topic has no records" in found.stderr


async def test_check_tells_field_by_field_what_records_are_not(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic = await made(kafka)
    await asyncio.to_thread(produce_by_librdkafka, kafka, topic, [(b"k%03d" % n, b"text") for n in range(60)])
    file = tmp_path / "tables.yaml"
    file.write_text(f"tables:\n  - {{name: orders, source: {{topic: {topic}, key: int, value: json}}}}\n", "utf-8")
    found = await run(kafka, "check", str(file))
    assert (found.exit_code, found.stdout) == (1, "")
    assert [line.split(": ")[:2] for line in found.stderr.splitlines()] == [
        ["orders", "source.key"],
        ["orders", "source.value"],
        ["orders", "source.partitioner"],
    ]


async def test_peek_shows_the_newest_records_as_rows(kafka: EmbeddedKafka) -> None:
    topic = await made(kafka, 2, "delete")
    records = [(struct.pack(">i", n), b'{"n":%d}' % n, 0) for n in range(9)]
    await produce(kafka.bootstrap_servers, topic, [*records, (struct.pack(">i", 3), None, 1), (None, b"{}", 1)])
    found = await run(kafka, "peek", topic, "--records", "2", "--json")
    assert found.exit_code == 0
    shown = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(one["partition"], one["offset"], one["key"], one["row"]) for one in shown] == [
        (0, 7, "7", '{"n":7}'),
        (0, 8, "8", '{"n":8}'),
        (1, 0, "3", None),
        (1, 1, None, None),
    ]
    assert [one["problem"] for one in shown] == [None, None, None, "it has no key, and a row needs one"]
    plain = await run(kafka, "peek", topic, "--records", "1")
    assert '  8  {"n":8}\n' in plain.stdout
    assert "cannot be a row: it has no key" in plain.stdout


async def test_peek_sends_no_commands_to_the_terminal(kafka: EmbeddedKafka) -> None:
    topic = await made(kafka, 1)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b"a\nb\x1b]0;title\x07", 0)])
    found = await run(kafka, "peek", topic)
    assert found.stdout.endswith("  k  a\\nb\\x1b]0;title\\x07\n")


async def test_a_topic_that_is_not_there_is_named_with_one_that_is_like_it(kafka: EmbeddedKafka) -> None:
    topic = await made(kafka, 1)
    found = await run(kafka, "peek", f"{topic}s")
    assert (found.exit_code, found.stderr) == (2, f"there is no topic {topic}s: did you mean {topic}?\n")


async def test_a_topic_that_is_not_there_is_named(kafka: EmbeddedKafka) -> None:
    topic = unique("missing")
    for command in ("init", "peek"):
        found = await run(kafka, command, topic)
        assert (found.exit_code, found.stdout) == (2, "")
        assert f"there is no topic {topic}" in found.stderr
    assert topic not in (await names(kafka))[0]
