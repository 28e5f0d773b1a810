"""Reads a marked YAML document field by field and collects every problem instead of stopping at one."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tablehouse.config.marked_yaml import Entry, entries_of, kind_of, line_of, scalar_of


@dataclass(frozen=True, slots=True)
class Names:
    """The fields that a mapping may have; `unsupported` ones belong to later versions and are refused by name."""

    required: Collection[str]
    optional: Collection[str] = ()
    unsupported: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A requirement for a text: the pattern that the whole text must match, and its description for messages."""

    pattern: re.Pattern[str]
    words: str

    @property
    def schema_pattern(self) -> str:
        """The pattern for JSON Schema, which searches for it in a text instead of matching the whole text."""
        return f"^{self.pattern.pattern}$".replace(r"\Z", "$")


class Reader:
    """Reads values from nodes; records a problem for each invalid value, and returns None in its place.

    `field` is always the full path of the node, like tables[0].source.topic.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[tuple[int, str]] = []

    def resolve(self, path: Path) -> Path:
        """Return a path given in the document; relative paths start at the document's folder."""
        return self._path.parent / path

    def problem(self, line: int, field: str, what: str) -> None:
        """Record one problem and, after a semicolon, its remedy."""
        self._problems.append((line, f"{self._path}:{line}: {field or 'the file'}: {what}"))

    @property
    def problems(self) -> list[str]:
        """All problems so far, in the order of their lines."""
        return [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]

    def mapping(self, node: yaml.Node, field: str, fields: Names) -> dict[str, Entry] | None:
        """Return the known entries of a mapping by name; unknown, missing and repeated ones are problems."""
        entries = self._entries(node, field, f"with {' and '.join(fields.required)}")
        if entries is None:
            return None
        known = (*fields.required, *fields.optional)
        for name, entry in entries.items():
            if name in fields.unsupported:
                self.problem(entry.line, _join(field, name), "is not supported by this version; leave it out")
            elif name not in known:
                self.problem(entry.line, _join(field, name), f"is not a field; {_suggestion(name, known)}")
        for name in fields.required:
            if name not in entries:
                self.problem(line_of(node), _join(field, name), "is missing; it is required")
        return {name: entry for name, entry in entries.items() if name in known}

    def names(self, node: yaml.Node, field: str, text: Text) -> dict[str, Entry] | None:
        """Return the entries of a mapping with arbitrary keys that match `text`; at least one is required."""
        entries = self._entries(node, field, "with at least one entry")
        if entries is None:
            return None
        if not entries:
            self.problem(line_of(node), field, "is empty; give at least one entry, or leave it out")
        for name, entry in entries.items():
            if not text.pattern.fullmatch(name):
                self.problem(entry.line, _join(field, name), f"cannot be a name here; use {text.words}")
        return entries

    def items(self, node: yaml.Node, field: str) -> list[yaml.Node] | None:
        """Return the nodes of a list; at least one is required."""
        if not isinstance(node, yaml.SequenceNode):
            self.problem(line_of(node), field, f"must be a list, this is {kind_of(node)}")
            return None
        if not node.value:
            self.problem(line_of(node), field, "is empty; give at least one item")
        return list(node.value)

    def unique(
        self,
        node: yaml.Node,
        field: str,
        read: Callable[[yaml.Node, str], str | None],
        shown: Callable[[str], str] = repr,
    ) -> list[str] | None:
        """Return a list of at least one item without duplicates; `read` takes a node and its path."""
        items = self.items(node, field)
        if items is None:
            return None
        found: list[str] = []
        for index, item in enumerate(items):
            value = read(item, f"{field}[{index}]")
            if value is not None and value in found:
                self.problem(line_of(item), f"{field}[{index}]", f"repeats {shown(value)}; name each once")
            elif value is not None:
                found.append(value)
        return found

    def text(self, node: yaml.Node, field: str, text: Text) -> str | None:
        """Return the text if it matches."""
        value = scalar_of(node)
        if not isinstance(value, str):
            hint = "; put it in quotes" if isinstance(node, yaml.ScalarNode) and node.value else ""
            self.problem(line_of(node), field, f"must be text, this is {kind_of(node)}{hint}")
            return None
        if not text.pattern.fullmatch(value):
            self.problem(line_of(node), field, f"cannot be {value!r}; use {text.words}")
            return None
        return value

    def choice(self, node: yaml.Node, field: str, choices: Sequence[str]) -> str | None:
        """Return one of the choices."""
        if not isinstance(node, yaml.ScalarNode):
            self.problem(line_of(node), field, f"must be one of {', '.join(choices)}; this is {kind_of(node)}")
        elif node.value not in choices:
            self.problem(line_of(node), field, f"cannot be {node.value!r}; {_suggestion(node.value, choices)}")
        else:
            return str(node.value)
        return None

    def integer(self, node: yaml.Node, field: str, *, least: int) -> int | None:
        """Return the integer if it is at least `least`."""
        value = scalar_of(node)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problem(line_of(node), field, f"must be an integer of at least {least}")
            return None
        return value

    def boolean(self, node: yaml.Node, field: str) -> bool | None:
        """Return true or false."""
        value = scalar_of(node)
        if not isinstance(value, bool):
            self.problem(line_of(node), field, f"must be true or false, this is {kind_of(node)}")
            return None
        return value

    def _entries(self, node: yaml.Node, field: str, words: str) -> dict[str, Entry] | None:
        if not isinstance(node, yaml.MappingNode):
            self.problem(line_of(node), field, f"must be a mapping {words}, this is {kind_of(node)}")
            return None
        entries: dict[str, Entry] = {}
        for entry in entries_of(node):
            first = entries.setdefault(entry.key, entry)
            if first is not entry:
                self.problem(
                    entry.line,
                    _join(field, entry.key),
                    f"is given twice, first on line {first.line}; keep one",
                )
        return entries


def children(entries: Mapping[str, Entry], field: str) -> dict[str, tuple[yaml.Node, str]]:
    """Return each entry's node and full path, by name."""
    return {name: (entry.node, _join(field, name)) for name, entry in entries.items()}


def _join(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _suggestion(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"
