"""Avro as producers write it, by fastavro alone, and as the rows of a table show it."""

import json
from io import BytesIO
from typing import Any

import fastavro

from tablehouse.catalog.spec import ValueSpec
from tablehouse.formats.avro import AvroReader
from tablehouse.formats.schemas import Reference, Schema
from tablehouse.turns import finish
from tests.support.schemas import FetchedSchemas, framed


def avro_schema(schema_id: int, schema: Any, *references: Reference) -> Schema:
    """Register a schema under an id."""
    return Schema(schema_id, "AVRO", json.dumps(schema), references)


def record(*fields: Any, name: str = "R") -> dict[str, Any]:
    """Make a schema of fields, each a name, a type and, if it has one, a default."""
    return {
        "type": "record",
        "name": name,
        "fields": [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields],
    }


def written(schema: Any, value: Any) -> bytes:
    """Return a value in Avro, without a frame."""
    content = BytesIO()
    fastavro.schemaless_writer(content, fastavro.parse_schema(schema, _ignore_default_error=True), value)
    return content.getvalue()


def bare(schema: Any, value: bytes) -> bytes:
    """Take off the length of bytes that are all of a value, which behind a frame they do not have."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    return fastavro.schemaless_reader(BytesIO(value), "bytes", None) if kind == "bytes" else value  # type: ignore[return-value]


def shown(schema: Any, value: bytes, wanted: Any = None) -> Any:
    """Return the row, read from JSON, of Avro bytes that were written with a schema; `wanted` is the table's."""
    return json.loads(shown_text(schema, value, wanted))


def shown_text(schema: Any, value: bytes, wanted: Any = None) -> bytes:
    """Return the text of such a row, which is the same where it is read in pieces."""
    schemas = FetchedSchemas(avro_schema(1, schema))
    if wanted is not None:
        schemas.add(avro_schema(2, wanted))
    read, record = AvroReader(ValueSpec("avro"), "topic", schemas), framed(1, bare(schema, value))
    text = read(record)
    assert finish(read.in_pieces(record)) == text
    return text
