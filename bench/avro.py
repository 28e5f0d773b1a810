"""The records of the benchmark in Avro, behind the id of their schema."""

import json
from collections.abc import Iterator
from io import BytesIO

import fastavro
import msgspec

from bench.source import Source
from tablehouse.formats.framing import frame

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Customer",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "sequence", "type": "long"},
            {"name": "amount", "type": "double"},
            {"name": "active", "type": "boolean"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "note", "type": "string"},
        ],
    }
)


def in_avro(source: Source, schema_id: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value of a source in order, the values in Avro."""
    parsed = fastavro.parse_schema(json.loads(SCHEMA))
    for key, value in source.contents():
        content = BytesIO()
        fastavro.schemaless_writer(content, parsed, msgspec.json.decode(value))
        yield key, frame(schema_id, content.getvalue())
