import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import KeySpec
from tablehouse.errors import InvalidKey
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keys import key_format

ALL = [
    KeySpec("string"),
    KeySpec("bytes"),
    KeySpec("int"),
    KeySpec("long"),
    KeySpec("uuid"),
    KeySpec("json"),
    KeySpec("json", ("a", "b")),
]

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
# Near 2**53 and 2**63, where doubles are coarser than integers.
json_numbers = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53, 2**53 + 1, 2.0**53, 2**62 + 1, 2.0**62, 2**63 - 1, 2.0**63, -(2**63)])
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.integers(2**53 - 3, 2**53 + 3).map(float)
)


def rank(value: Any) -> tuple[Any, ...]:
    """Return the order of JSON keys, said without bytes: by type, value, integers before equal doubles."""
    match value:
        case None:
            return (0,)
        case bool():
            return (1, value)
        case int():
            return (2, value, 0)
        case float():
            return (2, value, 1, math.copysign(1, value))
        case _:
            return (3, [ord(character) for character in value])


def stored(spec: KeySpec, wire: bytes) -> bytes:
    return key_format(spec).store(wire)


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_a_string_key_is_its_utf_8_in_every_form(text: str) -> None:
    wire = text.encode()
    key = key_format(KeySpec("string")).parse(wire)
    assert (key.stored, key.wires) == (wire, (wire,))
    assert stored(KeySpec("string"), wire) == wire


@settings(deadline=None, max_examples=50)
@given(st.text(), st.text())
def test_string_keys_are_stored_in_the_order_of_their_code_points(one: str, other: str) -> None:
    spec = KeySpec("string")
    assert (stored(spec, one.encode()) < stored(spec, other.encode())) == (one < other)


@settings(deadline=None, max_examples=50)
@given(st.binary())
def test_a_bytes_key_is_base64url_in_a_url_padded_or_not(wire: bytes) -> None:
    text = base64.urlsafe_b64encode(wire)
    keys = key_format(KeySpec("bytes"))
    assert keys.parse(text) == keys.parse(text.rstrip(b"="))
    assert keys.parse(text).wires == (wire,)
    assert keys.parse(text).stored == keys.store(wire) == wire


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([("int", 4), ("long", 8)]), st.data())
def test_an_integer_key_is_decimal_in_a_url_and_big_endian_on_the_wire(
    kind: tuple[Any, int], data: st.DataObject
) -> None:
    name, width = kind
    number = data.draw(st.integers(-(1 << (width * 8 - 1)), (1 << (width * 8 - 1)) - 1))
    wire = number.to_bytes(width, "big", signed=True)
    keys = key_format(KeySpec(name))
    key = keys.parse(str(number).encode())
    assert key.wires == (wire,)
    assert key.stored == keys.store(wire)
    assert keys.canonical(wire) == wire


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([("int", 4), ("long", 8)]), st.data())
def test_integer_keys_are_stored_in_the_order_of_the_numbers(kind: tuple[Any, int], data: st.DataObject) -> None:
    name, width = kind
    numbers = st.integers(-(1 << (width * 8 - 1)), (1 << (width * 8 - 1)) - 1)
    one, other = data.draw(numbers), data.draw(numbers)
    keys = key_format(KeySpec(name))
    ordered = keys.parse(str(one).encode()).stored < keys.parse(str(other).encode()).stored
    assert ordered == (one < other)


@settings(deadline=None, max_examples=50)
@given(st.uuids(), st.uuids())
def test_a_uuid_key_is_its_characters_on_the_wire_and_16_bytes_in_order_when_stored(one: Any, other: Any) -> None:
    keys = key_format(KeySpec("uuid"))
    key = keys.parse(str(one).encode())
    assert key.wires == (str(one).encode(),)
    assert key.stored == keys.store(str(one).encode()) == one.bytes
    assert (key.stored < keys.store(str(other).encode())) == (one < other)


def test_an_upper_case_uuid_is_the_same_key_whose_canonical_wire_form_is_lower_case() -> None:
    keys = key_format(KeySpec("uuid"))
    lower = b"123e4567-e89b-12d3-a456-426614174abc"
    assert keys.parse(lower.upper()) == keys.parse(lower)
    assert keys.store(lower.upper()) == keys.store(lower)
    assert keys.canonical(lower.upper()) == lower
    assert not keys.canonical_wire


@settings(deadline=None)
@given(json_scalars)
def test_a_json_key_means_the_same_however_it_is_spelled(value: Any) -> None:
    keys = key_format(KeySpec("json"))
    spellings = [json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode()]
    key = keys.parse(spellings[0])
    for spelling in spellings:
        assert keys.parse(b" " + spelling + b"\n") == key
        assert keys.store(spelling) == key.stored
        assert keys.canonical(spelling) == key.wires[0]
    assert keys.canonical(key.wires[0]) == key.wires[0]
    assert json.loads(key.wires[0]) == value


@settings(deadline=None, max_examples=150)
@given(json_scalars | json_numbers, json_scalars | json_numbers)
def test_json_keys_are_stored_in_the_order_of_their_values(one: Any, other: Any) -> None:
    keys = key_format(KeySpec("json"))
    left, right = (keys.store(json.dumps(value).encode()) for value in (one, other))
    assert (left < right) == (rank(one) < rank(other))
    assert (left == right) == (rank(one) == rank(other))


@settings(deadline=None)
@given(json_scalars, json_scalars, json_scalars, json_scalars)
def test_json_keys_of_several_members_are_stored_in_the_order_of_the_members(
    a: Any, b: Any, other_a: Any, other_b: Any
) -> None:
    keys = key_format(KeySpec("json", ("a", "b")))
    left = keys.store(json.dumps({"b": b, "a": a}).encode())
    right = keys.store(json.dumps({"a": other_a, "b": other_b}).encode())
    assert (left < right) == ((rank(a), rank(b)) < (rank(other_a), rank(other_b)))


def test_a_json_key_of_members_is_compact_on_the_wire_in_the_declared_order() -> None:
    keys = key_format(KeySpec("json", ("b", "a")))
    key = keys.parse(b'{"a": "\\u00fc/", "b": 7}')
    assert key.wires == ('{"b":7,"a":"ü/"}'.encode(),)
    assert keys.store(b'{ "b":7,"a":"\xc3\xbc\\/" }') == key.stored


def test_json_integers_and_doubles_of_one_value_are_neighbours_but_different_keys() -> None:
    keys = key_format(KeySpec("json"))
    assert keys.parse(b"1").wires == (b"1",)
    assert keys.parse(b"1.0").wires == (b"1.0",)
    assert keys.parse(b"0.99").stored < keys.parse(b"1").stored < keys.parse(b"1.0").stored
    assert keys.parse(b"1.0").stored < keys.parse(b"1.01").stored


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(ALL), st.binary(max_size=40))
def test_any_bytes_are_a_key_or_refused_and_never_half_of_each(spec: KeySpec, text: bytes) -> None:
    keys = key_format(spec)
    try:
        key = keys.parse(text)
    except InvalidKey:
        with pytest.raises(InvalidKey, match=f"key format {spec.format}"):
            keys.parse(text)
    else:
        assert keys.store(key.wires[0]) == key.stored
        assert keys.canonical(key.wires[0]) == key.wires[0]
    try:
        stored_form = keys.store(text)
    except DecodeError:
        with pytest.raises(DecodeError):
            keys.canonical(text)
    else:
        assert keys.store(keys.canonical(text)) == stored_form
        if keys.canonical_wire:
            assert keys.canonical(text) == text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (KeySpec("string"), b"\xff"),
        (KeySpec("string"), b"\xed\xa0\x80"),
        (KeySpec("bytes"), b"YQ="),
        (KeySpec("bytes"), b"YQ==="),
        (KeySpec("bytes"), b"YR"),
        (KeySpec("bytes"), b"Y"),
        (KeySpec("bytes"), b"Y Q"),
        (KeySpec("bytes"), b"+/8="),
        (KeySpec("bytes"), b"\xff"),
        (KeySpec("int"), b""),
        (KeySpec("int"), b"+1"),
        (KeySpec("int"), b"01"),
        (KeySpec("int"), b"-0"),
        (KeySpec("int"), b"1 "),
        (KeySpec("int"), b"1\n"),
        (KeySpec("int"), b"1_0"),
        (KeySpec("int"), b"\xd9\xa1"),
        (KeySpec("int"), b"2147483648"),
        (KeySpec("int"), b"-2147483649"),
        (KeySpec("long"), b"9223372036854775808"),
        (KeySpec("long"), b"9" * 8000),
        (KeySpec("uuid"), b"123e4567e89b12d3a456426614174000"),
        (KeySpec("uuid"), b"{123e4567-e89b-12d3-a456-426614174000}"),
        (KeySpec("uuid"), b"123e4567-e89b-12d3-a456-426614174000\n"),
        (KeySpec("json"), b"abc"),
        (KeySpec("json"), b""),
        (KeySpec("json"), b"[1]"),
        (KeySpec("json"), b'{"a":1}'),
        (KeySpec("json"), b"9223372036854775808"),
        (KeySpec("json"), b"1e999"),
        (KeySpec("json"), b"12345678901234567.89"),
        (KeySpec("json", ("a",)), b'{"a":0.1234567890123456789e5}'),
        (KeySpec("json"), b'"\xff"'),
        (KeySpec("json"), b'"\\ud800"'),
        (KeySpec("json"), b"[" * 8000),
        (KeySpec("json", ("a", "b")), b'{"a":1}'),
        (KeySpec("json", ("a", "b")), b'{"a":1,"b":2,"c":3}'),
        (KeySpec("json", ("a", "b")), b'{"a":1,"c":2}'),
        (KeySpec("json", ("a", "b")), b'{"a":1,"b":[2]}'),
        (KeySpec("json", ("a", "b")), b"1"),
    ],
)
def test_a_key_that_cannot_be_parsed_is_an_invalid_key_that_names_the_format(spec: KeySpec, text: bytes) -> None:
    with pytest.raises(InvalidKey, match=f"key format {spec.format}"):
        key_format(spec).parse(text)


def test_the_message_of_an_invalid_json_key_says_which_members_it_needs() -> None:
    with pytest.raises(InvalidKey, match=r"exactly the members carrier, flight") as caught:
        key_format(KeySpec("json", ("carrier", "flight"))).parse(b'{"carrier":"UA"}')
    assert "UA" not in caught.value.detail


def test_the_message_of_an_invalid_int_key_says_its_range() -> None:
    with pytest.raises(InvalidKey, match="from -2147483648 to 2147483647"):
        key_format(KeySpec("int")).parse(b"2147483648")


@pytest.mark.parametrize(
    ("spec", "wire", "reason"),
    [
        (KeySpec("string"), b"ab\xff", "not UTF-8 at byte 2"),
        (KeySpec("int"), b"\x00" * 8, "has 4 bytes, this one 8"),
        (KeySpec("int"), b"", "has 4 bytes, this one 0"),
        (KeySpec("long"), b"\x00" * 4, "has 8 bytes, this one 4"),
        (KeySpec("uuid"), b"x" * 36, "not the 36 characters of a uuid"),
        (KeySpec("json"), b"{", "not JSON"),
    ],
)
def test_a_wire_key_that_is_not_of_the_format_is_a_decode_error_with_the_reason(
    spec: KeySpec, wire: bytes, reason: str
) -> None:
    with pytest.raises(DecodeError, match=reason):
        key_format(spec).store(wire)


def test_the_empty_key_is_a_key_where_the_format_has_an_empty_form() -> None:
    assert key_format(KeySpec("string")).parse(b"").wires == (b"",)
    assert key_format(KeySpec("bytes")).parse(b"").wires == (b"",)
    assert key_format(KeySpec("json")).parse(b'""').wires == (b'""',)


@pytest.mark.parametrize(
    ("key", "canonical", "jackson"),
    [
        ("😀", '"😀"'.encode(), rb'"\uD83D\uDE00"'),
        ("\x1f\x0b", rb'"\u001f\u000b"', rb'"\u001F\u000B"'),
        ("\\u001f\n\x1f", rb'"\\u001f\n\u001f"', rb'"\\u001f\n\u001F"'),
    ],
)
def test_a_json_key_that_jackson_escapes_otherwise_has_two_wire_forms(
    key: str, canonical: bytes, jackson: bytes
) -> None:
    keys = key_format(KeySpec("json"))
    assert keys.parse(canonical).wires == (canonical, jackson)
    assert keys.store(canonical) == keys.store(jackson) == keys.parse(jackson).stored
    assert keys.canonical(canonical) == canonical
    assert keys.canonical(jackson) == jackson
    assert keys.canonical(jackson.replace(b"\\u001F", b"\\u001f").lower()) == canonical
    assert json.loads(jackson) == key


@pytest.mark.parametrize("key", ["a", "é漢\u2028\x7f", '\\"/\n\b\f\r\t', "\\u00ab"])
def test_a_json_key_that_jackson_writes_as_everyone_has_one_wire_form(key: str) -> None:
    wire = json.dumps(key, ensure_ascii=False).encode()
    assert key_format(KeySpec("json")).parse(wire).wires == (wire,)


def test_of_a_key_of_one_member_a_url_carries_the_value_alone() -> None:
    keys = key_format(KeySpec("json", ("id",), bare=True))
    parsed = keys.parse(b"7")
    assert parsed.wires == (b'{"id":7}',)
    assert parsed.stored == keys.store(b'{"id":7}') == keys.store(b'{ "id" : 7 }')
    for refused in (b'{"id":7}', b"[7]", b"a"):
        with pytest.raises(InvalidKey, match="use a JSON string"):
            keys.parse(refused)
