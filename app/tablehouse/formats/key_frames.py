"""How the schema of a key is named, in front of the key or in a header, and the resulting wire forms.

A variant is the four bytes of the id in front of a key, or all of a header: a zero byte and an id, or a one and a GUID.
"""

from collections.abc import Iterable
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from tablehouse.formats.framing import FRAME_SIZE, KEY_HEADER, Headers, frame, frame_of
from tablehouse.formats.keys import Key
from tablehouse.formats.schemas import SchemaName

_ID_SIZE = FRAME_SIZE - 1


class KeyFrame(NamedTuple):
    """The name of the schema of a record's key, the variant, and where the content of the key begins."""

    schema: SchemaName
    variant: bytes
    content: int


def key_frame(wire: bytes, headers: Headers) -> KeyFrame:
    """Return the frame of a record's key; raises DecodeError if it names no schema."""
    found = frame_of(wire, headers, KEY_HEADER)
    variant = wire[1:FRAME_SIZE] if found.content else found.named_in[: found.end]
    return KeyFrame(found.schema, variant, found.content)


def schema_of(variant: bytes) -> SchemaName:
    """Return the schema that a variant names."""
    if len(variant) == _ID_SIZE:
        return int.from_bytes(variant, "big")
    return int.from_bytes(variant[1:], "big") if variant[0] == 0 else UUID(bytes=variant[1:])


def framed_key(variant: bytes, content: bytes) -> tuple[bytes, Headers]:
    """Return the key that a producer writes with this content, and the headers of its record."""
    if len(variant) == _ID_SIZE:
        return frame(int.from_bytes(variant, "big"), content), ()
    return content, ((KEY_HEADER, variant),)


def key_in_forms(stored: bytes, forms: Iterable[tuple[bytes, Headers]]) -> Key:
    """Return a key with these wire forms, each with its headers; there may be other, unknown forms."""
    found: dict[bytes, Headers] = {}
    for wire, headers in forms:
        found.setdefault(wire, headers)
    with_headers = {wire: headers for wire, headers in found.items() if headers}
    return Key(stored, tuple(found), enumerable=False, headers=MappingProxyType(with_headers))
