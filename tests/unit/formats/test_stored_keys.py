"""Stored keys: their bytes, which never change, and the way back from them to the text of a URL."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import KeyFormatName, KeySpec, SourceSpec, ValueSpec
from tablehouse.errors import KeySchemaUnknown
from tablehouse.formats.errors import DecodeError, StoredKeyError
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import KeyFormat
from tablehouse.formats.schemas import Schema
from tablehouse.formats.spellings import SPELLINGS
from tablehouse.formats.variants import Known
from tests.support.avro import avro_schema, record, written
from tests.support.avro import bare as without_length
from tests.support.schemas import FetchedSchemas, framed

JSON = Schema(1, "JSON", "{}")
STATE = {"type": "enum", "name": "State", "symbols": ["NEW", "SENT"]}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
FIXED = {"type": "fixed", "name": "Fixed", "size": 9, "logicalType": "decimal", "precision": 20, "scale": 0}
ANY_SCALE = record(("scale", "int"), ("value", "bytes"), name="io.debezium.data.VariableScaleDecimal") | {
    "connect.name": "io.debezium.data.VariableScaleDecimal"
}
DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}


def keys_of(spec: KeySpec, *schemas: Schema, known: Known | None = None) -> KeyFormat:
    """Return the keys of a topic of which each schema is known, the last one as the newest."""
    known = known or Known(FetchedSchemas(*schemas))
    for schema in schemas:
        assert isinstance(schema.id, int)
        known.keys_of("orders").learn(schema.id.to_bytes(4, "big"))
    return source_keys(SourceSpec("orders", spec, ValueSpec("json")), known)


def avro_keys(*schemas: Any, fields: tuple[str, ...] = (), bare: bool = False) -> KeyFormat:
    return keys_of(
        KeySpec("avro", fields, bare), *(avro_schema(7 + number, schema) for number, schema in enumerate(schemas))
    )


def connect_text(schema: Any, payload: str) -> bytes:
    return b'{"schema":' + json.dumps(schema, separators=(",", ":")).encode() + b',"payload":' + payload.encode() + b"}"


def number(double: str, rest: str) -> str:
    """Return the bytes of a number in JSON, which are a tag, the ordered double, the residual and the kind."""
    return f"04{double}{rest}"


PAIR = record(("b", "string"), ("a", "long"), name="Key")

FIXED_BYTES: list[tuple[KeyFormat, bytes, str]] = [
    (keys_of(KeySpec("string")), "a/ü".encode(), "612fc3bc"),
    (keys_of(KeySpec("string")), b"", ""),
    (keys_of(KeySpec("bytes")), b"_wA", "ff00"),
    (keys_of(KeySpec("int")), b"-2147483648", "00000000"),
    (keys_of(KeySpec("int")), b"7", "80000007"),
    (keys_of(KeySpec("long")), b"-1", "7fffffffffffffff"),
    (keys_of(KeySpec("long")), b"1099511627776", "8000010000000000"),
    (
        keys_of(KeySpec("uuid")),
        b"123e4567-e89b-12d3-a456-426614174abc",
        "123e4567e89b12d3a456426614174abc",
    ),
    (keys_of(KeySpec("json")), b"null", "01"),
    (keys_of(KeySpec("json")), b"false", "02"),
    (keys_of(KeySpec("json")), b"true", "03"),
    (keys_of(KeySpec("json")), b"7", number("c01c000000000000", "000000")),
    (keys_of(KeySpec("json")), b"7.0", number("c01c000000000000", "000001")),
    (keys_of(KeySpec("json")), b"-1.5", number("4007ffffffffffff", "000001")),
    (keys_of(KeySpec("json")), b"9223372036854775807", number("c3dfffffffffffff", "03ff00")),
    (keys_of(KeySpec("json")), b'"a\\u0000\xc3\xbc"', "056100ffc3bc00"),
    (keys_of(KeySpec("json", ("b", "a"))), b'{"b":"x","a":true}', "05780003"),
    (keys_of(KeySpec("json", ("id",), bare=True)), b'"x"', "057800"),
    (keys_of(KeySpec("json_sr", ("b", "a")), JSON), b'{"b":"x","a":true}', "05780003"),
    (keys_of(KeySpec("json_connect", ("id",), bare=True)), b"7", number("c01c000000000000", "000000")),
    (avro_keys("string"), b"a", "056100"),
    (avro_keys("string"), b"7", number("c01c000000000000", "000000")),
    (avro_keys("string"), b"007", "0530303700"),
    (avro_keys("long"), b"7", number("c01c000000000000", "000000")),
    (avro_keys(["null", "double"]), b"1.5", "05312e3500"),
    (avro_keys("boolean"), b"true", "057472756500"),
    (avro_keys("bytes"), b"_wA", "055f774100"),
    (avro_keys(MONEY), b"12.30", "0531322e333000"),
    (avro_keys(PAIR, fields=("a", "b")), b'{"a":7,"b":"x"}', number("c01c000000000000", "000000") + "057800"),
]


@pytest.mark.parametrize(("keys", "text", "expected"), FIXED_BYTES)
def test_stored_bytes_are_what_stores_and_changelogs_have_and_their_text_is_had_again(
    keys: KeyFormat, text: bytes, expected: str
) -> None:
    assert keys.parse(text).stored.hex() == expected
    assert keys.text(bytes.fromhex(expected)) == text


# Every key

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON_SPECS = [
    spec
    for name in ("json", "json_sr", "json_connect")
    for spec in (
        KeySpec(name),
        KeySpec(name, ("id",), bare=True),
        KeySpec(name, ("b", 'a"ü')),
    )
]


def assert_round_trip(keys: KeyFormat, stored: bytes) -> bytes:
    """Hold a stored key to its text; returns the text."""
    text = keys.text(stored)
    assert keys.parse(text).stored == stored
    assert keys.text(keys.parse(text).stored) == text
    return text


@settings(deadline=None, max_examples=50)
@given(st.text(), st.binary(), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1), st.uuids())
def test_plain_keys_have_one_text(text: str, data: bytes, small: int, large: int, uuid: Any) -> None:
    padded = urlsafe_b64encode(data)
    cases: list[tuple[KeyFormatName, bytes, bytes, list[bytes]]] = [
        ("string", text.encode(), text.encode(), []),
        ("bytes", data, padded.rstrip(b"="), [padded]),
        ("int", small.to_bytes(4, "big", signed=True), str(small).encode(), []),
        ("long", large.to_bytes(8, "big", signed=True), str(large).encode(), []),
        ("uuid", str(uuid).encode(), str(uuid).encode(), [str(uuid).upper().encode()]),
        ("uuid", str(uuid).upper().encode(), str(uuid).encode(), []),
    ]
    for name, wire, expected, others in cases:
        keys = keys_of(KeySpec(name))
        assert assert_round_trip(keys, keys.store(wire)) == expected == keys.record_text(wire)
        for other in others:
            assert keys.text(keys.parse(other).stored) == expected


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(JSON_SPECS), st.sampled_from(sorted(SPELLINGS)), st.tuples(scalars, scalars))
def test_a_json_key_has_the_same_text_however_its_producer_spells_it(
    spec: KeySpec, spelling: Any, values: tuple[Any, Any]
) -> None:
    members = values[: max(1, len(spec.fields))]
    # Go and PHP write 5.0 as 5, which is another key.
    assume(
        spelling not in {"go", "php"} or not any(isinstance(value, float) and value.is_integer() for value in members)
    )
    keys = keys_of(spec, JSON)
    content = SPELLINGS[spelling](members, spec.fields)
    wire = {
        "json": content,
        "json_sr": framed(1, content),
        "json_connect": connect_text({"type": "struct"}, content.decode()),
    }[spec.format]
    stored = keys.store(wire)
    alone = spec.bare or not spec.fields
    shown = SPELLINGS[spelling](members, () if alone else spec.fields)
    assert keys.record_text(wire) == shown
    text = assert_round_trip(keys, stored)
    assert text == SPELLINGS["compact"](members, () if alone else spec.fields)
    assert keys.text(keys.parse(shown).stored) == text


def scaled(value: int) -> bytes:
    return value.to_bytes(9, "big", signed=True)


#: Schemas of scalars, and values as fastavro writes them.
AVRO: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("string", st.text() | st.integers().map(str) | st.sampled_from(["true", "1.5", "null", "007", "-0", ""])),
    (["null", "string"], st.text()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    (["null", "long"], st.integers(-(2**63), 2**63 - 1)),
    ("double", st.floats()),
    ("float", st.floats(width=32)),
    ("boolean", st.booleans()),
    ("bytes", st.binary()),
    (STATE, st.sampled_from(["NEW", "SENT"])),
    (MONEY, st.integers(-(2**71), 2**71 - 1).map(scaled)),
    (FIXED, st.integers(-(2**66), 2**66 - 1).map(scaled)),
    (ANY_SCALE, st.builds(lambda scale, value: {"scale": scale, "value": scaled(value)}, st.integers(0, 30),
                          st.integers(-(2**71), 2**71 - 1))),
]  # fmt: skip


def plain(schema: Any) -> Any:
    """Return a schema without its logical type, as which fastavro takes values as they are."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    return {key: kept for key, kept in schema.items() if key != "logicalType"} if isinstance(schema, dict) else schema


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(range(len(AVRO))), min_size=1, max_size=2), st.booleans(), st.data())
def test_an_avro_key_is_had_again_as_its_schema_shows_it(kinds: list[int], bare: bool, data: st.DataObject) -> None:  # noqa: FBT001
    types = [AVRO[kind][0] for kind in kinds]
    if len(types) == 2 and types[0] == types[1]:
        types, kinds = types[:1], kinds[:1]
    fields = ("b", "a")[: len(types)]
    members = [data.draw(AVRO[kind][1]) for kind in kinds]
    for key_fields, whole in (((), types[0]), (fields, record(*zip(fields, types, strict=True), name="Key"))):
        keys = avro_keys(whole, fields=key_fields, bare=bare and len(key_fields) == 1)
        shape: Any = record(*zip(fields, map(plain, types), strict=True), name="Key") if key_fields else plain(types[0])
        value = dict(zip(fields, members, strict=True)) if key_fields else members[0]
        wire = framed(7, without_length(shape, written(shape, value)))
        text = assert_round_trip(keys, keys.store(wire))
        assert text == keys.record_text(wire)


@pytest.mark.parametrize("payload", ['"BM4="', '"AA=="', '"BQCw"', "12.30", "12", "null"])
@pytest.mark.parametrize("schema", [DECIMAL, VARIABLE])
def test_a_decimal_of_connect_is_had_again_as_its_digits(schema: Any, payload: str) -> None:
    if schema is VARIABLE and payload.startswith('"'):
        payload = f'{{"scale":2,"value":{payload}}}'
    if schema is VARIABLE and payload.startswith("12"):
        return
    keys = keys_of(KeySpec("json_connect"))
    text = assert_round_trip(keys, keys.store(connect_text(schema, payload)))
    assert text == keys.text(keys.parse(keys.record_text(connect_text(schema, payload))).stored)


def test_of_an_integer_written_with_other_digits_in_a_text_of_json_the_canonical_text_is_one() -> None:
    keys = keys_of(KeySpec("json", ("a", "b")))
    for text in (b'{"b":10.0,"a":1}', b' { "a" : 1, "b" : 1e1 } '):
        assert keys.text(keys.parse(text).stored) == b'{"a":1,"b":10.0}'


# What has no text


def test_a_record_s_key_is_not_told_before_its_schema_is_known() -> None:
    known = Known(FetchedSchemas(avro_schema(7, PAIR)))
    keys = keys_of(KeySpec("avro", ("a", "b")), known=known)
    stored = avro_keys(PAIR, fields=("a", "b")).parse(b'{"a":7,"b":"8"}').stored
    with pytest.raises(KeySchemaUnknown, match="no known schema of the keys of orders has this key"):
        keys.text(stored)
    known.keys_of("orders").learn((7).to_bytes(4, "big"))
    assert keys.text(stored) == b'{"a":7,"b":"8"}'
    # A key of another schema, which is not known.
    other = avro_keys(record(("a", "string"), ("b", "string")), fields=("a", "b")).parse(b'{"a":"x","b":"8"}').stored
    with pytest.raises(KeySchemaUnknown):
        keys.text(other)


def test_a_scalar_in_avro_needs_no_schema_for_its_text() -> None:
    stored = avro_keys("double").parse(b"1.5").stored
    assert keys_of(KeySpec("avro")).text(stored) == b"1.5"
    stored = avro_keys(record(("id", "long")), fields=("id",), bare=True).parse(b"7").stored
    assert keys_of(KeySpec("avro", ("id",), bare=True)).text(stored) == b"7"


def test_a_key_that_several_schemas_have_is_shown_by_the_newest() -> None:
    strings, longs = record(("a", "string"), name="Key"), record(("a", "long"), name="Key")
    stored = avro_keys(longs, fields=("a",)).parse(b'{"a":7}').stored
    assert avro_keys(strings, longs, fields=("a",)).text(stored) == b'{"a":7}'
    assert avro_keys(longs, strings, fields=("a",)).text(stored) == b'{"a":"7"}'
    text = avro_keys(strings, fields=("a",)).parse(b'{"a":"x"}').stored
    assert avro_keys(strings, longs, fields=("a",)).text(text) == b'{"a":"x"}'


@pytest.mark.parametrize(
    ("keys", "stored"),
    [
        (keys_of(KeySpec("string")), "ff"),
        (keys_of(KeySpec("int")), "800000"),
        (keys_of(KeySpec("long")), "80000000"),
        (keys_of(KeySpec("uuid")), ""),
        (keys_of(KeySpec("json")), ""),
        (keys_of(KeySpec("json")), "0101"),
        (keys_of(KeySpec("json", ("a", "b"))), "01"),
        (keys_of(KeySpec("json")), "06"),
        (keys_of(KeySpec("json")), "0561"),
        (keys_of(KeySpec("json")), "056100ff"),
        (keys_of(KeySpec("json")), "05ff00"),
        (keys_of(KeySpec("json")), "04c01c0000000000000000"),
        (keys_of(KeySpec("json")), "04c01c000000000000000002"),
        (keys_of(KeySpec("json")), "04c01c000000000000000100"),
        (keys_of(KeySpec("json")), "04fff8000000000000000001"),
        (keys_of(KeySpec("json")), "04fff0000000000000000000"),
        (keys_of(KeySpec("json")), "04ffefffffffffffff000000"),
        (keys_of(KeySpec("json_connect")), "0101"),
        (keys_of(KeySpec("avro")), "01"),
        (keys_of(KeySpec("avro")), "03"),
        (keys_of(KeySpec("avro")), "04c01c000000000000000001"),
        (keys_of(KeySpec("avro")), "053700"),
    ],
)
def test_bytes_that_are_no_stored_key_of_the_format_are_refused(keys: KeyFormat, stored: str) -> None:
    with pytest.raises(StoredKeyError, match="stored key"):
        keys.text(bytes.fromhex(stored))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([*JSON_SPECS, *(KeySpec(name) for name in ("string", "bytes", "int", "long", "uuid", "avro"))]),
    st.binary(max_size=24) | st.lists(st.sampled_from(["01", "03", "056100", "0400", "04" + "80" * 8 + "000001"])).map(
        lambda parts: bytes.fromhex("".join(parts))
    ),
)  # fmt: skip
def test_any_bytes_have_the_text_of_just_that_key_or_none(spec: KeySpec, stored: bytes) -> None:
    keys = keys_of(spec, avro_schema(7, "string")) if spec.format == "avro" else keys_of(spec)
    try:
        text = keys.text(stored)
    except StoredKeyError:
        return
    assert keys.parse(text).stored == stored


# Which keys are in the order of their values


@pytest.mark.parametrize("name", ["string", "bytes", "int", "long", "uuid", "json", "json_sr", "json_connect"])
def test_keys_that_are_stored_in_their_order_can_be_ranged_over(name: Any) -> None:
    assert keys_of(KeySpec(name)).unordered_reason is None


@pytest.mark.parametrize(
    ("schema", "is_ordered"),
    [
        ("int", True),
        (["null", "long"], True),
        ("boolean", True),
        ("string", False),
        ("double", False),
        ("bytes", False),
        (STATE, False),
        (MONEY, False),
    ],
)
def test_keys_in_avro_are_in_order_when_they_are_integers_or_booleans(schema: Any, is_ordered: bool) -> None:  # noqa: FBT001
    for keys in (avro_keys(schema), avro_keys(record(("a", "int"), ("b", schema)), fields=("b", "a"))):
        reason = keys.unordered_reason
        assert (reason is None) == is_ordered
        assert reason is None or "a schema of these keys has other types" in reason


def test_keys_in_avro_say_that_they_are_out_of_order_as_long_as_no_schema_is_known_and_when_one_of_them_is() -> None:
    assert "no schema of these keys is known" in (keys_of(KeySpec("avro")).unordered_reason or "")
    assert avro_keys("long", "string").unordered_reason is not None


def test_decimals_of_connect_are_stored_as_text() -> None:
    keys = keys_of(KeySpec("json_connect", ("id",), bare=True))
    keys.store(connect_text({"type": "struct", "fields": [{"type": "int32", "field": "id"}]}, '{"id":7}'))
    assert keys.unordered_reason is None
    keys.store(connect_text({"type": "struct", "fields": [DECIMAL | {"field": "id"}]}, '{"id":"BM4="}'))
    assert "decimal" in (keys.unordered_reason or "")


# Keys that a record has and the table cannot


@pytest.mark.parametrize(
    ("spec", "wire"),
    [(KeySpec("int"), b"12345"), (KeySpec("string"), b"\xff"), (KeySpec("json", ("a",)), b'{"b":1}')],
)
def test_a_record_s_key_that_cannot_be_stored_has_no_text(spec: KeySpec, wire: bytes) -> None:
    with pytest.raises(DecodeError, match=r"key|member"):
        keys_of(spec).record_text(wire)
