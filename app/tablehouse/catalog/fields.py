"""Declarations of the fields of tables.yaml: name, kind of value, default, and fingerprint parts.

The reader of the file and its JSON Schema are derived from the declarations in source.py and load.py. A test checks the
fingerprint against them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from dataclasses import fields as fields_of
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import yaml

from tablehouse.catalog.reader import Names, Reader, Text, children
from tablehouse.config.marked_yaml import Entry

Value_co = TypeVar("Value_co", covariant=True)

#: The default of a required field.
REQUIRED = object()


class Kind(Protocol[Value_co]):
    """A kind of value that a field may have."""

    def read(self, reader: Reader, node: yaml.Node, path: str) -> Value_co | None:
        """Return the value of a node; report a problem to the reader and return None if it is invalid."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A text that matches a pattern."""

    text: Text

    def read(self, reader: Reader, node: yaml.Node, path: str) -> str | None:
        """Return the text if it matches."""
        return reader.text(node, path, self.text)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"type": "string"} | ({} if self.text.pattern is ANYTHING else {"pattern": self.text.schema_pattern})


#: The pattern of any text.
ANYTHING = re.compile(r".*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some names."""

    names: Sequence[str]

    def read(self, reader: Reader, node: yaml.Node, path: str) -> str | None:
        """Return one of the names."""
        return reader.choice(node, path, self.names)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"enum": list(self.names)}


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of at least `least`."""

    least: int

    def read(self, reader: Reader, node: yaml.Node, path: str) -> int | None:
        """Return the integer if it is large enough."""
        return reader.integer(node, path, least=self.least)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"type": "integer", "minimum": self.least}


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def read(self, reader: Reader, node: yaml.Node, path: str) -> bool | None:
        """Return true or false."""
        return reader.boolean(node, path)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Several:
    """A list of at least one item, without duplicates."""

    item: "Kind[str]"

    def read(self, reader: Reader, node: yaml.Node, path: str) -> tuple[str, ...] | None:
        """Return the items."""
        shown = str if isinstance(self.item, OneOf) else repr
        items = reader.unique(node, path, lambda one, where: self.item.read(reader, one, where), shown)
        return None if items is None else tuple(items)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"type": "array", "minItems": 1, "uniqueItems": True, "items": dict(self.item.schema)}


@dataclass(frozen=True, slots=True)
class Shared(Generic[Value_co]):
    """A kind that the JSON Schema defines once, under its own name."""

    name: str
    kind: Kind[Value_co]

    def read(self, reader: Reader, node: yaml.Node, path: str) -> Value_co | None:
        """Return the result of the kind."""
        return self.kind.read(reader, node, path)

    @property
    def schema(self) -> Mapping[str, Any]:
        """A reference to its JSON Schema."""
        return {"$ref": f"#/$defs/{self.name}"}


@dataclass(frozen=True, slots=True)
class Read(Generic[Value_co]):
    """A kind that a function reads, and that the JSON Schema defines under its own name."""

    name: str
    function: Callable[[Reader, yaml.Node, str], Value_co | None]

    def read(self, reader: Reader, node: yaml.Node, path: str) -> Value_co | None:
        """Return the result of the function."""
        return self.function(reader, node, path)

    @property
    def schema(self) -> Mapping[str, Any]:
        """A reference to its JSON Schema."""
        return {"$ref": f"#/$defs/{self.name}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a mapping.

    `default` is its value without an entry, or REQUIRED. `description` is for the JSON Schema; a shared kind may have
    its own. `fingerprint` names the parts of the table's fingerprint that the field determines: changing such a field
    requires a new version of the table, while other fields may change at any time.
    """

    name: str
    kind: Kind[Any]
    default: Any
    description: str = ""
    fingerprint: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        described = {"description": self.description} if self.description else {}
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        has_default = self.default is not REQUIRED and default not in (None, "", [])
        return {**described, **self.kind.schema, **({"default": default} if has_default else {})}


@dataclass(frozen=True)
class Given:
    """The contents of a mapping: the value of every declared field, which is its default without an entry.

    An invalid value is None. `is_whole` is False if a value is invalid or a required field is missing.
    """

    values: Mapping[str, Any]
    entries: Mapping[str, Entry]
    is_whole: bool

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def line(self, name: str) -> int:
        """Return the line of an entry."""
        return self.entries[name].line


@dataclass(frozen=True)
class Declared:
    """The fields of one mapping; `unsupported` ones belong to later versions and are refused by name."""

    fields: tuple[Field, ...]
    unsupported: tuple[str, ...] = field(default=())

    @cached_property
    def _names(self) -> Names:
        required = tuple(one.name for one in self.fields if one.default is REQUIRED)
        return Names(required, tuple(one.name for one in self.fields if one.name not in required), self.unsupported)

    def read(self, reader: Reader, node: yaml.Node, path: str) -> Given | None:
        """Return the contents of a mapping; report a problem to the reader and return None if it is not one."""
        entries = reader.mapping(node, path, self._names)
        if entries is None:
            return None
        parts = children(entries, path)
        values: dict[str, Any] = {}
        for one in self.fields:
            if one.name in parts:
                values[one.name] = one.kind.read(reader, *parts[one.name])
            else:
                values[one.name] = None if one.default is REQUIRED else one.default
        taken = all(values[name] is not None for name in entries)
        return Given(values, entries, taken and all(name in entries for name in self._names.required))

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the mapping, without the conditions between its fields."""
        return {
            "type": "object",
            "required": list(self._names.required),
            "additionalProperties": False,
            "properties": {one.name: one.schema for one in self.fields},
        }


def default_of(spec: type[Any], name: str) -> Any:
    """Return the default of a field of a spec's class."""
    (found,) = (one for one in fields_of(spec) if one.name == name)
    if found.default is MISSING:
        raise AssertionError(f"{spec.__name__}.{name} has no default")
    return found.default
