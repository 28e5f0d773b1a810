"""`tablehouse init` and `peek` over topics whose records name schemas of a registry."""

import asyncio
import json

import yaml
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.serialization import MessageField

from app.cli import main
from app.demo.broker import EmbeddedKafka
from app.demo.processes import free_port
from app.demo.schema_registry import EmbeddedRegistry
from tests.support.confluent import Confluent
from tests.support.kafka import create_topic, unique

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


async def test_a_registry_that_does_not_answer_is_named_within_the_time_limit(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry
) -> None:
    topic, port = await produce_avro(kafka, registry), free_port()
    found = await run(kafka, f"http://127.0.0.1:{port}", "init", topic)
    assert found.exit_code == 1
    assert f"127.0.0.1:{port}" in found.stderr
