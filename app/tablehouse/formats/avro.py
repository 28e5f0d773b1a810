"""Avro values as JSON text by the table's schema, whichever version of the schema they were written with.

| type                                    | in the row                                                          |
|-----------------------------------------|---------------------------------------------------------------------|
| int, long                               | a number with every digit                                           |
| float, double                           | a number in the fewest digits that identify it; `"NaN"`,            |
|                                         | `"Infinity"` and `"-Infinity"`, which JSON lacks                    |
| bytes, fixed                            | base64                                                              |
| enum, uuid                              | a string                                                            |
| union                                   | the value of its branch, without the branch's name                  |
| decimal, Debezium's VariableScaleDecimal | `"12.30"`, with its scale                                          |
| date, time, timestamp, local-timestamp  | see temporal.py                                                     |

Dates and times named by Kafka Connect and Debezium are shown alike. Values are read by the logical types that they were
written with.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from tablehouse.catalog.spec import SchemaFile, ValueSpec
from tablehouse.formats.avro_depth import DepthCheck
from tablehouse.formats.avro_rendering import float_text, kind_of, single
from tablehouse.formats.avro_schema import WHOLE, Readable, content_of, readable
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import FRAME_SIZE, Headers, frame_of
from tablehouse.formats.remembered import remembered
from tablehouse.formats.schemas import Schema, SchemaName, Schemas
from tablehouse.turns import Work

_encode = msgspec.json.Encoder().encode

#: The bytes before the fingerprint in single-object encoding (Avro specification, "Single-object encoding").
_SINGLE_OBJECT = b"\xc3\x01"
_FINGERPRINT_END = 10

#: The id of a schema that comes from a file; the registry has no negative ones.
FILE_SCHEMA = -1

#: A simple type as avro_schema.py marks it, in fastavro's messages, and the maximum characters of them that are shown.
_MARKED = re.compile(r"\{'type': '(\w+)', 'logicalType': 'tablehouse-[^}]*\}")
_MAX_REASON_CHARACTERS = 300


def subject_of(topic: str) -> str:
    """Return the default subject of a topic's values in the registry."""
    return f"{topic}-value"


class AvroReader:
    """Converts Avro to JSON text. `schema` is the schema of the rows; see ValueSpec."""

    def __init__(self, spec: ValueSpec, topic: str, schemas: Schemas) -> None:
        self._spec = spec
        self._subject = spec.subject or subject_of(topic)
        self._schemas = schemas
        #: By the ids of the schema a value was written with and of the schema it is read with.
        self._resolutions: dict[tuple[SchemaName, SchemaName], Resolution] = {}
        self._file = Schema(FILE_SCHEMA, "AVRO", spec.schema.text) if isinstance(spec.schema, SchemaFile) else None

    def __call__(self, value: bytes, headers: Headers = ()) -> bytes:
        """Return a value's JSON text; raises DecodeError and SchemaNeeded."""
        read, start = self._reading(value, headers)
        return _encode(read(value, start, BytesIO))

    def in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:
        """Do what a call does with a large value, in the thread of Turns."""
        read, start = self._reading(value, headers)
        text: bytes = yield lambda: _encode(read(value, start, _Interruptible))
        return text

    def _reading(self, value: bytes, headers: Headers) -> tuple["_Read", int]:
        """Return the function that reads a value, and where its content begins."""
        written, start = self._written(value, headers)
        wanted = written if self._spec.schema == "written" else self.schema(written)
        ready = self._resolutions.get((written.id, wanted.id))
        if ready is None:
            ready = self._resolutions[written.id, wanted.id] = resolution(written, wanted)
        return (ready.read_framed if self._spec.framing == "registry" else ready.read), start

    def schema(self, written: Schema | None = None) -> Schema:
        """Return the schema of the rows; for `latest`, the one that was known when `written` was fetched or later.

        Raises SchemaNeeded, and DecodeError if no schema can be used.
        """
        if self._spec.schema == "latest":
            return self._schemas.latest(self._subject, -1 if written is None else written.id)
        return self._fixed()

    def _fixed(self) -> Schema:
        if self._file is not None:
            return self._file
        if not isinstance(self._spec.schema, int):
            raise TypeError(f"{self._spec.schema} does not name a single schema")
        return self._schemas.known(self._spec.schema)

    def _written(self, value: bytes, headers: Headers) -> tuple[Schema, int]:
        """Return the schema that a value was written with, and where its content begins."""
        match self._spec.framing:
            case "registry":
                frame = frame_of(value, headers)
                return self._schemas.known(frame.schema), frame.content
            case "single_object":
                return self._single_object(value), _FINGERPRINT_END
            case "none":
                return self._fixed(), 0

    def _single_object(self, value: bytes) -> Schema:
        if value[:2] != _SINGLE_OBJECT:
            raise DecodeError("it does not begin with the two bytes c3 01 of Avro's single-object encoding")
        schema = self._fixed()
        if value[2:_FINGERPRINT_END] != fingerprint(schema):
            raise DecodeError("its fingerprint is not that of the table's schema")
        return schema


#: Reads a value for JSON; takes the bytes, where the content begins, and a function that opens bytes as a file.
_Read = Callable[[bytes, int, Callable[[bytes], BytesIO]], Any]


class _Interruptible(BytesIO):
    """A file whose reads are Python calls, between which other threads can run. fastavro itself releases no lock."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as BytesIO does."""
        return super().read(size)


@remembered
def fingerprint(schema: Schema) -> bytes:
    """Return the eight bytes by which single-object encoding names a schema; raises DecodeError."""
    if schema.references:
        raise DecodeError(
            f"schema {schema.id} has references, and single-object encoding needs a schema without references"
        )
    try:
        parsed = fastavro.parse_schema(content_of(schema), _ignore_default_error=True)
        canonical = fastavro.schema.to_parsing_canonical_form(parsed)
    except Exception as error:  # fastavro raises exceptions of any type
        raise DecodeError(f"schema {schema.id} cannot be used: {error}") from error
    # The specification writes the bytes little-endian, and fastavro prints them in that order.
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


@dataclass(frozen=True, slots=True)
class Resolution:
    """How values written with one schema are read with another: the ids, and the schemas for fastavro.

    `wanted` is None if it is the same schema. `bare` is set if the whole value is bytes:
    serialisers of a schema registry write those without their length. `floats` and `doubles` are the fields to render,
    and `depth` checks values: see Readable.
    """

    ids: tuple[SchemaName, SchemaName]
    written: Any
    wanted: Any
    wrapped: bool
    bare: bool
    floats: tuple[str, ...]
    doubles: tuple[str, ...]
    depth: DepthCheck | None

    def read_framed(self, value: bytes, start: int = FRAME_SIZE, opened: Callable[[bytes], BytesIO] = BytesIO) -> Any:
        """Return the value that a serialiser of a schema registry wrote from `start` on; raises DecodeError."""
        if self.bare:
            return self.read(with_length(value[start:]), 0, opened)
        return self.read(value, start, opened)

    def read(self, value: bytes, start: int, opened: Callable[[bytes], BytesIO] = BytesIO) -> Any:
        """Return the value in `value` from `start` on; raises DecodeError. `opened` opens bytes as a file."""
        if self.depth is not None:
            self.depth(value, start)
        content = opened(value)
        content.seek(start)
        try:
            found: Any = fastavro.schemaless_reader(content, self.written, self.wanted)
        except DecodeError:
            raise
        except fastavro.read.SchemaResolutionError as error:
            raise self._unresolvable(error) from error
        except Exception as error:  # bytes of another schema can break anything in fastavro
            raise DecodeError(f"it cannot be read with schema {self.ids[0]} ({type(error).__name__})") from error
        left = len(value) - content.tell()
        if left:
            raise DecodeError(f"{left} bytes are left over after it was read with schema {self.ids[0]}")
        for name in self.floats:
            number = found[name]
            if number is not None:
                found[name] = single(number)
        for name in self.doubles:
            number = found[name]
            if number is not None and number - number:  # 0 unless it is infinite or not a number
                found[name] = float_text(number)
        return found[WHOLE] if self.wrapped else found

    def _unresolvable(self, error: Exception) -> DecodeError:
        written, wanted = self.ids
        reason = _MARKED.sub(r"\1", str(error))[:_MAX_REASON_CHARACTERS]
        return DecodeError(f"schema {written} cannot be read as {_named(wanted)}: {reason}")


def _named(schema: SchemaName) -> str:
    return "the schema in the table's file" if schema == FILE_SCHEMA else f"schema {schema}, which the table wants"


@remembered
def resolution(written: Schema, wanted: Schema, *, rendered: bool = True) -> Resolution:
    """Return how values of one schema are read with another, as values for JSON if `rendered`.

    Raises DecodeError for schemas that cannot be used. Whether the two are compatible shows only when a value is read.
    """
    writer, reader = readable(written, rendered=rendered), readable(wanted, rendered=rendered)
    if writer.wrapped != reader.wrapped:  # a union of records may become one of them
        writer, reader = (readable(schema, rendered=rendered, wrapped=True) for schema in (written, wanted))
    ids = (written.id, wanted.id)
    same = written.id == wanted.id or writer.parsed == reader.parsed
    twin = None if same else writer.twin() or reader.twin()
    if twin is not None:
        raise DecodeError(
            f"schema {written.id} cannot be read as {_named(wanted.id)}: a union of one of them has two types called "
            f"{twin}, in different namespaces, which could be mistaken for each other"
        )
    floats, doubles = writer.floats, writer.doubles
    if (floats or doubles) and not same:
        fields = reader.content["fields"]
        by_alias = {alias: field["name"] for field in fields for alias in field.get("aliases", ())}
        names = by_alias | {field["name"]: field["name"] for field in fields}
        read = {names[name] for name in (*floats, *doubles) if name in names}
        floats = tuple({names[name] for name in floats if name in names}.difference(reader.doubles))
        doubles = tuple(read.difference(floats))
    return Resolution(
        ids,
        writer.parsed,
        None if same else reader.parsed,
        writer.wrapped,
        is_bare(writer),
        floats,
        doubles,
        writer.depth,
    )


def is_bare(schema: Readable) -> bool:
    """Return whether a whole value of the schema is bytes."""
    return kind_of(schema.content) == "bytes"


def with_length(content: bytes) -> bytes:
    """Return bytes with their length in front, as Avro encodes them."""
    length = BytesIO()
    fastavro.schemaless_writer(length, "long", len(content))
    return length.getvalue() + content
