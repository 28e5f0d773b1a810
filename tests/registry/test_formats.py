"""Tables of Avro, Protobuf and JSON Schema: Confluent's serialisers, a real registry, a real broker, real workers."""

import datetime as dt
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.json_format import MessageToDict

from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.schema_registry import EmbeddedRegistry
from tests.support.confluent import SUBJECTS, Confluent
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.protobuf import message_class
from tests.support.registry import StandInRegistry
from tests.support.schemas import framed
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

PLANE = json.dumps(
    {
        "type": "record",
        "name": "Plane",
        "fields": [
            {"name": "tailnum", "type": "string"},
            {"name": "seats", "type": "int"},
            {"name": "metres", "type": "long"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "built", "type": {"type": "int", "logicalType": "date"}},
            {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["JET", "PROPELLER"]}},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "photo", "type": "bytes"},
            {"name": "load", "type": "double"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {
                "name": "engine",
                "type": {"type": "record", "name": "Engine", "fields": [{"name": "thrust", "type": ["int", "string"]}]},
            },
        ],
    }
)


def plane(number: int) -> dict[str, Any]:
    """Return a value of PLANE."""
    return {
        "tailnum": f"N{number}é",
        "seats": number - 5,
        "metres": 2**53 + number,
        "price": Decimal(number * 7 - 20).scaleb(-2),
        "built": dt.date(1960, 1, 1) + dt.timedelta(days=number * 211),
        "seen": dt.datetime(2013, 1, 1, 5, 17, 0, 123_000, dt.UTC) - dt.timedelta(days=number * 999),
        "kind": ["JET", "PROPELLER"][number % 2],
        "note": None if number % 3 else f"nº {number}",
        "photo": bytes(range(number % 7)),
        "load": number / 7,
        "tags": ["a"] * (number % 4),
        "engine": {"thrust": number if number % 2 else "much"},
    }


def shown(value: Any) -> Any:
    """Return what docs/sources.md says that a row shows of a value as Confluent's deserialiser returns it."""
    if isinstance(value, dict):
        return {name: shown(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    show = _SHOWN.get(type(value))
    return value if show is None else show(value)


_SHOWN: Mapping[type, Callable[[Any], str]] = {
    Decimal: str,
    dt.datetime: lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z",
    dt.date: dt.date.isoformat,
    bytes: lambda value: b64encode(value).decode(),
}


@pytest.fixture
def client(registry: EmbeddedRegistry) -> Iterator[SchemaRegistryClient]:
    """Confluent's client of the registry."""
    with SchemaRegistryClient({"url": registry.url}) as client:
        yield client


@pytest.fixture
async def source(kafka: EmbeddedKafka, client: SchemaRegistryClient) -> Confluent:
    """Make a topic of three partitions."""
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 3)
    return Confluent(kafka.bootstrap_servers, client, topic)


async def started(
    make_worker: MakeWorker, kafka: EmbeddedKafka, registry: EmbeddedRegistry | StandInRegistry, *entries: str
) -> WorkerProcess:
    """Start a worker with some tables and wait until it has read their topics."""
    worker = make_worker(
        kafka.bootstrap_servers,
        tables(*entries),
        group=unique("group"),
        schema_registry=registry.url,
        schema_registry_unknown_after="1s",
    )
    worker.start()
    await worker.wait_ready()
    return worker


async def row(worker: WorkerProcess, name: str, key: str) -> Any:
    """Return a row; None for a 404 that says so."""
    answer = await worker.get(f"/tables/{name}/{quote(key, safe='')}")
    if answer.status == 404 and json.loads(answer.body)["code"] == "key_not_found":
        return None
    assert answer.status == 200, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


async def wait_row(worker: WorkerProcess, name: str, key: str, expected: Any) -> None:
    """Wait until a row is as expected."""

    async def there() -> bool:
        assert await row(worker, name, key) == expected
        return True

    await until(there, f"{name}/{key}", 60)


async def refused(worker: WorkerProcess, name: str) -> float:
    """Return how many values of a table could not be decoded, and are dead letters."""
    return await worker.metric("tablehouse_dead_letters_total", table=name, reason="undecodable_value")


async def test_avro_values_are_rows_as_confluent_s_own_reader_sees_them(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    values = {f"k{number}": source.avro(plane(number), PLANE) for number in range(60)}
    await source.produce(*values.items())
    worker = await started(
        make_worker,
        kafka,
        registry,
        table("planes", source.topic, value="avro"),
        table("seats", source.topic, value="avro") + "    columns: {n: seats, price: price}\n",
    )
    for key, value in values.items():
        read = shown(source.read_avro(value))
        assert await row(worker, "planes", key) == read
        assert await row(worker, "seats", key) == {"n": read["seats"], "price": read["price"]}
    assert await row(worker, "planes", "k60") is None
    answer = await worker.get("/tables/planes/k1")
    assert b'"metres":9007199254740993' in answer.body
    await source.produce(("k1", None))
    await wait_row(worker, "planes", "k1", None)


async def test_librdkafka_s_own_partitioner_is_crc32(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, client: SchemaRegistryClient, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 5)
    source = Confluent(kafka.bootstrap_servers, client, topic, partitioner="consistent_random")
    value = source.avro(plane(4), PLANE)
    keys = {f"k{number}": source.avro(f"k{number}", '"string"', MessageField.KEY) for number in range(20)}
    await source.produce(*((key, value) for key in keys.values()))
    worker = await started(
        make_worker, kafka, registry, table("planes", topic, key="avro", value="avro", partitioner="crc32")
    )
    for key in keys:
        assert await row(worker, "planes", key) == shown(source.read_avro(value))
    assert await row(worker, "planes", "k20") is None
    assert await worker.metric("tablehouse_misses_in_doubt", table="planes") == 0


STRING_FIELD = '{"type":"record","name":"K","fields":[{"name":"tail","type":"string"}]}'
TWO_FIELDS = '{"type":"record","name":"K","fields":[{"name":"carrier","type":"string"},{"name":"flight","type":"int"}]}'


FARE = json.dumps(
    {
        "type": "record",
        "name": "Fare",
        "fields": [
            {"name": "fare", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
            {"name": "class", "type": {"type": "enum", "name": "Class", "symbols": ["ECONOMY", "FIRST"]}},
        ],
    }
)


@pytest.mark.parametrize(
    ("spec", "schema", "keys"),
    [
        ("avro", '"string"', {f"N/{n} ü": f"N/{n} ü" for n in range(12)}),
        ("avro", '"int"', {str(n): n for n in range(-6, 6)}),
        ("avro", '"long"', {str(n): n for n in range(2**40, 2**40 + 12)}),
        ("avro", '"bytes"', {"AAEC_w": b"\0\1\2\xff", "": b""}),
        ("{format: avro, field: tail}", STRING_FIELD, {f"N{n}": {"tail": f"N{n}"} for n in range(12)}),
        (
            "{format: avro, fields: [carrier, flight]}",
            TWO_FIELDS,
            {f'{{"carrier":"UA","flight":{n}}}': {"carrier": "UA", "flight": n} for n in range(12)},
        ),
        (
            "{format: avro, fields: [fare, class]}",
            FARE,
            {
                f'{{"fare":"{n}.50","class":"ECONOMY"}}': {"fare": Decimal(f"{n}.5"), "class": "ECONOMY"}
                for n in range(12)
            },
        ),
    ],
)
async def test_avro_keys_are_found_by_what_they_mean(
    kafka: EmbeddedKafka,
    registry: EmbeddedRegistry,
    source: Confluent,
    make_worker: MakeWorker,
    spec: str,
    schema: str,
    keys: Mapping[str, Any],
) -> None:
    wires = {text: source.avro(key, schema, MessageField.KEY) for text, key in keys.items()}
    await source.produce(*((wire, json.dumps({"is": text}).encode()) for text, wire in wires.items()))
    worker = await started(make_worker, kafka, registry, table("planes", source.topic, key=spec))
    for text in keys:
        answer = await worker.get(f"/tables/planes:get?key={quote(text, safe='')}")
        assert (answer.status, json.loads(answer.body)) == (200, {"is": text})
    wrong = await worker.get("/tables/planes:get?key=%22nobody%22%3A")
    assert wrong.status == (404 if '"string"' in schema and "fields" not in spec else 400), wrong.body


def fields(*given: dict[str, Any]) -> str:
    """Return the schema of a Plane with these fields."""
    return json.dumps({"type": "record", "name": "Plane", "fields": list(given)})


FIRST = fields({"name": "tailnum", "type": "string"}, {"name": "seats", "type": "int"}, {"name": "old", "type": "int"})
#: Added with a default, removed, renamed by an alias, and promoted.
SECOND = fields(
    {"name": "registration", "type": "string", "aliases": ["tailnum"]},
    {"name": "seats", "type": "long"},
    {"name": "maker", "type": "string", "default": "unknown"},
)


@pytest.mark.parametrize("wanted", ["first", "second", "file", "latest"])
async def test_rows_have_the_schema_that_the_table_names_through_an_evolution(
    kafka: EmbeddedKafka,
    registry: EmbeddedRegistry,
    source: Confluent,
    make_worker: MakeWorker,
    tmp_path: Path,
    wanted: str,
) -> None:
    first = source.register(FIRST, compatibility="NONE")
    old = source.avro({"tailnum": "N1", "seats": 7, "old": 1}, FIRST)
    await source.produce(("before", old))
    ids = {"first": str(first), "latest": "latest"}
    if wanted == "second":
        ids["second"] = str(source.register(SECOND))
    if wanted == "file":
        path = tmp_path / "plane.avsc"
        path.write_text(SECOND)
        ids["file"] = str(path)
    spec = f"{{format: avro, schema: {ids[wanted]}}}"
    worker = await started(make_worker, kafka, registry, table("planes", source.topic, value=spec))
    as_second = SECOND if wanted in {"second", "file"} else FIRST
    await wait_row(worker, "planes", "before", source.read_avro(old, as_second))

    new = source.avro({"registration": "N2", "seats": 2**40, "maker": "BOEING"}, SECOND)
    await source.produce(("after", new))
    if wanted == "first":
        await source.produce(("again", old))
        # `old` has no default, so nothing written with the second schema can be read as the first.
        await wait_row(worker, "planes", "again", {"tailnum": "N1", "seats": 7, "old": 1})
        assert await row(worker, "planes", "after") is None
        assert await refused(worker, "planes") == 1
        return
    await wait_row(worker, "planes", "after", {"registration": "N2", "seats": 2**40, "maker": "BOEING"})
    await source.produce(("again", old))
    await wait_row(worker, "planes", "again", {"registration": "N1", "seats": 7, "maker": "unknown"})
    assert source.read_avro(old, SECOND) == {"registration": "N1", "seats": 7, "maker": "unknown"}
    assert await refused(worker, "planes") == 0


async def test_what_cannot_be_read_as_the_table_s_schema_is_refused_and_its_neighbours_are_not(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    first = source.register(FIRST, compatibility="NONE")
    incompatible = fields({"name": "tailnum", "type": "string"}, {"name": "seats", "type": "string"})
    good = source.avro({"tailnum": "N1", "seats": 7, "old": 1}, FIRST)
    bad = source.avro({"tailnum": "N1", "seats": "many"}, incompatible)
    worker = await started(
        make_worker, kafka, registry, table("planes", source.topic, value=f"{{format: avro, schema: {first}}}")
    )
    unknown = framed(2**30, good[5:])
    await source.produce(
        ("a", good), ("b", bad), ("c", good), ("b2", unknown), ("d", good), ("e", b"plain"), ("f", good)
    )
    for key in "acdf":
        await wait_row(worker, "planes", key, {"tailnum": "N1", "seats": 7, "old": 1})

    async def counted() -> bool:
        return await refused(worker, "planes") == 3

    await until(counted, "three records are dead letters")
    for key in ("b", "b2", "e"):
        assert await row(worker, "planes", key) is None


async def test_a_key_whose_schema_evolved_lies_in_two_partitions_and_its_newest_row_is_served(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    source.register(STRING_FIELD, part="key", compatibility="NONE")
    other = STRING_FIELD.replace('"K"', '"Second"')
    keys = [f"N{number}" for number in range(30)]

    def record(key: str, schema: str, text: str) -> tuple[bytes, bytes]:
        return source.avro({"tail": key}, schema, MessageField.KEY), json.dumps(text).encode()

    old = await source.produce(*(record(key, STRING_FIELD, "old") for key in keys))
    worker = await started(
        make_worker, kafka, registry, table("planes", source.topic, key="{format: avro, field: tail}")
    )
    for key in keys:
        assert await row(worker, "planes", key) == "old"
    new = await source.produce(*(record(key, other, "new") for key in keys[:20]))
    assert any(before[0] != after[0] for before, after in zip(old, new, strict=False))
    for key in keys[:20]:
        await wait_row(worker, "planes", key, "new")
    for key in keys[20:]:
        assert await row(worker, "planes", key) == "old"

    assert await row(worker, "planes", "N99") is None
    _, located = await worker.document("/tables/planes:locate?key=N99")
    assert {found["partition"] for found in located["locations"]} == {0, 1, 2}


PROTO = """
syntax = "proto3";
package fleet;
import "google/protobuf/timestamp.proto";
message Other { string x = 1; }
message Plane {
  string tailnum = 1;
  int64 metres = 2;
  optional int32 seats = 3;
  repeated string tags = 4;
  Kind kind = 5;
  bytes photo = 6;
  google.protobuf.Timestamp seen = 7;
  Engine engine = 8;
  enum Kind { UNKNOWN = 0; JET = 1; }
  message Engine { double thrust = 1; }
}
"""


@pytest.mark.parametrize("registered", ["by the producer", "as text"])
async def test_protobuf_values_are_rows(
    kafka: EmbeddedKafka,
    registry: EmbeddedRegistry,
    source: Confluent,
    make_worker: MakeWorker,
    tmp_path: Path,
    registered: str,
) -> None:
    kind = message_class(tmp_path, PROTO, "fleet.Plane")
    serialise = ProtobufSerializer(kind, source.registry, {"use.deprecated.format": False} | SUBJECTS)
    context = SerializationContext(source.topic, MessageField.VALUE)
    messages = {
        f"k{number}": kind(
            tailnum=f"N{number}é",
            metres=2**60 + number,
            tags=["a"] * (number % 3),
            kind=number % 2,
            photo=b"\xff" * number,
            **({"seats": 0} if number % 2 else {}),
            **({"engine": {"thrust": number / 7}} if number % 3 else {}),
        )
        for number in range(8)
    }
    messages["k3"].seen.FromJsonString("2013-01-01T05:17:00.123Z")
    wires = {key: serialise(value, context) for key, value in messages.items()}
    if registered == "as text":
        # What the registry makes of this version for Confluent's client of Python, that client cannot read.
        schema_id = source.register(PROTO, "PROTOBUF", compatibility="NONE")
        wires = {key: framed(schema_id, wire[5:]) for key, wire in wires.items() if wire is not None}
    await source.produce(*wires.items())
    worker = await started(make_worker, kafka, registry, table("planes", source.topic, value="protobuf"))
    for key, value in messages.items():
        assert await row(worker, "planes", key) == MessageToDict(
            value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    assert await refused(worker, "planes") == 0


async def test_values_and_keys_of_json_schema_are_rows(
    kafka: EmbeddedKafka, registry: EmbeddedRegistry, source: Confluent, make_worker: MakeWorker
) -> None:
    schema = json.dumps(
        {
            "title": "Plane",
            "type": "object",
            "properties": {"tailnum": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["tailnum"],
        }
    )
    key_schema = json.dumps({"title": "Key", "type": "object", "properties": {"tail": {"type": "string"}}})
    values, keys = (JSONSerializer(text, source.registry, conf=SUBJECTS) for text in (schema, key_schema))
    rows = {f"N{number}": {"tailnum": f"N{number}é", "seats": 2**53 + number} for number in range(10)}
    wires = {
        key: (
            keys({"tail": key}, SerializationContext(source.topic, MessageField.KEY)),
            values(value, SerializationContext(source.topic, MessageField.VALUE)),
        )
        for key, value in rows.items()
    }
    await source.produce(*wires.values())
    read = JSONDeserializer(schema)
    worker = await started(
        make_worker,
        kafka,
        registry,
        table("planes", source.topic, key="{format: json_sr, field: tail}", value="json_sr"),
    )
    for key, (_, value) in wires.items():
        assert await row(worker, "planes", f'"{key}"') == read(
            value, SerializationContext(source.topic, MessageField.VALUE)
        )
    assert await row(worker, "planes", '"N10"') is None


async def test_a_schema_is_named_in_front_of_a_value_or_by_its_guid_in_a_header_record_by_record(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 3)
    text = json.dumps({"type": "record", "name": "P", "fields": [{"name": "seats", "type": "int"}]})
    # Apicurio looks no schemas up by their GUIDs, so what the serialiser registers is copied to one that does.
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    in_headers: dict[str, Any] = {"schema.id.serializer": header_schema_id_serializer}
    serialisers = [AvroSerializer(client, text, conf=SUBJECTS | conf) for conf in ({}, in_headers)]
    async with StandInRegistry() as stand_in, AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(10):
            headers: Any = []
            context = SerializationContext(topic, MessageField.VALUE, headers=headers)
            value = serialisers[number % 2]({"seats": number}, context)
            assert len(headers) == number % 2
            await producer.send_and_wait(topic, value, key=b"N%d" % number, headers=headers)
        registered = client.get_latest_version(f"{topic}-value")
        assert registered.guid is not None
        assert registered.schema_id is not None
        stand_in.register(f"{topic}-value", registered.schema_id, text)
        stand_in.guids = {registered.guid: registered.schema_id}
        unknown = ("__value_schema_id", b"\x01" + bytes(16))
        await producer.send_and_wait(topic, b"\x02", key=b"N0", headers=[unknown])
        worker = await started(make_worker, kafka, stand_in, table("planes", topic, value="avro"))
        for number in range(10):
            assert await row(worker, "planes", f"N{number}") == {"seats": number}
        assert await refused(worker, "planes") == 1


async def test_a_topic_of_several_types_has_rows_of_one_subject_or_as_each_was_written(
    kafka: EmbeddedKafka,
    registry: EmbeddedRegistry,
    client: SchemaRegistryClient,
    source: Confluent,
    make_worker: MakeWorker,
) -> None:
    placed = {"type": "record", "name": "Placed", "fields": [{"name": "total", "type": "int"}]}
    more = placed | {"fields": [*placed["fields"], {"name": "currency", "type": "string", "default": "EUR"}]}
    shipped = {"type": "record", "name": "Shipped", "fields": [{"name": "by", "type": "string"}]}
    context = SerializationContext(source.topic, MessageField.VALUE)
    by_type = {"subject.name.strategy": topic_record_subject_name_strategy}
    values = [({"total": 5}, placed), ({"by": "post"}, shipped), ({"total": 6, "currency": "CHF"}, more)]
    wires = [AvroSerializer(client, json.dumps(schema), conf=by_type)(value, context) for value, schema in values]
    await source.produce(*((f"o{number}", wire) for number, wire in enumerate(wires)))
    worker = await started(
        make_worker,
        kafka,
        registry,
        table("events", source.topic, value="{format: avro, schema: written}"),
        table("placed", source.topic, value=f"{{format: avro, subject: {source.topic}-Placed}}"),
    )
    for number, (value, _) in enumerate(values):
        assert await row(worker, "events", f"o{number}") == value
    assert await row(worker, "placed", "o0") == {"total": 5, "currency": "EUR"}
    assert await row(worker, "placed", "o1") is None
    assert await row(worker, "placed", "o2") == {"total": 6, "currency": "CHF"}
    assert (await refused(worker, "events"), await refused(worker, "placed")) == (0, 1)
    answer = await worker.get("/tables/events/o0", headers={"Accept": "avro/binary"})
    assert answer.status == 406
