"""Keys behind schemas: what is stored, where a lookup begins, and what is refused."""

import json
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import KeyFormatName, KeySpec, SourceSpec, ValueSpec
from tablehouse.errors import InvalidKey, KeySchemaUnknown
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import KeyFormat
from tablehouse.formats.schemas import Schema, SchemaNeeded
from tablehouse.formats.variants import MAX_VARIANTS, Known
from tests.support.avro import avro_schema, record, written
from tests.support.schemas import FetchedSchemas, MemorySchemas, framed

if TYPE_CHECKING:
    from tablehouse.formats.framing import Headers

TEXT, INT, LONG = avro_schema(1, "string"), avro_schema(2, "int"), avro_schema(3, "long")
PAIR = record(("b", "string"), ("a", "long"), name="Key")


def keys_of(spec: KeySpec, *schemas: Schema, known: Known | None = None) -> KeyFormat:
    return source_keys(SourceSpec("orders", spec, ValueSpec("json")), known or Known(FetchedSchemas(*schemas)))


def avro_keys(*schemas: Schema, fields: tuple[str, ...] = (), bare: bool = False) -> KeyFormat:
    return keys_of(KeySpec("avro", fields, bare), *schemas)


# Avro


@pytest.mark.parametrize(
    ("schema", "value", "url"),
    [
        ("string", "a/ü", "a/ü".encode()),
        ("string", "", b""),
        ("string", "42", b"42"),
        ("int", -(2**31), b"-2147483648"),
        ("long", 2**63 - 1, b"9223372036854775807"),
        ("long", 0, b"0"),
        ("boolean", False, b"false"),
        ({"type": "string", "logicalType": "uuid"}, "x", b"x"),
        ({"type": "int", "logicalType": "date"}, 5, b"5"),
    ],
)
def test_a_primitive_avro_key_is_its_text_in_a_url(schema: Any, value: Any, url: bytes) -> None:
    keys = avro_keys(avro_schema(7, schema))
    wire = framed(7, written(schema if isinstance(schema, str) else schema["type"], value))
    stored = keys.store(wire)
    key = keys.parse(url)
    assert (key.stored, key.wires, key.enumerable) == (stored, (wire,), False)


MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
SMALL = {"type": "fixed", "name": "Small", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2}
STATE = {"type": "enum", "name": "State", "symbols": ["NEW", "SENT"]}
ANY_SCALE = record(("scale", "int"), ("value", "bytes"), name="io.debezium.data.VariableScaleDecimal") | {
    "connect.name": "io.debezium.data.VariableScaleDecimal"
}
ORACLE_NUMBER = {
    "type": "bytes",
    "connect.name": "org.apache.kafka.connect.data.Decimal",
    "connect.parameters": {"scale": "-2"},
}


@pytest.mark.parametrize(
    ("schema", "content", "url"),
    [
        (["null", "long"], b"\x02\x54", b"42"),
        (["string", "null"], b"\x00\x02a", b"a"),
        (STATE, b"\x02", b"SENT"),
        (["null", STATE], b"\x02\x00", b"NEW"),
        ("double", struct.pack("<d", 0.1), b"0.1"),
        ("double", struct.pack("<d", 5.0), b"5.0"),
        ("double", struct.pack("<d", -1e100), b"-1e100"),
        ("double", struct.pack("<d", float("-inf")), b"-Infinity"),
        ("double", struct.pack("<d", float("nan")), b"NaN"),
        ("float", struct.pack("<f", 0.1), b"0.1"),
        (["null", "float"], b"\x02" + struct.pack("<f", 16777216.0), b"16777216.0"),
        (["null", MONEY], b"\x02\x04\x04\xce", b"12.30"),
        (SMALL, (-5).to_bytes(2, "big", signed=True), b"-0.05"),
        (["null", ORACLE_NUMBER], b"\x02\x02\x0c", b"1200"),
        (ANY_SCALE, b"\x04\x04\x04\xce", b"12.30"),
        (["null", ANY_SCALE], b"\x02\x00\x02\x80", b"-128"),
    ],
)
def test_an_avro_key_is_in_a_url_what_people_read(schema: Any, content: bytes, url: bytes) -> None:
    for whole, fields in ((schema, ()), (record(("k", schema), name="Key"), ("k",))):
        wire = framed(7, content)
        keys = avro_keys(avro_schema(7, whole), fields=fields, bare=bool(fields))
        stored = keys.store(wire)
        key = keys.parse(url)
        assert (key.stored, key.wires) == (stored, (wire,))
        assert (keys.text(stored), keys.record_text(wire)) == (url, url)


@pytest.mark.parametrize(
    ("schema", "url", "reason"),
    [
        ("double", b"5", "fewest digits"),
        ("double", b"1_0.0", "fewest digits"),
        ("double", b"1.50", "fewest digits"),
        ("double", b"nan", "fewest digits"),
        ("float", b"0.10000000149011612", "fewest digits"),
        ("float", b"1e300", "fewest digits"),
        (MONEY, b"12.3", "use all 2 digits"),
        (MONEY, b"12", "use all 2 digits"),
        (MONEY, b"012.30", "use all 2 digits"),
        (MONEY, b"-0.00", "use all 2 digits"),
        (MONEY, b"12.301", "use all 2 digits"),
        (MONEY, b"x", "use all 2 digits"),
        (ANY_SCALE, b"1e5", "like 12.30"),
    ],
)
def test_another_text_of_a_number_is_refused_with_what_would_be_right(schema: Any, url: bytes, reason: str) -> None:
    known = Known(FetchedSchemas(avro_schema(7, schema)))
    known.keys_of("orders").learn((7).to_bytes(4, "big"))
    with pytest.raises(InvalidKey, match=reason):
        keys_of(KeySpec("avro"), known=known).parse(url)


@pytest.mark.parametrize(("schema", "url"), [(STATE, b"GONE"), (SMALL, b"1000.00")])
def test_what_a_schema_has_no_value_for_is_no_key_of_it(schema: Any, url: bytes) -> None:
    known = Known(FetchedSchemas(avro_schema(7, schema)))
    known.keys_of("orders").learn((7).to_bytes(4, "big"))
    assert keys_of(KeySpec("avro"), known=known).parse(url).wires == ()


@pytest.mark.parametrize("fields", [(), ("k",)])
def test_an_avro_key_that_is_null_is_refused_and_named(fields: tuple[str, ...]) -> None:
    union: Any = ["null", "string"]
    keys = avro_keys(avro_schema(7, record(("k", union)) if fields else union), fields=fields)
    with pytest.raises(DecodeError, match="schema 7 is null, and a key is not"):
        keys.store(framed(7, b"\x00"))


def test_the_key_of_debezium_s_logical_table_router_has_the_table_s_name_as_a_member() -> None:
    schema = record(("id", "long"), ("__dbz__physicalTableIdentifier", "string"), name="Key")
    spec = KeySpec("avro", ("id", "__dbz__physicalTableIdentifier"))
    keys = keys_of(spec, avro_schema(7, schema))
    wire = framed(7, written(schema, {"id": 7, "__dbz__physicalTableIdentifier": "shop.orders_1"}))
    stored = keys.store(wire)
    text = b'{"id":7,"__dbz__physicalTableIdentifier":"shop.orders_1"}'
    assert (keys.parse(text).stored, keys.parse(text).wires) == (stored, (wire,))
    assert (keys.text(stored), keys.record_text(wire)) == (text, text)


def test_avro_bytes_are_base64url_in_a_url_without_padding() -> None:
    keys = avro_keys(avro_schema(7, "bytes"))
    stored = keys.store(framed(7, b"\xff\x00"))
    assert keys.parse(b"_wA").stored == stored
    assert keys.parse(b"_wA").wires == (framed(7, b"\xff\x00"),)
    with pytest.raises(InvalidKey, match="without padding"):
        keys.parse(b"_wA=")


def test_an_avro_record_is_a_json_object_of_its_fields_stored_in_the_order_of_the_table() -> None:
    keys = avro_keys(avro_schema(7, PAIR), fields=("a", "b"))
    wire = framed(7, written(PAIR, {"a": 5, "b": "x"}))
    stored = keys.store(wire)
    key = keys.parse(b'{"b":"x", "a":5}')
    assert (key.stored, key.wires) == (stored, (wire,))
    later = keys.store(framed(7, written(PAIR, {"a": 6, "b": "a"})))
    assert stored < later


def test_the_field_of_a_bare_key_stands_in_a_url_alone() -> None:
    schema = record(("id", "string"), name="Key")
    keys = avro_keys(avro_schema(7, schema), fields=("id",), bare=True)
    wire = framed(7, written(schema, {"id": "42"}))
    stored = keys.store(wire)
    assert (keys.parse(b"42").stored, keys.parse(b"42").wires) == (stored, (wire,))


@pytest.mark.parametrize(
    ("schema", "fields", "url", "reason"),
    [
        ("string", (), b"\xff", "not valid UTF-8"),
        ("long", (), b"x", "not an integer of 64 bits"),
        ("long", (), b"01", "not an integer"),
        ("long", (), b"9223372036854775808", "not an integer"),
        ("boolean", (), b"1", "use true or false"),
        ("bytes", (), b"a", "not base64url"),
        ("bytes", (), b"a+/=", "not base64url"),
        (PAIR, ("a", "b"), b"5", "members are not exactly a, b"),
        (PAIR, ("a", "b"), b'{"a":1}', "members are not exactly a, b"),
        (PAIR, ("a", "b"), b'{"a":1,"b":null}', "a string, a number, true or false"),
        (PAIR, ("a", "b"), b'{"a":1.5,"b":"x"}', "not an integer"),
        (PAIR, ("a", "b"), b'{"a":"x","b":"x"}', "not an integer"),
        (PAIR, ("a", "b"), b"{", "not JSON"),
    ],
)
def test_a_url_that_is_no_key_of_the_schema_is_refused_with_what_would_be(
    schema: Any, fields: tuple[str, ...], url: bytes, reason: str
) -> None:
    keys = avro_keys(avro_schema(7, schema), fields=fields)
    with_schema = {"string": "a", "long": 1, "boolean": True, "bytes": b"a"}
    content = written(schema, with_schema[schema] if isinstance(schema, str) else {"a": 1, "b": "x"})
    keys.store(framed(7, b"a" if schema == "bytes" else content))
    with pytest.raises(InvalidKey, match=reason):
        keys.parse(url)


def test_a_key_has_one_wire_form_for_each_schema_the_one_learnt_last_first() -> None:
    keys = avro_keys(INT, LONG, avro_schema(4, {"type": "long", "doc": "newer"}))
    stored = [keys.store(framed(number, written("long", 42))) for number in (2, 3, 4)]
    assert len(set(stored)) == 1
    assert keys.parse(b"42").wires == tuple(framed(number, written("long", 42)) for number in (4, 3, 2))


def test_an_int_has_no_form_of_a_greater_number() -> None:
    keys = avro_keys(INT, LONG)
    keys.store(framed(2, written("int", 1)))
    assert keys.parse(str(2**40).encode()).wires == ()
    keys.store(framed(3, written("long", 1)))
    assert keys.parse(str(2**40).encode()).wires == (framed(3, written("long", 2**40)),)


@pytest.mark.parametrize("first", [1, 3])
def test_a_key_is_stored_alike_whatever_its_type_and_whichever_schema_is_learnt_first(first: int) -> None:
    keys = avro_keys(TEXT, LONG)
    wires = {1: framed(1, written("string", "42")), 3: framed(3, written("long", 42))}
    stored = [keys.store(wires[number]) for number in (first, 4 - first)]
    key = keys.parse(b"42")
    assert {key.stored} == set(stored)
    assert set(key.wires) == set(wires.values())
    # What only some of the types can be is looked for under these.
    assert keys.parse(b"x").wires == (framed(1, written("string", "x")),)


@pytest.mark.parametrize("text", ["0", "-1", "007", "", "9223372036854775807", "9223372036854775808", "-0", "é"])
def test_a_text_is_found_where_the_same_text_is_stored(text: str) -> None:
    keys = avro_keys(TEXT)
    assert keys.store(framed(1, written("string", text))) == keys.parse(text.encode()).stored


@pytest.mark.parametrize(
    ("schema", "fields", "reason"),
    [
        (["null", "string", "int"], (), "schema 7 is of type union"),
        (["string"], (), "schema 7 is of type union"),
        ({"type": "array", "items": "int"}, (), "schema 7 is of type array"),
        ({"type": "fixed", "name": "F", "size": 2}, (), "schema 7 is of type fixed"),
        (PAIR, (), "schema 7 is of type record"),
        ("string", ("a",), "schema 7 is not a record, and the table's keys are records of a"),
        (PAIR, ("a",), "schema 7 has the fields b, a, and the table's keys have a"),
        (record(("a", ["int", "long"])), ("a",), "field a of schema 7 is of type union"),
        (record(("a", record(("x", "int"), name="X"))), ("a",), "field a of schema 7 is of type record"),
    ],
)
def test_a_schema_that_makes_no_keys_of_the_table_is_refused(schema: Any, fields: tuple[str, ...], reason: str) -> None:
    keys = avro_keys(avro_schema(7, schema), fields=fields)
    for _ in range(2):
        with pytest.raises(DecodeError, match=reason):
            keys.store(framed(7, b"\x00\x00"))
    with pytest.raises(KeySchemaUnknown):
        keys.parse(b"x")


@pytest.mark.parametrize("content", [b"", b"\x04a", b"\x02ab", b"\x02\xff", b"\xff" * 12])
def test_content_that_is_no_avro_is_a_decode_error_and_its_schema_not_learnt(content: bytes) -> None:
    keys = avro_keys(TEXT)
    with pytest.raises(DecodeError):
        keys.store(framed(1, content))
    with pytest.raises(KeySchemaUnknown):
        keys.parse(b"a")


async def test_registered_schemas_that_no_key_of_the_table_can_have_are_passed_over() -> None:
    schemas = MemorySchemas(avro_schema(1, ["int", "long"]), Schema(2, "JSON", "{}"), avro_schema(3, PAIR))
    schemas.registered[4] = avro_schema(4, "long")
    known = Known(schemas)
    keys = keys_of(KeySpec("avro"), known=known)
    pairs = keys_of(KeySpec("avro", ("a", "b")), known=known)
    with pytest.raises(KeySchemaUnknown, match="no suitable schema is registered as orders-key"):
        keys.parse(b"42")
    schemas.subjects["orders-key"] = [1, 2]
    await known.keys_of("orders").refresh()
    with pytest.raises(KeySchemaUnknown):
        keys.parse(b"42")
    schemas.subjects["orders-key"] = [1, 2, 3, 4]
    await known.keys_of("orders").refresh()
    assert keys.parse(b"42").wires == (framed(4, written("long", 42)),)
    assert pairs.parse(b'{"a":1,"b":"x"}').wires == (framed(3, written(PAIR, {"a": 1, "b": "x"})),)


@pytest.mark.parametrize("read_first", [3, 5, None])
async def test_the_newest_version_comes_first_whichever_was_read_before_the_registry_was_asked(
    read_first: int | None,
) -> None:
    schemas = MemorySchemas(*(Schema(number, "JSON", "{}") for number in (3, 5, 9)))
    schemas.subjects["orders-key"] = [3, 5]
    for number in (3, 5, 9):
        await schemas.fetch(number)
    known = Known(schemas)
    keys = keys_of(KeySpec("json_sr"), known=known)
    if read_first is not None:
        keys.store(framed(read_first, b"1"))
    await known.keys_of("orders").refresh()
    assert keys.parse(b"1").wires == (framed(5, b"1"), framed(3, b"1"))
    keys.store(framed(9, b"1"))
    await known.keys_of("orders").refresh()
    assert keys.parse(b"1").wires == (framed(9, b"1"), framed(5, b"1"), framed(3, b"1"))


def test_keys_whose_schema_is_not_there_ask_for_it() -> None:
    for spec in (KeySpec("avro"), KeySpec("json_sr")):
        with pytest.raises(SchemaNeeded):
            keys_of(spec).store(framed(5, b"1"))
        with pytest.raises(DecodeError, match="does not begin with a zero byte"):
            keys_of(spec).store(b"1")


def in_avro(kind: str, values: list[Any]) -> list[bytes]:
    keys = avro_keys(avro_schema(1, kind))
    return [keys.store(framed(1, value if kind == "bytes" else written(kind, value))) for value in values]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8), st.lists(st.text(), unique=True, max_size=8))
def test_avro_integers_are_stored_in_the_order_of_their_values_and_each_text_apart(
    numbers: list[int], texts: list[str]
) -> None:
    assert sorted(in_avro("long", numbers)) == in_avro("long", sorted(numbers))
    assert len(set(in_avro("string", texts))) == len(texts)


# JSON behind the id of its schema


def test_a_json_key_behind_an_id_has_one_wire_form_for_each_id() -> None:
    keys = keys_of(KeySpec("json_sr", ("b", "a")), Schema(1, "JSON", "{}"), Schema(2, "JSON", "{}"))
    assert keys.parse(b'{"a":1,"b":2}').wires == ()
    stored = keys.store(framed(1, b'{ "a": 1, "b": 2 }'))
    assert keys.store(framed(2, b'{"b":2,"a":1}')) == stored
    key = keys.parse(b'{"a":1,"b":2}')
    assert (key.stored, key.enumerable) == (stored, False)
    assert key.wires == (framed(2, b'{"b":2,"a":1}'), framed(1, b'{"b":2,"a":1}'))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a":1}', b"1e999", b'"\xff"'])
def test_json_that_is_no_key_is_refused_and_its_schema_not_learnt(content: bytes) -> None:
    keys = keys_of(KeySpec("json_sr"), Schema(1, "JSON", "{}"))
    with pytest.raises(DecodeError):
        keys.store(framed(1, content))
    assert keys.parse(b"1").wires == ()


def test_a_json_key_behind_the_id_of_another_kind_of_schema_is_refused() -> None:
    keys = keys_of(KeySpec("json_sr"), TEXT)
    with pytest.raises(DecodeError, match="schema 1 is of type AVRO, and the keys' format is json_sr"):
        keys.store(framed(1, b"1"))


@pytest.mark.parametrize(
    ("wire", "others"),
    [
        (b'{"id": 7, "n": "\\u00fc"}', [b'{"id":7,"n":"\xc3\xbc"}']),
        (b'{"id":7,"n":"\\u003c"}', [b'{"id":7,"n":"<"}']),
        (b'{"id":7,"n":"a"}', []),
    ],
)
def test_a_json_key_is_looked_for_as_its_producers_spell_it_and_written_as_the_newest_does(
    wire: bytes, others: list[bytes]
) -> None:
    keys = keys_of(KeySpec("json_sr", ("id", "n")), Schema(1, "JSON", "{}"))
    stored = keys.store(framed(1, wire))
    key = keys.parse(wire)
    assert (key.stored, key.wires) == (stored, tuple(framed(1, form) for form in (wire, *others)))
    keys = keys_of(KeySpec("json_connect", ("id", "n")))
    stored = keys.store(connect_text({"type": "struct"}, wire.decode()))
    assert keys.parse(wire).wires == tuple(connect_text({"type": "struct"}, form.decode()) for form in (wire, *others))


def test_keys_behind_schemas_are_looked_for_and_written_in_the_spellings_of_the_table() -> None:
    known = Known(FetchedSchemas(Schema(1, "JSON", "{}")))
    known.keys_of("orders").learn((1).to_bytes(4, "big"))
    keys = keys_of(KeySpec("json_sr", ("id",), bare=True, spellings=("python", "go")), known=known)
    assert keys.parse(b'"<"').wires == (framed(1, b'{"id": "<"}'), framed(1, b'{"id":"\\u003c"}'))


# Kafka Connect's JSON


def connect_key(payload: str, version: int = 1) -> bytes:
    """Write a key as Debezium does with schemas enabled."""
    schema = {
        "type": "struct",
        "fields": [{"type": "int32", "optional": False, "field": "id"}],
        "optional": False,
        "name": f"dbserver1.inventory.customers.v{version}.Key",
    }
    return b'{"schema":' + json.dumps(schema, separators=(",", ":")).encode() + b',"payload":' + payload.encode() + b"}"


def test_a_key_of_debezium_is_its_payload_and_its_schemas_text_a_variant() -> None:
    keys = keys_of(KeySpec("json_connect", ("id",), bare=True))
    assert keys.parse(b"1004").wires == ()
    stored = keys.store(connect_key('{"id":1004}'))
    assert keys.store(connect_key('{"id":1004}', version=2)) == stored
    key = keys.parse(b"1004")
    assert (key.stored, key.enumerable) == (stored, False)
    assert key.wires == (connect_key('{"id":1004}', version=2), connect_key('{"id":1004}'))
    assert keys.store(connect_key('{"id":1003}')) < stored


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b'{"id":1}', "not an object of schema and payload"),
        (b'{"payload":{"id":1},"schema":{}}', "not an object of schema and payload"),
        (b'{"schema":{"type":5},"payload":{"id":1}}', "not an object of schema and payload"),
        (b'{"schema":{"type":"struct"},"payload":{"id":1},"more":1}', "not an object of schema and payload"),
        (b"", "not JSON"),
        (b'{"schema":', "not JSON"),
        (b'{"schema":{"type":"struct"},"payload":[1]}', "it is not an object"),
        (b'{"schema":{"type":"struct"},"payload":{"no":1}}', "members are not exactly id"),
    ],
)
def test_what_is_no_key_of_connect_is_refused(wire: bytes, reason: str) -> None:
    keys = keys_of(KeySpec("json_connect", ("id",), bare=True))
    with pytest.raises(DecodeError, match=reason):
        keys.store(wire)
    assert keys.parse(b"1").wires == ()


DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}


def connect_text(schema: Any, payload: str) -> bytes:
    return b'{"schema":' + json.dumps(schema, separators=(",", ":")).encode() + b',"payload":' + payload.encode() + b"}"


@pytest.mark.parametrize(
    ("schema", "payload", "url"),
    [
        (DECIMAL, '"BM4="', b'"12.30"'),
        (DECIMAL, '"gA=="', b'"-1.28"'),
        (DECIMAL, "12.34", b"12.34"),
        (DECIMAL, "null", b"null"),
        (VARIABLE, '{"scale":2,"value":"BM4="}', b'"12.30"'),
        (VARIABLE, '{"scale":0,"value":"AIA="}', b'"128"'),
        (VARIABLE, "null", b"null"),
    ],
)
def test_a_decimal_in_a_key_of_connect_is_in_a_url_what_people_read(
    schema: dict[str, Any], payload: str, url: bytes
) -> None:
    pair = {"type": "struct", "fields": [schema | {"field": "k"}, {"type": "string", "field": "n"}]}
    for spec, whole, content, text in (
        (KeySpec("json_connect"), schema, payload, url),
        (KeySpec("json_connect", ("k",), bare=True), {"type": "struct", "fields": [schema | {"field": "k"}]},
         f'{{"k":{payload}}}', url),
        (KeySpec("json_connect", ("k", "n")), pair, f'{{"k":{payload},"n":"a/b"}}', b'{"k":%b,"n":"a/b"}' % url),
    ):  # fmt: skip
        keys, wire = keys_of(spec), connect_text(whole, content)
        stored = keys.store(wire)
        key = keys.parse(text)
        assert (key.stored, key.wires) == (stored, (wire,))
        assert (keys.text(stored), keys.record_text(wire)) == (text, text)


def of_scale(scale: int | str) -> dict[str, Any]:
    return DECIMAL | {"parameters": {"scale": str(scale)}}


@pytest.mark.parametrize(
    ("scale", "payload"),
    [
        (2, "12.30"),
        (2, "-0.50"),
        (2, "0.00"),
        (7, "1E-7"),
        (8, "0E-8"),
        (-3, "1E+3"),
        (20, "0.50000000000000000000"),
        (0, "12"),
        (2, "12"),
        (2, "12.345"),
    ],
)
def test_a_decimal_that_is_a_number_is_written_with_the_digits_of_its_scale_as_java_does(
    scale: int, payload: str
) -> None:
    keys, wire = keys_of(KeySpec("json_connect")), connect_text(of_scale(scale), payload)
    stored = keys.store(wire)
    for url in (payload, repr(json.loads(payload))):
        key = keys.parse(url.encode())
        assert (key.stored, key.wires) == (stored, (wire,))


@pytest.mark.parametrize("scale", [4300, 10**6, 10**12, -4300, -(10**6), -(10**12)])
@pytest.mark.parametrize("payload", ["null", "1.5"])
def test_a_scale_of_any_size_costs_nothing_to_look_for(scale: int, payload: str) -> None:
    keys = keys_of(KeySpec("json_connect"))
    stored = keys.store(connect_text(of_scale(scale), payload))
    assert keys.parse(payload.encode()).stored == stored
    for url in (b'"1.00"', b'"1000"', b'"1"'):
        with pytest.raises(InvalidKey, match="not a decimal"):
            keys.parse(url)
    large = {"type": "bytes", "logicalType": "decimal", "precision": 10**13, "scale": abs(scale)}
    of_avro = avro_keys(avro_schema(7, large), avro_schema(8, "string"))
    of_avro.store(framed(8, written("string", "a")))
    with suppress(DecodeError):
        of_avro.store(framed(7, b"\2"))
    assert of_avro.parse(b"1.00").wires == (framed(8, written("string", "1.00")),)


def test_a_fixed_decimal_of_any_size_costs_nothing_to_look_for() -> None:
    known = Known(FetchedSchemas(avro_schema(7, SMALL | {"size": 10**9, "precision": 9}), TEXT))
    known.keys_of("orders").learn((7).to_bytes(4, "big"))
    known.keys_of("orders").learn((1).to_bytes(4, "big"))
    assert keys_of(KeySpec("avro"), known=known).parse(b"1.00").wires == (framed(1, written("string", "1.00")),)


@pytest.mark.parametrize(
    ("schema", "payload", "url", "reason"),
    [
        (DECIMAL, '"BM4="', b'"12.3"', "use all 2 digits"),
        (DECIMAL, '"BM4="', b'"x"', "use all 2 digits"),
        (VARIABLE, '{"scale":2,"value":"BM4="}', b'"1e5"', "like 12.30"),
        (VARIABLE, '{"scale":2,"value":"BM4="}', b"12.30", "its digits in a string"),
    ],
)
def test_another_text_of_a_decimal_of_connect_is_refused(
    schema: dict[str, Any], payload: str, url: bytes, reason: str
) -> None:
    keys = keys_of(KeySpec("json_connect"))
    keys.store(connect_text(schema, payload))
    with pytest.raises(InvalidKey, match=reason):
        keys.parse(url)


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (DECIMAL, '"not base64"'),
        (DECIMAL | {"parameters": {"scale": "two"}}, '"BM4="'),
        (VARIABLE, '{"scale":2}'),
        (VARIABLE, '{"scale":100000,"value":"BM4="}'),
        (VARIABLE, '"12.30"'),
    ],
)
def test_a_decimal_of_connect_that_is_none_is_no_key(schema: dict[str, Any], payload: str) -> None:
    keys = keys_of(KeySpec("json_connect"))
    with pytest.raises(DecodeError):
        keys.store(connect_text(schema, payload))
    assert keys.parse(b'"12.30"').wires == ()


# Variants


def test_more_variants_than_can_be_looked_for_are_refused() -> None:
    keys = keys_of(KeySpec("json_connect", ("id",)))
    for version in range(MAX_VARIANTS):
        keys.store(connect_key('{"id":1}', version))
    keys.store(connect_key('{"id":2}', 0))
    with pytest.raises(DecodeError, match=f"more than {MAX_VARIANTS} schemas"):
        keys.store(connect_key('{"id":1}', MAX_VARIANTS))
    assert len(keys.parse(b'{"id":1}').wires) == MAX_VARIANTS


@pytest.mark.parametrize("name", ["avro", "json_sr", "json_connect"])
def test_formats_with_variants_say_that_their_wire_forms_cannot_be_enumerated(name: KeyFormatName) -> None:
    keys = keys_of(KeySpec(name))
    assert (keys.name, keys.enumerable, keys.canonical_wire) == (name, False, False)
    assert keys.canonical(b"anything") == b"anything"


def test_keys_of_several_formats_in_one_topic_are_each_looked_for_as_their_own_producers_write_them() -> None:
    guid = UUID(int=5)
    known = Known(FetchedSchemas(Schema(1, "JSON", "{}"), avro_schema(2, "string"), Schema(guid, "AVRO", '"string"')))
    struct = {"type": "struct", "name": DECIMAL["name"], "parameters": {"scale": "x"}, "fields": [{"type": "string"}]}
    records: list[tuple[KeySpec, bytes, Headers]] = [
        (KeySpec("json_connect"), connect_text({"type": "string"}, '"a"'), ()),
        (KeySpec("json_connect", ("id",), bare=True), connect_text(struct, '{"id":"a"}'), ()),
        (KeySpec("json_sr"), framed(1, b'"a"'), ()),
        (KeySpec("avro"), written("string", "a"), (("__key_schema_id", b"\1" + guid.bytes),)),
        (KeySpec("avro"), framed(2, written("string", "a")), ()),
    ]
    for spec, wire, headers in records:
        keys_of(spec, known=known).store(wire, headers)
    for spec in dict.fromkeys(spec for spec, _, _ in records):
        text = b"a" if spec.format == "avro" else b'"a"'
        key = keys_of(spec, known=known).parse(text)
        assert {(wire, tuple(key.headers.get(wire, ()))) for wire in key.wires} == {
            (wire, headers) for of, wire, headers in records if of == spec
        }


def test_tables_of_one_topic_learn_from_each_other_and_those_of_another_do_not() -> None:
    known = Known(FetchedSchemas(TEXT))
    first, second = (source_keys(SourceSpec("orders", KeySpec("avro"), ValueSpec("json")), known) for _ in range(2))
    other = source_keys(SourceSpec("refunds", KeySpec("avro"), ValueSpec("json")), known)
    first.store(framed(1, written("string", "a")))
    assert second.parse(b"a").wires == (framed(1, written("string", "a")),)
    with pytest.raises(KeySchemaUnknown, match="refunds"):
        other.parse(b"a")
