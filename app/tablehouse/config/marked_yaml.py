"""YAML nodes with their lines, for files whose errors must name the line.

Only plain scalars are constructed: a tag that names a Python object has no effect.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: Names for YAML's own tags in messages.
_KINDS = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "an integer",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:seq": "a list",
    "tag:yaml.org,2002:map": "a mapping",
}


#: Parts of PyYAML's messages for common mistakes, and their remedies.
_REMEDIES = (
    ("expected <block end>", "align the line with the ones that it belongs to"),
    (
        "mapping values are not allowed here",
        "put text that contains a colon and a space into quotes, and check the indentation",
    ),
    ("could not find expected ':'", "write a colon and a space after the name"),
    ("found character '\\t'", "indent with spaces"),
    ("that cannot start any token", "put text that begins with it into quotes"),
    ("found undefined alias", "put text that begins with * into quotes"),
    ("but found another document", "remove the line ---"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("expected ',' or", "a bracket or brace is not closed, or a comma is missing"),
    ("expected the node content", "something is missing here, or a bracket or brace is not closed"),
)


class YamlError(ValueError):
    """A file cannot be read, or is not a single YAML document; `line` is None if the error is not in one line."""

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping; lines count from 1."""

    key: str
    line: int
    node: yaml.Node


def read_yaml(path: Path) -> yaml.Node | None:
    """Return the root node of a file's single document, None for an empty one. Raises YamlError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(None, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise YamlError(None, f"is not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else None, f"is not YAML: {_with_remedy(str(error.problem))}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"is not YAML: {error.reason} (character {error.character:#x})") from error
    except RecursionError as error:
        raise YamlError(None, "is nested too deeply") from error


def _with_remedy(problem: str) -> str:
    """Return PyYAML's message, with the remedy for common mistakes."""
    return next((f"{problem}; {remedy}" for mistake, remedy in _REMEDIES if mistake in problem), problem)


def line_of(node: yaml.Node) -> int:
    """Return the line, from 1, on which a node begins."""
    return int(node.start_mark.line) + 1


def kind_of(node: yaml.Node) -> str:
    """Return the kind of a node, for an error message."""
    return _KINDS.get(node.tag, f"a value tagged {node.tag}")


def scalar_of(node: yaml.Node) -> Any:
    """Return the value of a scalar node by YAML 1.1; None for any other node."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _KINDS:
        return None
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node)
    except ValueError:
        # The text does not match an explicit tag, as in `!!int twelve`.
        return None


def entries_of(mapping: yaml.MappingNode) -> list[Entry]:
    """Return a mapping's entries in order, duplicates included; keys appear as they are written."""
    return [
        Entry(key.value if isinstance(key, yaml.ScalarNode) else kind_of(key), line_of(key), value)
        for key, value in mapping.value
    ]
