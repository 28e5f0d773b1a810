"""Protobuf values as JSON text: the JSON mapping of proto3, with the fields' names as in the schema.

In that mapping 64-bit integers are strings, bytes are base64, enums are their names, and a field without presence that
has its default is there all the same, so that all rows of a table have the same members.
"""

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory
from google.protobuf.descriptor import Descriptor
from grpc_tools import protoc

from app.formats.errors import DecodeError
from app.formats.framing import FRAME_SIZE, schema_id
from app.formats.schemas import Schema, Schemas

_FILE = "schema.proto"
#: The types that every schema may import without a reference: Google's own.
_INCLUDED = Path(protoc.__file__).parent / "_proto"
_MOST_INDEXES = 32
_KEPT = 1024


class ProtobufReader:
    """From Protobuf behind the id of its schema, and the place of the message in that, to JSON text."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def __call__(self, value: bytes) -> bytes:
        """Return a value's JSON text; raises DecodeError and SchemaNeeded."""
        number = schema_id(value)
        indexes, start = _indexes(value, FRAME_SIZE)
        kind = _message(self._schemas.known(number), indexes)
        found = kind()
        try:
            found.ParseFromString(value[start:])
            text: str = json_format.MessageToJson(
                found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
            )
        except (message.DecodeError, json_format.Error, ValueError, RecursionError) as error:
            raise DecodeError(f"it cannot be read with schema {number} ({type(error).__name__})") from error
        return text.encode()


def _indexes(value: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the place of the message among those of its file, from the outermost in, and where the message begins.

    Zig-zag varints: how many, then each; a zero alone stands for the first message.
    """
    count, start = _varint(value, start)
    if not 0 <= count <= _MOST_INDEXES:
        raise DecodeError("it does not say which message of its schema it is, as Confluent's serialisers do")
    if count == 0:
        return (0,), start
    indexes = []
    for _ in range(count):
        index, start = _varint(value, start)
        indexes.append(index)
    return tuple(indexes), start


def _varint(value: bytes, start: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(start, min(len(value), start + 5)):
        byte = value[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  the highest bit says that more follow
            return (number >> 1) ^ -(number & 1), position + 1
        shift += 7
    raise DecodeError("it ends before it says which message of its schema it is")


@lru_cache(_KEPT)
def _message(schema: Schema, indexes: tuple[int, ...]) -> Callable[[], message.Message]:
    descriptor = _descriptor(schema, indexes)
    return message_factory.GetMessageClass(descriptor)


def _descriptor(schema: Schema, indexes: tuple[int, ...]) -> Descriptor:
    file = _pool(schema).FindFileByName(_FILE)
    messages = list(file.message_types_by_name.values())
    found: Descriptor | None = None
    for index in indexes:
        if not 0 <= index < len(messages):
            raise DecodeError(
                f"it is message {'.'.join(map(str, indexes))} of schema {schema.id}, which has no such message"
            )
        found = messages[index]
        messages = list(found.nested_types)
    if found is None:
        raise AssertionError("a message has a place")
    return found


@lru_cache(_KEPT)
def _pool(schema: Schema) -> descriptor_pool.DescriptorPool:
    """Return a schema with all that it refers to; some 10 ms for a schema that was not seen before."""
    if schema.kind != "PROTOBUF":
        raise DecodeError(f"schema {schema.id} is of type {schema.kind}, and the table's format is protobuf")
    pool = descriptor_pool.DescriptorPool()
    for file in _compiled(schema).file:
        pool.Add(file)
    return pool


def _compiled(schema: Schema) -> descriptor_pb2.FileDescriptorSet:
    with tempfile.TemporaryDirectory(prefix="tablehouse-proto-") as name:
        folder = Path(name)
        _write(folder, _FILE, schema)
        out = folder / "descriptors"
        failed = protoc.main(
            ["protoc", f"-I{folder}", f"-I{_INCLUDED}", "--include_imports", f"--descriptor_set_out={out}", _FILE]
        )
        if failed:
            raise DecodeError(f"schema {schema.id} is no Protobuf that protoc takes; its log has the reason")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def _write(folder: Path, name: str, schema: Schema) -> None:
    """Write a schema and its references under the names by which they import each other."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise DecodeError(f"schema {schema.id} has a reference of the name {name!r}, which leads out of its folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(schema.text, encoding="utf-8")
    for reference in schema.references:
        _write(folder, reference.name, reference.schema)
