import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueFormatName, ValueSpec
from tablehouse.formats.envelopes import Debezium
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers
from tablehouse.formats.json_text import MAX_DEPTH
from tablehouse.formats.values import ConvertedToJson, EnvelopedJson, ValueFormat, value_format
from tablehouse.turns import Work, finish
from tests.support.schemas import NO_REGISTRY

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


def format_of(value: ValueFormatName, columns: Mapping[str, str] | None = None) -> ValueFormat:
    return value_format(
        TableSpec("t", SourceSpec("topic", KeySpec("string"), ValueSpec(value)), columns=columns), NO_REGISTRY.schemas
    )


@settings(deadline=None, max_examples=60)
@given(json_values, st.sampled_from([None, 2]))
def test_a_json_value_is_kept_byte_for_byte(value: Any, indent: int | None) -> None:
    source = json.dumps(value, indent=indent).encode()
    assert format_of("json").decode(source) == source


@pytest.mark.parametrize(
    "value",
    [
        b'{"n":123456789012345678901234567890}',
        b'{"n":1.10}',
        b" [1, 2 ]\n",
        b"null",
        b'"x"',
        b'{"a":1,"a":2}',
    ],
)
def test_what_a_reader_could_see_in_a_json_value_is_never_rewritten(value: bytes) -> None:
    assert format_of("json").decode(value) == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b"01",
        b"1 2",
        b'"\xff"',
        b'{"\xff":1}',
        b'{"a":{"b":"\xc3"}}',
        b'"\\ud800"',
        b'"\x00"',
        b"\xef\xbb\xbf{}",
        b"1e999",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("columns", [None, {"a": "a"}])
def test_a_value_that_is_not_strict_json_is_a_decode_error(value: bytes, columns: Mapping[str, str] | None) -> None:
    with pytest.raises(DecodeError):
        format_of("json", columns).decode(value)


class Unframed:
    """Takes five bytes off, in a thread."""

    def __call__(self, value: bytes, headers: Headers) -> bytes:  # noqa: ARG002
        """See Convert."""
        return value[5:]

    def in_pieces(self, value: bytes, headers: Headers) -> Work[bytes]:
        """See Convert."""
        text: bytes = yield partial(self, value, headers)
        return text


@pytest.mark.parametrize("columns", [None, {"y": "b", "x": "a", "z": "missing"}])
@pytest.mark.parametrize(
    "end",
    [b"}", b"", b',"b":1e999}', b',"\xff":1}', b',"b":"\\ud800"}', b"]", b',"b":' + b"[" * 500 + b"]" * 500 + b"}"],
)
@pytest.mark.parametrize("start", [b' \n{"a":', b"["])
def test_a_large_value_is_decoded_in_pieces_as_it_is_at_once(
    start: bytes, end: bytes, columns: Mapping[str, str] | None
) -> None:
    value = start + b'[{"n":1.50},' + b"0," * 200_000 + b'"x,"]' + end

    def outcome(decode: Callable[[], bytes | None]) -> bytes | str | None:
        try:
            return decode()
        except DecodeError as error:
            return str(error)

    values = format_of("json", columns)
    at_once = outcome(lambda: values.decode(value))
    assert outcome(lambda: finish(values.decode_in_pieces(value))) == at_once
    behind_a_frame = ConvertedToJson(Unframed(), values)
    assert outcome(lambda: finish(behind_a_frame.decode_in_pieces(b"frame" + value))) == at_once


def test_a_value_that_is_no_text_of_json_is_decoded_the_same_way_where_pieces_are_asked_for() -> None:
    event = b'{"op":"c","after":{"a":1}}'
    assert finish(EnvelopedJson(Debezium(None)).decode_in_pieces(event)) == b'{"a":1}'
    assert finish(format_of("bytes").decode_in_pieces(b"\xff")) == b"\xff"
    assert finish(format_of("string").decode_in_pieces(b"x")) == b"x"
    with pytest.raises(DecodeError, match="not UTF-8 at byte 0"):
        finish(format_of("string").decode_in_pieces(b"\xff"))
    assert finish(ConvertedToJson(Unframed(), None).decode_in_pieces(b"framex")) == b"x"


MIB = 1 << 20


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":1,"b":5,"a":2}',
        b'{"b":5,"a":[],"a":{},"a":2}',
        b'{"a":1,"b":5,"\\u0061":2}',
    ],
)
def test_of_members_with_one_name_the_last_counts(value: bytes) -> None:
    assert format_of("json").decode(value) == value
    assert format_of("json", {"x": "a"}).decode(value) == b'{"x":2}'


@pytest.mark.parametrize("digits", ["9007199254740993", "-9007199254740993", "18446744073709551616", "1" * 4300])
def test_integers_beyond_those_of_doubles_keep_every_digit(digits: str) -> None:
    value = f'{{"a":{digits}}}'.encode()
    assert format_of("json").decode(value) == value
    assert format_of("json", {"a": "a"}).decode(value) == value


@pytest.mark.parametrize("value", [b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e309}', b'{"a":%s}' % (b"1" * 4301)])
@pytest.mark.parametrize("columns", [None, {"a": "a"}])
def test_numbers_that_json_lacks_and_those_too_long_are_refused(
    value: bytes, columns: Mapping[str, str] | None
) -> None:
    with pytest.raises(DecodeError, match=r"not JSON|out of range"):
        format_of("json", columns).decode(value)


@pytest.mark.parametrize("columns", [None, {"a": "a"}])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"x":0,"a":', b"}]")])
def test_nesting_is_taken_up_to_a_depth_and_refused_beyond(
    opening: bytes, closing: bytes, columns: Mapping[str, str] | None
) -> None:
    def nested(depth: int) -> bytes:
        times = (depth - 1) // len(closing)
        return b'{"a":' + opening * times + b"1" + closing * times + b"}"

    limit = MAX_DEPTH - (MAX_DEPTH - 1) % len(closing)
    assert format_of("json", columns).decode(nested(limit)) == nested(limit)
    for deep in (limit + len(closing), 1000, 2000, 100_000):
        with pytest.raises(DecodeError, match="its JSON is nested more than 500 deep"):
            format_of("json", columns).decode(nested(deep))


@settings(deadline=None)
@given(st.recursive(st.text('[]{}"\\,:ü\n'), lambda inner: st.lists(inner) | st.dictionaries(st.text('{"\\'), inner)))
def test_brackets_count_where_they_nest_and_not_side_by_side_or_in_strings(value: Any) -> None:
    inner = [value, [[]] * MAX_DEPTH]
    text, most = json.dumps(inner).encode(), MAX_DEPTH - depth_of(inner)
    taken = b"[" * most + text + b"]" * most
    assert format_of("json").decode(taken) == taken
    with pytest.raises(DecodeError, match="nested more than 500 deep"):
        format_of("json").decode(b"[" + taken + b"]")


def depth_of(value: Any) -> int:
    """Return how deep arrays and objects are in each other."""
    match value:
        case list():
            return 1 + max(map(depth_of, value), default=0)
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
    return 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"a":"\xff"}', "its JSON is not UTF-8 at byte 6"),
        (b'{"\xed\xa0\x80":1}', "its JSON is not UTF-8 at byte 2"),
        (b'{"a":"\\ud83d"}', "half of a surrogate pair without the other half at byte 6"),
        (b'{"a":"x\\ud83dx"}', "half of a surrogate pair without the other half at byte 7"),
        (b'{"a":"\\\\\\udE00"}', "half of a surrogate pair without the other half at byte 8"),
        (b'{"a":"\\ud83d\\ud83d\\ude00"}', "half of a surrogate pair without the other half at byte 6"),
        (b'{"a":"\\ud83d\\n"}', "half of a surrogate pair without the other half at byte 6"),
        (b'{"a":"\\\\ud83d"', "it is not JSON"),
    ],
)
@pytest.mark.parametrize("columns", [None, {"a": "a"}])
def test_text_that_is_no_characters_is_named_with_its_place(
    value: bytes, reason: str, columns: Mapping[str, str] | None
) -> None:
    with pytest.raises(DecodeError, match=reason):
        format_of("json", columns).decode(value)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    value = b'{"a":"\\ud83d\\ude00"}'
    assert format_of("json").decode(value) == value
    assert format_of("json", {"b": "a"}).decode(value) == b'{"b":"\\ud83d\\ude00"}'


def test_a_value_of_ten_mebibytes_is_a_value_like_any_other() -> None:
    big = b'{"a":"' + b"x" * (10 * MIB) + b'","b":1}'
    assert format_of("json").decode(big) == big
    assert format_of("json", {"b": "b"}).decode(big) == b'{"b":1}'
    many = b"[" + b"1," * (5 * MIB) + b"1]"
    assert format_of("json").decode(many) == many


def test_columns_rename_and_order_members_and_keep_every_digit_of_their_numbers() -> None:
    value = b'{ "b" : 1.10 , "a":123456789012345678901234567890, "c" : {"x": [1, 2]}, "d": "\\u00fc" }'
    columns = {"first": "a", "second": "b", "third": "c", "fourth": "d", "again": "a"}
    assert format_of("json", columns).decode(value) == (
        b'{"first":123456789012345678901234567890,"second":1.10,"third":{"x": [1, 2]},'
        b'"fourth":"\\u00fc","again":123456789012345678901234567890}'
    )


def test_a_column_whose_member_is_missing_is_null() -> None:
    assert format_of("json", {"a": "a", "b": "b"}).decode(b'{"b":1}') == b'{"a":null,"b":1}'


def test_a_column_finds_its_member_however_the_member_is_escaped() -> None:
    assert format_of("json", {"ü": "é"}).decode(b'{"\\u00e9":1}') == '{"ü":1}'.encode()


@pytest.mark.parametrize("value", [b"[1]", b"1", b"null", b'"a"'])
def test_columns_of_a_value_that_is_no_object_are_a_decode_error(value: bytes) -> None:
    with pytest.raises(DecodeError, match="not a JSON object"):
        format_of("json", {"a": "a"}).decode(value)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(), json_values, max_size=5), st.data())
def test_columns_show_exactly_the_values_of_their_members(members: dict[str, Any], data: st.DataObject) -> None:
    plain = st.text(min_size=1).filter(lambda text: json.dumps(text, ensure_ascii=False)[1:-1] == text)
    known = [name for name in members if name and json.dumps(name, ensure_ascii=False)[1:-1] == name]
    columns = data.draw(st.dictionaries(plain, st.sampled_from([*known, "absent"]), min_size=1))
    decoded = format_of("json", columns).decode(json.dumps(members).encode())
    assert decoded is not None
    assert json.loads(decoded) == {name: members.get(member) for name, member in columns.items()}


AMOUNT = {
    "type": "bytes",
    "name": "org.apache.kafka.connect.data.Decimal",
    "parameters": {"scale": "2"},
    "field": "amount",
}
ROW = {"type": "struct", "fields": [{"type": "int64", "field": "id"}, AMOUNT]}


def connected(schema: object, payload: bytes) -> bytes:
    return b'{"schema":' + json.dumps(schema).encode() + b',"payload":' + payload + b"}"


@pytest.mark.parametrize(
    ("value", "row"),
    [
        (connected(ROW, b'{"id":9007199254740993,"amount":"BM4="}'), b'{"id":9007199254740993,"amount":"12.30"}'),
        (connected({"type": "int64"}, b" 7"), b"7"),
        (connected(None, b'{"a" : 1.10}'), b'{"a" : 1.10}'),
        (connected(ROW, b"null"), None),
        (connected(None, b" null "), None),
        (b'{"payload":[1], "schema": null}', b"[1]"),
    ],
)
def test_the_payload_of_connect_s_json_is_the_row_with_what_its_schema_means(value: bytes, row: bytes | None) -> None:
    values = format_of("json_connect")
    assert values.decode(value) == row
    assert finish(values.decode_in_pieces(value)) == row


def test_columns_of_connect_s_json_are_members_of_the_payload() -> None:
    values = format_of("json_connect", {"price": "amount"})
    assert values.decode(connected(ROW, b'{"id":1,"amount":"BM4="}')) == b'{"price":"12.30"}'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"id":1}', "not an object of schema and payload"),
        (b'{"schema":null,"payload":1,"more":2}', "not an object of schema and payload"),
        (b'{"schema":null}', "not an object of schema and payload"),
        (b"[1]", "not an object of schema and payload"),
        (b"{", "not JSON"),
        (connected("text", b"1"), "its JSON has an unexpected form"),
        (connected(ROW, b'{"id":1,"amount":"*"}'), "member amount: a decimal is not base64"),
        (connected(None, b'"\xff"'), "not UTF-8"),
        (connected(None, b"1e999"), "out of range"),
    ],
)
def test_what_is_no_json_of_connect_s_is_a_decode_error(value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        format_of("json_connect").decode(value)


@settings(deadline=None)
@given(st.binary())
def test_string_values_are_utf_8_and_bytes_values_anything(value: bytes) -> None:
    assert format_of("bytes").decode(value) == value
    try:
        value.decode()
    except UnicodeDecodeError:
        with pytest.raises(DecodeError, match="not UTF-8 at byte"):
            format_of("string").decode(value)
    else:
        assert format_of("string").decode(value) == value


def test_every_format_says_the_media_type_of_its_rows() -> None:
    assert format_of("json").content_type == "application/json"
    assert format_of("json", {"a": "a"}).content_type == "application/json"
    assert format_of("string").content_type == "text/plain; charset=utf-8"
    assert format_of("bytes").content_type == "application/octet-stream"
