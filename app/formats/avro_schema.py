"""Avro schemas, made ready for reading: with their references, and with what their logical types look like in JSON.

fastavro calls a function for each value whose schema has a logical type. Here every schema that JSON cannot show as it
is gets a logical type of our own, whose function returns text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any
from uuid import UUID

import fastavro
import msgspec
from fastavro.read import LOGICAL_READERS

from app.formats.errors import DecodeError
from app.formats.schemas import Schema
from app.formats.temporal import date_text, decimal_text, time_text, timestamp_text

#: The field of a record around a schema that is none.
WHOLE = "whole"

#: Schemas that are kept ready.
_KEPT = 1024

#: From a value to its text, as fastavro calls it: the value, the schema that it was written with, and the wanted one.
Render = Callable[..., str | float]


def _decimal(value: bytes, schema: Mapping[str, Any], _: object = None) -> str:
    return decimal_text(int.from_bytes(value, "big", signed=True), schema["scale"])


def _float(value: float, *_: object) -> str | float:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124  NaN is not itself


def _timestamp(digits: int, zone: str) -> Render:
    return lambda value, *_: timestamp_text(value, digits, zone)


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
    ("float", ""): ("float", _float),
    ("double", ""): ("float", _float),
}
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
    the named types, by their full names.
    """

    parsed: Any
    wrapped: bool
    types: Mapping[str, Any]

    @property
    def content(self) -> Any:
        """The schema itself."""
        return self.parsed["fields"][0]["type"] if self.wrapped else self.parsed

    def wrap(self, value: Any) -> Any:
        """Return a value of the schema as fastavro writes it."""
        return {WHOLE: value} if self.wrapped else value

    def unwrap(self, value: Any) -> Any:
        """Return what of a value that fastavro has read is the schema's."""
        return value[WHOLE] if self.wrapped else value


@lru_cache(_KEPT)
def readable(schema: Schema, *, rendered: bool = True) -> Readable:
    """Return a schema marked for rendering, or without any logical types.

    Raises DecodeError for what is no Avro schema, and for a type that contains itself: JSON could show it, but nothing
    bounds how deep it is.
    """
    if schema.kind != "AVRO":
        raise DecodeError(f"schema {schema.id} is of type {schema.kind}, and the table's format is avro")
    types: dict[str, Any] = {}
    try:
        for reference in _references(schema):
            _parse(_given(reference), types, rendered=rendered)
        given = _given(schema)
        wrapped = kind_of(given) not in {"record", "error"}
        if wrapped:
            given = {"type": "record", "name": "Whole", "fields": [{"name": WHOLE, "type": given}]}
        parsed = _parse(given, types, rendered=rendered)
    except DecodeError:
        raise
    except Exception as error:  # fastavro raises whatever it stumbles over
        raise DecodeError(f"schema {schema.id} cannot be used: {error}") from error
    _Defaults(types).render(parsed)
    return Readable(parsed, wrapped, types)


def _references(schema: Schema) -> list[Schema]:
    """Return what a schema refers to, each before what refers to it."""
    found: dict[int, Schema] = {}
    for reference in schema.references:
        for one in _references(reference.schema):
            found.setdefault(one.id, one)
        found.setdefault(reference.schema.id, reference.schema)
    return list(found.values())


def _given(schema: Schema) -> Any:
    try:
        return msgspec.json.decode(schema.text)
    except msgspec.DecodeError:
        return schema.text.strip()  # some registries keep the name of a primitive type without its quotes


def _parse(given: Any, types: dict[str, Any], *, rendered: bool) -> Any:
    # Twice, because only the first resolves names, and the second has to see what was marked.
    resolved = fastavro.parse_schema(given, named_schemas=dict(types), _write_hint=False)
    _refuse_recursion(resolved, dict(types), [])
    return fastavro.parse_schema(_marked(resolved, rendered=rendered), named_schemas=types, _force=True)


def _refuse_recursion(schema: Any, types: dict[str, Any], within: list[str]) -> None:
    match schema:
        case list():
            for branch in schema:
                _refuse_recursion(branch, types, within)
        case {"type": "record" | "error", "name": name, "fields": fields}:
            types[name] = schema
            for field in fields:
                _refuse_recursion(field["type"], types, [*within, name])
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            _refuse_recursion(inner, types, within)
        case {"type": dict() | list() as inner}:
            _refuse_recursion(inner, types, within)
        case str() if schema in within:
            raise DecodeError(f"type {schema} contains itself, and rows cannot: take the columns of another schema")
        case str() if schema in types:
            _refuse_recursion(types[schema], types, within)


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
    if not isinstance(marked["type"], str):
        return {**marked, "type": _marked(marked["type"], rendered=rendered)}
    return marked | (_mark(schema) if rendered else {})


def _mark(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a schema's values rendered; nothing where they are shown as they are."""
    for name in (str(schema.get("logicalType", "")), str(schema.get("connect.name", "")), ""):
        if (schema["type"], name) in _RENDERED:
            found = _RENDERED[schema["type"], name][0]
            scale = {"scale": int(schema.get("scale", 0))} if found == "decimal" else {}
            return {"logicalType": _PREFIX + found, **scale}
    return {}


class _Defaults:
    """Renders the defaults of a parsed schema, which fastavro hands out as they stand."""

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
        match schema:
            case list():
                return self._rendered(default, schema[0]) if schema else default
            case str() if schema in self._types:
                return self._rendered(default, self._types[schema])
            case {"type": dict() | list() as inner}:
                return self._rendered(default, inner)
        return self._of_kind(default, schema)

    def _of_kind(self, default: Any, schema: Any) -> Any:
        match schema:
            case {"type": "record" | "error", "fields": fields}:
                return {
                    field["name"]: self._rendered(default.get(field["name"], field.get("default")), field["type"])
                    for field in fields
                }
            case {"type": "array", "items": items}:
                return [self._rendered(item, items) for item in default]
            case {"type": "map", "values": values}:
                return {name: self._rendered(value, values) for name, value in default.items()}
        # Bytes stand in a schema as text, a character each.
        value = default.encode("latin-1") if kind_of(schema) in {"bytes", "fixed"} else default
        logical = schema.get("logicalType") if isinstance(schema, dict) else None
        return _RENDERS[logical](value, schema) if logical in _RENDERS else value
