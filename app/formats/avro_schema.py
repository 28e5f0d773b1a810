"""Avro schemas, made ready for reading: with their references, and with what their logical types look like in JSON.

fastavro calls a function for each value whose schema has a logical type. Here every schema that JSON cannot show as it
is gets a logical type of our own, whose function returns text.
"""

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any
from uuid import UUID

import fastavro
import msgspec
from fastavro.read import LOGICAL_READERS

from app.formats.errors import DecodeError
from app.formats.remembered import remembered
from app.formats.schemas import Schema
from app.formats.temporal import date_text, decimal_text, time_text, timestamp_text

#: The field of a record around another schema, and the name of that record.
WHOLE = "whole"
_WRAPPER = "tablehouse_whole"

#: From a value to its text, as fastavro calls it: the value, the schema that it was written with, and the wanted one.
Render = Callable[..., str | float]


def _decimal(value: bytes, schema: Mapping[str, Any], _: object = None) -> str:
    return decimal_text(int.from_bytes(value, "big", signed=True), schema["scale"])


def _variable_decimal(value: Mapping[str, Any], *_: object) -> str:
    return decimal_text(int.from_bytes(value["value"], "big", signed=True), value["scale"])


def float_text(value: float) -> str:
    """Return how a float stands in JSON that is no number there."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124  NaN is not itself


def _float(value: float, *_: object) -> str | float:
    return value if isfinite(value) else float_text(value)


def _timestamp(digits: int, zone: str) -> Render:
    return lambda value, *_: timestamp_text(value, digits, zone)


#: How a record is rendered that is a decimal with a scale of its own.
VARIABLE_DECIMAL = "variable-decimal"

#: What is rendered, and how: by the type and its logical type in the Avro specification or its name in Kafka Connect.
_RENDERED: dict[tuple[str, str], tuple[str, Render]] = {
    ("bytes", "decimal"): ("decimal", _decimal),
    ("fixed", "decimal"): ("decimal", _decimal),
    ("fixed", "uuid"): ("uuid", lambda value, *_: str(UUID(bytes=value))),
    ("int", "date"): ("date", lambda value, *_: date_text(value)),
    ("int", "time-millis"): ("time-3", lambda value, *_: time_text(value, 3)),
    ("long", "time-micros"): ("time-6", lambda value, *_: time_text(value, 6)),
    **{
        ("long", f"{prefix}timestamp-{name}"): (f"{prefix}timestamp-{digits}", _timestamp(digits, zone))
        for name, digits in (("millis", 3), ("micros", 6), ("nanos", 9))
        for prefix, zone in (("", "Z"), ("local-", ""))
    },
    ("int", "io.debezium.time.Date"): ("date", lambda value, *_: date_text(value)),
    ("int", "io.debezium.time.Time"): ("time-3", lambda value, *_: time_text(value, 3)),
    ("long", "io.debezium.time.MicroTime"): ("time-6", lambda value, *_: time_text(value, 6)),
    ("long", "io.debezium.time.NanoTime"): ("time-9", lambda value, *_: time_text(value, 9)),
    ("long", "io.debezium.time.Timestamp"): ("local-timestamp-3", _timestamp(3, "")),
    ("long", "io.debezium.time.MicroTimestamp"): ("local-timestamp-6", _timestamp(6, "")),
    ("long", "io.debezium.time.NanoTimestamp"): ("local-timestamp-9", _timestamp(9, "")),
    ("record", "io.debezium.data.VariableScaleDecimal"): (VARIABLE_DECIMAL, _variable_decimal),
    ("float", ""): ("float", _float),
    ("double", ""): ("float", _float),
}
_FLOATS = frozenset({"float", "double"})
_KINDS = frozenset(
    {
        *("null", "boolean", "int", "long", "float", "double", "bytes", "string"),
        *("record", "error", "enum", "array", "map", "fixed"),
    }
)
_PREFIX = "tablehouse-"
_RENDERS: dict[str, Render] = {}
for (_kind, _), (_name, _render) in _RENDERED.items():
    _RENDERS[_PREFIX + _name] = _render
    LOGICAL_READERS[f"{_kind}-{_PREFIX}{_name}"] = _render


def kind_of(schema: Any) -> str:
    """Return the type of a schema: of a union `union`, of a name that name."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"] if isinstance(schema, dict) else schema)


def rendered_as(schema: Any) -> str:
    """Return how a schema's values are rendered, like `decimal` or `timestamp-3`; empty when as they are."""
    if not isinstance(schema, dict) or not isinstance(schema.get("logicalType"), str):
        return ""
    logical: str = schema["logicalType"]
    return logical.removeprefix(_PREFIX) if logical.startswith(_PREFIX) else ""


@dataclass(frozen=True, slots=True)
class Readable:
    """A schema as fastavro takes it: always a record, whose one field WHOLE is what is meant if `wrapped` is set.

    Other schemas would be looked at anew for each value, and a record of one field has that field's bytes. `types` are
    the named types, by their full names. `floats` are the fields that are floats or null: for these alone nothing is
    called, so whoever has read a value has to look whether they are finite.
    """

    parsed: Any
    wrapped: bool
    types: Mapping[str, Any]
    floats: tuple[str, ...]

    @property
    def content(self) -> Any:
        """The schema itself."""
        return self.parsed["fields"][0]["type"] if self.wrapped else self.parsed

    def twin(self) -> str | None:
        """Return a name that two types of one union have, in different namespaces.

        fastavro takes them for each other where it reads values of one schema as another's.
        """
        for schema in self.types.values():
            for field in schema.get("fields", ()):
                for union in _unions(field["type"]):
                    names = [kind.rpartition(".")[2] for kind in map(_name_of, union) if kind not in _KINDS]
                    if len(set(names)) < len(names):
                        return next(name for name in names if names.count(name) > 1)
        return None

    def wrap(self, value: Any) -> Any:
        """Return a value of the schema as fastavro writes it."""
        return {WHOLE: value} if self.wrapped else value


@remembered
def readable(schema: Schema, *, rendered: bool = True, wrapped: bool = False) -> Readable:
    """Return a schema marked for rendering, or without any logical types; `wrapped` in any case, or only if need be.

    Raises DecodeError for what is no Avro schema, and for what nothing bounds: a type that contains itself, of which
    JSON would be as deep as its writer likes, and an array of things that take no bytes.
    """
    if schema.kind != "AVRO":
        raise DecodeError(f"schema {schema.id} is of type {schema.kind}, and the table's format is avro")
    try:
        return _readable(schema, rendered=rendered, wrapped=wrapped)
    except Exception as error:  # fastavro raises whatever it stumbles over
        raise DecodeError(f"schema {schema.id} cannot be used: {error or type(error).__name__}") from error


def _readable(schema: Schema, *, rendered: bool, wrapped: bool) -> Readable:
    types: dict[str, Any] = {}
    bounds = _Bounds()
    for reference in _references(schema):
        _parse(given(reference), types, bounds, rendered=rendered)
    content = given(schema)
    wrapped = wrapped or kind_of(content) not in {"record", "error"}
    if wrapped:
        content = {"type": "record", "name": _WRAPPER, "fields": [{"name": WHOLE, "type": content}]}
    parsed = _parse(content, types, bounds, rendered=rendered)
    floats = []
    if rendered and not wrapped:
        for field in parsed["fields"]:
            plain = _marked(field["type"], rendered=False)
            if _is_float(plain):
                field["type"] = plain
                floats.append(field["name"])
    return Readable(parsed, wrapped, types, tuple(floats))


def _unions(schema: Any) -> Iterator[list[Any]]:
    """Yield the unions in a field's schema, without those of named types."""
    match schema:
        case list():
            yield schema
            for branch in schema:
                yield from _unions(branch)
        case {"items": inner} | {"values": inner}:
            yield from _unions(inner)


def _name_of(schema: Any) -> str:
    return str(schema["name"]) if isinstance(schema, dict) and "name" in schema else kind_of(schema)


def _is_float(schema: Any) -> bool:
    if isinstance(schema, list):
        kinds = [kind_of(branch) for branch in schema if kind_of(branch) != "null"]
        return len(kinds) == 1 and kinds[0] in _FLOATS
    return kind_of(schema) in _FLOATS


def _references(schema: Schema) -> list[Schema]:
    """Return what a schema refers to, each before what refers to it."""
    found: dict[int, Schema] = {}
    for reference in schema.references:
        for one in _references(reference.schema):
            found.setdefault(one.id, one)
        found.setdefault(reference.schema.id, reference.schema)
    return list(found.values())


def given(schema: Schema) -> Any:
    """Return a schema as its text has it."""
    try:
        return msgspec.json.decode(schema.text)
    except msgspec.DecodeError:
        return schema.text.strip()  # some registries keep the name of a primitive type without its quotes


def _parse(content: Any, types: dict[str, Any], bounds: "_Bounds", *, rendered: bool) -> Any:
    # Twice, because only the first resolves names, and the second has to see what was marked. Defaults may be integers
    # where floats are meant, which fastavro would not let pass.
    content = _unfolded(content)
    resolved = fastavro.parse_schema(content, named_schemas=dict(types), _write_hint=False, _ignore_default_error=True)
    bounds.takes_bytes(resolved)
    parsed = fastavro.parse_schema(
        _marked(resolved, rendered=rendered), named_schemas=types, _force=True, _ignore_default_error=True
    )
    _Defaults(types).render(parsed)
    return parsed


class _Bounds:
    """Refuses schemas of which a few bytes could be a value of any size or depth."""

    def __init__(self) -> None:
        #: By the names of types, whether they take bytes at all; None while it is being found out.
        self._known: dict[str, bool | None] = {}

    def takes_bytes(self, schema: Any) -> bool:
        """Say whether each value of a schema, with its names resolved, has one byte at least; raises DecodeError."""
        match schema:
            case {"type": "record" | "error" | "fixed", "name": name}:
                self._known[name] = None
                found = self._known[name] = self._contents(schema)
                return found
            case dict() | list():
                return self._contents(schema)
        return self._named(str(schema))

    def _contents(self, schema: Any) -> bool:
        match schema:
            case {"fields": fields}:
                return True in [self.takes_bytes(field["type"]) for field in fields]
            case {"size": size}:
                return bool(size)
            case {"items": items}:
                if not self.takes_bytes(items):
                    raise DecodeError("it has an array of items that take no bytes, so nothing bounds their number")
            case {"values": values}:
                self.takes_bytes(values)
            case {"type": inner}:
                return self.takes_bytes(inner)
            case list():
                for branch in schema:
                    self.takes_bytes(branch)
        return True

    def _named(self, name: str) -> bool:
        found = self._known.get(name, name != "null")
        if found is None:
            raise DecodeError(f"its type {name} contains itself, so nothing bounds how deep its values are")
        return found


def _unfolded(schema: Any) -> Any:
    """Return a schema without objects whose `type` is another schema, or the name of one, which is the same."""
    match schema:
        case list():
            return [_unfolded(branch) for branch in schema]
        case {"type": inner} if not isinstance(inner, str) or inner not in _KINDS:
            return _unfolded(inner)
        case {"fields": list() as fields}:
            return schema | {"fields": [field | {"type": _unfolded(field["type"])} for field in fields]}
        case dict():
            return schema | {name: _unfolded(schema[name]) for name in ("items", "values") if name in schema}
    return schema


def _marked(schema: Any, *, rendered: bool) -> Any:
    """Return a schema whose logical types are ours where they are rendered, if they are at all, and none elsewhere."""
    match schema:
        case list():
            return [_marked(branch, rendered=rendered) for branch in schema]
        case "float" | "double" if rendered:
            return {"type": schema, "logicalType": f"{_PREFIX}float"}
        case str():
            return schema
    marked = {
        name: _marked(value, rendered=rendered) if name in {"items", "values"} else value
        for name, value in schema.items()
        if not name.startswith("__") and name != "logicalType"
    }
    if "fields" in marked:
        marked["fields"] = [{**field, "type": _marked(field["type"], rendered=rendered)} for field in marked["fields"]]
    return marked | (_mark(schema) if rendered else {})


def _mark(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a schema's values rendered; nothing where they are shown as they are."""
    for name in (str(schema.get("logicalType", "")), str(schema.get("connect.name", "")), ""):
        if (schema["type"], name) in _RENDERED:
            found = _RENDERED[schema["type"], name][0]
            scale = {"scale": schema.get("scale", 0)} if found == "decimal" else {}
            return {"logicalType": _PREFIX + found, **scale}
    return {}


class _Defaults:
    """Makes the defaults of a parsed schema what rows show, since fastavro hands them out as they stand."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types

    def render(self, schema: Any) -> None:
        """Replace the defaults in a schema and all that it contains."""
        match schema:
            case list():
                for branch in schema:
                    self.render(branch)
            case {"type": "record" | "error", "fields": fields}:
                for field in fields:
                    self.render(field["type"])
                    if "default" in field:
                        field["default"] = self._rendered(field["default"], field["type"])
            case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
                self.render(inner)
            case {"type": dict() | list() as inner}:
                self.render(inner)

    def _rendered(self, default: Any, schema: Any) -> Any:
        if isinstance(schema, str) and schema in self._types:
            schema = self._types[schema]
        match schema:
            case _ if default is None:
                found = None
            case list():
                found = self._rendered(default, next(branch for branch in schema if kind_of(branch) != "null"))
            case {"type": "record" | "error", "fields": fields}:
                # The fields' own defaults have been rendered: a type is defined before a default of it.
                found = {
                    field["name"]: self._rendered(default[field["name"]], field["type"])
                    if field["name"] in default
                    else field["default"]
                    for field in fields
                }
                if rendered_as(schema) == VARIABLE_DECIMAL:
                    found = _variable_decimal(found | {"value": a2b_base64(found["value"])})
            case {"type": "array", "items": items}:
                found = [self._rendered(item, items) for item in default]
            case {"type": "map", "values": values}:
                found = {name: self._rendered(value, values) for name, value in default.items()}
            case _:
                found = _scalar(default, schema)
        return found


def _scalar(default: Any, schema: Any) -> Any:
    kind, rendered = kind_of(schema), rendered_as(schema)
    value = default
    if kind in {"bytes", "fixed"}:
        value = default.encode("latin-1")  # a character for each byte
    elif kind in _FLOATS:
        value = float(default)
    if rendered:
        return _RENDERS[_PREFIX + rendered](value, schema)
    return b2a_base64(value, newline=False).decode() if isinstance(value, bytes) else value
