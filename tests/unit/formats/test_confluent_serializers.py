"""What the serialisers of Confluent's own client write, read: producers that nobody here wrote."""

import importlib
import json
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import Schema as Registered
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from grpc_tools import protoc

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.avro import AvroReader
from tablehouse.formats.avro_write import to_framed_avro
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.protobuf import ProtobufReader
from tablehouse.formats.schemas import Reference, Schema, SchemaNeeded
from tablehouse.formats.values import value_format
from tablehouse.formats.variants import Known
from tablehouse.turns import finish
from tests.support.schemas import FetchedSchemas

VALUE = SerializationContext("orders", MessageField.VALUE)
KEY = SerializationContext("orders", MessageField.KEY)


#: Serialisers name schemas in headers with this, by their GUIDs.
IN_HEADERS: dict[str, Any] = {"schema.id.serializer": header_schema_id_serializer}


@pytest.fixture
def registry() -> SchemaRegistryClient:
    return SchemaRegistryClient.new_client({"url": "mock://"})


def fetched(registry: SchemaRegistryClient, *subjects: str) -> FetchedSchemas:
    """Know all that was registered under some subjects, with what it refers to."""
    found = FetchedSchemas()
    for subject in subjects:
        for version in sorted(registry.get_versions(subject)):
            found.add(_schema(registry, subject, version))
    return found


def _schema(registry: SchemaRegistryClient, subject: str, version: int) -> Schema:
    registered: Any = registry.get_version(subject, version)
    references = tuple(
        Reference(one.name, one.subject, one.version, _schema(registry, one.subject, one.version))
        for one in registered.schema.references or ()
    )
    return Schema(registered.schema_id, registered.schema.schema_type, registered.schema.schema_str, references)


def by_guids(registry: SchemaRegistryClient, subject: str) -> FetchedSchemas:
    """Know what was registered under a subject by GUIDs alone."""
    found = FetchedSchemas()
    for version in registry.get_versions(subject):
        guid = registry.get_version(subject, version).guid
        assert guid is not None
        found.add(replace(_schema(registry, subject, version), id=UUID(guid)))
    return found


def in_header(part: MessageField = MessageField.VALUE) -> tuple[SerializationContext, Any]:
    """Return a context of a value or a key, and the list of headers to which its serialiser adds."""
    headers: Any = []
    return SerializationContext("orders", part, headers=headers), headers


# Avro

ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "who", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "rate", "type": ["null", "double"], "default": None},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [{"name": "what", "type": "string"}, {"name": "n", "type": "int"}],
                },
            },
        },
        {"name": "first", "type": ["null", "Line"], "default": None},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "SENT"]}},
        {"name": "notes", "type": {"type": "map", "values": ["long", "bytes"]}},
    ],
}
VALUE_OF_ORDER = {
    "id": 2**60 + 1,
    "total": Decimal("-12.30"),
    "day": date(2013, 1, 31),
    "at": datetime(2013, 1, 31, 5, 17, 0, 123456, tzinfo=UTC),
    "clock": time(5, 17, 0, 123000),
    "who": UUID("123e4567-e89b-12d3-a456-426614174abc"),
    "rate": float("nan"),
    "lines": [{"what": "tea", "n": 2}],
    "first": {"what": "tea", "n": 2},
    "state": "SENT",
    "notes": {"a": 5, "c": b"\x00"},
}
ROW_OF_ORDER = {
    "id": 2**60 + 1,
    "total": "-12.30",
    "day": "2013-01-31",
    "at": "2013-01-31T05:17:00.123456Z",
    "clock": "05:17:00.123",
    "who": "123e4567-e89b-12d3-a456-426614174abc",
    "rate": "NaN",
    "lines": [{"what": "tea", "n": 2}],
    "first": {"what": "tea", "n": 2},
    "state": "SENT",
    "notes": {"a": 5, "c": "AA=="},
}


def test_values_of_the_avro_serializer_at_the_ends_of_their_types_are_read_and_written_again(
    registry: SchemaRegistryClient,
) -> None:
    types: dict[str, tuple[Any, Any, Any]] = {
        "ratio": ("float", 0.1, 0.1),
        "greatest": ("float", 3.4028234663852886e38, 3.4028235e38),
        "day": ({"type": "int", "logicalType": "date"}, 2**31 - 1, "+5881580-07-11"),
        "at": ({"type": "long", "logicalType": "timestamp-millis"}, 253_402_300_800_000, "+10000-01-01T00:00:00.000Z"),
        "long_ago": ({"type": "long", "logicalType": "timestamp-micros"}, -(2**63), "-290308-12-21T19:59:05.224192Z"),
        "took": ({"type": "long", "connect.name": "io.debezium.time.MicroTime"}, -95_400_000_000, "-26:30:00.000000"),
        "count": ("long", -(2**63), -(2**63)),
    }
    fields = [{"name": name, "type": kind} for name, (kind, _, _) in types.items()]
    text = json.dumps({"type": "record", "name": "Ends", "fields": fields})
    wire = AvroSerializer(registry, text)({name: value for name, (_, value, _) in types.items()}, VALUE)
    schemas = fetched(registry, "orders-value")
    row = AvroReader(ValueSpec("avro"), "orders", schemas)(wire)
    assert json.loads(row) == {name: shows for name, (_, _, shows) in types.items()}
    assert to_framed_avro(row, schemas.latest("orders-value", -1)) == wire


def test_values_of_the_avro_serializer(registry: SchemaRegistryClient) -> None:
    wire = AvroSerializer(registry, json.dumps(ORDER))(VALUE_OF_ORDER, VALUE)
    read = AvroReader(ValueSpec("avro"), "orders", fetched(registry, "orders-value"))
    row = read(wire)
    assert json.loads(row) == ROW_OF_ORDER
    assert to_framed_avro(row, fetched(registry, "orders-value").known(1)) == wire


def test_bytes_alone_stand_behind_the_frame_without_their_length(registry: SchemaRegistryClient) -> None:
    content = bytes(range(200))
    wire = AvroSerializer(registry, '"bytes"')(content, VALUE)
    schemas = fetched(registry, "orders-value")
    row = AvroReader(ValueSpec("avro"), "orders", schemas)(wire)
    assert b64decode(json.loads(row)) == content
    assert to_framed_avro(row, schemas.known(1)) == wire


@pytest.mark.parametrize(
    ("schema", "value", "row"), [(json.dumps(ORDER), VALUE_OF_ORDER, ROW_OF_ORDER), ('"bytes"', b"\x00\xff", "AP8=")]
)
def test_values_of_avro_whose_schema_is_named_in_a_header(
    registry: SchemaRegistryClient, schema: str, value: Any, row: Any
) -> None:
    context, headers = in_header()
    wire = AvroSerializer(registry, schema, conf=IN_HEADERS)(value, context)
    read = AvroReader(ValueSpec("avro"), "orders", by_guids(registry, "orders-value"))
    assert json.loads(read(wire, headers)) == row
    assert json.loads(finish(read.in_pieces(wire, headers))) == row
    with pytest.raises(DecodeError):
        read(wire)


def test_of_several_headers_the_last_names_the_schema_and_one_may_have_an_id(registry: SchemaRegistryClient) -> None:
    context, headers = in_header()
    wire = AvroSerializer(registry, '"string"', conf=IN_HEADERS)("a", context)
    [version] = registry.get_versions("orders-value")
    number = _schema(registry, "orders-value", version).id
    assert isinstance(number, int)
    read = AvroReader(ValueSpec("avro"), "orders", fetched(registry, "orders-value"))
    by_id = ("__value_schema_id", b"\0" + number.to_bytes(4, "big"))
    assert read(wire, (*headers, by_id)) == b'"a"'
    with pytest.raises(SchemaNeeded):
        read(wire, (by_id, *headers))


@pytest.mark.parametrize("header", [b"", b"\x01" + bytes(15), b"\0\0\0\0", b"\x02" + bytes(16)])
def test_a_header_that_names_no_schema_is_a_decode_error(header: bytes) -> None:
    read = AvroReader(ValueSpec("avro"), "orders", FetchedSchemas())
    with pytest.raises(DecodeError, match="its header __value_schema_id is neither"):
        read(b"\0\0\0\0\x01data", (("__value_schema_id", header),))


def test_values_of_the_avro_serializer_before_and_after_the_schema_moves_on(registry: SchemaRegistryClient) -> None:
    first = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
    second = first | {"fields": [*first["fields"], {"name": "b", "type": "string", "default": "new"}]}
    old = AvroSerializer(registry, json.dumps(first))({"a": 1}, VALUE)
    new = AvroSerializer(registry, json.dumps(second))({"a": 2, "b": "x"}, VALUE)
    read = AvroReader(ValueSpec("avro"), "orders", fetched(registry, "orders-value"))
    assert (read(old), read(new)) == (b'{"a":1,"b":"new"}', b'{"a":2,"b":"x"}')


def test_values_of_the_avro_serializer_with_a_type_of_another_subject(registry: SchemaRegistryClient) -> None:
    line = {
        "type": "record",
        "name": "shop.Line",
        "fields": [{"name": "on", "type": {"type": "int", "logicalType": "date"}}],
    }
    registry.register_schema("line", Registered(json.dumps(line), "AVRO"))
    order = {"type": "record", "name": "shop.O", "fields": [{"name": "line", "type": "shop.Line"}]}
    schema = Registered(json.dumps(order), "AVRO", [SchemaReference("shop.Line", "line", 1)])
    wire = AvroSerializer(registry, schema)({"line": {"on": date(2013, 1, 31)}}, VALUE)
    read = AvroReader(ValueSpec("avro"), "orders", fetched(registry, "orders-value"))
    assert read(wire) == b'{"line":{"on":"2013-01-31"}}'


KEY_FIELDS = [
    {"name": "at", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]},
    {"name": "s", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
]


@pytest.mark.parametrize(
    ("schema", "fields", "value", "url"),
    [
        ('"string"', (), "ü", "ü".encode()),
        ('"long"', (), -42, b"-42"),
        ('"int"', (), 7, b"7"),
        ('"bytes"', (), b"\x00\xff", b"AP8"),
        ('"boolean"', (), True, b"true"),
        ('"double"', (), 1.5, b"1.5"),
        ('["null","string"]', (), "a", b"a"),
        ('{"type":"enum","name":"State","symbols":["NEW","SENT"]}', (), "SENT", b"SENT"),
        (
            json.dumps({"type": "record", "name": "K", "fields": KEY_FIELDS}),
            ("at", "s"),
            {"at": Decimal("-0.05"), "s": "X"},
            b'{"at":"-0.05","s":"X"}',
        ),
        (
            '{"type":"record","name":"K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"}]}',
            ("a", "b"),
            {"a": 1, "b": "x"},
            b'{"a":1,"b":"x"}',
        ),
    ],
)
def test_keys_of_the_avro_serializer_are_found_under_their_wire_form(
    registry: SchemaRegistryClient, schema: str, fields: tuple[str, ...], value: Any, url: bytes
) -> None:
    wire = AvroSerializer(registry, schema)(value, KEY)
    assert wire is not None
    known, spec = Known(fetched(registry, "orders-key")), KeySpec("avro", fields)
    keys = source_keys(SourceSpec("orders", spec, ValueSpec("json")), known)
    stored = keys.store(wire)
    key = keys.parse(url)
    assert (key.stored, key.wires) == (stored, (wire,))

    context, headers = in_header(MessageField.KEY)
    bare = AvroSerializer(registry, schema, conf=IN_HEADERS)(value, context)
    assert bare == wire[5:]
    known = Known(by_guids(registry, "orders-key"))
    named = source_keys(SourceSpec("orders", spec, ValueSpec("json")), known)
    assert named.store(bare, headers) == stored
    assert (named.text(stored), named.record_text(bare, headers)) == (url, url)
    key = named.parse(url)
    assert (key.stored, key.wires, dict(key.headers)) == (stored, (bare,), {bare: tuple(headers)})


def test_a_key_is_the_same_bytes_under_each_schema_that_a_header_names_and_others_behind_an_id(
    registry: SchemaRegistryClient,
) -> None:
    schemas = FetchedSchemas()
    spec = KeySpec("avro", ("s",), bare=True)
    keys = source_keys(SourceSpec("orders", spec, ValueSpec("json")), Known(schemas))
    wires: dict[bytes, Any] = {}
    for name in ("K", "L"):
        text = json.dumps({"type": "record", "name": name, "fields": KEY_FIELDS[1:]})
        context, headers = in_header(MessageField.KEY)
        bare = AvroSerializer(registry, text, conf=IN_HEADERS)({"s": "X"}, context)
        framed = AvroSerializer(registry, text)({"s": "X"}, KEY)
        assert bare is not None
        assert framed is not None
        schemas.add(Schema(UUID(bytes=headers[0][1][1:]), "AVRO", text))
        schemas.add(Schema(int.from_bytes(framed[1:5], "big"), "AVRO", text))
        assert keys.store(bare, headers) == keys.store(framed)
        wires |= {framed: [], bare: headers}
    key = keys.parse(b"X")
    assert key.stored == keys.store(bare, headers)
    assert sorted(key.wires) == sorted(wires)
    assert len(wires) == 3
    # A row is written as the newest producer writes it.
    assert dict(key.headers) == {bare: tuple(headers)}


# JSON Schema


def test_values_and_keys_of_the_json_serializer(registry: SchemaRegistryClient) -> None:
    schema = json.dumps({"title": "O", "type": "object", "properties": {"id": {"type": "integer"}}})
    value = JSONSerializer(schema, registry)({"id": 2**53 + 1, "name": "ü"}, VALUE)
    key = JSONSerializer(schema, registry)({"id": 7}, KEY)
    known = Known(fetched(registry, "orders-value", "orders-key"))
    source = SourceSpec("orders", KeySpec("json_sr", ("id",), bare=True), ValueSpec("json_sr"))
    row = value_format(TableSpec("t", source), known.schemas).decode(value)
    assert row is not None
    assert json.loads(row) == {"id": 2**53 + 1, "name": "ü"}
    keys = source_keys(source, known)
    assert key is not None
    assert keys.store(key) == keys.parse(b"7").stored

    context, headers = in_header(MessageField.KEY)
    bare = JSONSerializer(schema, registry, conf=IN_HEADERS)({"id": 7}, context)
    assert bare is not None
    known = Known(by_guids(registry, "orders-key"))
    named = source_keys(source, known)
    assert named.store(bare, headers) == keys.store(key)
    assert named.record_text(bare, headers) == b"7"
    with pytest.raises(DecodeError, match="its header __key_schema_id is neither"):
        named.store(bare, [("__key_schema_id", b"\x02")])


def test_values_of_json_schema_whose_schema_is_named_in_a_header(registry: SchemaRegistryClient) -> None:
    schema = json.dumps({"title": "O", "type": "object", "properties": {"id": {"type": "integer"}}})
    context, headers = in_header()
    value = JSONSerializer(schema, registry, conf=IN_HEADERS)({"id": 7}, context)
    table = TableSpec("t", SourceSpec("orders", KeySpec("string"), ValueSpec("json_sr")))
    row = value_format(table, by_guids(registry, "orders-value")).decode(value, headers)
    assert row is not None
    assert json.loads(row) == {"id": 7}


# Protobuf

COMMON = 'syntax = "proto3"; package shop; message Money { string currency = 1; int64 cents = 2; }'
SHOP = """
syntax = "proto3";
package shop;
import "confluent_test_common.proto";
import "google/protobuf/timestamp.proto";
message Ping { string who = 1; }
message Order {
  message Line { string what = 1; Money price = 2; }
  int64 id = 1;
  repeated Line lines = 2;
  google.protobuf.Timestamp at = 3;
}
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Compile SHOP as producers do; returns messages' classes by their names."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "confluent_test_common.proto").write_text(COMMON)
    (folder / "confluent_test_shop.proto").write_text(SHOP)
    included = Path(protoc.__file__).parent / "_proto"
    files = ["confluent_test_common.proto", "confluent_test_shop.proto"]
    assert protoc.main(["protoc", f"-I{folder}", f"-I{included}", f"--python_out={folder}", *files]) == 0
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("confluent_test_shop_pb2")
        yield lambda name: getattr(module, name)
    finally:
        sys.path.remove(str(folder))


def as_text(schemas: FetchedSchemas, registry: SchemaRegistryClient) -> ProtobufReader:
    """Read with the schemas as text, which most registries make of the descriptors that the client sends."""
    common = Schema(900, "PROTOBUF", COMMON)
    [version] = registry.get_versions("orders-value")
    number = _schema(registry, "orders-value", version).id
    assert schemas.known(number).references[0].name == "confluent_test_common.proto"
    references = (Reference("confluent_test_common.proto", "confluent_test_common.proto", 1, common),)
    return ProtobufReader(FetchedSchemas(Schema(number, "PROTOBUF", SHOP, references)))


def test_values_of_the_protobuf_serializer(registry: SchemaRegistryClient, generated: Callable[[str], Any]) -> None:
    order, ping = generated("Order"), generated("Ping")
    value = order(id=2**60 + 1, lines=[order.Line(what="tea", price={"currency": "EUR", "cents": -5})])
    value.at.FromDatetime(datetime(2013, 1, 31, 5, 17, tzinfo=UTC))
    wires = [
        ProtobufSerializer(kind, registry)(message, VALUE)
        for kind, message in (
            (order, value),
            (ping, ping(who="ü")),
            (order.Line, order.Line(what="x")),
        )
    ]
    schemas = fetched(registry, "orders-value")
    rows = [
        {
            "id": str(2**60 + 1),
            "lines": [{"what": "tea", "price": {"currency": "EUR", "cents": "-5"}}],
            "at": "2013-01-31T05:17:00Z",
        },
        {"who": "ü"},
        {"what": "x"},
    ]
    for read in (ProtobufReader(schemas), as_text(schemas, registry)):
        assert [json.loads(read(wire)) for wire in wires] == rows


def test_values_of_protobuf_whose_schema_and_message_are_named_in_a_header(
    registry: SchemaRegistryClient, generated: Callable[[str], Any]
) -> None:
    order = generated("Order")
    read: list[tuple[bytes, Any]] = []
    for kind, message in ((order, order(id=5)), (order.Line, order.Line(what="x"))):
        context, headers = in_header()
        read.append((ProtobufSerializer(kind, registry, IN_HEADERS)(message, context), headers))
    reader = ProtobufReader(by_guids(registry, "orders-value"))
    rows = [json.loads(reader(wire, headers)) for wire, headers in read]
    assert rows == [{"id": "5", "lines": []}, {"what": "x"}]
