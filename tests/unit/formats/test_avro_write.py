"""From rows to Avro and back: what a caller writes is what producers would have written."""

import json
import math
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.formats.avro_write import to_avro, to_avro_in_pieces, to_framed_avro, to_framed_avro_in_pieces
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schema
from tablehouse.turns import Work, finish
from tests.support.avro import avro_schema, record, shown_text, written
from tests.support.schemas import framed

_names = iter(range(10**9))


def plain(schema: Any) -> Any:
    """Take the logical types away, so that fastavro writes raw values."""
    return json.loads(json.dumps(schema).replace("logicalType", "ignored"))


def scalar(kind: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    return st.just((kind, values))


def logical(kind: str, name: str, values: st.SearchStrategy[Any], **more: Any) -> Any:
    return scalar({"type": kind, "logicalType": name, **more}, values)


def connect(kind: str, name: str, values: st.SearchStrategy[Any], **more: Any) -> Any:
    return scalar({"type": kind, "connect.name": name, **more}, values)


ints = st.integers(-(2**31), 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1)


def twos_complement(number: int) -> bytes:
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


scalars = st.one_of(
    scalar("null", st.none()),
    scalar("boolean", st.booleans()),
    scalar("int", ints),
    scalar("long", longs),
    scalar("float", st.floats(width=32, allow_nan=False) | st.just(math.nan)),
    scalar("double", st.floats(allow_nan=False) | st.just(math.nan)),
    scalar("string", st.text()),
    scalar("bytes", st.binary()),
    logical("int", "date", ints | st.integers(-719_162, 2_932_896)),
    logical("int", "time-millis", st.integers(0, 86_400_000)),
    logical("long", "time-micros", st.integers(0, 86_400_000_000)),
    *[
        logical("long", f"{prefix}timestamp-{name}", longs | st.integers(-(2**51), 2**51))
        for name in ("millis", "micros", "nanos")
        for prefix in ("", "local-")
    ],
    logical("bytes", "decimal", st.integers(-(10**9) + 1, 10**9 - 1).map(twos_complement), precision=9, scale=2),
    logical("bytes", "decimal", st.integers(-(10**9) + 1, 10**9 - 1).map(twos_complement), precision=9),
    logical("bytes", "decimal", st.binary(), precision=64, scale=127),
    connect("int", "io.debezium.time.Time", ints),
    connect("long", "io.debezium.time.MicroTime", longs),
    connect("long", "io.debezium.time.NanoTime", longs),
    connect("long", "io.debezium.time.NanoTimestamp", longs),
    connect(
        "bytes",
        "org.apache.kafka.connect.data.Decimal",
        st.integers(-(10**140), 10**140).map(twos_complement),
        **{"connect.parameters": {"scale": "127"}, "logicalType": "decimal", "precision": 64, "scale": 127},
    ),
    st.integers(-99_999, 99_999).map(
        lambda number: (
            {
                "type": "fixed",
                "name": f"D{next(_names)}",
                "size": 3,
                "logicalType": "decimal",
                "precision": 5,
                "scale": 5,
            },
            st.just(number.to_bytes(3, "big", signed=True)),
        )
    ),
    st.integers(0, 9).map(
        lambda size: (
            {"type": "fixed", "name": f"F{next(_names)}", "size": size},
            st.binary(min_size=size, max_size=size),
        )
    ),
    st.just(None).map(
        lambda _: ({"type": "enum", "name": f"E{next(_names)}", "symbols": ["A", "B", "C"]}, st.sampled_from("ABC"))
    ),
)


def compound(
    inner: st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]],
) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    def array(of: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
        wrapped = record(("i", of[0]), ("end", "boolean"), name=f"R{next(_names)}")  # never without bytes
        return {"type": "array", "items": wrapped}, st.lists(
            st.tuples(of[1], st.booleans()).map(lambda pair: dict(zip(("i", "end"), pair, strict=True))), max_size=3
        )

    def of_map(of: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
        return {"type": "map", "values": of[0]}, st.dictionaries(st.text(), of[1], max_size=3)

    def of_record(
        members: list[tuple[Any, st.SearchStrategy[Any]]],
    ) -> tuple[Any, st.SearchStrategy[Any]]:
        fields = [(f"f{number}", kind) for number, (kind, _) in enumerate(members)]
        values = st.fixed_dictionaries({f"f{number}": of for number, (_, of) in enumerate(members)})
        return record(*fields, name=f"R{next(_names)}"), values

    def optional(of: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
        if of[0] == "null" or isinstance(of[0], list):
            return of
        name = of[0].get("name", of[0]["type"]) if isinstance(of[0], dict) else of[0]
        return ["null", of[0]], st.none() | of[1].map(lambda value: (name, value))

    return st.one_of(
        inner.map(array), inner.map(of_map), st.lists(inner, min_size=1, max_size=4).map(of_record), inner.map(optional)
    )


schemas_and_values = st.recursive(scalars, compound, max_leaves=8).flatmap(
    lambda both: st.tuples(st.just(both[0]), both[1])
)


@settings(deadline=None, max_examples=300)
@given(schemas_and_values)
def test_what_a_row_shows_of_avro_is_written_as_the_same_bytes(both: tuple[Any, Any]) -> None:
    schema, value = both
    producer = written(plain(schema), value)
    text = shown_text(schema, producer)
    json.loads(text, parse_constant=pytest.fail)
    assert to_avro(text, avro_schema(1, schema)) == producer


@settings(deadline=None, max_examples=100)
@given(schemas_and_values)
def test_blanks_and_escapes_make_no_difference(both: tuple[Any, Any]) -> None:
    schema, value = both
    producer = written(plain(schema), value)
    text = json.dumps(json.loads(shown_text(schema, producer)), indent=1, separators=(" , ", "\t:\r\n"))
    assert to_avro(f" {text}\n".encode(), avro_schema(1, schema)) == producer


STRINGS = {"type": "map", "values": "string"}


@pytest.mark.parametrize(
    "text",
    [
        rb"""{"a":"\\","b":"\"","c":"\\\"","d":"\\\\","e":"[{,}]:"}""",
        rb"""{"\"":"\u0022","\\":"\\\\\"","\u0061":"","":" "}""",
        rb"""{"a,\"}":"{\"b\":[1,\"\\\"]}"}""",
    ],
)
def test_strings_end_where_json_says(text: bytes) -> None:
    assert to_avro(text, avro_schema(1, STRINGS)) == written(STRINGS, json.loads(text))


def test_fields_may_come_in_any_order_and_of_members_of_one_name_the_last_counts() -> None:
    schema = record(("a", "int"), ("m", STRINGS), ("b", {"type": "array", "items": "int"}))
    text = b'{"b":[1,2],"a":1,"m":{"x":"1","y":"2","x":"3"},"b":[],"a":5}'
    value = {"a": 5, "m": {"x": "3", "y": "2"}, "b": []}
    assert to_avro(text, avro_schema(1, schema)) == written(schema, value)


@pytest.mark.parametrize(
    ("end", "reason"), [('"x"]', None), ("1]", r"it\[100000\]: it has to be a string"), ('"x",]', "trailing comma")]
)
@pytest.mark.parametrize("write", [to_avro_in_pieces, to_framed_avro_in_pieces])
def test_a_large_row_becomes_in_pieces_what_it_becomes_at_once(
    write: Callable[[bytes, Schema], Work[bytes]], end: str, reason: str | None
) -> None:
    schema = avro_schema(1, {"type": "array", "items": "string"})
    text = b"[" + b'"x",' * 100_000 + end.encode()
    if reason is not None:
        with pytest.raises(DecodeError, match=reason):
            finish(write(text, schema))
        return
    at_once = to_avro if write is to_avro_in_pieces else to_framed_avro
    assert finish(write(text, schema)) == at_once(text, schema)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 8192])
def test_bytes_alone_have_no_length_behind_a_frame(size: int) -> None:
    schema = avro_schema(7, "bytes")
    content = bytes(range(256)) * 32
    text = json.dumps(b64encode(content[:size]).decode()).encode()
    assert to_framed_avro(text, schema) == framed(7, content[:size])


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 1, "logicalType": "decimal", "precision": 2, "scale": 2}
SYMBOLS = {"type": "enum", "name": "E", "symbols": ["A"]}
VARIABLE = record(("scale", "int"), ("value", "bytes"), name="V") | {
    "connect.name": "io.debezium.data.VariableScaleDecimal"
}


@pytest.mark.parametrize(
    ("branches", "text", "branch"),
    [
        (["double", "long", "null"], "5", ("long", 5)),
        (["double", "int"], "5000000000", ("double", 5e9)),
        (["double", "long"], "1.0", ("double", 1.0)),
        (["null", "string"], '"NaN"', ("string", "NaN")),
        (["null", "float"], '"NaN"', ("float", math.nan)),
        ([DECIMAL, "string"], '"12.3"', ("bytes", b"\x04\xce")),
        ([SYMBOLS, "string"], '"A"', ("E", "A")),
        ([SYMBOLS, "string"], '"B"', ("string", "B")),
        ([record(("a", "int"), name="A"), record(("b", "int"), name="B")], '{"b":1}', ("B", {"b": 1})),
        ([{"type": "map", "values": "int"}, "null"], '{"b":1}', ("map", {"b": 1})),
        ([{"type": "array", "items": "int"}, "null"], "[1]", ("array", [1])),
        ([VARIABLE, "null"], '"-1.50"', ("V", {"scale": 2, "value": b"\xff\x6a"})),
        (["boolean", "int"], "true", ("boolean", True)),
    ],
)
def test_of_a_union_the_branch_is_written_that_takes_the_value(branches: Any, text: str, branch: Any) -> None:
    assert to_avro(text.encode(), avro_schema(1, branches)) == written(plain(branches), branch)


def test_a_precision_of_any_size_costs_nothing() -> None:
    schema = avro_schema(1, {"type": "bytes", "logicalType": "decimal", "precision": 10**12, "scale": 2})
    assert to_avro(b'"12.30"', schema) == b"\x04\x04\xce"


def test_a_member_that_is_missing_is_its_default() -> None:
    schema = record(
        ("a", "int"),
        ("b", "bytes", "\u00ff"),
        ("d", "double", 1),
        ("t", {"type": "long", "logicalType": "timestamp-millis"}, 5),
        ("u", ["null", DECIMAL], None),
        ("r", record(("x", {"type": "int", "logicalType": "date"}, 0), name="Q"), {}),
    )
    value = {"a": 1, "b": b"\xff", "d": 1.0, "t": 5, "u": None, "r": {"x": 0}}
    assert to_avro(b'{"a":1}', avro_schema(1, schema)) == written(plain(schema), value)


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (record(("a", "int")), "{}", "a is missing, and the schema has no default"),
        (record(("a", "int")), "[]", "it has to be an object"),
        (record(("a", "int")), '{"a":1,"b":2}', "b is not a field of the schema: its fields are a"),
        (record(("a", record(("b", "int"), name="B"))), '{"a":{"b":"x"}}', "a.b: it has to be an integer from"),
        (record(("a", {"type": "array", "items": "string"})), '{"a":["x",1]}', r"a\[1\]: it has to be a string"),
        (record(("a", {"type": "array", "items": "string"})), '{"a":{}}', "a has to be an array"),
        (record(("a", {"type": "map", "values": "null"})), '{"a":{"k":1}}', "a.k: it has to be null"),
        (record(("a", {"type": "map", "values": "null"})), '{"a":[]}', "a has to be an object"),
        (record(("a", ["null", "int", DECIMAL])), '{"a":"x"}', "a is none of null, int, decimal"),
        ("int", "2147483648", "an integer from -2147483648 to 2147483647"),
        ("int", "1.0", "an integer"),
        ("int", "true", "an integer"),
        ("long", "9223372036854775808", "an integer"),
        ("float", "1e300", "beyond the range of a float"),
        ("double", "1" + "0" * 400, "beyond the range of a double"),
        ("double", '"nan"', "a number, "),
        ("double", "true", "a number, "),
        ("boolean", "1", "true or false"),
        ("bytes", '"YQ"', "base64"),
        ("bytes", "5", "a string"),
        ({"type": "fixed", "name": "F", "size": 2}, '"YQ=="', "2 bytes in base64, and is 1"),
        (SYMBOLS, '"B"', "one of A"),
        (SYMBOLS, "{}", "one of A"),
        (DECIMAL, '"123.45"', "more than the 4 digits"),
        (DECIMAL, '"1.234"', "more than 2 digits after the point"),
        (DECIMAL, "1.5", "a decimal in a string"),
        (DECIMAL, '"1e3"', "it has to be a decimal in a string"),
        (DECIMAL, f'"{"1" * 5000}"', "more than 4300 digits"),
        (FIXED_DECIMAL, '"1.00"', "more than the 2 digits"),
        ({"type": "int", "logicalType": "date"}, '"2013-02-30"', "a date, like"),
        ({"type": "int", "logicalType": "date"}, '"20130131"', "a date, like"),
        ({"type": "int", "logicalType": "date"}, "0", "a date in a string"),
        ({"type": "int", "logicalType": "time-millis"}, '"24:30:00"', "no time of a day"),
        ({"type": "int", "logicalType": "time-millis"}, '"5:17"', "a time of day"),
        ({"type": "int", "logicalType": "time-millis"}, '"05:17:00.1234"', "more than 3 digits"),
        ({"type": "long", "logicalType": "timestamp-millis"}, '"2013-01-31T05:17:00"', "a timestamp, like"),
        ({"type": "long", "logicalType": "timestamp-millis"}, '"2013-01-31"', "a timestamp"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, '"9999-01-31T00:00:00Z"', "an integer from"),
        ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, '"x"', "a uuid"),
        (VARIABLE, '{"scale":1}', "decimal in a string"),
        ("string", "{", "not JSON"),
    ],
)
def test_a_row_that_the_schema_does_not_describe_is_refused_and_its_field_named(
    schema: Any, text: str, reason: str
) -> None:
    with pytest.raises(DecodeError, match=reason):
        to_avro(text.encode(), avro_schema(1, schema))
