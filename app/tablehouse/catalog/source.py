"""The source of a table: its topic, and how what is in it is written."""

import re
from pathlib import Path
from typing import Literal, cast, get_args

import yaml

from tablehouse.catalog.reader import Fields, Reader, Text, children
from tablehouse.catalog.spec import (
    DEFAULT_SPELLINGS,
    SPELLED_KEYS,
    STRUCTURED_KEYS,
    STRUCTURED_VALUES,
    Envelope,
    Framing,
    KeyFormatName,
    KeySpec,
    OnError,
    Partitioner,
    SchemaFile,
    SourceSpec,
    SpellingName,
    ValueFormatName,
    ValueSpec,
)
from tablehouse.config.marked_yaml import Entry, line_of, scalar_of

_SOURCE = Fields(
    required=("topic", "key", "value"),
    optional=("partitioner", "envelope", "on_error"),
    unsupported=("timestamp",),
)
_KEY = Fields(required=("format",), optional=("field", "fields", "spellings"))
_VALUE = Fields(required=("format",), optional=("schema", "subject", "framing"))

_TOPIC = Text(
    re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "a topic's name: up to 249 letters, digits, '.', _ and -",
)
_SUBJECT = Text(re.compile(r"[^\x00-\x1f]+"), "the name of a subject in the schema registry")
#: The name of a member of a structure.
MEMBER = Text(
    re.compile(r'[^"\\\x00-\x1f]+'),
    "a member's name, without quotes, backslashes and control characters",
)


def read_source(reader: Reader, node: yaml.Node, field: str) -> SourceSpec | None:
    """Return what a table's `source` says; what is wrong with it becomes the reader's problems."""
    entries = reader.mapping(node, field, _SOURCE)
    if entries is None:
        return None
    parts = children(entries, field)
    topic = reader.text(*parts["topic"], _TOPIC) if "topic" in parts else None
    key = _key(reader, *parts["key"]) if "key" in parts else None
    value = _value(reader, *parts["value"]) if "value" in parts else None
    partitioner = reader.choice(*parts["partitioner"], get_args(Partitioner)) if "partitioner" in parts else "murmur2"
    envelope = reader.choice(*parts["envelope"], get_args(Envelope)) if "envelope" in parts else "none"
    on_error = reader.choice(*parts["on_error"], get_args(OnError)) if "on_error" in parts else "dead_letter"
    if value is not None and envelope not in {None, "none"} and value.format not in STRUCTURED_VALUES:
        formats = ", ".join(sorted(STRUCTURED_VALUES))
        reader.problem(
            entries["envelope"].line,
            f"{field}.envelope",
            f"cannot be {envelope} around a value of format {value}; use one of {formats}",
        )
    if topic is None or key is None or value is None or partitioner is None or envelope is None or on_error is None:
        return None
    return SourceSpec(
        topic,
        key,
        value,
        cast("Partitioner", partitioner),
        cast("Envelope", envelope),
        cast("OnError", on_error),
    )


def _key(reader: Reader, node: yaml.Node, field: str) -> KeySpec | None:
    formats = get_args(KeyFormatName)
    if not isinstance(node, yaml.MappingNode):
        name = reader.choice(node, field, formats)
        return None if name is None else KeySpec(cast("KeyFormatName", name))
    entries = reader.mapping(node, field, _KEY)
    if entries is None or "format" not in entries:
        return None
    parts = children(entries, field)
    name = reader.choice(*parts["format"], formats)
    fields = reader.unique_texts(*parts["fields"], MEMBER) if "fields" in parts else []
    single = reader.text(*parts["field"], MEMBER) if "field" in parts else None
    for given in ("field", "fields"):
        if name is not None and name not in STRUCTURED_KEYS and given in parts:
            structured = " and ".join(sorted(STRUCTURED_KEYS))
            reader.problem(
                entries[given].line,
                f"{field}.{given}",
                f"belongs to formats {structured}, this key is {name}; leave it out",
            )
    spellings = _spellings(reader, entries, field, name)
    if "field" in parts and "fields" in parts:
        reader.problem(
            entries["field"].line,
            f"{field}.field",
            "stands beside fields; use field for a key of one member whose value alone stands in URLs, else fields",
        )
    if name is None or fields is None or spellings is None or ("field" in parts and single is None):
        return None
    if single is not None:
        return KeySpec(cast("KeyFormatName", name), (single,), bare=True, spellings=spellings)
    return KeySpec(cast("KeyFormatName", name), tuple(fields), spellings=spellings)


def _spellings(
    reader: Reader, entries: dict[str, Entry], field: str, name: str | None
) -> tuple[SpellingName, ...] | None:
    if "spellings" not in entries:
        return DEFAULT_SPELLINGS
    if name is not None and name not in SPELLED_KEYS:
        spelled = " and ".join(sorted(SPELLED_KEYS))
        reader.problem(
            entries["spellings"].line,
            f"{field}.spellings",
            f"belongs to formats {spelled}, this key is {name}; leave it out",
        )
    spellings = reader.unique_choices(entries["spellings"].node, f"{field}.spellings", get_args(SpellingName))
    return None if spellings is None else cast("tuple[SpellingName, ...]", tuple(spellings))


def _value(reader: Reader, node: yaml.Node, field: str) -> ValueSpec | None:
    formats = get_args(ValueFormatName)
    if not isinstance(node, yaml.MappingNode):
        name = reader.choice(node, field, formats)
        return None if name is None else ValueSpec(cast("ValueFormatName", name))
    entries = reader.mapping(node, field, _VALUE)
    if entries is None or "format" not in entries:
        return None
    parts = children(entries, field)
    name = reader.choice(*parts["format"], formats)
    framing = reader.choice(*parts["framing"], get_args(Framing)) if "framing" in parts else "registry"
    schema = _schema(reader, *parts["schema"]) if "schema" in parts else "latest"
    subject = reader.text(*parts["subject"], _SUBJECT) if "subject" in parts else None
    if name is None or framing is None or schema is None or ("subject" in parts and subject is None):
        return None
    if name != "avro":
        for given in ("schema", "subject", "framing"):
            if given in parts:
                reader.problem(
                    entries[given].line,
                    f"{field}.{given}",
                    f"belongs to format avro, this value is {name}; leave it out",
                )
    elif framing != "registry" and schema in {"latest", "written"}:
        _refuse_schema(reader, entries, field, str(schema), framing)
    elif subject is not None and schema != "latest":
        reader.problem(
            entries["subject"].line,
            f"{field}.subject",
            "belongs to schema latest, and this value has another schema; leave it out",
        )
    return ValueSpec(cast("ValueFormatName", name), cast("Framing", framing), schema, subject)


def _refuse_schema(reader: Reader, entries: dict[str, Entry], field: str, schema: str, framing: str) -> None:
    reader.problem(
        entries["framing"].line,
        f"{field}.schema",
        f"cannot be {schema} with framing {framing}, whose records name no schema of the registry; name the schema "
        "they are written with, by the path of a file or by its id in the registry",
    )


def _schema(reader: Reader, node: yaml.Node, field: str) -> Literal["latest", "written"] | int | SchemaFile | None:
    given = scalar_of(node)
    if given == "latest":
        return "latest"
    if given == "written":
        return "written"
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    if not isinstance(given, str) or not given:
        reader.problem(
            line_of(node),
            field,
            "must be latest, written, the id of a schema in the registry, or the path of a file with one",
        )
        return None
    path = reader.beside(Path(given))
    try:
        return SchemaFile(path, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reader.problem(line_of(node), field, f"names {path}, which cannot be read: {error}; give a file that can")
        return None
