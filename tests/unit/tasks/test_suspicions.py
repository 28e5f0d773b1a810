"""Keys that can be read as the table says, and look like something else."""

import struct

import pytest

from tablehouse.catalog.spec import KeyFormatName, KeySpec
from tablehouse.tasks.suspicions import KeySuspicion
from tablehouse.testing.simulated.broker import Record

COUNT = 20


def text_after(name: KeyFormatName, keys: list[bytes]) -> str | None:
    """Return what is suspected after some keys."""
    suspicion = KeySuspicion(KeySpec(name))
    for key in keys:
        suspicion.look([key], [])
    return suspicion.text


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("int", [b"%04d" % number for number in range(COUNT)], "use key: string"),
        ("long", [b"order%03d" % number for number in range(COUNT)], "use key: string"),
        ("string", [struct.pack(">i", number) for number in range(COUNT)], "use key: int"),
        ("string", [struct.pack(">q", number) for number in range(COUNT)], "use key: long"),
        ("string", [b"\0\0\0\0\x07\x06a%02d" % number for number in range(COUNT)], "use key: avro or json_sr"),
        ("int", [struct.pack(">i", number) for number in range(COUNT)], None),
        ("long", [struct.pack(">q", 1 << number) for number in range(COUNT)], None),
        ("string", [b"key %d" % number for number in range(COUNT)], None),
        ("string", [b"\0%d" % number for number in range(COUNT)], None),
        ("bytes", [b"%04d" % number for number in range(COUNT)], None),
    ],
)
def test_what_keys_look_like_is_told_with_the_format_that_would_fit(
    name: KeyFormatName, keys: list[bytes], expected: str | None
) -> None:
    found = text_after(name, keys)
    assert found is None if expected is None else found is not None and expected in found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("string", "keys of format string look like keys whose schema is named in the header __key_schema_id: use"),
        ("long", "keys of format long look like keys whose schema is named in the header __key_schema_id: use"),
        ("json", ""),
        ("bytes", ""),
    ],
)
def test_a_header_that_names_the_schema_of_keys_is_told_to_formats_that_would_misread_them(
    name: KeyFormatName, expected: str
) -> None:
    suspicion = KeySuspicion(KeySpec(name))
    named = Record(0, 1, b"\x06abc", b"v", [("__key_schema_id", b"\x01" + bytes(16))])
    suspicion.look([b"\x06a%02d" % number for number in range(COUNT)], [named])
    assert (suspicion.text or "").startswith(expected)
    assert bool(suspicion.text) == bool(expected)


def test_few_keys_say_nothing_and_one_of_the_right_kind_is_enough() -> None:
    texts = [b"%04d" % number for number in range(COUNT - 1)]
    assert text_after("int", texts) is None
    assert text_after("int", texts * 3) is None
    assert text_after("int", [struct.pack(">i", 7), *texts]) is None
