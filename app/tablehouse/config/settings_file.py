"""Reads the settings file, which an environment variable names."""

import difflib
import os
from collections.abc import Collection
from pathlib import Path

import yaml

from tablehouse.config.marked_yaml import YamlError, entries_of, kind_of, line_of, read_yaml
from tablehouse.errors import ConfigError

#: The environment variable that names the settings file, which is optional.
CONFIG_VARIABLE = "TABLEHOUSE_CONFIG"


def read_settings_file(names: Collection[str]) -> dict[str, tuple[int, str]]:
    """Return the line and the text of each setting in the file, with texts as in the environment.

    `names` are those of all settings. Raises ConfigError with every problem in the file.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path is None:
        return {}
    try:
        root = read_yaml(Path(path))
    except YamlError as error:
        place = path if error.line is None else f"{path}:{error.line}"
        raise ConfigError(f"{place}: {error} (the file that {CONFIG_VARIABLE} names)") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:{line_of(root)}: must be a mapping of settings, this is {kind_of(root)}")
    problems = []
    found: dict[str, tuple[int, str]] = {}
    for entry in entries_of(root):
        place = f"{path}:{entry.line}: {entry.key}"
        if entry.key not in names:
            problems.append(f"{place} is not a setting; {suggestion(entry.key, names)}")
        elif entry.key in found:
            problems.append(f"{place} is given twice, first on line {found[entry.key][0]}; keep one")
        elif not isinstance(entry.node, yaml.ScalarNode) or entry.node.tag == "tag:yaml.org,2002:null":
            problems.append(f"{place}: must be text or a number, this is {kind_of(entry.node)}")
        else:
            found[entry.key] = (entry.line, entry.node.value)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def suggestion(name: str, known: Collection[str]) -> str:
    """Return a suggestion for an unknown name, as the end of a sentence."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"
