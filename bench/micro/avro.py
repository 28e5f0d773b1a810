"""Avro: from a record to the JSON that is stored, and what it would be to store the record's bytes instead."""

from bench.avro import SCHEMA, in_avro
from bench.micro.timing import Timings
from bench.source import Source
from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.avro import AvroReader, resolution
from tablehouse.formats.avro_rows import AvroRows
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import NoSchemas, Schema, SchemaName
from tablehouse.formats.values import JsonValue

_ID = 1
_RECORDS = 2_000
_TABLE = TableSpec("table", SourceSpec("source", KeySpec("string"), ValueSpec("avro", schema=_ID)))
_SCHEMA = Schema(_ID, "AVRO", SCHEMA)


class _OneSchema(NoSchemas):
    """A registry with one schema."""

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        if schema_id != _ID:
            raise DecodeError(f"there is no schema {schema_id}")
        return _SCHEMA


def measure(timings: Timings) -> None:
    """Time both directions, on the records of the benchmark; and say how many bytes each form has."""
    source = Source(_RECORDS, _RECORDS, 4)
    texts = [value for _, value in source.contents()]
    values = [value for _, value in in_avro(source, _ID)]
    schemas = _OneSchema()
    to_json, to_avro = AvroReader(_TABLE.source.value, "source", schemas), AvroRows(_TABLE, schemas).framed
    rows, check = [to_json(value) for value in values], JsonValue().decode
    sizes = {"record in JSON": texts, "record in Avro": values, "row of either": rows}
    for name, some in sizes.items():
        timings.say(f"bytes of a {name}", sum(map(len, some)) / len(some))
    timings.sync("value json, checked", _RECORDS, lambda: [check(text) for text in texts])
    timings.sync("value avro, to the JSON of its row", _RECORDS, lambda: [to_json(value) for value in values])
    read = resolution(_SCHEMA, _SCHEMA).read_framed
    timings.sync("the same, read alone", _RECORDS, lambda: [read(value) for value in values])
    timings.sync("a row's JSON, to Avro", _RECORDS, lambda: [to_avro(row) for row in rows])
