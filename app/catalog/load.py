"""From a tables.yaml to a Catalog, or to every reason why it cannot be one.

tables.schema.json describes the same file for editors and other tools; what only this module can see are
fields given twice and tables that contradict each other. A test holds the two together.
"""

import re
from pathlib import Path
from typing import cast, get_args

import yaml

from app.catalog.reader import Fields, Reader, Text, children
from app.catalog.spec import (
    DEFAULT_STANDBYS,
    Catalog,
    KeyFormatName,
    KeySpec,
    PartitionerName,
    SourceSpec,
    TableSpec,
    ValueFormatName,
)
from app.errors import CatalogError
from app.marked_yaml import YamlError, line_of, read_yaml

_FILE = Fields(required=("tables",))
_TABLE = Fields(
    required=("name", "source"),
    optional=("description", "columns", "version", "standbys"),
    unsupported=("writable", "ttl", "group_by", "aggregate", "window", "changelog"),
)
_SOURCE = Fields(
    required=("topic", "key", "value"),
    optional=("partitioner",),
    unsupported=("envelope", "on_error", "timestamp"),
)
_KEY = Fields(required=("format",), optional=("fields",), unsupported=("field",))

# 100 characters leave room for the group and the suffixes within a topic's 249.
_NAME = Text(
    re.compile(r"[a-z][a-z0-9_-]{0,99}"),
    "up to 100 lower-case letters, digits, _ and -, a letter first",
)
_TOPIC = Text(
    re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "a topic's name: up to 249 letters, digits, '.', _ and -",
)
_DESCRIPTION = Text(re.compile(r".*", re.DOTALL), "any text")
_MEMBER = Text(
    re.compile(r'[^"\\\x00-\x1f]+'),
    "a member's name, without quotes, backslashes and control characters",
)


def load_catalog(path: Path) -> Catalog:
    """Return what a tables.yaml defines.

    Raises CatalogError with every problem in it, each `file:line: field: what is wrong; what would be right`.
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
    fields = reader.mapping(root, "", _FILE) or {}
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
                f"{other.name}; a topic has one partitioner: its producers'",
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
    entries = reader.mapping(node, field, _TABLE)
    if entries is None:
        return None
    parts = children(entries, field)
    name = reader.text(*parts["name"], _NAME) if "name" in parts else None
    source = _source(reader, *parts["source"]) if "source" in parts else None
    description = reader.text(*parts["description"], _DESCRIPTION) if "description" in parts else ""
    columns = _columns(reader, *parts["columns"]) if "columns" in parts else None
    version = reader.integer(*parts["version"], least=1) if "version" in parts else 1
    standbys = reader.integer(*parts["standbys"], least=0) if "standbys" in parts else DEFAULT_STANDBYS
    if source is not None and source.value != "json" and "columns" in parts:
        reader.problem(
            entries["columns"].line,
            f"{field}.columns",
            f"cannot be taken from a value of format {source.value}; leave it out, or use value json",
        )
    if name is None or source is None or description is None or version is None or standbys is None:
        return None
    return TableSpec(name, source, description, columns, version, standbys)


def _source(reader: Reader, node: yaml.Node, field: str) -> SourceSpec | None:
    entries = reader.mapping(node, field, _SOURCE)
    if entries is None:
        return None
    parts = children(entries, field)
    topic = reader.text(*parts["topic"], _TOPIC) if "topic" in parts else None
    key = _key(reader, *parts["key"]) if "key" in parts else None
    value = (
        reader.choice(*parts["value"], get_args(ValueFormatName), unsupported=("avro", "protobuf"))
        if "value" in parts
        else None
    )
    partitioner = (
        reader.choice(*parts["partitioner"], get_args(PartitionerName)) if "partitioner" in parts else "murmur2"
    )
    if topic is None or key is None or value is None or partitioner is None:
        return None
    return SourceSpec(topic, key, cast("ValueFormatName", value), cast("PartitionerName", partitioner))


def _key(reader: Reader, node: yaml.Node, field: str) -> KeySpec | None:
    formats = get_args(KeyFormatName)
    if not isinstance(node, yaml.MappingNode):
        name = reader.choice(node, field, formats, unsupported=("avro",))
        return None if name is None else KeySpec(cast("KeyFormatName", name))
    entries = reader.mapping(node, field, _KEY)
    if entries is None or "format" not in entries:
        return None
    parts = children(entries, field)
    name = reader.choice(*parts["format"], formats, unsupported=("avro",))
    fields = reader.unique_texts(*parts["fields"], _MEMBER) if "fields" in parts else []
    if name is not None and name != "json" and "fields" in parts:
        reader.problem(
            entries["fields"].line,
            f"{field}.fields",
            f"belongs to format json, this key is {name}; leave it out",
        )
    if name is None or fields is None:
        return None
    return KeySpec(cast("KeyFormatName", name), tuple(fields))


def _columns(reader: Reader, node: yaml.Node, field: str) -> dict[str, str] | None:
    """Return the source's member by column; a list names members that keep their names."""
    if isinstance(node, yaml.SequenceNode):
        members = reader.unique_texts(node, field, _MEMBER) or []
        return {member: member for member in members}
    entries = reader.names(node, field, _MEMBER) or {}
    taken = {name: reader.text(*part, _MEMBER) for name, part in children(entries, field).items()}
    return {name: member for name, member in taken.items() if member is not None}
