"""What rows show of Avro, in whatever version of its schema and framing it was written."""

import base64
import json
import math
import random
import struct
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.catalog.spec import SchemaFile, ValueSpec
from tablehouse.formats.avro import AvroReader, fingerprint
from tablehouse.formats.avro_write import to_avro, to_framed_avro
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import MAX_TYPES_NESTED, Reference, Schema, SchemaNeeded
from tablehouse.turns import finish
from tests.support.avro import avro_schema, record, shown, shown_text, written
from tests.support.schemas import FetchedSchemas, MemorySchemas, framed

DATE = {"type": "int", "logicalType": "date"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
SYMBOLS = {"type": "enum", "name": "Symbols", "symbols": ["A", "B"]}
INNER = record(("n", "int"), name="Inner")

#: What a producer writes, and no message repeats.
PRIVATE = "data of a producer"


def varint(number: int) -> bytes:
    """Return an integer as Avro writes it."""
    zigzag, found = (number << 1) ^ (number >> 63), bytearray()
    while zigzag > 127:
        found.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*found, zigzag])


# What a row shows


def logical(kind: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def connect(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "connect.version": 1, "connect.name": name}


def oracle_number(scale: Any) -> dict[str, Any]:
    """Return a decimal as Confluent's Avro converter writes it of Connect's, with a precision that it makes up."""
    named = connect("bytes", "org.apache.kafka.connect.data.Decimal")
    decimal = {"logicalType": "decimal", "precision": 64, "scale": scale}
    return named | decimal | {"connect.parameters": {"scale": str(scale)}}


FIXED = {"type": "fixed", "name": "F", "size": 4}
UUID_TEXT = "123e4567-e89b-12d3-a456-426614174abc"


@pytest.mark.parametrize(
    ("schema", "raw", "text"),
    [
        ("null", None, "null"),
        ("boolean", True, "true"),
        ("int", -(2**31), "-2147483648"),
        ("long", 2**63 - 1, "9223372036854775807"),
        ("long", 2**53 + 1, "9007199254740993"),
        ("float", 1.5, "1.5"),
        ("double", 0.1, "0.1"),
        ("double", math.nan, '"NaN"'),
        ("float", math.inf, '"Infinity"'),
        ("double", -math.inf, '"-Infinity"'),
        ("string", 'ü"\n', '"ü\\"\\n"'),
        ("bytes", b"\x00\xff", '"AP8="'),
        (FIXED, b"abcd", '"YWJjZA=="'),
        (SYMBOLS, "B", '"B"'),
        ({"type": "array", "items": "double"}, [1.0, math.nan], '[1.0,"NaN"]'),
        ({"type": "map", "values": "long"}, {"a": 1}, '{"a":1}'),
        (["null", "string"], "x", '"x"'),
        (["null", INNER], {"n": 3}, '{"n":3}'),
        (DATE, 15736, '"2013-01-31"'),
        (logical("int", "time-millis"), 19_020_123, '"05:17:00.123"'),
        (logical("long", "time-micros"), 86_400_000_000, '"24:00:00.000000"'),
        (logical("long", "timestamp-millis"), -1, '"1969-12-31T23:59:59.999Z"'),
        (logical("long", "timestamp-micros"), 1, '"1970-01-01T00:00:00.000001Z"'),
        (logical("long", "timestamp-nanos"), 1, '"1970-01-01T00:00:00.000000001Z"'),
        (logical("long", "local-timestamp-millis"), 0, '"1970-01-01T00:00:00.000"'),
        (logical("long", "local-timestamp-micros"), 0, '"1970-01-01T00:00:00.000000"'),
        (logical("long", "local-timestamp-nanos"), 0, '"1970-01-01T00:00:00.000000000"'),
        (logical("string", "uuid"), UUID_TEXT, f'"{UUID_TEXT}"'),
        (
            {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
            UUID(UUID_TEXT).bytes,
            f'"{UUID_TEXT}"',
        ),
        (logical("bytes", "decimal", precision=9, scale=2), (-1230).to_bytes(2, "big", signed=True), '"-12.30"'),
        (logical("bytes", "decimal", precision=9), b"\x05", '"5"'),
        (
            {"type": "fixed", "name": "D", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 3},
            (5).to_bytes(8, "big"),
            '"0.005"',
        ),
        (logical("int", "no-such-type"), 5, "5"),
        (DATE, 2**31 - 1, '"+5881580-07-11"'),
        (DATE, -(2**31), '"-5877641-06-23"'),
        (logical("int", "time-millis"), 0, '"00:00:00.000"'),
        (logical("long", "timestamp-millis"), 253_402_300_800_000, '"+10000-01-01T00:00:00.000Z"'),
        (logical("long", "timestamp-millis"), 2**63 - 1, '"+292278994-08-17T07:12:55.807Z"'),
        (logical("long", "timestamp-micros"), -(2**63), '"-290308-12-21T19:59:05.224192Z"'),
        (logical("long", "timestamp-nanos"), 2**63 - 1, '"2262-04-11T23:47:16.854775807Z"'),
        (logical("long", "local-timestamp-millis"), -62_135_596_800_001, '"0000-12-31T23:59:59.999"'),
        (logical("long", "local-timestamp-micros"), 2**63 - 1, '"+294247-01-10T04:00:54.775807"'),
        (logical("long", "local-timestamp-nanos"), -(2**63), '"1677-09-21T00:12:43.145224192"'),
        ("float", 0.1, "0.1"),
        ("float", -3.4028234663852886e38, "-3.4028235e38"),
        ("float", 16777216.0, "16777216.0"),
        ("float", 1.401298464324817e-45, "1e-45"),
        ("double", 0.10000000149011612, "0.10000000149011612"),
        ({"type": "array", "items": ["null", "float"]}, [0.1, None, math.nan], '[0.1,null,"NaN"]'),
        # Logical types that are invalid by the specification are ignored.
        (logical("bytes", "decimal", precision=64, scale=127), b"\x01", '"AQ=="'),
        (logical("bytes", "decimal", precision=9, scale=-2), b"\x01", '"AQ=="'),
        (logical("bytes", "decimal", precision=0), b"\x01", '"AQ=="'),
        (logical("bytes", "decimal"), b"\x01", '"AQ=="'),
        (logical("bytes", "decimal", precision="9", scale=2), b"\x01", '"AQ=="'),
        (logical("bytes", "decimal", precision=9, scale=2.0), b"\x01", '"AQ=="'),
        (logical("int", "decimal", precision=9, scale=2), 5, "5"),
        (logical("string", "decimal", precision=9, scale=2), "5", '"5"'),
        (FIXED | {"logicalType": "decimal", "precision": 10, "scale": 2}, b"\0\0\0\x01", '"AAAAAQ=="'),
        (FIXED | {"logicalType": "decimal", "precision": 9, "scale": 2}, b"\0\0\0\x01", '"0.01"'),
        (FIXED | {"logicalType": "uuid"}, b"abcd", '"YWJjZA=="'),
        (FIXED | {"logicalType": "duration"}, b"abcd", '"YWJjZA=="'),
        (logical("string", "uuid"), "no uuid", '"no uuid"'),
        (logical("long", "date"), 5, "5"),
        (logical("long", "time-millis"), 5, "5"),
        (logical("int", "timestamp-millis"), 5, "5"),
        # Oracle's NUMBER by Kafka Connect, whose name for decimals says more than Avro's.
        (oracle_number(127), (10**127).to_bytes(64, "big"), f'"1.{"0" * 127}"'),
        (oracle_number(-2), b"\xff", '"-100"'),
        (oracle_number(0), b"\x05", '"5"'),
        (oracle_number("x"), b"\x05", '"BQ=="'),
        (logical("string", "date"), "x", '"x"'),
        ({"type": "fixed", "name": "P", "size": 12, "logicalType": "duration"}, b"\0" * 12, '"AAAAAAAAAAAAAAAA"'),
        (connect("int", "io.debezium.time.Date"), 0, '"1970-01-01"'),
        (connect("int", "io.debezium.time.Time"), 1, '"00:00:00.001"'),
        (connect("long", "io.debezium.time.MicroTime"), 1, '"00:00:00.000001"'),
        (connect("long", "io.debezium.time.NanoTime"), 1, '"00:00:00.000000001"'),
        (connect("long", "io.debezium.time.Timestamp"), 1, '"1970-01-01T00:00:00.001"'),
        (connect("long", "io.debezium.time.MicroTimestamp"), 1, '"1970-01-01T00:00:00.000001"'),
        (connect("long", "io.debezium.time.NanoTimestamp"), 1, '"1970-01-01T00:00:00.000000001"'),
        (connect("int", "io.debezium.time.Time"), -1, '"-00:00:00.001"'),
        (connect("long", "io.debezium.time.MicroTime"), 95_400_000_000, '"26:30:00.000000"'),
        (connect("long", "io.debezium.time.MicroTime"), -3_020_399_000_000, '"-838:59:59.000000"'),
        (connect("long", "io.debezium.time.NanoTime"), 2**63 - 1, '"2562047:47:16.854775807"'),
        (connect("long", "io.debezium.time.MicroDuration"), -(2**63), "-9223372036854775808"),
        (connect("string", "io.debezium.time.ZonedTimestamp"), "2013-01-31T05:17:00Z", '"2013-01-31T05:17:00Z"'),
        (
            record(("scale", "int"), ("value", "bytes"), name="V")
            | {"connect.name": "io.debezium.data.VariableScaleDecimal"},
            {"scale": 1, "value": b"\x7b"},
            '"12.3"',
        ),
    ],
)
def test_a_value_of_each_type_has_its_form_at_the_top_in_a_field_and_in_a_union(
    schema: Any, raw: Any, text: str
) -> None:
    plain = json.loads(json.dumps(schema).replace("logicalType", "ignored"))
    assert shown_text(schema, written(plain, raw)).decode() == text
    field = record(("v", schema), ("w", "int"))
    assert shown_text(field, written(plain, raw) + b"\x02").decode() == f'{{"v":{text},"w":1}}'
    if not isinstance(schema, list) and schema != "null":
        optional = record(("v", ["null", schema]))
        assert shown_text(optional, b"\x02" + written(plain, raw)).decode() == f'{{"v":{text}}}'
        assert shown(optional, b"\x00") == {"v": None}


def test_a_float_that_is_read_as_a_double_has_the_digits_of_that_double_and_as_a_float_its_own() -> None:
    for kind, text in (("double", 0.10000000149011612), ("float", 0.1), (["null", "float"], 0.1)):
        old = record(("v", "float"), ("a", {"type": "array", "items": "float"}))
        new = record(("v", kind), ("a", {"type": "array", "items": kind}), ("d", "float", 0.1))
        value = written(old, {"v": 0.1, "a": [0.1]})
        spec = ValueSpec("avro", schema=2)
        read = AvroReader(spec, "topic", FetchedSchemas(avro_schema(1, old), avro_schema(2, new)))
        assert json.loads(read(framed(1, value))) == {"v": text, "a": [text], "d": 0.1}


@given(st.floats(width=32))
def test_a_float_is_shown_as_the_shortest_text_that_means_it(value: float) -> None:
    shows = shown(record(("v", "float")), struct.pack("<f", value))["v"]
    if isinstance(shows, str):
        assert not math.isfinite(value)
        return
    assert struct.pack("<f", shows) == struct.pack("<f", value)
    digits = len(Decimal(repr(shows)).normalize().as_tuple().digits)
    assert digits <= 9
    if value and digits > 1:
        shorter = float(f"{value:.{digits - 1}g}")
        assert struct.pack("<f", shorter) != struct.pack("<f", value)


def nested(wrap: Callable[[Any, int], Any], depth: int) -> Any:
    """Return a schema of that many types in each other, the innermost an int."""
    schema: Any = "int"
    for level in range(depth - 1):
        schema = wrap(schema, level)
    return schema


@pytest.mark.parametrize(
    ("wrap", "value"),
    [
        (lambda inner, level: record(("f", inner), name=f"R{level}"), lambda inner: {"f": inner}),
        (lambda inner, level: record(("f", ["null", inner]), name=f"R{level}"), lambda inner: {"f": inner}),
        (lambda inner, _: {"type": "array", "items": inner}, lambda inner: [inner]),
        (lambda inner, _: {"type": "map", "values": ["null", inner]}, lambda inner: {"k": inner}),
    ],
)
def test_types_may_be_nested_up_to_a_limit_and_rows_are_read_and_written_so(
    wrap: Callable[[Any, int], Any], value: Callable[[Any], Any]
) -> None:
    schema, row = record(("v", nested(wrap, MAX_TYPES_NESTED - 1)), name="Top"), 7
    for _ in range(MAX_TYPES_NESTED - 2):
        row = value(row)
    text = json.dumps({"v": row}, separators=(",", ":")).encode()
    assert shown_text(schema, to_avro(text, avro_schema(1, schema))) == text
    for depth in (MAX_TYPES_NESTED, MAX_TYPES_NESTED + 1, 110):
        with pytest.raises(DecodeError, match="types are nested more than 100 deep"):
            shown(record(("v", nested(wrap, depth)), name="Top"), b"")
    with pytest.raises(DecodeError, match="types are nested more than 100 deep"):
        shown(nested(wrap, MAX_TYPES_NESTED + 1), b"")
    with pytest.raises(DecodeError, match="nested more than"):
        shown(nested(wrap, 220), b"")


def test_types_that_are_nested_by_their_names_are_counted_too() -> None:
    chain = [record(("v", "int"), name="T1")]
    chain += [record(("v", f"T{level}"), name=f"T{level + 1}") for level in range(1, MAX_TYPES_NESTED - 1)]
    last = chain[-1]["name"]
    row: Any = {"v": 7}
    for _ in range(MAX_TYPES_NESTED - 2):
        row = {"v": row}
    branch = varint(len(chain) - 1)
    assert shown(chain, branch + varint(7)) == row
    with pytest.raises(DecodeError, match="nested more than 100 deep"):
        shown([*chain, record(("v", last), name="Deepest")], branch + varint(7))


def test_a_union_shows_the_value_of_its_branch() -> None:
    schema = ["null", record(("a", "int"), name="A"), record(("b", "double"), name="B"), "string", DATE, "boolean"]
    values = [None, ("A", {"a": 1}), ("B", {"b": math.nan}), "x", date(2013, 1, 31), True]
    rows = [shown(schema, written(schema, value)) for value in values]
    assert rows == [None, {"a": 1}, {"b": "NaN"}, "x", "2013-01-31", True]


def test_a_type_that_is_used_again_by_its_name_is_rendered_each_time() -> None:
    inner = record(("d", DECIMAL), ("f", "double"), name="ns.Inner")
    schema = record(("a", inner), ("b", "ns.Inner"), ("c", {"type": "ns.Inner"}), ("e", ["null", "ns.Inner"]))
    row = {"d": "1.50", "f": "Infinity"}
    value = written(inner, {"d": Decimal("1.50"), "f": math.inf})
    assert shown(schema, value * 3 + b"\x00") == {"a": row, "b": row, "c": row, "e": None}
    assert shown(schema, value * 3 + b"\x02" + value)["e"] == row


# Schemas that move on


@pytest.mark.parametrize(
    ("kind", "default", "shows"),
    [
        ("int", 7, 7),
        ("double", 1, 1.0),
        ("string", "x", "x"),
        ("bytes", "\u00ff", "/w=="),
        (FIXED, "\u0000\u0001\u0002\u0003", "AAECAw=="),
        (["null", "int"], None, None),
        (["int", "null"], 3, 3),
        (["string", "null"], None, None),
        (["null", DECIMAL], None, None),
        ([DECIMAL, "null"], "\u0004\u00ce", "12.30"),
        (DATE, 0, "1970-01-01"),
        (logical("long", "timestamp-micros"), 5, "1970-01-01T00:00:00.000005Z"),
        (SYMBOLS, "B", "B"),
        (DECIMAL, "\u0000", "0.00"),
        ({"type": "array", "items": DATE}, [0, 1], ["1970-01-01", "1970-01-02"]),
        ({"type": "map", "values": "bytes"}, {"a": "b"}, {"a": "Yg=="}),
        (record(("d", DATE, 0), ("x", "double"), name="Q"), {"x": 2}, {"d": "1970-01-01", "x": 2.0}),
        (record(("d", DATE, 0), name="Q"), {"d": 1}, {"d": "1970-01-02"}),
        ({"type": "array", "items": record(("d", DATE, 0), name="Q")}, [{}], [{"d": "1970-01-01"}]),
    ],
)
def test_a_new_field_has_its_default_in_the_form_of_its_type(kind: Any, default: Any, shows: Any) -> None:
    before = record(("a", "int"))
    after = record(("a", "int"), ("b", kind, default))
    assert shown(before, written(before, {"a": 1}), after) == {"a": 1, "b": shows}


def test_the_default_of_a_type_that_is_used_by_its_name_is_rendered_once() -> None:
    inner = record(("d", DATE, 0), name="Q")
    after = record(("a", inner, {}), ("b", "Q", {}), ("c", "Q", {"d": 1}))
    assert shown(record(), b"", after) == {
        "a": {"d": "1970-01-01"},
        "b": {"d": "1970-01-01"},
        "c": {"d": "1970-01-02"},
    }


@pytest.mark.parametrize(
    ("before", "value", "after", "shows"),
    [
        ("int", 5, "long", 5),
        ("int", 5, "double", 5.0),
        ("long", 2**53 + 1, "float", 9007199254740992.0),
        ("float", 0.5, "double", 0.5),
        ("float", math.nan, "double", "NaN"),
        ("float", math.inf, ["null", "double"], "Infinity"),
        ("string", "ab", "bytes", "YWI="),
        ("bytes", b"ab", "string", "ab"),
        ("string", "x", ["null", "string"], "x"),
        (["null", "string"], "x", "string", "x"),
        (["int", "string"], 5, ["string", "double"], 5.0),
        (SYMBOLS, "A", SYMBOLS | {"symbols": ["B", "A"]}, "A"),
        (SYMBOLS, "B", SYMBOLS | {"symbols": ["A"], "default": "A"}, "A"),
        (
            record(("n", "int"), name="Old"),
            {"n": 1},
            record(("n", "long"), name="New") | {"aliases": ["Old"]},
            {"n": 1},
        ),
        ({"type": "array", "items": "int"}, [1, 2], {"type": "array", "items": "double"}, [1.0, 2.0]),
    ],
)
def test_a_value_of_an_old_type_is_read_as_the_new_one(before: Any, value: Any, after: Any, shows: Any) -> None:
    old, new = record(("v", before)), record(("v", after))
    row = shown_text(old, written(old, {"v": value}), new)
    assert json.loads(row) == {"v": shows}
    assert type(json.loads(row)["v"]) is type(shows)
    assert shown(before, written(before, value), after) == shows


def test_fields_are_added_dropped_renamed_and_reordered() -> None:
    before = record(("a", "int"), ("gone", {"type": "array", "items": "string"}), ("old", "double"), ("z", "string"))
    after = record(("z", "string"), ("new", "double"), ("a", "long"), ("more", "string", "default"))
    after["fields"][1]["aliases"] = ["old"]
    value = written(before, {"a": 1, "gone": ["x"], "old": math.nan, "z": "z"})
    assert shown(before, value, after) == {"a": 1, "new": "NaN", "z": "z", "more": "default"}


def test_a_float_that_is_dropped_does_not_matter_to_another_field_of_its_name() -> None:
    before, after = record(("x", "double")), record(("y", "string", "text"))
    after["fields"][0]["aliases"] = ["other"]
    assert shown(before, written(before, {"x": math.nan}), after) == {"y": "text"}


def test_a_record_becomes_one_of_a_union_and_back() -> None:
    one, union = record(("a", "int"), name="A"), [record(("b", "int"), name="B"), record(("a", "int"), name="A")]
    assert shown(one, written(one, {"a": 1}), union) == {"a": 1}
    assert shown(union, written(union, ("A", {"a": 1})), one) == {"a": 1}
    with pytest.raises(DecodeError, match="schema 1 cannot be read as schema 2"):
        shown(union, written(union, ("B", {"b": 1})), one)


def test_types_of_one_name_in_a_union_are_never_mistaken_for_each_other() -> None:
    twins = [record(("p", "int", 0), name="v1.X"), record(("q", "int", 0), name="v2.X")]
    before = record(("u", {"type": "array", "items": ["null", *twins]}))
    value = written(before, {"u": [None, ("v2.X", {"q": 7}), ("v1.X", {"p": 8})]})
    rows = {"u": [None, {"q": 7}, {"p": 8}]}
    assert shown(before, value) == rows
    assert shown(before, value, json.loads(json.dumps(before))) == rows
    reason = "schema 1 cannot be read as schema 2, which the table wants: .* two types called X"
    after = {**before, "fields": [{"name": "n", "type": "int", "default": 1}, *before["fields"]]}
    for one, other in ((before, after), (before, record()), (record(), after)):
        with pytest.raises(DecodeError, match=reason):
            shown(one, value, other)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (record(("a", "string")), {"a": PRIVATE}, record(("a", "int"))),
        (record(("a", "double")), {"a": 1.5}, record(("a", "string"))),
        (record(("a", "string")), {"a": PRIVATE}, record(("a", "string"), ("b", "int"))),
        (SYMBOLS, "B", SYMBOLS | {"symbols": ["A"]}),
        (record(("a", ["null", "string"])), {"a": PRIVATE}, record(("a", "int"))),
        (FIXED, b"abcd", FIXED | {"size": 5}),
    ],
)
def test_what_cannot_be_read_as_the_wanted_schema_is_refused_with_both_ids_and_without_data(
    before: Any, value: Any, after: Any
) -> None:
    with pytest.raises(DecodeError, match="schema 1 cannot be read as schema 2, which the table wants") as caught:
        shown(before, written(before, value), after)
    assert PRIVATE not in str(caught.value)
    assert "tablehouse" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_large_value_is_read_in_the_thread_as_it_is_at_once() -> None:
    schema = record(("a", {"type": "array", "items": "float"}))
    read = AvroReader(ValueSpec("avro"), "topic", FetchedSchemas(avro_schema(1, schema)))
    value = framed(1, written(schema, {"a": [0.1, math.inf] * 10_000}))
    assert finish(read.in_pieces(value)) == read(value)
    for wrong in (value[:-1], value + b"\0"):
        with pytest.raises(DecodeError) as at_once:
            read(wrong)
        with pytest.raises(DecodeError) as in_pieces:
            finish(read.in_pieces(wrong))
        assert str(in_pieces.value) == str(at_once.value)
    with pytest.raises(SchemaNeeded):
        finish(AvroReader(ValueSpec("avro"), "topic", FetchedSchemas()).in_pieces(value))


def test_rows_follow_the_latest_schema() -> None:
    first = record(("a", "int"))
    schemas = FetchedSchemas(avro_schema(1, first))
    read = AvroReader(ValueSpec("avro"), "topic", schemas)
    value = framed(1, written(first, {"a": 1}))
    assert read(value) == b'{"a":1}'
    schemas.add(avro_schema(2, record(("a", "int"), ("b", "int", 2))))
    assert read(value) == b'{"a":1,"b":2}'
    schemas.add(avro_schema(3, record(("b", "int", 3))))
    assert read(value) == b'{"b":3}'


def test_rows_may_keep_the_shape_that_they_were_written_in() -> None:
    old, new = record(("a", "int")), record(("a", "int"), ("b", "float", 2))
    schemas = FetchedSchemas(avro_schema(1, old), avro_schema(2, new))
    read = AvroReader(ValueSpec("avro", schema="written"), "topic", schemas)
    assert read(framed(1, written(old, {"a": 1}))) == b'{"a":1}'
    assert read(framed(2, written(new, {"a": 1, "b": 0.1}))) == b'{"a":1,"b":0.1}'


def test_the_latest_schema_is_that_of_the_subject_that_is_named() -> None:
    read = AvroReader(ValueSpec("avro", subject="shop.Order"), "topic", MemorySchemas())
    with pytest.raises(SchemaNeeded) as needed:
        read.schema()
    assert needed.value.needed == "shop.Order"


def test_a_schema_by_its_id_stays_whatever_is_registered_later() -> None:
    schemas = FetchedSchemas(avro_schema(1, record(("a", "int"))), avro_schema(2, record(("a", "int"), ("b", "int"))))
    read = AvroReader(ValueSpec("avro", schema=1), "topic", schemas)
    assert read(framed(2, b"\x02\x04")) == b'{"a":1}'


def test_a_schema_in_a_file_is_no_schema_of_the_registry() -> None:
    file = SchemaFile(Path("rows.avsc"), json.dumps(record(("b", "int", 5))))
    schemas = FetchedSchemas(avro_schema(0, record(("a", "int"))), avro_schema(1, record(("b", "string"))))
    read = AvroReader(ValueSpec("avro", schema=file), "topic", schemas)
    assert read(framed(0, b"\x02")) == b'{"b":5}'
    with pytest.raises(DecodeError, match="schema 1 cannot be read as the schema in the table's file"):
        read(framed(1, b"\x02a"))


# References


def test_types_of_other_subjects_are_rendered_and_have_their_defaults() -> None:
    address = avro_schema(10, record(("since", DATE, 0), ("pay", DECIMAL), name="shop.Address"))
    person = avro_schema(
        11, record(("home", "shop.Address"), name="shop.Person"), Reference("shop.Address", "a", 1, address)
    )
    order = avro_schema(
        12,
        record(("by", "shop.Person"), ("to", ["null", "shop.Address"]), name="shop.Order"),
        Reference("shop.Person", "p", 1, person),
        Reference("shop.Address", "a", 1, address),
    )
    older = avro_schema(9, record(("pay", DECIMAL), name="shop.Address"))
    old_person = avro_schema(8, record(("home", "shop.Address"), name="shop.Person"), Reference("a", "a", 1, older))
    old_order = avro_schema(
        7,
        record(("by", "shop.Person"), ("to", ["null", "shop.Address"]), name="shop.Order"),
        Reference("p", "p", 1, old_person),
    )
    pay = written(DECIMAL, Decimal("1.20"))
    read = AvroReader(ValueSpec("avro"), "topic", FetchedSchemas(old_order, order))
    assert read(framed(7, pay + b"\x00")) == b'{"by":{"home":{"pay":"1.20","since":"1970-01-01"}},"to":null}'
    assert json.loads(read(framed(12, b"\x02" + pay + b"\x02\x04" + pay))) == {
        "by": {"home": {"since": "1970-01-02", "pay": "1.20"}},
        "to": {"since": "1970-01-03", "pay": "1.20"},
    }


def test_a_type_that_is_nowhere_is_named() -> None:
    with pytest.raises(DecodeError, match=r"schema 1 cannot be used: .*Missing"):
        shown(record(("a", "Missing")), b"")


# What nothing bounds


NODE = record(("x", "float"), ("next", ["null", "R"]))
TREE = record(("children", {"type": "array", "items": "R"}))
BRANCHES = record(("by", {"type": "map", "values": record(("r", "R"), name="Q")}))


def chain(length: int) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 0.1, "next": None}
    for _ in range(length - 1):
        value = {"x": 0.1, "next": value}
    return value


def test_a_type_may_contain_itself_up_to_a_depth() -> None:
    schema = avro_schema(1, NODE)
    read = AvroReader(ValueSpec("avro"), "topic", FetchedSchemas(schema))
    for length in (1, 2, 100):
        assert json.loads(read(framed(1, written(NODE, chain(length))))) == chain(length)
    with pytest.raises(DecodeError, match="more than 100 deep"):
        read(framed(1, written(NODE, chain(101))))
    with pytest.raises(DecodeError, match="such rows can only be read and written as JSON"):
        to_framed_avro(json.dumps(chain(1)).encode(), schema)
    with pytest.raises(DecodeError, match="more than 100 deep"):
        read(framed(1, (struct.pack("<f", 0.1) + b"\x02") * 1_000_000))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (TREE, {"children": [{"children": []}, {"children": [{"children": []}]}]}),
        (BRANCHES, {"by": {"a": {"r": {"by": {}}}, "b": {"r": {"by": {"c": {"r": {"by": {}}}}}}}}),
        (["null", NODE], chain(3)),
    ],
)
def test_types_that_contain_themselves_are_rows(schema: Any, value: Any) -> None:
    read = AvroReader(ValueSpec("avro"), "topic", FetchedSchemas(avro_schema(1, schema)))
    wire = framed(1, written(schema, value))
    assert json.loads(read(wire)) == value
    for end in range(5, len(wire)):
        with pytest.raises(DecodeError):
            read(wire[:end])


def test_a_type_that_contains_itself_is_read_as_a_later_version_of_it() -> None:
    later = record(("x", "double"), ("next", ["null", "R"]), ("note", "string", "none"))
    read = AvroReader(ValueSpec("avro", schema=2), "topic", FetchedSchemas(avro_schema(1, NODE), avro_schema(2, later)))
    row = json.loads(read(framed(1, written(NODE, {"x": 0.5, "next": {"x": 1.5, "next": None}}))))
    assert row == {"x": 0.5, "next": {"x": 1.5, "next": None, "note": "none"}, "note": "none"}


def test_a_type_without_an_end_has_no_values() -> None:
    with pytest.raises(DecodeError, match="more than 100 deep"):
        shown(record(("next", "R")), b"\x00")


@pytest.mark.parametrize(
    "items",
    [
        "null",
        record(name="Empty"),
        record(("a", "null"), ("b", record(name="E")), name="Empty"),
        {"type": "fixed", "name": "F", "size": 0},
    ],
)
def test_an_array_of_items_without_bytes_is_refused(items: Any) -> None:
    schema = record(
        ("first", items),
        ("v", ["null", {"type": "array", "items": items.get("name", items) if isinstance(items, dict) else items}]),
    )
    with pytest.raises(DecodeError, match="array of items that take no bytes"):
        shown(schema, b"\x02" + varint(2**60))


def test_types_of_types_of_types_are_looked_at_once_each() -> None:
    inner: Any = record(("n", "int"), name="T0")
    for depth in range(1, 40):
        inner = record(("a", inner), ("b", f"T{depth - 1}"), name=f"T{depth}")
    with pytest.raises(DecodeError, match="EOFError"):
        shown(inner, b"")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (record(("v", "bytes")), varint(2**60) + b"abc"),
        ("string", varint(2**62) + b"abc"),
        ("string", varint(-1) + b"abc"),
        ({"type": "array", "items": "long"}, varint(2**60)),
        ({"type": "array", "items": ["null", "int"]}, varint(-(2**40)) + varint(2**40)),
        ({"type": "map", "values": "null"}, varint(2**60) + b"\x00"),
        (FIXED, b"abc"),
        ("string", varint(1) + b"\xff"),
        (SYMBOLS, varint(7)),
        (["null", "int"], varint(9)),
        ("long", b"\xff"),
        ("double", b"\x00" * 7),
        (logical("int", "time-millis"), varint(86_400_001)),
    ],
)
def test_lengths_and_numbers_that_cannot_be_are_refused_at_once(schema: Any, value: bytes) -> None:
    with pytest.raises(DecodeError):
        shown(schema, value)


def rich_schema() -> dict[str, Any]:
    return record(
        ("a", "long"),
        ("b", ["null", "string", INNER, {"type": "array", "items": "double"}]),
        ("c", {"type": "map", "values": ["bytes", DATE, DECIMAL]}),
        ("d", SYMBOLS),
        ("e", {"type": "array", "items": {"type": "array", "items": ["null", "Inner", "Symbols"]}}),
        ("f", logical("long", "timestamp-micros")),
        ("g", "double"),
    )


def test_of_bytes_that_are_none_of_a_schema_come_decode_errors_alone() -> None:
    schema, seed = rich_schema(), 20130131
    chance = random.Random(seed)
    value = {"a": 1, "b": [1.0], "c": {"k": b"x"}, "d": "A", "e": [[None, {"n": 1}]], "f": 5, "g": 1.5}
    plain = json.loads(json.dumps(schema).replace("logicalType", "ignored"))
    good = written(plain, value)
    read = AvroReader(ValueSpec("avro"), "t", FetchedSchemas(avro_schema(1, schema)))
    assert read(framed(1, good))
    reasons = []
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        some = bytes(bad[: chance.randint(0, len(bad))]) if chance.random() < 0.5 else bytes(bad)
        some = chance.randbytes(chance.randint(0, 60)) if chance.random() < 0.2 else some
        try:
            row = read(framed(1, some))
        except DecodeError as error:
            reasons.append(str(error))
        else:
            json.loads(row, parse_constant=pytest.fail)
    assert len(reasons) > 1000, seed
    assert max(map(len, reasons)) < 300, seed


# Framing


def test_a_value_without_a_frame_is_refused_and_a_schema_that_is_not_there_is_asked_for() -> None:
    read = AvroReader(ValueSpec("avro"), "t", FetchedSchemas(Schema(2, "JSON", "{}"), avro_schema(1, "int")))
    assert read(b"\0\0\0\0\x01\x02") == b"1"
    for value in (b"", b"\0\0\0\0", b"\x01\0\0\0\x01\x02", b'{"a":1}'):
        with pytest.raises(DecodeError, match="does not begin with a zero byte"):
            read(value)
    with pytest.raises(SchemaNeeded, match="7"):
        read(framed(7, b""))
    with pytest.raises(DecodeError, match="schema 2 is of type JSON"):
        read(framed(2, b""))


def test_truncated_and_trailing_bytes_are_refused_without_showing_them() -> None:
    schema = record(("a", "string"), ("b", "string"))
    value = written(schema, {"a": PRIVATE, "b": PRIVATE})
    for end in range(len(value)):
        with pytest.raises(DecodeError, match="cannot be read with schema 1") as caught:
            shown(schema, value[:end])
        assert PRIVATE not in str(caught.value)
    with pytest.raises(DecodeError, match="3 bytes are left over after it was read with schema 1"):
        shown(schema, value + b"abc")


def of_file(schema: Any) -> SchemaFile:
    return SchemaFile(Path("schema.avsc"), json.dumps(schema))


def test_without_framing_a_value_is_nothing_but_avro() -> None:
    schema = record(("a", DATE))
    read = AvroReader(ValueSpec("avro", "none", of_file(schema)), "t", FetchedSchemas())
    assert read(b"\x00") == b'{"a":"1970-01-01"}'
    with pytest.raises(DecodeError):
        read(b"\0\0\0\0\x01\x00")


# Of the Avro project's own tests of parsing canonical form, as signed 64-bit numbers.
@pytest.mark.parametrize(
    ("schema", "number"),
    [
        ("null", 7195948357588979594),
        ("boolean", -6970731678124411036),
        ("int", 8247732601305521295),
        ({"type": "int", "logicalType": "date"}, 8247732601305521295),
        ({"type": "string"}, -8142146995180207161),
    ],
)
def test_fingerprints_are_those_of_the_specification_little_endian(schema: Any, number: int) -> None:
    assert fingerprint(avro_schema(1, schema)) == number.to_bytes(8, "little", signed=True)


def test_what_does_not_matter_to_the_bytes_does_not_matter_to_the_fingerprint() -> None:
    plain = {"type": "record", "name": "a.b.R", "fields": [{"name": "x", "type": "double"}]}
    adorned = {
        "fields": [{"default": 1, "type": {"type": "double", "p": 1}, "name": "x", "doc": "d"}],
        "namespace": "a.b",
        "name": "R",
        "doc": "about it",
        "aliases": ["S"],
        "type": "record",
    }
    assert fingerprint(avro_schema(1, plain)) == fingerprint(avro_schema(2, adorned))


def test_single_object_encoding_is_read_by_its_fingerprint() -> None:
    schema = record(("a", "int"))
    read = AvroReader(ValueSpec("avro", "single_object", of_file(schema)), "t", FetchedSchemas())
    head = b"\xc3\x01" + fingerprint(avro_schema(1, schema))
    assert read(head + b"\x02") == b'{"a":1}'
    with pytest.raises(DecodeError, match="its fingerprint is not that of the table's schema"):
        read(b"\xc3\x01" + fingerprint(avro_schema(1, "int")) + b"\x02")
    for value in (b"", b"\xc3", b"\xc3\x02" + head[2:] + b"\x02", framed(1, b"\x02")):
        with pytest.raises(DecodeError, match="c3 01 of Avro's single-object encoding"):
            read(value)
    with pytest.raises(DecodeError, match="its fingerprint is not that of the table's schema"):
        read(b"\xc3\x01\x00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]]",
        '{"type":"record"}',
        '{"type":"no"}',
        "no",
        '"no"',
        "5",
        "[" * 100_000,
        '{"type":"enum","name":"E"}',
    ],
)
def test_a_text_that_is_no_schema_is_a_decode_error_the_first_time_and_after(text: str) -> None:
    schema = Schema(1, "AVRO", text)
    read = AvroReader(ValueSpec("avro"), "t", FetchedSchemas(schema))
    for _ in range(2):
        with pytest.raises(DecodeError, match="schema 1 cannot be used"):
            read(framed(1, b"\x02"))


def test_the_name_of_a_primitive_type_needs_no_quotes() -> None:
    read = AvroReader(ValueSpec("avro"), "t", FetchedSchemas(Schema(1, "AVRO", "string")))
    assert read(framed(1, b"\x02a")) == b'"a"'
    assert base64.b64encode(fingerprint(Schema(1, "AVRO", "string"))) == base64.b64encode(
        fingerprint(avro_schema(2, "string"))
    )
