"""`tablehouse init` and `peek` over topics whose records name schemas of a registry."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import yaml
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.serialization import MessageField

from tablehouse.cli.main import main
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.processes import free_port
from tablehouse.testing.schema_registry import EmbeddedRegistry
from tests.support.confluent import Confluent
from tests.support.kafka import create_topic, unique
from tests.support.producers import Records, by_go, by_java_avro, by_kafkajs
from tests.support.worker import MakeWorker

KEY = '{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}'
VALUE = '{"type":"record","name":"V","fields":[{"name":"city","type":"string"}]}'


async def run(kafka: EmbeddedKafka, registry: str | None, *arguments: str) -> Result:
    """Run a command that looks at topics."""
    words = [*arguments, "--bootstrap-servers", kafka.bootstrap_servers]
    words += [] if registry is None else ["--schema-registry", registry]
    return await asyncio.to_thread(CliRunner().invoke, main, words)


async def produce_avro(kafka: EmbeddedKafka, registry: EmbeddedRegistry) -> str:
    """Produce records with Confluent's serialiser and librdkafka's default partitioner; return the topic."""
    topic = unique("inspected")
    await create_topic(kafka.bootstrap_servers, topic, 3, {"cleanup.policy": "compact"})
    with SchemaRegistryClient({"url": registry.url}) as client:
        source = Confluent(kafka.bootstrap_servers, client, topic, partitioner="consistent_random")
        records = [
            (source.avro({"id": n}, KEY, MessageField.KEY), source.avro({"city": f"c{n}"}, VALUE)) for n in range(60)
        ]
        await source.produce(*records)
    return topic


async def test_avro_is_found_with_its_registry_and_named_without(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry
) -> None:
    topic = await produce_avro(kafka, registry)
    found = await run(kafka, registry.url, "init", topic)
    assert (found.exit_code, found.stderr) == (0, "")
    [table] = yaml.safe_load(found.stdout)["tables"]
    assert table["source"] == {
        "topic": topic,
        "key": {"format": "avro", "field": "id"},
        "value": "avro",
        "partitioner": "crc32",
    }
    peeked = await run(kafka, registry.url, "peek", topic, "--records", "100", "--json")
    rows = {one["key"]: json.loads(one["row"]) for one in map(json.loads, peeked.stdout.splitlines())}
    assert rows == {str(n): {"city": f"c{n}"} for n in range(60)}
    without = await run(kafka, None, "init", topic)
    assert without.exit_code == 1
    assert "set schema_registry" in without.stderr


@pytest.mark.parametrize(
    ("name", "produce"),
    [("java", by_java_avro), ("kafkajs", by_kafkajs), ("franz-go", partial(by_go, "franz-go-avro"))],
)
async def test_avro_of_other_languages_becomes_a_table_with_every_row(
    kafka: EmbeddedKafka,
    registry: EmbeddedRegistry,
    make_worker: MakeWorker,
    name: str,
    produce: Callable[[str, str, Records, str], Awaitable[None]],
) -> None:
    topic, records = unique(name), [(str(10_000 + n), json.dumps({"n": n})) for n in range(60)]
    await create_topic(kafka.bootstrap_servers, topic, 6, {"cleanup.policy": "compact"})
    await produce(kafka.bootstrap_servers, topic, records, registry.url)
    found = await run(kafka, registry.url, "init", topic)
    assert (found.exit_code, found.stderr) == (0, "")
    [table] = yaml.safe_load(found.stdout)["tables"]
    assert table["source"] == {"topic": topic, "key": "string", "value": "avro", "partitioner": "murmur2"}
    worker = make_worker(kafka.bootstrap_servers, found.stdout, group=unique("group"), schema_registry=registry.url)
    worker.start()
    await worker.wait_ready()
    for key, value in records:
        answer = await worker.get(f"/tables/{table['name']}/{key}")
        assert (answer.status, answer.json) == (200, json.loads(value)), key
    assert (await worker.get(f"/tables/{table['name']}/7")).status == 404


async def test_a_registry_that_does_not_answer_is_named_within_the_time_limit(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry
) -> None:
    topic, port = await produce_avro(kafka, registry), free_port()
    found = await run(kafka, f"http://127.0.0.1:{port}", "init", topic)
    assert found.exit_code == 1
    assert f"127.0.0.1:{port}" in found.stderr
