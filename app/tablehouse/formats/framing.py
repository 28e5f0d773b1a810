"""How a record names the schema of its value or key.

Either in front of the data: a zero byte, and four bytes with the schema's id in the registry. Or in a header, which has
the same bytes, or a one and the sixteen bytes of a GUID; then the data has no prefix.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import SchemaName

#: The headers of a record, in the order in which its producer gave them.
Headers = Sequence[tuple[str, bytes | None]]

#: The headers that name a value's schema and a key's.
VALUE_HEADER, KEY_HEADER = "__value_schema_id", "__key_schema_id"

#: Bytes in front of the data.
FRAME_SIZE = 5

_GUID_END = 17


class Frame(NamedTuple):
    """The name of a schema: the bytes it is in, where it ends in them, and where the data begins.

    The bytes after the name belong to the format: serialisers of Protobuf put the index of the message there.
    """

    schema: SchemaName
    named_in: bytes
    end: int
    content: int


def frame_of(data: bytes, headers: Headers, named_by: str = VALUE_HEADER) -> Frame:
    """Return the frame of a value, or with `named_by` of a key; raises DecodeError if it names no schema."""
    named = header(headers, named_by) if headers else None
    if named is None:
        return Frame(schema_id(data), data, FRAME_SIZE, FRAME_SIZE)
    if len(named) >= _GUID_END and named[0] == 1:
        return Frame(UUID(bytes=named[1:_GUID_END]), named, _GUID_END, 0)
    if len(named) >= FRAME_SIZE and named[0] == 0:
        return Frame(schema_id(named), named, FRAME_SIZE, 0)
    raise DecodeError(
        f"its header {named_by} is neither a one and the 16 bytes of a GUID nor a zero byte and an id of 4 bytes"
    )


def header(headers: Headers, name: str) -> bytes | None:
    """Return the value of a header, None if there is none; of several the last, as in Kafka's own clients."""
    return next((value for given, value in reversed(headers) if given == name), None)


def schema_id(framed: bytes) -> int:
    """Return the id of the schema that the rest was written with; raises DecodeError for bytes without a frame."""
    if len(framed) < FRAME_SIZE or framed[0]:
        raise DecodeError(
            "it does not begin with a zero byte and the id of a schema, as serialisers of a schema registry write: was "
            "it written by another serialiser?"
        )
    return int.from_bytes(framed[1:FRAME_SIZE], "big")


def frame(schema: SchemaName, content: bytes) -> bytes:
    """Return content with the id of its schema in front."""
    if isinstance(schema, UUID):
        raise TypeError("a GUID is in a header, not in front of the data")
    return b"\0" + schema.to_bytes(4, "big") + content
