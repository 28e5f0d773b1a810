"""Tables of Avro on a real broker, and a real registry that goes and comes."""

import asyncio
import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import fastavro
import msgspec
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from tablehouse.config.settings import Settings
from tablehouse.model import TaskState
from tablehouse.registry.client import SchemaRegistry
from tablehouse.registry.saved import SavedSchemas
from tablehouse.registry.setup import access_of
from tablehouse.routing.digests import digest
from tablehouse.telemetry import Metrics
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.schema_registry import EmbeddedRegistry
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.registry import StandInRegistry
from tests.support.schemas import framed
from tests.support.worker import MakeWorker, table, tables

PLANE = {"type": "record", "name": "Plane", "fields": [{"name": "n", "type": "string"}]}
ENGINE = {"type": "record", "name": "Engine", "fields": []}
#: A later version, which refers to another schema.
WITH_ENGINE = {
    **PLANE,
    "fields": [{"name": "n", "type": "string"}, {"name": "engine", "type": ["null", "Engine"], "default": None}],
}


def register(registry: EmbeddedRegistry, subject: str, schema: object, *uses: SchemaReference) -> int:
    """Register a schema, and return the id."""
    text = msgspec.json.encode(schema).decode()
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id: int = client.register_schema(subject, Schema(text, "AVRO", list(uses)))
    return schema_id


def value(schema_id: int, number: int, engine: bytes = b"") -> bytes:
    """Return a plane in Avro, behind its schema's id."""
    content = BytesIO()
    fastavro.schemaless_writer(content, "string", str(number))
    return framed(schema_id, content.getvalue() + engine)


def client(folder: Path, registry: EmbeddedRegistry, metrics: Metrics) -> SchemaRegistry:
    """Make a client as a worker over this folder has one."""
    given = Settings(bootstrap_servers="kafka:1", tables=Path("tables.yaml"), schema_registry=registry.url)
    saved = SavedSchemas(folder / "schemas.json", [registry.url])
    return SchemaRegistry(access_of(given.registry), saved, metrics, given.schema_registry_unknown_after)


def row(running: RunningEngine, name: str, key: bytes, partition: int = 0) -> bytes | None:
    """Return the payload of a row; None when there is none."""
    found = running.read(name, key, partition).row
    return None if found is None else found.payload


async def wait_reason(running: RunningEngine, name: str, words: str, partition: int = 0) -> str:
    """Wait until a task says why it is not further, in these words."""

    async def said() -> str:
        found = running.reason(name, partition)
        assert words in found, running.engine.local.statuses()
        return found

    return await until(said, f"{name}[{partition}]: {words}", 60)


async def test_a_registry_that_is_down_at_the_start_holds_up_what_needs_it_and_nothing_else(
    kafka: EmbeddedKafka, own_registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    own_registry.start()
    schema_id = register(own_registry, "planes", PLANE)
    own_registry.kill()
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    values = [(b"k%d" % number, value(schema_id, number), 0) for number in range(500)]
    await produce(kafka.bootstrap_servers, topic, values)
    definition = tables(
        table("planes", topic, value=f"{{format: avro, schema: {schema_id}}}"), table("raw", topic, value="bytes")
    )
    schemas = client(tmp_path, own_registry, Metrics("0"))
    async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
        refused = f"waits for schema {schema_id} of the registry {own_registry.url}: connection refused"
        assert await wait_reason(running, "planes", refused) == refused
        assert f"the schema registry does not answer: {own_registry.url}: connection refused" in (
            running.engine.health.reasons()
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

        # All keys lie in one partition, the group is told so, and the wait begins again in the next generation.
        await until(waits, "the partition is seen to wait")
        await asyncio.to_thread(own_registry.start)
        await running.wait_active(4)
        assert running.metric("tablehouse_partitions_waiting_for_schemas", table="planes") == 0
        for number in (0, 250, 499):
            assert row(running, "planes", b"k%d" % number) == b'{"n":"%d"}' % number
        assert (await digest(running.engine.local, "planes", 0)).rows == 500
        assert running.metric("tablehouse_dead_letters_total", table="planes", reason="undecodable_value") == 0


async def test_a_registry_that_goes_and_comes_loses_nothing_through_a_restart(
    kafka: EmbeddedKafka, own_registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    own_registry.start()
    first = register(own_registry, "planes", PLANE)
    register(own_registry, "engines", ENGINE)
    second = register(own_registry, "planes", WITH_ENGINE, SchemaReference("Engine", "engines", 1))
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    definition = tables(table("planes", topic, value=f"{{format: avro, schema: {first}}}"))

    async def send(ids: Sequence[int], start: int) -> int:
        values = [
            (b"k%d" % (start + n), value(schema_id, n, b"\0" if schema_id == second else b""), None)
            for n, schema_id in enumerate(ids)
        ]
        return (await produce(kafka.bootstrap_servers, topic, values))[-1][1]

    schemas = client(tmp_path, own_registry, Metrics("0"))
    async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
        await running.wait_active(1)
        await running.wait_position("planes", 0, await send([first] * 50, 0))
        own_registry.kill()
        known = await send([first] * 50, 50)
        await running.wait_position("planes", 0, known)
        last = await send([first, second, first, second], 100)
        refused = f"waits for schema {second} of the registry {own_registry.url}: connection refused"
        await wait_reason(running, "planes", refused)
        assert running.states()["planes", 0] is TaskState.ACTIVE
        assert row(running, "planes", b"k99") == b'{"n":"49"}'
        assert known <= int(running.engine.local.statuses()[0].position) < last

    restarted = client(tmp_path, own_registry, Metrics("0"))
    async with running_engine(kafka, tmp_path, definition, group, restarted) as running:
        await wait_reason(running, "planes", f"waits for schema {second} of")
        await asyncio.to_thread(own_registry.start)
        await running.wait_position("planes", 0, last)
        await running.wait_active(1)
        expected = [b'{"n":"%d"}' % number for number in range(4)]
        assert [row(running, "planes", b"k%d" % number) for number in range(100, 104)] == expected
        assert (await digest(running.engine.local, "planes", 0)).rows == 104


async def test_a_schema_that_the_registry_hears_of_late_is_waited_for_and_costs_no_record(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group = unique("planes"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    definition = tables(table("planes", topic, value="{format: avro, schema: 1}"), table("raw", topic, value="bytes"))
    async with StandInRegistry() as follower:
        follower.register("planes", 1, msgspec.json.encode(PLANE).decode())
        given = Settings(bootstrap_servers="kafka:1", tables=Path("tables.yaml"), schema_registry=follower.url)
        saved = SavedSchemas(tmp_path / "schemas.json", [follower.url])
        metrics = Metrics("0")
        schemas = SchemaRegistry(access_of(given.registry), saved, metrics, given.schema_registry_unknown_after)
        async with running_engine(kafka, tmp_path, definition, group, schemas) as running:
            await running.wait_active(4)
            late = [(b"a", value(1, 1), 0), (b"b", value(2, 2), 0), (b"c", value(1, 3), 0)]
            await produce(kafka.bootstrap_servers, topic, [*late, (b"d", value(1, 4), 1)])
            denied = f"waits for schema 2 of the registry {follower.url}, which does not know it so far"
            await wait_reason(running, "planes", denied)
            await running.wait_position("planes", 1, 0)
            await running.wait_position("raw", 0, 2)

            async def asked_often() -> bool:
                return follower.paths.count("/schemas/ids/2") > 2

            await until(asked_often, "the follower is asked more than twice")
            follower.register("planes", 2, msgspec.json.encode(PLANE).decode())
            await running.wait_position("planes", 0, 2)
            assert [row(running, "planes", key) for key in (b"a", b"b", b"c")] == [
                b'{"n":"1"}',
                b'{"n":"2"}',
                b'{"n":"3"}',
            ]
            assert running.metric("tablehouse_dead_letters_total", table="planes", reason="undecodable_value") == 0


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
    assert f"schema_registry: {url}: 404 Not Found, which is not a response of a schema registry" in worker.log_text()


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
