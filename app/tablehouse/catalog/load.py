"""Reads a tables.yaml into a Catalog, or reports every problem in it.

tables.schema.json describes the same file for editors and other tools, and is generated from the declarations of fields
here (schema.py). Only this module can detect duplicate fields, and tables that contradict each other.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from tablehouse.catalog.fields import (
    ANYTHING,
    REQUIRED,
    AnyOf,
    Boolean,
    Declared,
    Field,
    Integer,
    Read,
    Several,
    default_of,
)
from tablehouse.catalog.reader import Names, Reader, Text, children
from tablehouse.catalog.source import MEMBER, MEMBER_KIND, read_source
from tablehouse.catalog.spec import STRUCTURED_VALUES, Catalog, SchemaFile, SourceSpec, TableSpec
from tablehouse.config.marked_yaml import Entry, YamlError, line_of, read_yaml
from tablehouse.errors import CatalogError

# 100 characters leave room for the group and the suffixes within a topic's 249.
_NAME = Text(
    re.compile(r"[a-z][a-z0-9_-]{0,99}"),
    "up to 100 lower-case letters, digits, _ and -, a letter first",
)

#: What a column can be taken from, by envelope: a pattern, and a description for messages.
_COLUMN_SOURCES = {
    "none": re.compile(r"(?!\$).*", re.DOTALL),
    "debezium": re.compile(r"(?!\$).*|\$op|\$ts_ms|\$source\..+", re.DOTALL),
    "outbox": re.compile(r"(?!\$).*|\$headers\..+", re.DOTALL),
}
_COLUMN_SOURCES_IN_WORDS = {
    "none": "a member of the value; names that begin with $ belong to an envelope, and this source has none",
    "debezium": "a member of the row, $op, $ts_ms, or $source. and a member of the event's source block",
    "outbox": "a member of the payload, or $headers. and the name of a header",
}


def load_catalog(path: Path) -> Catalog:
    """Return the tables that a tables.yaml defines.

    Raises CatalogError with every problem in it, each as `file:line: field: problem; remedy`.
    """
    try:
        root = read_yaml(path)
    except YamlError as error:
        place = str(path) if error.line is None else f"{path}:{error.line}"
        raise CatalogError([f"{place}: {error}"]) from error
    if root is None:
        raise CatalogError([f"{path}:1: tables: the file is empty; begin with `tables:` and a list of tables"])
    reader = Reader(path)
    tables = _tables(reader, root)
    if reader.problems:
        raise CatalogError(reader.problems)
    return Catalog(tables)


def _tables(reader: Reader, root: yaml.Node) -> dict[str, TableSpec]:
    fields = reader.mapping(root, "", Names(("tables",))) or {}
    items = (reader.items(fields["tables"].node, "tables") if "tables" in fields else None) or []
    tables: dict[str, TableSpec] = {}
    lines: dict[str, int] = {}
    for index, item in enumerate(items):
        field = f"tables[{index}]"
        table = _table(reader, item, field)
        if table is None:
            continue
        if table.name in tables:
            reader.problem(
                line_of(item),
                f"{field}.name",
                f"{table.name} is already the table of line {lines[table.name]}; give each its own name",
            )
            continue
        _check_partitioner(reader, item, field, table, tables)
        _check_changelog(reader, item, field, table, tables)
        tables[table.name] = table
        lines[table.name] = line_of(item)
    return tables


def _check_partitioner(
    reader: Reader,
    item: yaml.Node,
    field: str,
    table: TableSpec,
    others: dict[str, TableSpec],
) -> None:
    source = table.source
    for other in others.values():
        if other.source.topic == source.topic and other.source.partitioner != source.partitioner:
            reader.problem(
                line_of(item),
                f"{field}.source.partitioner",
                f"is {source.partitioner} here and {other.source.partitioner} for the same topic in table "
                f"{other.name}; a topic has one partitioner: that of its producers",
            )
            return


def _check_changelog(
    reader: Reader,
    item: yaml.Node,
    field: str,
    table: TableSpec,
    others: dict[str, TableSpec],
) -> None:
    for other in others.values():
        if other.log_name == table.log_name:
            reader.problem(
                line_of(item),
                f"{field}.name",
                f"version {table.version} of {table.name} would have the changelog of version {other.version} of table "
                f"{other.name}, <group>-{table.log_name}-changelog; give one of the two another name",
            )
            return


def _table(reader: Reader, node: yaml.Node, field: str) -> TableSpec | None:
    given = TABLE.read(reader, node, field)
    if given is None:
        return None
    source, columns = given["source"], given["columns"]
    if source is not None:
        if columns is not None:
            _check_columns(reader, given.line("columns"), f"{field}.columns", source, columns)
        if given["writable"]:
            _check_writable(reader, given.entries, field, source)
    return TableSpec(**given.values) if given.is_whole else None


def _check_columns(reader: Reader, line: int, field: str, source: SourceSpec, columns: dict[str, str]) -> None:
    if source.value.format not in STRUCTURED_VALUES:
        formats = ", ".join(sorted(STRUCTURED_VALUES))
        reader.problem(
            line,
            field,
            f"cannot be taken from a value of format {source.value}; leave it out, or use one of {formats}",
        )
        return
    for name, member in columns.items():
        if not _COLUMN_SOURCES[source.envelope].fullmatch(member):
            words = _COLUMN_SOURCES_IN_WORDS[source.envelope]
            reader.problem(line, f"{field}.{name}", f"cannot be taken from {member!r}; use {words}")


def _check_writable(reader: Reader, entries: Mapping[str, Entry], field: str, source: SourceSpec) -> None:
    """Report a writable table whose source records cannot be derived from rows."""
    unknown, no_id = "a row does not determine its record", "its records do not refer to a schema by id"
    late = "another partition may have a record of the key with a later timestamp"
    value, key, avro = source.value, source.key, source.value.format == "avro"
    obstacles = {
        "columns": (unknown, "columns" in entries),
        f"envelope {source.envelope}": (unknown, source.envelope != "none"),
        f"value {value}": (unknown, value.format in {"protobuf", "json_sr", "json_connect"}),
        f"framing {value.framing}": (no_id, avro and value.framing != "registry"),
        "a schema from a file": (no_id, avro and value.framing == "registry" and isinstance(value.schema, SchemaFile)),
        "schema written": ("a row does not determine the schema of its record", value.schema == "written"),
        "partitioner any": (late, source.partitioner == "any"),
        f"key {key.format}": (unknown, key.format in {"json_sr", "json_connect"}),
    }
    for obstacle, why in ((name, why) for name, (why, stands) in obstacles.items() if stands):
        reader.problem(
            entries["writable"].line, f"{field}.writable", f"cannot be true with {obstacle}: {why}; leave it out"
        )


def _columns(reader: Reader, node: yaml.Node, field: str) -> dict[str, str] | None:
    """Return the source's member by column; a list names members that keep their names."""
    if isinstance(node, yaml.SequenceNode):
        members = Several(MEMBER_KIND).read(reader, node, field) or ()
        return {member: member for member in members}
    entries = reader.names(node, field, MEMBER) or {}
    taken = {name: reader.text(*part, MEMBER) for name, part in children(entries, field).items()}
    return {name: member for name, member in taken.items() if member is not None}


TABLE = Declared(
    (
        Field(
            name="name",
            kind=AnyOf(_NAME),
            default=REQUIRED,
            description="The table's name in URLs and in its changelog topic.",
        ),
        Field(name="source", kind=Read("source", read_source), default=REQUIRED),
        Field(
            name="description",
            kind=AnyOf(Text(ANYTHING, "any text")),
            default=default_of(TableSpec, "description"),
            description="What the table contains, as documentation.",
        ),
        Field(
            name="columns",
            kind=Read("columns", _columns),
            default=default_of(TableSpec, "columns"),
            fingerprint=("columns",),
        ),
        Field(
            name="version",
            kind=Integer(1),
            default=default_of(TableSpec, "version"),
            description="Increase it to rebuild a table whose definition has changed, alongside the old data.",
        ),
        Field(
            name="standbys",
            kind=Integer(0),
            default=default_of(TableSpec, "standbys"),
            description="Number of workers that keep a copy of each row, in addition to the owner.",
        ),
        Field(
            name="writable",
            kind=Boolean(),
            default=default_of(TableSpec, "writable"),
            description="Whether callers may write to the source topic with PUT and DELETE.",
        ),
    ),
    unsupported=("ttl", "group_by", "aggregate", "window", "changelog"),
)
