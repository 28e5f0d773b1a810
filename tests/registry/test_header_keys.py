"""Keys whose schema is named in a header: Confluent's serialiser, a real broker, a worker that reads and writes."""

import asyncio
import json
from typing import Any

import aiohttp
import yaml
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tablehouse.cli.main import main
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.confluent import SUBJECTS, Confluent
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.registry import StandInRegistry
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

PARTITIONS = 4
KEYS = 24

KEY = json.dumps({"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]})
VALUE = json.dumps({"type": "record", "name": "V", "fields": [{"name": "seats", "type": "int"}]})


class HeaderProducer:
    """Writes records whose schemas are named in headers by their GUIDs, and has the stand-in know these schemas."""

    def __init__(self, topic: str, producer: AIOKafkaProducer, registry: StandInRegistry) -> None:
        # Apicurio looks no schemas up by their GUIDs, so what the serialiser registers is copied to one that does.
        self._client = SchemaRegistryClient.new_client({"url": "mock://"})
        conf = SUBJECTS | {"schema.id.serializer": header_schema_id_serializer}
        self._serialisers = {
            MessageField.KEY: AvroSerializer(self._client, KEY, conf=conf),
            MessageField.VALUE: AvroSerializer(self._client, VALUE, conf=conf),
        }
        self._topic = topic
        self._producer = producer
        self._registry = registry

    def key(self, number: int) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Return a key and the header that names its schema."""
        return self._made({"id": number}, MessageField.KEY)

    async def send(self, number: int, seats: int | None) -> None:
        """Write a row, or with None a tombstone."""
        key, headers = self.key(number)
        value = None
        if seats is not None:
            value, more = self._made({"seats": seats}, MessageField.VALUE)
            headers += more
        await self._producer.send_and_wait(self._topic, value, key=key, headers=headers)

    def _made(self, value: Any, part: MessageField) -> tuple[bytes, list[tuple[str, bytes]]]:
        headers: Any = []
        made = self._serialisers[part](value, SerializationContext(self._topic, part, headers=headers))
        assert made is not None
        subject = f"{self._topic}-{part}"
        registered = self._client.get_latest_version(subject)
        assert registered.guid is not None
        assert registered.schema_id is not None
        assert registered.schema.schema_str is not None
        assert self._registry.guids is not None
        if registered.guid not in self._registry.guids:
            self._registry.register(subject, registered.schema_id, registered.schema.schema_str)
            self._registry.guids[registered.guid] = registered.schema_id
        return made, headers


async def shown(worker: WorkerProcess, number: int) -> Any:
    answer = await worker.get(f"/tables/planes/{number}")
    return json.loads(answer.body) if answer.status == 200 else answer.status


async def wait_shown(worker: WorkerProcess, number: int, expected: Any) -> None:
    async def seen() -> bool:
        assert await shown(worker, number) == expected
        return True

    await until(seen, f"the row of {number}")


async def test_they_are_found_written_and_deleted_as_their_producer_writes_them(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, bootstrap = unique("planes"), kafka.bootstrap_servers
    await create_topic(bootstrap, topic, PARTITIONS, {"cleanup.policy": "compact"})
    async with StandInRegistry() as registry, AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        made = HeaderProducer(topic, producer, registry)
        for number in range(KEYS):
            await made.send(number, number)
        await made.send(3, None)
        with_registry = ["--bootstrap-servers", bootstrap, "--schema-registry", registry.url]
        proposed = await asyncio.to_thread(CliRunner().invoke, main, ["init", topic, *with_registry])
        assert (proposed.exit_code, proposed.stderr) == (0, "")
        [found] = yaml.safe_load(proposed.stdout)["tables"]
        assert found["source"]["key"] == {"format": "avro", "field": "id"}
        peeked = await asyncio.to_thread(CliRunner().invoke, main, ["peek", topic, "--json", *with_registry])
        assert {one["key"] for one in map(json.loads, peeked.stdout.splitlines())} <= set(map(str, range(KEYS)))

        definition = tables(
            table("planes", topic, key="{format: avro, field: id}", value="avro") + "    writable: true\n"
        )
        worker = make_worker(bootstrap, definition, group=unique("group"), schema_registry=registry.url)
        worker.start()
        await worker.wait_ready()
        for number in range(KEYS):
            assert await shown(worker, number) == (404 if number == 3 else {"seats": number})
        assert await shown(worker, KEYS) == 404

        url = f"{worker.url}/tables/planes"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{url}/7?wait=visible", json={"seats": -7}) as answer:
                assert answer.status == 200
                written = await answer.json()
            async with session.delete(f"{url}/8?wait=visible") as answer:
                assert answer.status == 200
        with SchemaRegistryClient({"url": registry.url}) as client:
            source = Confluent(bootstrap, client, topic)
            record = await source.record_at(written["partition"], written["offset"])
        key, headers = made.key(7)
        assert (record.key(), record.headers()) == (key, headers)
        assert (await shown(worker, 7), await shown(worker, 8)) == ({"seats": -7}, 404)
        # The producer's next record is of the same key, so that it takes the place of what was written.
        await made.send(7, 70)
        await made.send(8, 80)
        await wait_shown(worker, 7, {"seats": 70})
        await wait_shown(worker, 8, {"seats": 80})
        worker.kill()
        worker.start()
        await worker.wait_ready()
        assert (await shown(worker, 7), await shown(worker, 8)) == ({"seats": 70}, {"seats": 80})


async def test_a_table_that_takes_them_for_text_says_what_they_are(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, bootstrap = unique("planes"), kafka.bootstrap_servers
    await create_topic(bootstrap, topic, 1)
    async with StandInRegistry() as registry, AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        made = HeaderProducer(topic, producer, registry)
        for number in range(KEYS):
            await made.send(number, number)
        worker = make_worker(
            bootstrap,
            tables(table("planes", topic, value="avro")),
            group=unique("group"),
            schema_registry=registry.url,
        )
        worker.start()
        await worker.wait_ready()
        answer = await worker.get("/readyz?verbose")
        assert "header __key_schema_id: use key: avro or json_sr" in answer.body.decode()
