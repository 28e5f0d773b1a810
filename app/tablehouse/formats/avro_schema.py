"""Avro schemas prepared for reading: with their references, and marked with how values are shown in JSON."""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import fastavro

from tablehouse.formats.avro_depth import DepthCheck
from tablehouse.formats.avro_rendering import (
    PREFIX,
    VARIABLE_DECIMAL,
    is_invalid_decimal,
    kind_of,
    mark,
    render,
    rendered_as,
    rounded,
    variable_decimal,
)
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.remembered import remembered
from tablehouse.formats.schemas import MAX_TYPES_NESTED, Schema, SchemaName

#: The field of a record around another schema, and the name of that record.
WHOLE = "whole"
_WRAPPER = "tablehouse_whole"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_FLOATS = frozenset({"float", "double"})
_KINDS = frozenset(
    {
        *("null", "boolean", "int", "long", "float", "double", "bytes", "string"),
        *("record", "error", "enum", "array", "map", "fixed"),
    }
)


@dataclass(frozen=True, slots=True)
class Readable:
    """A schema as fastavro takes it: always a record, whose only field WHOLE has the actual schema if `wrapped` is set.

    fastavro would parse any other schema again for each value, and a record of one field has the bytes of that field.
    `types` are the named types by their full names. `floats` are the fields of type float, or float and null, and
    `doubles` those of type double: fastavro calls no function for them, so the reader of a value has to render them.
    `depth` checks each value before it is read; it is set if a type contains itself.
    """

    parsed: Any
    wrapped: bool
    types: Mapping[str, Any]
    floats: tuple[str, ...]
    doubles: tuple[str, ...]
    depth: DepthCheck | None

    @property
    def content(self) -> Any:
        """The schema itself."""
        return self.parsed["fields"][0]["type"] if self.wrapped else self.parsed

    def twin(self) -> str | None:
        """Return a name that two types of one union have, in different namespaces.

        fastavro confuses them when it reads values of one schema as values of another.
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
    """Return a schema marked for rendering, or without any logical types; wrapped always, or only if necessary.

    Raises DecodeError for an invalid Avro schema, and for one without a limit: an array of items that take no bytes.
    """
    if schema.kind != "AVRO":
        raise DecodeError(f"schema {schema.id} is of type {schema.kind}, and the table's format is avro")
    try:
        return _readable(schema, rendered=rendered, wrapped=wrapped)
    except Exception as error:  # fastavro raises exceptions of any type
        raise DecodeError(f"schema {schema.id} cannot be used: {error or type(error).__name__}") from error


def _readable(schema: Schema, *, rendered: bool, wrapped: bool) -> Readable:
    types: dict[str, Any] = {}
    bounds = _Bounds()
    for reference in _references(schema):
        _parse(content_of(reference), types, bounds, rendered=rendered)
    content = content_of(schema)
    wrapped = wrapped or kind_of(content) not in {"record", "error"}
    if wrapped:
        content = {"type": "record", "name": _WRAPPER, "fields": [{"name": WHOLE, "type": content}]}
    parsed = _parse(content, types, bounds, rendered=rendered)
    found: dict[str, list[str]] = {kind: [] for kind in _FLOATS}
    # For a type that contains itself, the reader of a value would render only the outermost fields.
    if rendered and not wrapped and not bounds.recursive:
        for field in parsed["fields"]:
            plain = _marked(field["type"], rendered=False)
            kind = _kind_or_null(plain)
            if kind in _FLOATS:
                field["type"] = plain
                found[kind].append(field["name"])
    ready = Readable(parsed, wrapped, types, tuple(found["float"]), tuple(found["double"]), None)
    return replace(ready, depth=DepthCheck(ready.content, types)) if bounds.recursive else ready


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


def _kind_or_null(schema: Any) -> str:
    """Return the type of a schema, and of a union of one type and null that type."""
    if isinstance(schema, list):
        kinds = [kind_of(branch) for branch in schema if kind_of(branch) != "null"]
        return kinds[0] if len(kinds) == 1 else "union"
    return kind_of(schema)


def _references(schema: Schema) -> list[Schema]:
    """Return the schemas that a schema refers to, each before those that refer to it."""
    found: dict[SchemaName, Schema] = {}
    for reference in schema.references:
        for one in _references(reference.schema):
            found.setdefault(one.id, one)
        found.setdefault(reference.schema.id, reference.schema)
    return list(found.values())


def content_of(schema: Schema) -> Any:
    """Return the parsed text of a schema, unfolded; raises DecodeError if it is nested too deeply."""
    text = schema.text.strip()
    # Some registries keep the name of a type without its quotes.
    return _unfolded(text if _NAME.fullmatch(text) else decode_json(text.encode()))


def _parse(content: Any, types: dict[str, Any], bounds: "_Bounds", *, rendered: bool) -> Any:
    # Twice: the first pass resolves names, the second sees the marks. Defaults of floats may be integers, which
    # fastavro would reject.
    resolved = fastavro.parse_schema(content, named_schemas=dict(types), _write_hint=False, _ignore_default_error=True)
    bounds.check(resolved)
    parsed = fastavro.parse_schema(
        _marked(resolved, rendered=rendered), named_schemas=types, _force=True, _ignore_default_error=True
    )
    _Defaults(types).render(parsed)
    return parsed


class _Bounds:
    """Rejects schemas with which a few bytes can be a value of any size, or whose types are nested too deeply."""

    def __init__(self) -> None:
        #: The bounds of types by their names; None while they are being computed.
        self._known: dict[str, _Bound | None] = {}
        #: Whether a type contains itself. Then DepthCheck checks each value.
        self.recursive = False

    def check(self, schema: Any) -> "_Bound":
        """Return the bounds of the values of a schema with resolved names; raises DecodeError."""
        match schema:
            case {"type": "record" | "error" | "fixed", "name": name}:
                self._known[name] = None
                found = self._known[name] = self._contents(schema)
                return found
            case dict() | list():
                return self._contents(schema)
        return self._named(str(schema))

    def _contents(self, schema: Any) -> "_Bound":
        match schema:
            case {"fields": fields}:
                inside = [self.check(field["type"]) for field in fields]
                depth = max([bound.depth for bound in inside], default=0)
                depth = depth if schema["name"] == _WRAPPER else _one_more(depth)
                return _Bound(depth, any(bound.takes_bytes for bound in inside))
            case {"size": size}:
                return _Bound(1, bool(size))
            case {"items": inner} | {"values": inner}:
                bound = self.check(inner)
                if "items" in schema and not bound.takes_bytes:
                    raise DecodeError("it has an array of items that take no bytes, so their number is unlimited")
                return _Bound(_one_more(bound.depth))
            case {"type": inner}:
                return self.check(inner)
        return _Bound(max([self.check(branch).depth for branch in schema], default=1))

    def _named(self, name: str) -> "_Bound":
        found = self._known.get(name, _Bound(1, name != "null"))
        if found is None:
            # It takes bytes: there is a union, an array or a map in between, since otherwise no value would end.
            self.recursive = True
            return _Bound(1)
        return found


class _Bound(NamedTuple):
    """How deeply the types of a schema are nested, and whether each of its values has at least one byte."""

    depth: int
    takes_bytes: bool = True


def _one_more(depth: int) -> int:
    if depth >= MAX_TYPES_NESTED:
        raise DecodeError(f"its types are nested more than {MAX_TYPES_NESTED} deep")
    return depth + 1


def _unfolded(schema: Any, depth: int = 0) -> Any:
    """Return a schema without objects whose `type` is another schema or the name of one.

    Decimals that are invalid by Avro's specification lose their logical type. `depth` is the number of schemas around
    this one; a schema that is nested too deeply is rejected here, before any other function recurses into it.
    """
    match schema:
        case list():
            return [_unfolded(branch, depth + isinstance(branch, list)) for branch in schema]
        case {"type": inner} if not isinstance(inner, str) or inner not in _KINDS:
            return _unfolded(inner, _one_more(depth))
        case dict():
            inside = _one_more(depth)
            found = {name: value for name, value in schema.items() if name != "logicalType"}
            if "logicalType" in schema and not is_invalid_decimal(schema):
                found["logicalType"] = schema["logicalType"]
            if isinstance(schema.get("fields"), list):
                found["fields"] = [field | {"type": _unfolded(field["type"], inside)} for field in schema["fields"]]
            return found | {name: _unfolded(schema[name], inside) for name in ("items", "values") if name in schema}
    _one_more(depth)
    return schema


def _marked(schema: Any, *, rendered: bool) -> Any:
    """Return a schema with our own logical types on the values to render, if `rendered`, and without any others."""
    match schema:
        case list():
            return [_marked(branch, rendered=rendered) for branch in schema]
        case "float" | "double" if rendered:
            return {"type": schema, "logicalType": f"{PREFIX}float"}
        case str():
            return schema
    marked = {
        name: _marked(value, rendered=rendered) if name in {"items", "values"} else value
        for name, value in schema.items()
        if not name.startswith("__") and name != "logicalType"
    }
    if "fields" in marked:
        marked["fields"] = [{**field, "type": _marked(field["type"], rendered=rendered)} for field in marked["fields"]]
    return marked | (mark(schema) if rendered else {})


class _Defaults:
    """Renders the defaults of a parsed schema as rows show them, since fastavro returns them unchanged."""

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
                # The defaults of the fields have been rendered already: a type is defined before a default of it.
                found = {
                    field["name"]: self._rendered(default[field["name"]], field["type"])
                    if field["name"] in default
                    else field["default"]
                    for field in fields
                }
                if rendered_as(schema) == VARIABLE_DECIMAL:
                    found = variable_decimal(found | {"value": a2b_base64(found["value"])})
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
    elif kind == "float":
        value = rounded(float(default))
    elif kind == "double":
        value = float(default)
    if rendered:
        return render(value, schema)
    return b2a_base64(value, newline=False).decode() if isinstance(value, bytes) else value
