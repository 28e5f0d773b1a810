"""Tables whose values need schemas, on a real broker and a real registry that goes and comes.

The format is one of these tests alone: Confluent's frame around a text, kept as the schema's name and the text.
"""

import asyncio
import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from app.catalog.spec import TableSpec
from app.config import Settings
from app.demo.broker import EmbeddedKafka
from app.demo.schema_registry import EmbeddedRegistry
from app.formats.schemas import Schemas
from app.formats.variants import Known
from app.model import TaskState
from app.registry.client import SchemaRegistry
from app.registry.saved import SavedSchemas
from app.registry.setup import access_of
from app.tasks import shards
from app.tasks.definitions import codec_of
from app.tasks.ingest import TableCodec
from app.telemetry import Metrics
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.registry import StandInRegistry
from tests.support.schemas import framed
from tests.support.worker import MakeWorker, table, tables


def register(registry: EmbeddedRegistry, name: str, *uses: SchemaReference) -> int:
    """Register a record under its name, and return the id."""
    fields = [{"name": str(use.name).lower(), "type": use.name} for use in uses]
    text = msgspec.json.encode({"type": "record", "name": name, "fields": fields}).decode()
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id: int = client.register_schema(name, Schema(text, "AVRO", list(uses)))
    return schema_id


def decode(schemas: Schemas, value: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the schema's name, those of what it refers to, and the text."""
    schema = schemas.known(int.from_bytes(value[1:5], "big"))
    names = [msgspec.json.decode(one.text)["name"] for one in (schema, *(use.schema for use in schema.references))]
    return f"{'+'.join(names)}:".encode() + value[5:]


@contextmanager
def framed_tables(schemas: Schemas, *names: str) -> Iterator[None]:
    """Have some tables decode their values with schemas."""

    def codec(spec: TableSpec, partition: int, partitions: int, known: Known) -> TableCodec:
        plain = codec_of(spec, partition, partitions, known)
        return replace(plain, decode_value=partial(decode, schemas)) if spec.name in names else plain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "codec_of", codec)
        yield


def client(folder: Path, registry: EmbeddedRegistry, metrics: Metrics) -> SchemaRegistry:
    """Make a client as a worker over this folder has one."""
    given = Settings(bootstrap_servers="kafka:1", tables=Path("tables.yaml"), schema_registry=registry.url)
    return SchemaRegistry(access_of(given), SavedSchemas(folder / "schemas.json", [registry.url]), metrics)


def row(running: RunningEngine, name: str, key: bytes, partition: int = 0) -> bytes | None:
    """Return the payload of a row; None when there is none."""
    found = running.read(name, key, partition).row
    return None if found is None else found.payload


async def wait_reason(running: RunningEngine, name: str, words: str, partition: int = 0) -> str:
    """Wait until a task says why it is not further, in these words."""

    async def said() -> str:
        found = running.reason(name, partition)
        assert words in found, running.engine.statuses()
        return found

    return await until(said, f"{name}[{partition}]: {words}", 60)


async def test_a_registry_that_is_down_at_the_start_holds_up_what_needs_it_and_nothing_else(
    kafka: EmbeddedKafka, own_registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    own_registry.start()
    schema_id = register(own_registry, "Plane")
    own_registry.kill()
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    values = [(b"k%d" % number, framed(schema_id, b"%d" % number), 0) for number in range(500)]
    await produce(kafka.bootstrap_servers, topic, values)
    definition = tables(table("planes", topic, value="bytes"), table("raw", topic, value="bytes"))
    schemas = client(tmp_path, own_registry, Metrics("0"))
    with framed_tables(schemas, "planes"):
        async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
            reason = await wait_reason(running, "planes", "waits for schema")
            assert reason == f"waits for schema {schema_id} of the registry {own_registry.url}: connection refused"
            assert f"the schema registry does not answer: {own_registry.url}: connection refused" in (
                running.engine.reasons()
            )
            await running.wait_position("raw", 0, 499)
            await running.wait_position("raw", 1, -1)

            async def others_active() -> bool:
                others = {place: state for place, state in running.states().items() if place != ("planes", 0)}
                return len(others) == 3 and set(others.values()) == {TaskState.ACTIVE}

            await until(others_active, "all other tasks are active")
            assert running.states()["planes", 0] is TaskState.RESTORING

            async def waits() -> bool:
                return running.metric("tablehouse_partitions_waiting_for_schemas", table="planes") == 1

            # All keys lie in one partition, the group is told so, and the wait begins anew in the next generation.
            await until(waits, "the partition is seen to wait")
            await asyncio.to_thread(own_registry.start)
            await running.wait_active(4)
            assert running.metric("tablehouse_partitions_waiting_for_schemas", table="planes") == 0
            for number in (0, 250, 499):
                assert row(running, "planes", b"k%d" % number) == b"Plane:%d" % number
            assert (await running.engine.digest("planes", 0)).rows == 500
            assert running.metric("tablehouse_dead_letters_total", table="planes", reason="undecodable_value") == 0


async def test_a_registry_that_goes_and_comes_loses_nothing_through_a_restart(
    kafka: EmbeddedKafka, own_registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    own_registry.start()
    first = register(own_registry, "Plane")
    second = register(own_registry, "Fleet", SchemaReference("Plane", "Plane", 1))
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    definition = tables(table("planes", topic, value="bytes"))

    async def send(ids: Sequence[int], start: int) -> int:
        values = [(b"k%d" % (start + n), framed(schema_id, b"%d" % n), None) for n, schema_id in enumerate(ids)]
        return (await produce(kafka.bootstrap_servers, topic, values))[-1][1]

    schemas = client(tmp_path, own_registry, Metrics("0"))
    with framed_tables(schemas, "planes"):
        async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
            await running.wait_active(1)
            await running.wait_position("planes", 0, await send([first] * 50, 0))
            own_registry.kill()
            known = await send([first] * 50, 50)
            await running.wait_position("planes", 0, known)
            last = await send([first, second, first, second], 100)
            reason = await wait_reason(running, "planes", f"waits for schema {second} of")
            assert reason.endswith(": connection refused")
            assert running.states()["planes", 0] is TaskState.ACTIVE
            assert row(running, "planes", b"k99") == b"Plane:49"
            assert known <= running.engine.statuses()[0].position < last

    restarted = client(tmp_path, own_registry, Metrics("0"))
    with framed_tables(restarted, "planes"):
        async with running_engine(kafka, tmp_path, definition, group, restarted) as running:
            await wait_reason(running, "planes", f"waits for schema {second} of")
            await asyncio.to_thread(own_registry.start)
            await running.wait_position("planes", 0, last)
            await running.wait_active(1)
            expected = [b"Plane:0", b"Fleet+Plane:1", b"Plane:2", b"Fleet+Plane:3"]
            assert [row(running, "planes", b"k%d" % number) for number in range(100, 104)] == expected
            assert (await running.engine.digest("planes", 0)).rows == 104


async def test_a_record_of_a_schema_that_was_never_registered_is_a_dead_letter_and_the_next_is_not(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    schema_id = register(registry, unique("Plane").replace("-", "_"))
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    records = ((b"good", schema_id, b"1"), (b"bad", 2**30, b"2"), (b"more", schema_id, b"3"))
    await produce(kafka.bootstrap_servers, topic, [(key, framed(used, text), 0) for key, used, text in records])
    schemas = client(tmp_path, registry, Metrics("0"))
    with framed_tables(schemas, "planes"):
        definition = tables(table("planes", topic, value="bytes"))
        async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
            await running.wait_active(1)
            assert row(running, "planes", b"bad") is None
            assert (row(running, "planes", b"good") or b"").endswith(b":1")
            assert (row(running, "planes", b"more") or b"").endswith(b":3")
            assert running.metric("tablehouse_dead_letters_total", table="planes", reason="undecodable_value") == 1


async def test_a_worker_starts_and_is_live_while_the_registry_is_down(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    definition = tables(table("planes", topic))
    url = "http://127.0.0.1:1"
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"), schema_registry=url)
    worker.start()
    await worker.wait_ready()
    _, seen = await worker.document("/readyz?verbose")
    assert seen["reasons"] == [f"the schema registry does not answer: {url}: connection refused"]


async def test_a_worker_refuses_a_url_where_no_registry_is(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    url = registry.url.partition("/apis")[0]
    definition = tables(table("planes", topic))
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"), schema_registry=url)
    worker.start()
    assert await worker.wait_exit() == 2
    assert f"schema_registry: {url}: 404 Not Found, which is not the answer of a schema registry" in worker.log_text()


async def test_a_worker_shows_its_password_to_the_registry_and_to_nobody_else(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    async with StandInRegistry() as stand_in:
        worker = make_worker(
            kafka.bootstrap_servers,
            tables(table("planes", topic)),
            group=unique("group"),
            schema_registry=stand_in.url,
            schema_registry_user="ida",
            schema_registry_password="correct horse",  # noqa: S106 - of nobody
        )
        worker.start()
        await worker.wait_ready()
    right = "Basic " + base64.b64encode(b"ida:correct horse").decode()
    assert [(path, headers["Authorization"]) for path, headers in stand_in.requests] == [("/subjects?limit=1", right)]
    assert "horse" not in worker.log_text()
