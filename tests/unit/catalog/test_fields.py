from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.helm.generate import TABLES_SCHEMA
from tablehouse.catalog.fields import Declared
from tablehouse.catalog.fingerprint import definition
from tablehouse.catalog.load import TABLE, load_catalog
from tablehouse.catalog.schema import tables_schema_text
from tablehouse.catalog.source import KEY, SOURCE, VALUE

PLAIN = "name: t, source: {topic: t, key: string, value: json}"

#: For each field a table, and the same one with the field changed.
CHANGES = {
    "name": (PLAIN, PLAIN.replace("name: t", "name: u")),
    "source": (PLAIN, PLAIN),
    "description": (PLAIN, f"{PLAIN}, description: new"),
    "columns": (PLAIN, f"{PLAIN}, columns: [a]"),
    "version": (PLAIN, f"{PLAIN}, version: 2"),
    "standbys": (PLAIN, f"{PLAIN}, standbys: 3"),
    "writable": (PLAIN, f"{PLAIN}, writable: true"),
    "source.topic": (PLAIN, PLAIN.replace("topic: t", "topic: u")),
    "source.key": (PLAIN, PLAIN),
    "source.value": (PLAIN, PLAIN),
    "source.partitioner": (PLAIN, PLAIN.replace("json}", "json, partitioner: any}")),
    "source.envelope": (PLAIN, PLAIN.replace("json}", "json, envelope: debezium}")),
    "source.on_error": (PLAIN, PLAIN.replace("json}", "json, on_error: stop}")),
    "source.key.format": (PLAIN, PLAIN.replace("string", "long")),
    "source.key.field": (PLAIN.replace("string", "json"), PLAIN.replace("string", "{format: json, field: a}")),
    "source.key.fields": (PLAIN.replace("string", "json"), PLAIN.replace("string", "{format: json, fields: [a]}")),
    "source.key.spellings": (
        PLAIN.replace("string", "json"),
        PLAIN.replace("string", "{format: json, spellings: [go]}"),
    ),
    "source.value.format": (PLAIN, PLAIN.replace("json", "avro")),
    "source.value.schema": (PLAIN.replace("json", "avro"), PLAIN.replace("json", "{format: avro, schema: 7}")),
    "source.value.subject": (PLAIN.replace("json", "avro"), PLAIN.replace("json", "{format: avro, subject: s}")),
    "source.value.framing": (
        PLAIN.replace("json", "{format: avro, schema: 7}"),
        PLAIN.replace("json", "{format: avro, schema: 7, framing: none}"),
    ),
}


def declared(fields: Declared = TABLE, path: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    within = {"source": SOURCE, "source.key": KEY, "source.value": VALUE}
    for field in fields.fields:
        yield path + field.name, field.fingerprint
        if path + field.name in within:
            yield from declared(within[path + field.name], f"{path}{field.name}.")


def parts(tmp_path: Path, table: str) -> dict[str, str]:
    file = tmp_path / "tables.yaml"
    file.write_text(f"tables: [{{{table}}}]\n", "utf-8")
    (spec,) = load_catalog(file).tables.values()
    return definition(spec)


def test_a_change_of_each_field_is_tried() -> None:
    assert {name for name, _ in declared()} == set(CHANGES)


@pytest.mark.parametrize(("name", "decided"), list(declared()))
def test_a_field_decides_the_parts_of_the_fingerprint_that_it_declares(
    tmp_path: Path, name: str, decided: tuple[str, ...]
) -> None:
    before, after = (parts(tmp_path, table) for table in CHANGES[name])
    assert {part for part in {*before, *after} if before.get(part) != after.get(part)} == set(decided)


def test_every_part_of_the_fingerprint_is_decided_by_a_field(tmp_path: Path) -> None:
    seen = {part for tables in CHANGES.values() for table in tables for part in parts(tmp_path, table)}
    assert seen == {part for _, decided in declared() for part in decided}


def test_the_schema_file_is_that_of_the_declared_fields() -> None:
    assert TABLES_SCHEMA.read_text("utf-8") == tables_schema_text()
