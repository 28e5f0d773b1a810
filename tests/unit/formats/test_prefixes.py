import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.catalog.spec import KeyFormatName, KeySpec
from tablehouse.errors import InvalidKey
from tablehouse.formats.keys import KeyFormat, StringKey, key_format
from tablehouse.formats.prefixes import prefix_bounds

MEMBERS = KeySpec("json", ("a", "b"))
SCALARS = st.sampled_from([None, False, True, 0, 0.5, 1, -1, "", "a", "a\0", "a\0b", "a\xff", "b", "\0"])


def is_within(stored: bytes, bounds: tuple[bytes, bytes | None]) -> bool:
    start, end = bounds
    return start <= stored and (end is None or stored < end)


@given(st.binary(max_size=4), st.binary(max_size=6) | st.just(b"\xff\xff\xff"))
def test_bytes_within_the_bounds_are_those_that_begin_with_the_prefix(prefix: bytes, key: bytes) -> None:
    keys = key_format(KeySpec("bytes"))
    bounds = prefix_bounds(keys, KeySpec("bytes"), base64.urlsafe_b64encode(prefix))
    assert is_within(key, bounds) == key.startswith(prefix)
    assert is_within(prefix + key, bounds)


@given(st.text(max_size=3), st.text(max_size=4))
def test_texts_within_the_bounds_are_those_that_begin_with_the_prefix(prefix: str, key: str) -> None:
    bounds = prefix_bounds(StringKey(), KeySpec("string"), prefix.encode())
    assert is_within(key.encode(), bounds) == key.startswith(prefix)
    assert is_within((prefix + key).encode(), bounds)


@given(st.lists(SCALARS, max_size=2), SCALARS, SCALARS)
def test_structured_keys_within_the_bounds_are_those_with_these_leading_members(
    prefix: list[Any], first: object, second: object
) -> None:
    keys = key_format(MEMBERS)
    bounds = prefix_bounds(keys, MEMBERS, json.dumps(prefix).encode())
    stored = keys.parse(json.dumps({"a": first, "b": second}).encode()).stored
    # As JSON, since True is 1 otherwise.
    leads = json.dumps([first, second][: len(prefix)]) == json.dumps(prefix)
    assert is_within(stored, bounds) == leads


def test_a_prefix_of_a_key_of_one_scalar_is_the_key() -> None:
    spec = KeySpec("json")
    keys = key_format(spec)
    assert is_within(keys.parse(b'"a"').stored, prefix_bounds(keys, spec, b'["a"]'))
    assert not is_within(keys.parse(b'"ab"').stored, prefix_bounds(keys, spec, b'["a"]'))


@pytest.mark.parametrize("text", [b"", b"a", b'"a"', b"{}", b"[1,2,3]", b"[[]]", b"[1", b"[1e400]", b"\xff"])
def test_what_is_no_array_of_leading_members_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidKey, match="first members of keys, in the order a, b"):
        prefix_bounds(key_format(MEMBERS), MEMBERS, text)


@pytest.mark.parametrize("name", ["int", "long", "uuid", "avro"])
def test_other_formats_have_no_prefixes(name: KeyFormatName) -> None:
    keys: KeyFormat = StringKey() if name == "avro" else key_format(KeySpec(name))
    with pytest.raises(InvalidKey, match=f"Keys of format {name} have no prefix"):
        prefix_bounds(keys, KeySpec(name), b"1")
