"""Some members of a JSON object, without decoding the others."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with

#: Characters that JSON escapes. msgspec does not accept them in the name of a struct's field.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


_raw_members: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def raw_members(text: bytes) -> Mapping[str, msgspec.Raw]:
    """Return the texts of all members of a JSON text that was checked before; none if it is not an object."""
    try:
        return decode_with(_raw_members, text)
    except DecodeError:
        return {}


def selected(names: Iterable[str], kind: Any) -> Callable[[bytes], Mapping[str, Any]]:
    """Return a function that returns the members with some names of a JSON text, as values of a type.

    They are in the order of the names. Missing members, and those of a text that is not an object, are left out. The
    text was checked when its row was made.
    """
    wanted = tuple(dict.fromkeys(names))
    if any(map(_ESCAPED.search, wanted)):
        return _slowly(wanted, kind)
    attributes = [f"member_{number}" for number in range(len(wanted))]
    struct = msgspec.defstruct(
        "Selected",
        [(attribute, kind, UNSET) for attribute in attributes],
        rename=dict(zip(attributes, wanted, strict=True)),
        gc=False,
    )
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
    pairs = tuple(zip(wanted, attributes, strict=True))

    def read(text: bytes) -> Mapping[str, Any]:
        try:
            found = decode_with(decoder, text)
        except DecodeError:
            return {}
        return {name: value for name, attribute in pairs if (value := getattr(found, attribute)) is not UNSET}

    return read


def _slowly(wanted: tuple[str, ...], kind: Any) -> Callable[[bytes], Mapping[str, Any]]:
    """Do the same with all members."""
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, kind])

    def read(text: bytes) -> Mapping[str, Any]:
        try:
            found = decode_with(decoder, text)
        except DecodeError:
            return {}
        return {name: found[name] for name in wanted if name in found}

    return read
