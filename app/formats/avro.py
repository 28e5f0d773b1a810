"""Avro values as JSON text, in the shape of the table's schema, whatever version of it they were written with.

| type                                    | in the row                                                          |
|-----------------------------------------|---------------------------------------------------------------------|
| int, long                               | a number with every digit                                           |
| float, double                           | a number; `"NaN"`, `"Infinity"` and `"-Infinity"`, which JSON lacks |
| bytes, fixed                            | base64                                                              |
| enum, uuid                              | a string                                                            |
| union                                   | the value of its branch, without the branch's name                  |
| decimal                                 | `"12.30"`, with its scale                                           |
| date, time, timestamp, local-timestamp  | see temporal.py                                                     |

So do Kafka Connect's and Debezium's names for dates and times. Values are read by the logical types that they were
written with.
"""

from functools import lru_cache
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from app.catalog.spec import SchemaFile, ValueSpec
from app.formats.avro_schema import readable
from app.formats.errors import DecodeError
from app.formats.framing import FRAME_SIZE, schema_id
from app.formats.schemas import Schema, Schemas

_encode = msgspec.json.Encoder().encode

#: In front of single-object encoding's fingerprint (Avro specification, "Single-object encoding").
_SINGLE_OBJECT = b"\xc3\x01"
_FINGERPRINT_END = 10

#: Schemas that are kept ready.
_KEPT = 1024

#: The id of a schema that comes from a file and not from the registry.
FILE_SCHEMA = 0


def subject_of(topic: str) -> str:
    """Return the subject that a topic's values have in the registry, unless producers were told otherwise."""
    return f"{topic}-value"


class AvroReader:
    """From Avro to JSON text. `schema` is that of the rows; see ValueSpec."""

    def __init__(self, spec: ValueSpec, topic: str, schemas: Schemas) -> None:
        self._spec = spec
        self._subject = subject_of(topic)
        self._schemas = schemas
        self._file = Schema(FILE_SCHEMA, "AVRO", spec.schema.text) if isinstance(spec.schema, SchemaFile) else None

    def __call__(self, value: bytes) -> bytes:
        """Return a value's JSON text; raises DecodeError and SchemaNeeded."""
        written, start = self._written(value)
        return _encode(read(value, start, written, self.schema(written)))

    def schema(self, written: Schema | None = None) -> Schema:
        """Return the schema of the rows; of the latest, the one known since `written` was.

        Raises SchemaNeeded, and DecodeError when there is none that can be used.
        """
        if self._spec.schema == "latest":
            return self._schemas.latest(self._subject, -1 if written is None else written.id)
        return self._fixed()

    def _fixed(self) -> Schema:
        if self._file is not None:
            return self._file
        if not isinstance(self._spec.schema, int):
            raise TypeError("latest is no schema of its own")
        return self._schemas.known(self._spec.schema)

    def _written(self, value: bytes) -> tuple[Schema, int]:
        """Return the schema that a value was written with, and where its content begins."""
        match self._spec.framing:
            case "registry":
                return self._schemas.known(schema_id(value)), FRAME_SIZE
            case "single_object":
                return self._single_object(value), _FINGERPRINT_END
            case "none":
                return self._fixed(), 0

    def _single_object(self, value: bytes) -> Schema:
        if value[:2] != _SINGLE_OBJECT:
            raise DecodeError("it does not begin with the two bytes c3 01 of Avro's single-object encoding")
        schema = self._fixed()
        if value[2:_FINGERPRINT_END] != fingerprint(schema.text):
            raise DecodeError("it was written with another schema than the table names, by its fingerprint")
        return schema


@lru_cache(_KEPT)
def fingerprint(text: str) -> bytes:
    """Return the eight bytes by which single-object encoding names a schema."""
    canonical = fastavro.schema.to_parsing_canonical_form(msgspec.json.decode(text))
    # The specification writes them little-endian, and fastavro prints them so.
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def read(value: bytes, start: int, written: Schema, wanted: Schema, *, rendered: bool = True) -> Any:
    """Return what stands in `value` from `start` on, as values that JSON can show, or not `rendered`.

    Raises DecodeError when it was not written with that schema, or cannot be read as the wanted one.
    """
    writer = readable(written, rendered=rendered)
    reader = None if written.id == wanted.id else readable(wanted, rendered=rendered)
    content = BytesIO(value)
    content.seek(start)
    try:
        found = fastavro.schemaless_reader(content, writer.parsed, None if reader is None else reader.parsed)
    except DecodeError:
        raise
    except fastavro.read.SchemaResolutionError as error:
        raise DecodeError(f"schema {written.id} cannot be read as {_named(wanted)}: {error}") from error
    except Exception as error:  # bytes of another schema can break anything in fastavro
        raise DecodeError(f"it cannot be read with schema {written.id} ({type(error).__name__})") from error
    left = len(value) - content.tell()
    if left:
        raise DecodeError(f"{left} bytes are left over after it was read with schema {written.id}")
    return writer.unwrap(found)


def _named(schema: Schema) -> str:
    return (
        "the schema in the table's file" if schema.id == FILE_SCHEMA else f"schema {schema.id}, which the table wants"
    )
