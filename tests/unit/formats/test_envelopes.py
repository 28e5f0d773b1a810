import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from tablehouse.catalog.spec import Envelope, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.envelopes import envelope_of
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers

PLACEHOLDER = "__debezium_unavailable_value"


def opened(
    envelope: Envelope, text: bytes, columns: Mapping[str, str] | None = None, headers: Headers = ()
) -> bytes | None:
    source = SourceSpec("topic", KeySpec("string"), ValueSpec("json"), envelope=envelope)
    return envelope_of(TableSpec("t", source, columns=columns))(text, headers)


def event(op: Any, after: Any = None, **members: Any) -> bytes:
    whole = {"before": None, "after": after, "source": {"ts_ms": 5, "lsn": 7, "db": "d"}, "op": op, "ts_ms": 9}
    return json.dumps(whole | members).encode()


# Debezium


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_the_row_of_a_change_event_is_its_after_byte_for_byte(op: str) -> None:
    row = b'{"id" : 7,\n "amount":1.10, "big":123456789012345678901234567890, "name":"\\u00fc"}'
    text = b'{"before":{"id":7},"after":' + row + b',"source":{},"op":"' + op.encode() + b'","ts_ms":1}'
    assert opened("debezium", text) == row


def test_a_delete_event_deletes() -> None:
    assert opened("debezium", event("d", before={"id": 7})) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (event("t"), "its whole table was truncated"),
        (event("m", message={"prefix": "p", "content": ""}), "logical decoding message"),
        (event("x", {"id": 1}), "none of c, r, u, d, t and m"),
        (event(3, {"id": 1}), "its JSON has an unexpected form"),
        (b'{"id":1,"name":"flattened"}', "envelope none"),
        (b'{"id":1,"schema":"public","payload":{"id":1}}', "envelope none"),
        (b'{"id":1,"schema":"public","payload":"text"}', "envelope none"),
        (event("c"), "op c whose after is not an object"),
        (event("u", "row"), "op u whose after is not an object"),
        (b'{"op":"r"}', "op r whose after is not an object"),
        (b"[]", "its JSON has an unexpected form"),
        (b"null", "its JSON has an unexpected form"),
        (b"{", "not JSON"),
        (b'{"op":"c","after":{"name":"\xff"}}', "not UTF-8"),
        (b'{"op":"c","after":{"n":1e999}}', "out of range"),
        (b"", "not JSON"),
        (b'{"op":"c","after":' + b"[" * 100_000, "nested"),
    ],
)
@pytest.mark.parametrize("columns", [None, {"id": "id", "op": "$op", "lsn": "$source.lsn"}])
def test_an_event_that_is_no_row_and_no_delete_is_a_decode_error(
    text: bytes, reason: str, columns: Mapping[str, str] | None
) -> None:
    with pytest.raises(DecodeError, match=reason):
        opened("debezium", text, columns)


#: As Debezium's connector for MongoDB writes them.
DOCUMENT = '{"_id": {"$oid": "596e275826f08b2730779e1f"},"n": {"$numberLong": "9007199254740993"},"tags": ["é"]}'


def of_mongodb(op: str, after: str | None = DOCUMENT, **members: Any) -> bytes:
    source = {"connector": "mongodb", "db": "shop", "collection": "orders", "ord": 31, "ts_ms": 5}
    return json.dumps({"before": None, "after": after, "source": source, "op": op, "ts_ms": 9} | members).encode()


UPDATED = {"removedFields": None, "updatedFields": '{"n": 1}', "truncatedArrays": None}


@pytest.mark.parametrize(
    "text",
    [of_mongodb("c"), of_mongodb("r"), of_mongodb("u", updateDescription=UPDATED)],
)
def test_the_row_of_an_event_of_mongodb_is_the_document_in_the_string_as_it_stands(text: bytes) -> None:
    assert opened("debezium", text) == DOCUMENT.encode()


def test_the_document_of_an_event_with_a_schema_is_taken_out_of_its_string_and_has_columns() -> None:
    schema = struct(
        {"type": "string", "name": "io.debezium.data.Json", "field": "after"}, {"type": "string", "field": "op"}
    )
    text = b'{"schema":' + json.dumps(schema).encode() + b',"payload":' + of_mongodb("u") + b"}"
    assert opened("debezium", text) == DOCUMENT.encode()
    columns = {"id": "_id", "collection": "$source.collection"}
    assert opened("debezium", text, columns) == b'{"id":{"$oid": "596e275826f08b2730779e1f"},"collection":"orders"}'


def test_a_delete_of_mongodb_deletes_and_an_update_without_its_document_names_the_setting() -> None:
    assert opened("debezium", of_mongodb("d", None)) is None
    with pytest.raises(DecodeError, match=r"set capture\.mode=change_streams_update_full"):
        opened("debezium", of_mongodb("u", None, updateDescription=UPDATED))


@pytest.mark.parametrize("after", ["[1]", "text", "{", '"x"'])
def test_a_string_without_a_document_in_it_is_no_row(after: str) -> None:
    with pytest.raises(DecodeError, match="op c whose after is not an object"):
        opened("debezium", of_mongodb("c", after))


def test_columns_are_taken_from_the_row_and_from_around_it() -> None:
    columns = {"op": "$op", "name": "n", "at": "$ts_ms", "lsn": "$source.lsn", "none": "$source.x", "no": "x"}
    text = event("u", {"n": "Ann", "op": "mine"})
    assert opened("debezium", text, columns) == b'{"op":"u","name":"Ann","at":9,"lsn":7,"none":null,"no":null}'
    assert opened("debezium", event("d"), columns) is None


def test_columns_of_an_event_without_a_source_block_are_null() -> None:
    columns = {"lsn": "$source.lsn", "at": "$ts_ms"}
    assert opened("debezium", b'{"op":"c","after":{}}', columns) == b'{"lsn":null,"at":null}'


@pytest.mark.parametrize(
    "value",
    [
        PLACEHOLDER,
        b64encode(PLACEHOLDER.encode()).decode(),
        {PLACEHOLDER: PLACEHOLDER},
        json.dumps({PLACEHOLDER: PLACEHOLDER}, separators=(",", ":")),
        [PLACEHOLDER],
        [b64encode(PLACEHOLDER.encode()).decode()],
        list(PLACEHOLDER.encode()),
        [float(byte) for byte in PLACEHOLDER.encode()],
        [str(byte) for byte in PLACEHOLDER.encode()],
        [f"{byte / 100:.2f}" for byte in PLACEHOLDER.encode()],
        [b64encode(bytes((byte,))).decode() for byte in PLACEHOLDER.encode()],
        [{"scale": 0, "value": b64encode(bytes((byte,))).decode()} for byte in PLACEHOLDER.encode()],
        [True] * len(PLACEHOLDER),
        [str(UUID(bytes=hashlib.md5(PLACEHOLDER.encode()).digest(), version=3))],  # noqa: S324  nameUUIDFromBytes of Java
    ],
)
def test_an_update_that_lacks_a_large_value_is_a_decode_error_that_names_the_column(value: Any) -> None:
    text = event("u", {"id": 1, "biography": value})
    with pytest.raises(DecodeError, match=r"column biography.*REPLICA IDENTITY FULL"):
        opened("debezium", text)
    assert opened("debezium", text, {"id": "id"}) == b'{"id":1}'


@pytest.mark.parametrize(
    "value",
    [f"it says {PLACEHOLDER}", [1, 2], [95, 95], ["a"] * len(PLACEHOLDER), [None] * len(PLACEHOLDER), [], {}, None],
)
def test_a_value_that_only_resembles_a_placeholder_is_a_value(value: Any) -> None:
    row = json.dumps({"id": 1, "v": value}).encode()
    assert opened("debezium", b'{"op":"u","after":' + row + b"}") == row


# Debezium in JSON with schemas


def struct(*fields: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "struct", "optional": True, "fields": list(fields), **members}


def with_schema(row: dict[str, Any], *fields: dict[str, Any], op: str = "c") -> bytes:
    source = struct({"type": "int64", "field": "lsn"}, field="source")
    schema = struct(
        struct(*fields, field="before"), struct(*fields, field="after"), source, {"type": "string", "field": "op"}
    )
    payload = {"before": None, "after": row, "source": {"lsn": 3}, "op": op, "ts_ms": 1}
    return json.dumps({"schema": schema, "payload": payload}).encode()


def base64(number: int) -> str:
    return b64encode(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)).decode()


CONNECT, DEBEZIUM = "org.apache.kafka.connect.data.", "io.debezium."


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "2"}}, base64(1230), "12.30"),
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "2"}}, base64(-5), "-0.05"),
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "0"}}, base64(10**30), str(10**30)),
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "-3"}}, base64(12), "12000"),
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "-3"}}, base64(0), "0"),
        ({"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "3"}}, base64(0), "0.000"),
        (
            {"type": "struct", "name": DEBEZIUM + "data.VariableScaleDecimal"},
            {"scale": 3, "value": base64(-12345)},
            "-12.345",
        ),
        ({"type": "int32", "name": CONNECT + "Date"}, 15736, "2013-01-31"),
        ({"type": "int32", "name": DEBEZIUM + "time.Date"}, -719162, "0001-01-01"),
        ({"type": "int32", "name": CONNECT + "Time"}, 19_020_123, "05:17:00.123"),
        ({"type": "int32", "name": DEBEZIUM + "time.Time"}, 0, "00:00:00.000"),
        ({"type": "int64", "name": DEBEZIUM + "time.MicroTime"}, 86_400_000_000, "24:00:00.000000"),
        ({"type": "int64", "name": DEBEZIUM + "time.NanoTime"}, 1, "00:00:00.000000001"),
        ({"type": "int64", "name": CONNECT + "Timestamp"}, 1359609420123, "2013-01-31T05:17:00.123Z"),
        ({"type": "int64", "name": DEBEZIUM + "time.Timestamp"}, -1, "1969-12-31T23:59:59.999"),
        ({"type": "int64", "name": DEBEZIUM + "time.MicroTimestamp"}, 1359609420123456, "2013-01-31T05:17:00.123456"),
        ({"type": "int64", "name": DEBEZIUM + "time.NanoTimestamp"}, 5, "1970-01-01T00:00:00.000000005"),
        ({"type": "string", "name": DEBEZIUM + "time.ZonedTimestamp"}, "2013-01-31T05:17:00Z", "2013-01-31T05:17:00Z"),
        ({"type": "string", "name": DEBEZIUM + "data.Enum", "parameters": {"allowed": "a,b"}}, "a", "a"),
        ({"type": "string", "name": DEBEZIUM + "data.Uuid"}, "00000000-0000-0000-0000-000000000001", None),
        ({"type": "bytes"}, "AAEC", None),
        ({"type": "int64"}, 9007199254740993, None),
        ({"type": "boolean"}, True, None),
        ({"type": "double"}, 0.1, None),
        (
            {"type": "array", "items": {"type": "int32", "name": DEBEZIUM + "time.Date"}},
            [0, None],
            ["1970-01-01", None],
        ),
        ({"type": "array", "items": {"type": "string"}}, ["a", None], None),
        (
            {"type": "map", "keys": {"type": "string"}, "values": {"type": "int32", "name": CONNECT + "Date"}},
            {"a": 1, "b": None},
            {"a": "1970-01-02", "b": None},
        ),
        (
            {"type": "map", "keys": {"type": "int32", "name": CONNECT + "Date"}, "values": {"type": "string"}},
            [[1, "x"]],
            [["1970-01-02", "x"]],
        ),
        (
            struct({"type": "int32", "name": CONNECT + "Date", "field": "day"}, {"type": "int32", "field": "n"}),
            {"day": 1, "n": 1},
            {"day": "1970-01-02", "n": 1},
        ),
    ],
)
def test_a_schema_says_what_a_member_means_and_its_text_is_what_people_read(
    schema: dict[str, Any], value: Any, text: Any
) -> None:
    for given, expected in ((value, value if text is None else text), (None, None)):
        row = opened(
            "debezium", with_schema({"id": 1, "v": given}, {"type": "int32", "field": "id"}, {**schema, "field": "v"})
        )
        assert row is not None
        assert json.loads(row) == {"id": 1, "v": expected}


def test_numbers_keep_their_digits_beside_members_that_are_converted() -> None:
    date = {"type": "int32", "name": CONNECT + "Date", "field": "day"}
    text = with_schema({"day": 1, "x": 0}, date, {"type": "double", "field": "x"}).replace(b'"x": 0', b'"x": 1.10E+2')
    assert opened("debezium", text) == b'{"day":"1970-01-02","x":1.10E+2}'


def test_a_decimal_that_connect_writes_as_a_number_keeps_every_digit() -> None:
    field = {"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": "2"}, "field": "v"}
    text = with_schema({"v": 0}, field).replace(b'"v": 0', b'"v": 12345678901234567890.10')
    assert opened("debezium", text) == b'{"v":"12345678901234567890.10"}'


def nested(depth: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a schema of types that are nested so deep, a date in structs and arrays, and its payload, as fields."""
    schema: dict[str, Any] = {"type": "int32", "name": CONNECT + "Date"}
    value: Any = 1
    for level in range(depth - 1):
        if level % 2:
            schema, value = {"type": "array", "items": schema}, [value]
        else:
            schema, value = {"type": "struct", "fields": [{**schema, "field": "f"}]}, {"f": value}
    return {**schema, "field": "v"}, {"v": value}


def test_a_schema_whose_types_are_nested_beyond_a_limit_is_a_reason_to_refuse_it() -> None:
    schema, row = nested(99)  # in the struct of the row
    shown = opened("debezium", with_schema(row, schema))
    assert shown == json.dumps(row, separators=(",", ":")).replace("1", '"1970-01-02"').encode()
    for depth in (100, 150):
        schema, row = nested(depth)
        with pytest.raises(DecodeError, match="types nested more than 100 deep"):
            opened("debezium", with_schema(row, schema))
        with pytest.raises(DecodeError, match="types nested more than 100 deep"):
            opened("outbox", json.dumps({"schema": struct(schema), "payload": row}).encode())


@pytest.mark.parametrize("name", ['"', 'the "quoted" one', "\\", "a\nb", "ü\u2028\x00"])
def test_a_column_may_have_any_name(name: str) -> None:
    field = {"type": "int32", "name": CONNECT + "Date", "field": name}
    row = opened("debezium", with_schema({"id": 1, name: 1}, {"type": "int32", "field": "id"}, field))
    assert row is not None
    assert json.loads(row) == {"id": 1, name: "1970-01-02"}
    missing = opened("debezium", with_schema({"id": 1.10}, {"type": "double", "field": "id"}, field))
    assert missing is not None
    assert json.loads(missing) == {"id": 1.1, name: None}


def test_a_row_whose_schema_means_nothing_more_is_copied_byte_for_byte() -> None:
    text = with_schema({"v": 0}, {"type": "double", "field": "v"}).replace(b'{"v": 0}', b'{ "v" : 1.10 }')
    assert opened("debezium", text) == b'{ "v" : 1.10 }'


def test_with_a_schema_deletes_columns_and_refusals_are_as_without() -> None:
    field = {"type": "int32", "name": CONNECT + "Date", "field": "day"}
    assert opened("debezium", with_schema({}, field, op="d")) is None
    columns = {"day": "day", "op": "$op", "lsn": "$source.lsn"}
    assert opened("debezium", with_schema({"day": 0}, field), columns) == b'{"day":"1970-01-01","op":"c","lsn":3}'
    with pytest.raises(DecodeError, match="truncated"):
        opened("debezium", with_schema({}, field, op="t"))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (CONNECT + "Decimal", "%", "member v: a decimal is not base64"),
        (CONNECT + "Decimal", True, "member v: a Decimal is neither"),
        (DEBEZIUM + "data.VariableScaleDecimal", {"scale": "a"}, "member v: a VariableScaleDecimal"),
        (DEBEZIUM + "data.VariableScaleDecimal", {"scale": -(2**31), "value": "AQ=="}, "more than 4300 digits"),
        (DEBEZIUM + "time.MicroTimestamp", "x", "member v: a date or time is not an integer"),
        (DEBEZIUM + "time.MicroTimestamp", 2**63, "member v: a date or time is not an integer of 64 bits"),
        (DEBEZIUM + "time.NanoTime", -(2**63) - 1, "member v: a date or time is not an integer of 64 bits"),
        (CONNECT + "Date", 1.0, "member v: a date or time is not an integer"),
        (CONNECT + "Time", -1, "member v: it is no time of a day"),
        (CONNECT + "Time", 86_400_001, "member v: it is no time of a day"),
    ],
)
def test_a_value_that_is_not_what_its_schema_says_is_a_decode_error_that_names_it(
    name: str, value: Any, reason: str
) -> None:
    with pytest.raises(DecodeError, match=reason):
        opened("debezium", with_schema({"v": value}, {"type": "any", "name": name, "field": "v"}))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (CONNECT + "Date", 2**31 - 1, "+5881580-07-11"),
        (CONNECT + "Date", -(2**31), "-5877641-06-23"),
        (DEBEZIUM + "time.Date", 2_932_897, "+10000-01-01"),
        (CONNECT + "Timestamp", 2**63 - 1, "+292278994-08-17T07:12:55.807Z"),
        (CONNECT + "Timestamp", -(2**63), "-292275055-05-16T16:47:04.192Z"),
        (DEBEZIUM + "time.Timestamp", 253_402_300_800_000, "+10000-01-01T00:00:00.000"),
        (DEBEZIUM + "time.MicroTimestamp", 9_223_372_036_825_200_000, "+294247-01-10T04:00:25.200000"),
        (DEBEZIUM + "time.MicroTimestamp", -62_135_596_800_000_001, "0000-12-31T23:59:59.999999"),
        (DEBEZIUM + "time.NanoTimestamp", -(2**63), "1677-09-21T00:12:43.145224192"),
        (CONNECT + "Time", 86_400_000, "24:00:00.000"),
        (DEBEZIUM + "time.Time", -1, "-00:00:00.001"),
        (DEBEZIUM + "time.MicroTime", 95_400_000_000, "26:30:00.000000"),
        (DEBEZIUM + "time.MicroTime", -3_020_399_000_000, "-838:59:59.000000"),
        (DEBEZIUM + "time.MicroTime", 2**63 - 1, "2562047788:00:54.775807"),
        (DEBEZIUM + "time.NanoTime", -(2**63), "-2562047:47:16.854775808"),
        (DEBEZIUM + "time.ZonedTimestamp", "+10000-01-01T00:00:00Z", "+10000-01-01T00:00:00Z"),
        (DEBEZIUM + "time.Year", 2024, 2024),
        (DEBEZIUM + "time.MicroDuration", -(2**63), -(2**63)),
        (DEBEZIUM + "data.Bits", "/w==", "/w=="),
        (DEBEZIUM + "data.Enum", "b'x", "b'x"),
        (
            DEBEZIUM + "data.geometry.Point",
            {"x": 1.5, "wkb": "AQ==", "srid": None},
            {"x": 1.5, "wkb": "AQ==", "srid": None},
        ),
    ],
)
def test_a_value_at_the_end_of_what_its_type_can_be_is_shown_as_java_and_mysql_do(
    name: str, value: Any, text: Any
) -> None:
    shown = opened("debezium", with_schema({"v": value}, {"type": "any", "name": name, "field": "v"}))
    assert shown is not None
    assert json.loads(shown) == {"v": text}


@pytest.mark.parametrize(
    ("scale", "value", "text"),
    [
        (10, b"5E-10", "0.0000000005"),
        (10, b"0E-10", "0.0000000000"),
        (-2, b"-1.2E+4", "-12000"),
        (127, b"1E-127", "0." + "0" * 126 + "1"),
        (2, b"-0.05", "-0.05"),
    ],
)
def test_a_decimal_that_connect_writes_with_an_exponent_is_shown_without(scale: int, value: bytes, text: str) -> None:
    field = {"type": "bytes", "name": CONNECT + "Decimal", "parameters": {"scale": str(scale)}, "field": "v"}
    row = with_schema({"v": 0}, field).replace(b'"v": 0', b'"v": ' + value)
    assert opened("debezium", row) == b'{"v":"%s"}' % text.encode()


def test_a_schema_that_is_none_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        opened("debezium", b'{"schema":{"type":3},"payload":{"op":"c","after":{}}}')


# The outbox


@pytest.mark.parametrize("payload", [b'{"id" : 1.10}', b"[1]", b"3", b'"hello"', b"null", b'"{broken"', b'"3"'])
def test_a_payload_of_the_outbox_is_the_row_byte_for_byte(payload: bytes) -> None:
    assert opened("outbox", payload) == payload


def test_json_in_a_string_is_taken_out_of_it() -> None:
    assert opened("outbox", json.dumps('{"id" : 1.10, "name": "ü"}').encode()) == '{"id" : 1.10, "name": "ü"}'.encode()
    assert opened("outbox", b'"[1, 2]"') == b"[1, 2]"


def test_a_payload_with_connects_schema_is_taken_out_of_it() -> None:
    schema = {"type": "string", "optional": True, "name": "io.debezium.data.Json", "version": 1}
    text = json.dumps({"schema": schema, "payload": '{"id":1}'}, separators=(",", ":")).encode()
    assert opened("outbox", text) == b'{"id":1}'
    assert opened("outbox", b'{"schema":null,"payload":{"id" : 1}}') == b'{"id" : 1}'
    mine = b'{"schema":"public","payload":{"id":1}}'
    assert opened("outbox", mine) == mine


def test_headers_become_columns() -> None:
    columns = {
        "id": "id",
        "type": "$headers.eventType",
        "event": "$headers.id",
        "none": "$headers.x",
        "empty": "$headers.n",
    }
    headers = [("id", b"first"), ("eventType", "Erstellt ü".encode()), ("id", b"last"), ("n", None)]
    row = opened("outbox", b'"{\\"id\\":1}"', columns, headers)
    assert row == '{"id":1,"type":"Erstellt ü","event":"last","none":null,"empty":null}'.encode()


@pytest.mark.parametrize(
    ("payload", "headers", "reason"),
    [
        (b"3", [], "not a JSON object"),
        (b"{", [], "not JSON"),
        (b'"\xff"', [], "UTF-8"),
        (b'{"schema":{"type":"string"},"payload":"{"}, ', [], "not JSON"),
        (b"{}", [("id", b"\xff")], "header id is not UTF-8"),
    ],
)
def test_a_payload_or_a_header_that_is_none_is_a_decode_error(
    payload: bytes, headers: list[tuple[str, bytes]], reason: str
) -> None:
    with pytest.raises(DecodeError, match=reason):
        opened("outbox", payload, {"id": "$headers.id"}, headers)
