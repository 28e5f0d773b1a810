"""Protobuf values as JSON text: the JSON mapping of proto3, with the fields' names as in the schema.

In that mapping 64-bit integers are strings, bytes are base64, enums are their names, and a field without presence is
included even if it has its default, so that all rows of a table have the same members. Members are sorted by name.
"""

import os
import re
import tempfile
from binascii import a2b_base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory
from google.protobuf.descriptor import Descriptor
from google.type import date_pb2
from grpc_tools import protoc

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers, frame_of
from tablehouse.formats.protobuf_checks import check_of
from tablehouse.formats.remembered import remembered
from tablehouse.formats.schemas import Schema, Schemas
from tablehouse.turns import Work

#: The file name of the schema itself, which none of its imports has.
_FILE = "__tablehouse__.proto"

#: The folders of files that schemas import without a reference: confluent/*, google/protobuf/* and google/type/*.
_INCLUDED = (
    Path(__file__).parent / "proto",
    Path(protoc.__file__).parent / "_proto",
    Path(date_pb2.__file__).parents[2],
)

#: Maximum characters of a reference's name that can be a file name.
_MAX_NAME_CHARACTERS = 200

#: Maximum characters of protoc's messages that are shown.
_MAX_REASON_CHARACTERS = 300

#: The beginning of lines that are log messages: about a schema without a syntax line, which proto2 does not require.
_LOGGED = re.compile(r"WARNING: All log messages|[IWE][0-9]{4}")

#: How json_format names a field, without the messages around it.
_FAILED_FIELD = re.compile(r"Failed to serialize (\w+) field: ")
_NO_FORM = "a Timestamp is from the years 1 to 9999, a Duration at most 10,000 years, a number in a Value finite"

_MAX_INDEXES = 32
_STDERR = 2

_encode = msgspec.json.Encoder(order="sorted").encode


class ProtobufReader:
    """Converts Protobuf with the id of its schema and the index of the message in front to JSON text."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def __call__(self, value: bytes, headers: Headers = ()) -> bytes:
        """Return a value's JSON text; raises DecodeError and SchemaNeeded."""
        convert, start = self._converter(value, headers)
        return convert(value[start:])

    def in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:
        """Do what a call does with a large value, in the thread of Turns."""
        # Not in that thread: protoc must not run while another thread writes to standard error.
        convert, start = self._converter(value, headers)
        text: bytes = yield partial(convert, value[start:])
        return text

    def _converter(self, value: bytes, headers: Headers) -> tuple[Callable[[bytes], bytes], int]:
        """Return the converter of the message in a value to JSON text, and where the message begins."""
        frame = frame_of(value, headers)
        indexes, end = _indexes(frame.named_in, frame.end)
        return _message(self._schemas.known(frame.schema), indexes), end if frame.content else 0


def _indexes(value: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the indexes of the message in its file, from the outermost message in, and where the message begins.

    They are zig-zag varints: the count, then each index; a single zero means the first message.
    """
    count, start = _varint(value, start)
    if not 0 <= count <= _MAX_INDEXES:
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


@remembered
def _message(schema: Schema, indexes: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """Return the converter of a message to JSON text; it raises DecodeError."""
    pool = _pool(schema)
    descriptor = _descriptor(schema, pool, indexes)
    kind, check = message_factory.GetMessageClass(descriptor), check_of(descriptor, pool)

    def convert(content: bytes) -> bytes:
        try:
            found: message.Message = kind.FromString(content)
            check(found)
            return _encode(
                json_format.MessageToDict(
                    found,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                    descriptor_pool=pool,
                )
            )
        except DecodeError:
            raise
        except json_format.SerializeToJsonError as error:
            raise DecodeError(f"{_field_in(error)} has no form in Protobuf's JSON: {_NO_FORM}") from error
        except Exception as error:  # bytes of another message can break anything in protobuf
            raise DecodeError(f"it cannot be read with schema {schema.id} ({type(error).__name__})") from error

    return convert


def _field_in(error: Exception) -> str:
    """Return the field that json_format could not convert. The rest of its message has the value in it."""
    found = _FAILED_FIELD.match(str(error))
    return found[1] if found else "it"


def _descriptor(schema: Schema, pool: descriptor_pool.DescriptorPool, indexes: tuple[int, ...]) -> Descriptor:
    file = pool.FindFileByName(_FILE)
    messages = list(file.message_types_by_name.values())
    found: Descriptor | None = None
    for index in indexes:
        if not 0 <= index < len(messages):
            raise DecodeError(
                f"it is message {'.'.join(map(str, indexes))} of schema {schema.id}, which has no such message"
            )
        found = messages[index]
        if found.GetOptions().map_entry:
            raise DecodeError(f"it is message {'.'.join(map(str, indexes))} of schema {schema.id}, an entry of a map")
        messages = list(found.nested_types)
    if found is None:
        raise AssertionError("a message has at least one index")
    return found


@remembered
def _pool(schema: Schema) -> descriptor_pool.DescriptorPool:
    """Return a schema with all its references; takes about 5 ms for a new schema."""
    if schema.kind != "PROTOBUF":
        raise DecodeError(f"schema {schema.id} is of type {schema.kind}, and the table's format is protobuf")
    pool = descriptor_pool.DescriptorPool()
    for file in _compiled(schema).file:
        pool.Add(file)
    return pool


def _compiled(schema: Schema) -> descriptor_pb2.FileDescriptorSet:
    with tempfile.TemporaryDirectory(prefix="tablehouse-proto-") as name:
        folder, out, given = Path(name) / "schemas", Path(name) / "out", Path(name) / "given"
        compiled = descriptor_pb2.FileDescriptorSet()
        _write(folder, _FILE, schema, compiled)
        given.write_bytes(compiled.SerializeToString())
        included = [*(f"-I{path}" for path in (folder, *_INCLUDED)), f"--descriptor_set_in={given}"]
        with _what_protoc_says(Path(name) / "reason") as said:
            failed = protoc.main(["protoc", *included, "--include_imports", f"--descriptor_set_out={out}", _FILE])
            reason = said().replace(f"{folder}/", "").replace(_FILE, "it")
        if failed:
            raise DecodeError(f"schema {schema.id} is not valid Protobuf: {reason}")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


@contextmanager
def _what_protoc_says(file: Path) -> Iterator[Callable[[], str]]:
    """Redirect the messages of protoc, which runs in this process and holds the interpreter's lock, to a file."""
    stderr = os.dup(_STDERR)
    try:
        with file.open("w+", encoding="utf-8", errors="replace") as written:
            os.dup2(written.fileno(), _STDERR)
            yield lambda: _first_words(written)
    finally:
        os.dup2(stderr, _STDERR)
        os.close(stderr)


def _first_words(written: IO[str]) -> str:
    written.seek(0)
    return " ".join(line.strip() for line in written if not _LOGGED.match(line))[:_MAX_REASON_CHARACTERS]


def _write(folder: Path, name: str, schema: Schema, compiled: descriptor_pb2.FileDescriptorSet) -> None:
    """Write a schema and its references under the names by which they import each other.

    Schemas that a client registered as descriptors, which the registry returns unchanged, are added to `compiled`.
    """
    parts = name.split("/")
    if len(name) > _MAX_NAME_CHARACTERS or "\0" in name or {"", ".", ".."} & set(parts):
        raise DecodeError(f"schema {schema.id} has a reference of the name {name!r}, which is not a valid file name")
    file = folder.joinpath(*parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _descriptor_in(schema.text)
    if descriptor is None:
        file.write_bytes(schema.text.encode("utf-8", errors="replace"))
    else:
        descriptor.name = name
        compiled.file.append(descriptor)
    for reference in schema.references:
        _write(folder, reference.name, reference.schema, compiled)


def _descriptor_in(text: str) -> descriptor_pb2.FileDescriptorProto | None:
    """Return a schema that is given as base64 of its descriptor; None if it is text."""
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(a2b_base64(text, strict_mode=True))
    except (ValueError, message.DecodeError):  # text has characters that base64 lacks
        return None
