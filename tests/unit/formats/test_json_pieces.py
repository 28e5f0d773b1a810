"""A text checked in pieces is refused exactly when it is refused whole, and with the same words."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_pieces import PIECE_BYTES, check_json
from tablehouse.formats.json_text import MAX_DEPTH, decode_json
from tablehouse.turns import finish

#: In front of a text, so that it is long enough to be looked at for depth.
BEFORE = b"[" + b"0," * MAX_DEPTH

strings = st.text(max_size=4) | st.text('a,:"\\[]{}\n\u00e9', max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(strings, inner, max_size=5),
    max_leaves=25,
)
texts = st.builds(
    lambda value, indent, escaped: json.dumps(value, indent=indent, ensure_ascii=escaped).encode(),
    json_values,
    st.sampled_from([None, 1]),
    st.booleans(),
)
#: What is put into a text, in place of up to some bytes of it.
fragments = st.binary(max_size=2) | st.sampled_from(
    [*b'[]{},:"\\', b"1e999", b"9" * 4301, b"tru", b"f", b"\\ud800", b"\\udc00", b'\\"', b'""', b"[" * 300, b"\xff"]
).map(lambda fragment: bytes((fragment,)) if isinstance(fragment, int) else fragment)
changes = st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 3), fragments), max_size=3)


def whole(text: bytes) -> str | None:
    """Return with what words a text is refused; None when it is not."""
    try:
        decode_json(text)
    except DecodeError as error:
        return str(error)
    return None


def in_pieces(text: bytes, piece_bytes: int) -> str | None:
    """Return the same for the check in pieces."""
    try:
        finish(check_json(text, piece_bytes))
    except DecodeError as error:
        return str(error)
    return None


@settings(deadline=None, max_examples=150)
@given(texts, changes, st.sampled_from([b"]", b""]))
def test_any_text_cut_at_every_comma_and_at_fewer_has_the_outcome_of_the_whole(
    text: bytes, made: list[tuple[int, int, bytes]], behind: bytes
) -> None:
    for place, removed, fragment in made:
        at = place % (len(text) + 1)
        text = text[:at] + fragment + text[at + removed :]
    length, text = len(text), BEFORE + text + behind
    expected = whole(text)
    for piece_bytes in (1, 7, length // 3 + 1):
        assert in_pieces(text, piece_bytes) == expected


TEXTS = [
    b'{"a":[1,2,3,4],"b":5,"c":{"d":[],"e":{}},"f":"x,y\\",z"}                                 ',
    b'[{"k":[[1,[2,[3,{"n,\\\\":null}]]],true]},"\\ud83d\\ude00,",false,-0.5e3,{"":{"":[0,0]}}]          ',
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_character_put_anywhere_into_a_text_makes_a_difference(text: bytes) -> None:
    assert whole(text) is None
    for at in range(len(text)):
        for character in b'[]{},:"\\0 t-\xff':
            put = bytes((character,))
            for changed in (text[:at] + put + text[at:], text[:at] + put + text[at + 1 :], text[:at]):
                assert in_pieces(changed, 1) == whole(changed), changed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":[' + b"0," * 60_000 + b'[{"b":[1,1e999]}]]}', "Number out of range - at `$[...][60000][0][...][1]`"),
        (b'{"a":[' + b"0," * 60_000 + b"]}", "trailing comma in array (byte 120006)"),
        (b"[" + b"{}," * 60_000 + b"{}", "Input data was truncated"),
        (b"[" + b'"a",' * 60_000 + b'"\xff"]', "its JSON is not UTF-8 at byte 240002"),
        (b"[" + b"0," * 60_000 + b"[" * MAX_DEPTH, "nested more than 500 deep"),
        (b"[}," + b"0," * 60_000 + b"[" * MAX_DEPTH + b"[", "nested more than 500 deep"),
        (b"[0]," + b"0," * 60_000, "trailing characters (byte 4)"),
        (b" " * 200_000, "Input data was truncated"),
        (b'["' + b"a," * 100_000, "Input data was truncated"),
        (b'["' + b'a,""' * 100_000, "expected ',' or ']' (byte 5)"),
    ],
)
def test_what_is_wrong_far_into_a_text_is_said_with_its_place_in_the_whole(text: bytes, reason: str) -> None:
    found = in_pieces(text, PIECE_BYTES)
    assert found == whole(text)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("shift", range(14))
@pytest.mark.parametrize("escape", [rb"\ud83d\ude00", rb"\\", rb"\n"])
def test_half_of_a_pair_is_found_among_many_escapes_and_no_whole_pair_is_taken_for_one(
    escape: bytes, shift: int
) -> None:
    escapes = b"a" * shift + escape * (70_000 // len(escape))
    assert in_pieces(b'["' + escapes + b'"]', PIECE_BYTES) is None
    assert in_pieces(b'["' + escapes + b'",]', PIECE_BYTES) == whole(b'["' + escapes + b'",]')
    text = b'["' + escapes + rb'\ude00"]'
    found = in_pieces(text, PIECE_BYTES)
    assert found == whole(text)
    assert found is not None
    assert f"other half at byte {2 + len(escapes)}," in found


@pytest.mark.parametrize(
    "values",
    [
        ["a,b", 'c",d', "e\\", {"f,": "g,h", "i": {"j": {"k": "l,"}}}],
        [1, 2.5, None, True],
        [{}, [], [[]], {"a": {}}],
        [{"name": "x" * 40, "tags": ["a", "b"], "n": n} for n in range(9)],
    ],
)
def test_a_text_is_checked_in_pieces_of_about_one_size(values: list[Any]) -> None:
    one = json.dumps(values, separators=(",", ":")).encode()
    text = b"[" + b",".join([one] * (20 * PIECE_BYTES // len(one))) + b"]"
    assert len(text) // PIECE_BYTES <= sum(1 for _ in check_json(text)) <= 2 * len(text) // PIECE_BYTES
