"""Rows in Avro: with the schema that the table names, or not at all."""

import asyncio
from pathlib import Path

import pytest

from tablehouse.catalog.spec import KeyFormatName, KeySpec, SchemaFile, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import InvalidKey, KeySchemaUnknown, SchemaUnavailable
from tablehouse.formats.avro_rows import AvroRows, avro_rows
from tablehouse.formats.encoding import encoder
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schema, SchemaNeeded
from tablehouse.formats.variants import Known
from tablehouse.http.conditions import preferred
from tablehouse.routing.schemas import with_schemas
from tests.support.schemas import MemorySchemas

PLANE = '{"type":"record","name":"P","fields":[{"name":"n","type":"int"}]}'


def table(value: ValueSpec, key: KeyFormatName = "string", columns: dict[str, str] | None = None) -> TableSpec:
    return TableSpec("planes", SourceSpec("planes-topic", KeySpec(key), value), columns=columns)


def rows(value: ValueSpec, schemas: MemorySchemas) -> AvroRows:
    found = avro_rows(table(value), schemas)
    assert found is not None
    return found


async def test_a_row_is_written_with_the_schema_that_the_table_names() -> None:
    schemas = MemorySchemas(Schema(7, "AVRO", PLANE))
    schemas.subjects["planes-topic-value"] = [7]
    for value in (ValueSpec("avro", schema=7), ValueSpec("avro")):
        avro = rows(value, schemas)
        encoded = await with_schemas(schemas, lambda avro=avro: avro.encode(b'{"n":-2}'), 5)  # type: ignore[misc]
        assert encoded == (b"\x03", 7)
        assert avro.framed(b'{"n":-2}') == b"\0\0\0\0\x07\x03"
    avro = rows(ValueSpec("avro", schema=SchemaFile(Path("p.avsc"), PLANE)), schemas)
    assert avro.encode(b'{"n":-2}') == (b"\x03", None)
    with pytest.raises(DecodeError, match="has no id"):
        avro.framed(b'{"n":-2}')
    with pytest.raises(DecodeError, match=r"not as the schema in the table's file says: n"):
        avro.encode(b'{"n":"x"}')


def test_rows_that_are_no_more_as_the_source_s_schema_says_are_not_written() -> None:
    assert avro_rows(table(ValueSpec("avro"), columns={"n": "n"}), MemorySchemas()) is None
    assert avro_rows(table(ValueSpec("json")), MemorySchemas()) is None


async def test_a_request_waits_for_a_schema_until_its_deadline() -> None:
    schemas = MemorySchemas(Schema(7, "AVRO", PLANE))
    schemas.go_away()
    avro = rows(ValueSpec("avro", schema=7), schemas)
    with pytest.raises(SchemaNeeded):
        avro.encode(b"{}")
    with pytest.raises(SchemaUnavailable, match=r"schema 7 of the registry in memory: away could not be had in time"):
        await with_schemas(schemas, lambda: avro.encode(b'{"n":1}'), 0.01)
    waiting = asyncio.create_task(with_schemas(schemas, lambda: avro.encode(b'{"n":1}'), 30))
    await asyncio.sleep(0)
    schemas.come_back()
    assert (await waiting).content == b"\x02"


async def test_a_key_in_avro_is_written_under_the_newest_schema_that_can_have_it() -> None:
    schemas = MemorySchemas(Schema(1, "AVRO", '"int"'), Schema(2, "AVRO", '"long"'), Schema(7, "AVRO", PLANE))
    await schemas.fetch(7)
    known = Known(schemas)
    record = encoder(table(ValueSpec("avro", schema=7), "avro"), known)
    with pytest.raises(KeySchemaUnknown, match="no schema of the keys of planes-topic"):
        record.encode(b"5", b'{"n":1}')
    schemas.subjects["planes-topic-key"] = [1]
    await known.keys_of("planes-topic").refresh()
    with pytest.raises(InvalidKey, match="No schema of the topic's keys has this key"):
        record.encode(b"1099511627776", b'{"n":1}')
    schemas.subjects["planes-topic-key"] = [1, 2]
    await known.keys_of("planes-topic").refresh()
    written = record.encode(b"5", b'{"n":1}')
    assert written.wires == (b"\0\0\0\0\x02\x0a", b"\0\0\0\0\x01\x0a")
    assert written.value == b"\0\0\0\0\x07\x02"
    with pytest.raises(DecodeError, match="m is not a field"):
        record.encode(b"5", b'{"n":1,"m":2}')


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("avro/binary", "avro/binary"),
        ("avro/*", "avro/binary"),
        ("application/json, avro/binary", "application/json"),
        ("application/json;q=0.5, avro/binary", "avro/binary"),
        ("avro/binary;q=0.5, */*;q=0.1", "avro/binary"),
        ("*/*;q=0.5, avro/binary;q=0", "application/json"),
        ("text/html", None),
    ],
)
def test_the_caller_s_liking_chooses_and_the_usual_form_wins_a_tie(accept: str | None, chosen: str | None) -> None:
    assert preferred(accept, ("application/json", "avro/binary")) == chosen
