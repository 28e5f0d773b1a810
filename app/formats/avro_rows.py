"""Rows of a table of Avro as Avro again: for those who read them so, and for records that callers write."""

from collections.abc import Callable, Generator
from typing import NamedTuple

from app.catalog.spec import TableSpec
from app.formats.avro import FILE_SCHEMA, AvroReader
from app.formats.avro_write import to_avro, to_framed_avro
from app.formats.errors import DecodeError
from app.formats.schemas import Schema, Schemas

#: The media type of Avro without a frame.
AVRO = "avro/binary"


class Encoded(NamedTuple):
    """A row in Avro without a frame, and the id of the schema that describes it; None for one from a file."""

    content: bytes
    schema_id: int | None


class AvroRows:
    """From the JSON text of a table's rows to Avro, by the schema that the rows have."""

    def __init__(self, table: TableSpec, schemas: Schemas) -> None:
        self.schemas = schemas
        self._reader = AvroReader(table.source.value, table.source.topic, schemas)

    def encode(self, row: bytes) -> Encoded:
        """Return a row in Avro.

        Raises DecodeError for a row that the schema does not describe, and SchemaNeeded while it is not known.
        """
        schema = self._reader.schema()
        return Encoded(_described(to_avro, row, schema), None if schema.id == FILE_SCHEMA else schema.id)

    def framed(self, row: bytes) -> bytes:
        """Return a row as a record's value, behind the id of its schema; raises as `encode` does."""
        schema = self._reader.schema()
        if schema.id == FILE_SCHEMA:
            raise DecodeError("the table's schema is in a file, and has no id that a record could name")
        return _described(to_framed_avro, row, schema)

    def framed_in_pieces(self, row: bytes) -> Generator[None, None, bytes]:
        """Do the same at once, where a generator is expected: a row is converted whole."""
        yield from ()
        return self.framed(row)


def _described(write: Callable[[bytes, Schema], bytes], row: bytes, schema: Schema) -> bytes:
    try:
        return write(row, schema)
    except DecodeError as error:
        which = "the schema in the table's file" if schema.id == FILE_SCHEMA else f"schema {schema.id}"
        raise DecodeError(f"it is not as {which} says: {error}") from error


def avro_rows(table: TableSpec, schemas: Schemas) -> AvroRows | None:
    """Return how a table's rows become Avro; None where they are not as the schema of its source says."""
    source = table.source
    whole = source.envelope == "none" and table.columns is None
    return AvroRows(table, schemas) if source.value.format == "avro" and whole else None
