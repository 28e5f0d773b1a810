"""JSON keys as producers spell them: what each serialiser writes is what a table looks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.catalog.spec import DEFAULT_SPELLINGS, KeySpec, SpellingName
from tablehouse.formats.keys import JsonKey
from tablehouse.formats.ordered import Scalar
from tablehouse.formats.spellings import SPELLINGS

FOLDER = Path(__file__).parent / "vectors"
SCALARS: Sequence[Scalar] = json.loads((FOLDER / "scalars.json").read_text())

#: What serialisers write, alone and in an object; vectors/README.md says how it was made.
WRITTEN: Mapping[SpellingName, Sequence[tuple[str, str]]] = json.loads((FOLDER / "spellings.json").read_text())
FIELDS = ("id", "ort/ö")

ANY_SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
)


@pytest.mark.parametrize("spelling", sorted(WRITTEN))
def test_a_spelling_writes_keys_as_its_serialiser_does(spelling: SpellingName) -> None:
    write = SPELLINGS[spelling]
    found = [(write([scalar], ()).decode(), write([scalar, "x"], FIELDS).decode()) for scalar in SCALARS]
    assert found == [tuple(pair) for pair in WRITTEN[spelling]]


@given(ANY_SCALAR)
def test_python_s_spellings_are_those_of_its_json(scalar: Scalar) -> None:
    key = {"id": scalar, "ort/ö": "x"}
    assert SPELLINGS["python"]([scalar, "x"], FIELDS).decode() == json.dumps(key)
    assert SPELLINGS["python_compact"]([scalar, "x"], FIELDS).decode() == json.dumps(key, separators=(",", ":"))


@given(ANY_SCALAR, st.sampled_from(sorted(SPELLINGS)))
def test_every_spelling_means_the_key(scalar: Scalar, spelling: SpellingName) -> None:
    meant = json.loads(SPELLINGS[spelling]([scalar, "x"], FIELDS))
    if isinstance(scalar, float):
        meant["id"] = float(meant["id"])  # Go and PHP write 1.0 as 1
    assert meant == {"id": scalar, "ort/ö": "x"}


def test_every_name_is_a_spelling() -> None:
    assert set(SPELLINGS) == set(get_args(SpellingName))


def key(*spellings: SpellingName) -> JsonKey:
    return JsonKey(KeySpec("json", ("id",), bare=True, spellings=spellings or DEFAULT_SPELLINGS))


def test_a_key_is_looked_for_in_each_of_the_table_s_spellings_once_and_in_their_order() -> None:
    assert key().parse(b"7").wires == (b'{"id":7}',)
    assert key("python").parse(b"7").wires == (b'{"id": 7}',)
    assert key("python", "go", "php").parse(b"7").wires == (b'{"id": 7}', b'{"id":7}')
    assert key("go", "gson").parse(b'"a&b"').wires == (b'{"id":"a\\u0026b"}',)


def test_the_stored_form_does_not_depend_on_the_spelling() -> None:
    keys = key(*SPELLINGS)
    for scalar in ("a/b", "<&>", "Zürich", "\U0001f600", 7, 1.5e-7, 1e22):
        stored = {keys.store(SPELLINGS[name]([scalar], ("id",))) for name in SPELLINGS}
        assert stored == {keys.parse(json.dumps(scalar).encode()).stored}


def test_the_spelling_of_a_record_s_key_is_canonical_where_the_table_names_it() -> None:
    spaced = b'{"id": 7}'
    assert key("go", "python").canonical(spaced) == spaced
    assert key("go").canonical(spaced) == b'{"id":7}'


def test_the_spellings_of_a_record_s_key_are_those_that_write_its_very_bytes() -> None:
    keys = key()
    assert keys.spellings_of(b'{"id": 7}') == {"python"}
    assert keys.spellings_of(b'{"id":7}') == set(SPELLINGS) - {"python"}
    assert keys.spellings_of(b'{"id":"a\\/b"}') == {"php"}
    assert keys.spellings_of(b'{"id":1.23456789E7}') == {"jackson", "gson"}
    assert keys.spellings_of(b'{ "id":7}') == set()
