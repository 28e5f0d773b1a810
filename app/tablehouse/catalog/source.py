"""Reads the source of a table: its topic, and the formats of its records."""

import re
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from tablehouse.catalog.fields import REQUIRED, AnyOf, Declared, Field, Given, OneOf, Read, Several, Shared, default_of
from tablehouse.catalog.reader import Reader, Text
from tablehouse.catalog.spec import (
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
from tablehouse.config.marked_yaml import line_of, scalar_of

_TOPIC = Text(
    re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "a topic's name: up to 249 letters, digits, '.', _ and -",
)
_SUBJECT = Text(re.compile(r"[^\x00-\x1f]+"), "the name of a subject in the schema registry")
#: The name of a member of a structure.
MEMBER = Text(
    re.compile(r'[^"\\\u0000-\u001f]+'),
    "a member's name, without quotes, backslashes and control characters",
)
MEMBER_KIND = Shared("member", AnyOf(MEMBER))


class AvroSchema:
    """The Avro schema of rows."""

    def read(
        self, reader: Reader, node: yaml.Node, path: str
    ) -> Literal["latest", "written"] | int | SchemaFile | None:
        """Return `latest` or `written`, an id of the registry, or the contents of a file."""
        return _schema(reader, node, path)

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "minLength": 1}]}


KEY_FORMAT: Shared[str] = Shared("keyFormat", OneOf(get_args(KeyFormatName)))
KEY = Declared(
    (
        Field(name="format", kind=KEY_FORMAT, default=REQUIRED, fingerprint=("key",)),
        Field(
            name="field",
            kind=MEMBER_KIND,
            default=None,
            fingerprint=("key_fields", "key_bare"),
            description="The only member of a structured key; URLs contain only its value.",
        ),
        Field(
            name="fields",
            kind=Several(MEMBER_KIND),
            default=default_of(KeySpec, "fields"),
            fingerprint=("key_fields",),
            description="The members of a structured key, in the order in which producers write them.",
        ),
        Field(
            name="spellings",
            kind=Several(OneOf(get_args(SpellingName))),
            default=default_of(KeySpec, "spellings"),
            fingerprint=("key_spellings",),
            description="How the producers of keys of formats json and json_sr write JSON; PUT writes the first.",
        ),
    ),
)

VALUE_FORMAT: Shared[str] = Shared("valueFormat", OneOf(get_args(ValueFormatName)))
VALUE = Declared(
    (
        Field(
            name="format", kind=VALUE_FORMAT, default=REQUIRED, fingerprint=("value", "value_framing", "value_schema")
        ),
        Field(
            name="schema",
            kind=AvroSchema(),
            default=default_of(ValueSpec, "schema"),
            fingerprint=("value_schema",),
            description="The Avro schema that rows have: latest, written (each record's own), an id of the registry, "
            "or the path of a file.",
        ),
        Field(
            name="subject",
            kind=AnyOf(_SUBJECT),
            default=default_of(ValueSpec, "subject"),
            fingerprint=("value_subject",),
            description="The subject in the registry whose latest schema rows have; <topic>-value by default.",
        ),
        Field(
            name="framing",
            kind=OneOf(get_args(Framing)),
            default=default_of(ValueSpec, "framing"),
            fingerprint=("value_framing",),
            description="How Avro records name their schema.",
        ),
    ),
)


def read_source(reader: Reader, node: yaml.Node, field: str) -> SourceSpec | None:
    """Return a table's `source`; report its problems to the reader."""
    given = SOURCE.read(reader, node, field)
    if given is None:
        return None
    value, envelope = given["value"], given["envelope"]
    if value is not None and envelope not in {None, "none"} and value.format not in STRUCTURED_VALUES:
        formats = ", ".join(sorted(STRUCTURED_VALUES))
        reader.problem(
            given.line("envelope"),
            f"{field}.envelope",
            f"cannot be {envelope} around a value of format {value}; use one of {formats}",
        )
    return SourceSpec(**given.values) if given.is_whole else None


def read_key(reader: Reader, node: yaml.Node, field: str) -> KeySpec | None:
    """Return `key`, which is a format alone or a mapping."""
    if not isinstance(node, yaml.MappingNode):
        name: Any = KEY_FORMAT.read(reader, node, field)
        return None if name is None else KeySpec(name)
    given = KEY.read(reader, node, field)
    if given is None or "format" not in given:
        return None
    name, single = given["format"], given["field"]
    for member in ("field", "fields"):
        if name is not None and name not in STRUCTURED_KEYS and member in given:
            structured = " and ".join(sorted(STRUCTURED_KEYS))
            _refuse(reader, given, field, member, f"belongs to formats {structured}, this key is {name}; leave it out")
    if name is not None and name not in SPELLED_KEYS and "spellings" in given:
        spelled = " and ".join(sorted(SPELLED_KEYS))
        _refuse(reader, given, field, "spellings", f"belongs to formats {spelled}, this key is {name}; leave it out")
    if "field" in given and "fields" in given:
        why = "cannot be combined with fields; use field if URLs contain only the value of one member, else fields"
        _refuse(reader, given, field, "field", why)
    if not given.is_whole:
        return None
    fields = given["fields"] if single is None else (single,)
    return KeySpec(name, fields, bare=single is not None, spellings=given["spellings"])


def read_value(reader: Reader, node: yaml.Node, field: str) -> ValueSpec | None:
    """Return `value`, which is a format alone or a mapping."""
    if not isinstance(node, yaml.MappingNode):
        name: Any = VALUE_FORMAT.read(reader, node, field)
        return None if name is None else ValueSpec(name)
    given = VALUE.read(reader, node, field)
    if given is None or not given.is_whole:
        return None
    name, schema, framing = given["format"], given["schema"], given["framing"]
    if name != "avro":
        for member in ("schema", "subject", "framing"):
            if member in given:
                why = f"belongs to format avro, this value is {name}; leave it out"
                _refuse(reader, given, field, member, why)
    elif framing != "registry" and schema in {"latest", "written"}:
        reader.problem(
            given.line("framing"),
            f"{field}.schema",
            f"cannot be {schema} with framing {framing}, whose records do not refer to a schema of the registry; give "
            "the schema they are written with: the path of a file, or its id in the registry",
        )
    elif "subject" in given and schema != "latest":
        why = "belongs to schema latest, and this value has another schema; leave it out"
        _refuse(reader, given, field, "subject", why)
    return ValueSpec(**given.values)


SOURCE = Declared(
    (
        Field(
            name="topic",
            kind=AnyOf(_TOPIC),
            default=REQUIRED,
            fingerprint=("source",),
            description="The source topic; it must exist.",
        ),
        Field(name="key", kind=Read("key", read_key), default=REQUIRED),
        Field(name="value", kind=Read("value", read_value), default=REQUIRED),
        Field(
            name="partitioner",
            kind=OneOf(get_args(Partitioner)),
            default=default_of(SourceSpec, "partitioner"),
            fingerprint=("partitioner", "fold"),
            description="How the topic's producers choose a partition: murmur2 as Java does, crc32 as librdkafka does, "
            "fnv1a as Sarama does; any if they ignore the key.",
        ),
        Field(
            name="envelope",
            kind=OneOf(get_args(Envelope)),
            default=default_of(SourceSpec, "envelope"),
            fingerprint=("envelope",),
            description="What the producer wraps rows in.",
        ),
        Field(
            name="on_error",
            kind=OneOf(get_args(OnError)),
            default=default_of(SourceSpec, "on_error"),
            description="What happens to a record that cannot be a row.",
        ),
    ),
    unsupported=("timestamp",),
)


def _refuse(reader: Reader, given: Given, field: str, member: str, why: str) -> None:
    reader.problem(given.line(member), f"{field}.{member}", why)


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
    path = reader.resolve(Path(given))
    try:
        return SchemaFile(path, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reader.problem(line_of(node), field, f"names {path}, which cannot be read: {error}; give a file that can")
        return None
