"""How a record names its schema: a zero byte, and four bytes with the id that the schema has in the registry."""

from app.formats.errors import DecodeError

#: Bytes in front of what the schema describes.
FRAME_SIZE = 5


def schema_id(framed: bytes) -> int:
    """Return the id of the schema that the rest was written with; raises DecodeError for bytes without a frame."""
    if len(framed) < FRAME_SIZE or framed[0]:
        raise DecodeError(
            "it does not begin with a zero byte and the id of a schema, as serialisers of a schema registry write: was "
            "it written by another one?"
        )
    return int.from_bytes(framed[1:FRAME_SIZE], "big")


def frame(schema: int, content: bytes) -> bytes:
    """Return content with the id of its schema in front."""
    return b"\0" + schema.to_bytes(4, "big") + content
