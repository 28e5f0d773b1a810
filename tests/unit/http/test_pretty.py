"""Indented JSON has the same values, written the same way, wherever the text is cut into pieces."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.http.pretty import PrettyJson

strings = st.text(max_size=4) | st.text('a,:"\\[]{}\n\u00e9', max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=20,
)
layouts = st.sampled_from([{"separators": (",", ":")}, {"indent": 3}, {"separators": (" ,\t", "\r\n: ")}])


def indented(*pieces: bytes) -> bytes:
    pretty = PrettyJson()
    return b"".join([pretty.feed(piece) for piece in pieces]) + pretty.end()


@settings(deadline=None, max_examples=200)
@given(json_values, layouts, st.booleans(), st.data())
def test_any_text_is_indented_as_python_does_it_in_whatever_pieces_it_comes(
    value: object,
    layout: dict[str, object],
    escaped: bool,  # noqa: FBT001 - hypothesis gives it
    data: st.DataObject,
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, **layout).encode()  # type: ignore[arg-type] # any of its layouts
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert indented(*pieces) == json.dumps(value, ensure_ascii=escaped, indent=2).encode() + b"\n"
    assert indented(*(text[at : at + 1] for at in range(len(text)))) == indented(text)


@pytest.mark.parametrize(
    "number", [b"1.50", b"-0", b"-0.0", b"1E+2", b"1e-7", b"123456789012345678901234567890", b"0.1000000000000000055"]
)
def test_a_number_keeps_its_digits(number: bytes) -> None:
    assert indented(b'{"a":' + number + b"}") == b'{\n  "a": ' + number + b"\n}\n"
    assert indented(number[:1], number[1:]) == number + b"\n"


def test_members_of_one_name_stay_and_empty_ones_take_one_line() -> None:
    assert indented(b'{"a":{ },"a":[\n]}') == b'{\n  "a": {},\n  "a": []\n}\n'


def test_deep_text_is_not_indented_without_a_bound() -> None:
    depth = 500
    made = indented(b"[" * depth + b"1" + b"]" * depth)
    assert re.sub(rb"\s", b"", made) == b"[" * depth + b"1" + b"]" * depth
    assert max(len(line) for line in made.splitlines()) < 100
