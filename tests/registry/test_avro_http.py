"""Avro out and in over HTTP: rows with Accept, and writes that Confluent's deserialiser reads from the topic."""

import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import fastavro
import pytest
import pytest_asyncio
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.serialization import MessageField

from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.schema_registry import EmbeddedRegistry
from tests.support.confluent import Confluent
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, tables

PLANE = json.dumps(
    {
        "type": "record",
        "name": "Plane",
        "fields": [
            {"name": "tailnum", "type": "string"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "note", "type": ["null", "string"], "default": None},
        ],
    }
)
TAIL = '{"type":"record","name":"Tail","fields":[{"name":"tail","type":"string"}]}'
ROW = {"tailnum": "N1é", "price": "12.30", "note": None}


@pytest_asyncio.fixture
async def source(kafka: EmbeddedKafka, registry: EmbeddedRegistry) -> AsyncIterator[Confluent]:
    """Make a topic of three partitions."""
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 3)
    with SchemaRegistryClient({"url": registry.url}) as client:
        yield Confluent(kafka.bootstrap_servers, client, topic)


def entry(name: str, topic: str, key: str, rest: str = "") -> str:
    """Return a table of Avro."""
    return f"  - {{name: {name}, source: {{topic: {topic}, key: {key}, value: avro}}, {rest}}}\n"


async def put(url: str, row: Any) -> tuple[int, Any]:
    """PUT a row and wait until it can be read."""
    async with aiohttp.ClientSession() as session, session.put(f"{url}?wait=visible", json=row) as answer:
        return answer.status, await answer.json(content_type=None)


async def delete(url: str) -> tuple[int, Any]:
    """DELETE a row and wait until it is gone."""
    async with aiohttp.ClientSession() as session, session.delete(f"{url}?wait=visible") as answer:
        return answer.status, await answer.json(content_type=None)


async def wait_old(worker: WorkerProcess, key: str) -> None:
    """Wait until a key has the row of the producer."""

    async def there() -> bool:
        answer = await worker.get(f"/tables/planes/{key}")
        assert (answer.status, json.loads(answer.body).get("tailnum")) == (200, "old")
        return True

    await until(there, key)


async def test_what_is_put_is_what_confluent_s_deserialiser_reads_and_what_rows_are_in_avro(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    schema_id = source.register(PLANE)
    definition = tables(
        entry("planes", source.topic, "string", "writable: true"),
        entry("notes", source.topic, "string", "columns: [note]"),
    )
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"), schema_registry=registry.url)
    worker.start()
    await worker.wait_ready()
    url = f"{worker.url}/tables/planes/k1"
    status, written = await put(url, {"tailnum": "N1é", "price": "12.30"})
    assert (status, written["visible"]) == (200, True)
    record = await source.record_at(written["partition"], written["offset"])
    value = record.value()
    assert isinstance(value, bytes)
    assert value == source.avro(source.read_avro(value), PLANE)
    assert {**source.read_avro(value), "price": str(source.read_avro(value)["price"])} == ROW

    plain = await worker.get("/tables/planes/k1")
    assert (json.loads(plain.body), plain.headers["content-type"]) == (ROW, "application/json")
    avro = await worker.get("/tables/planes/k1", {"Accept": "avro/binary"})
    assert (avro.status, avro.headers["content-type"], avro.headers["vary"]) == (
        200,
        "avro/binary",
        "Accept, Accept-Encoding",
    )
    assert avro.headers["tablehouse-schema-id"] == str(schema_id)
    assert avro.body == value[5:]
    read: Any = fastavro.schemaless_reader(io.BytesIO(avro.body), json.loads(PLANE), None)
    assert read["tailnum"] == "N1é"
    assert avro.headers["etag"] != plain.headers["etag"]
    for accept, etag in (("avro/binary", avro.headers["etag"]), ("application/json", plain.headers["etag"])):
        known = await worker.get("/tables/planes/k1", {"Accept": accept, "If-None-Match": etag})
        assert known.status == 304
    other = await worker.get("/tables/planes/k1", {"Accept": "avro/binary", "If-None-Match": plain.headers["etag"]})
    assert other.status == 200
    both = await worker.get("/tables/planes/k1", {"Accept": "application/json, avro/binary"})
    assert both.headers["content-type"] == "application/json"
    refused = await worker.get("/tables/notes/k1", {"Accept": "avro/binary"})
    assert (refused.status, json.loads(refused.body)["available"]) == (406, ["application/json"])

    status, wrong = await put(url, {"tailnum": "N1", "price": "12.345"})
    assert (status, wrong["code"]) == (400, "invalid_body")
    assert "price" in wrong["detail"]
    assert (await delete(url))[0] == 200
    assert (await worker.get("/tables/planes/k1")).status == 404


async def test_a_key_in_avro_is_written_under_the_newest_schema_known_and_deleted_under_all(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    source.register(PLANE)
    definition = tables(entry("planes", source.topic, "{format: avro, field: tail}", "writable: true"))
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"), schema_registry=registry.url)
    worker.start()
    await worker.wait_ready()
    url = f"{worker.url}/tables/planes/N1"
    status, refused = await put(url, ROW)
    assert (status, refused["code"], refused["table"]) == (503, "key_schema_unknown", "planes")

    newer = TAIL.replace("Tail", "Newer")
    source.register(TAIL, part="key", compatibility="NONE")
    old = source.avro({"tail": "N1"}, TAIL, MessageField.KEY)
    value = source.avro({"tailnum": "old", "price": Decimal(0), "note": None}, PLANE)
    await source.produce((old, value))
    worker.kill()
    worker.start()
    await worker.wait_ready()
    assert json.loads((await worker.get("/tables/planes/N1")).body)["tailnum"] == "old"
    await source.produce((source.avro({"tail": "N2"}, newer, MessageField.KEY), value))
    worker.kill()
    worker.start()
    await worker.wait_ready()
    status, written = await put(url, ROW)
    assert status == 200
    record = await source.record_at(written["partition"], written["offset"])
    assert record.key() == source.avro({"tail": "N1"}, newer, MessageField.KEY)
    assert json.loads((await worker.get("/tables/planes/N1")).body) == ROW
    status, deleted = await delete(url)
    assert (status, len(deleted["position"].split(","))) == (200, 2)
    assert (await worker.get("/tables/planes/N1")).status == 404


@pytest.mark.parametrize(
    ("value", "obstacle"),
    [
        ("{format: avro, schema: plane.avsc}", "a schema from a file"),
        ("{format: avro, framing: none, schema: 1}", "framing none"),
    ],
)
async def test_a_worker_refuses_to_write_records_that_could_name_no_schema(
    kafka: EmbeddedKafka, make_worker: MakeWorker, value: str, obstacle: str
) -> None:
    definition = tables(f"  - {{name: planes, source: {{topic: t, key: string, value: {value}}}, writable: true}}\n")
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    (worker.folder / "plane.avsc").write_text(PLANE, "utf-8")
    worker.start()
    assert await worker.wait_exit() == 2
    assert f"tables[0].writable: cannot be true with {obstacle}: its records do not refer" in worker.log_text()
