"""Rows of an Avro table encoded as Avro again: for clients that ask for Avro, and for records that clients write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tablehouse.catalog.spec import TableSpec
from tablehouse.formats.avro import FILE_SCHEMA, AvroReader
from tablehouse.formats.avro_write import to_avro, to_avro_in_pieces, to_framed_avro, to_framed_avro_in_pieces
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schema, SchemaName, Schemas
from tablehouse.turns import Work

#: The media type of Avro without a frame.
AVRO = "avro/binary"


class Encoded(NamedTuple):
    """A row in Avro without a frame, and the id of its schema; None for a schema from a file."""

    content: bytes
    schema_id: SchemaName | None


class AvroRows:
    """Encodes the JSON text of a table's rows as Avro with the schema of the rows."""

    def __init__(self, table: TableSpec, schemas: Schemas) -> None:
        self.schemas = schemas
        self._reader = AvroReader(table.source.value, table.source.topic, schemas)

    def encode(self, row: bytes) -> Encoded:
        """Return a row in Avro.

        Raises DecodeError for a row that the schema does not describe, and SchemaNeeded while it is not known.
        """
        schema = self._reader.schema()
        with _named(schema):
            return Encoded(to_avro(row, schema), _id_of(schema))

    def encode_in_pieces(self, row: bytes) -> Work[Encoded]:
        """Do what `encode` does with a large row, in pieces and in the thread of Turns."""
        schema = self._reader.schema()
        with _named(schema):
            return Encoded((yield from to_avro_in_pieces(row, schema)), _id_of(schema))

    def framed(self, row: bytes) -> bytes:
        """Return a row as a record's value, with the id of its schema in front; raises as `encode` does."""
        schema = self._registered()
        with _named(schema):
            return to_framed_avro(row, schema)

    def framed_in_pieces(self, row: bytes) -> Work[bytes]:
        """Do what `framed` does with a large row, in pieces and in the thread of Turns."""
        schema = self._registered()
        with _named(schema):
            return (yield from to_framed_avro_in_pieces(row, schema))

    def _registered(self) -> Schema:
        schema = self._reader.schema()
        if schema.id == FILE_SCHEMA:
            raise DecodeError("the table's schema comes from a file and has no id, which a record needs")
        return schema


def _id_of(schema: Schema) -> SchemaName | None:
    return None if schema.id == FILE_SCHEMA else schema.id


@contextmanager
def _named(schema: Schema) -> Iterator[None]:
    """Add the name of the schema to the DecodeError of a row that does not match it."""
    try:
        yield
    except DecodeError as error:
        which = "the schema in the table's file" if schema.id == FILE_SCHEMA else f"schema {schema.id}"
        raise DecodeError(f"it is not as {which} says: {error}") from error


def avro_rows(table: TableSpec, schemas: Schemas) -> AvroRows | None:
    """Return the encoder of a table's rows; None if the rows differ from the schema of the source."""
    source = table.source
    whole = source.envelope == "none" and table.columns is None and source.value.schema != "written"
    return AvroRows(table, schemas) if source.value.format == "avro" and whole else None
