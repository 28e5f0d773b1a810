"""Writes what follows from other files: `python -m deploy.helm.generate`.

The table of values in the chart's README.md comes from the comments of values.yaml. tables.schema.json, the JSON Schema
of tables.yaml, comes from the declarations of its fields. In values.schema.json, `tables` comes from that, and
`settings` from the settings that the code knows, as does the table in docs/settings.md.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tablehouse.catalog.schema import tables_schema, tables_schema_text
from tablehouse.config.settings import SETTINGS, Settings

CHART = Path(__file__).with_name("tablehouse")
_ROOT = Path(__file__).parents[2]
TABLES_SCHEMA = _ROOT / "app" / "tablehouse" / "catalog" / "tables.schema.json"
SETTINGS_PAGE = _ROOT / "docs" / "settings.md"

#: Settings that the chart gives from values of other names, so that they are no members of `settings`.
DECIDED_BY_CHART = frozenset(
    {
        *(setting.name for setting in SETTINGS if setting.name.startswith("kafka_")),
        "bootstrap_servers",
        "tables",
        "data_dir",
        "http_port",
        "internal_port",
        "probe_port",
        "advertised_host",
        "advertised_url",
        "zone",
        "internal_secrets",
        "schema_registry_user",
        "schema_registry_password",
        "schema_registry_token",
    }
)


# Helm reads patterns as Go does, which has no lookahead and no \u.
_PATTERNS: dict[str, dict[str, Any]] = {
    r"^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$": {
        "pattern": "^[a-zA-Z0-9._-]{1,249}$",
        "not": {"enum": [".", ".."]},
    },
    r'^[^"\\\u0000-\u001f]+$': {"pattern": r'^[^"\\\x00-\x1f]+$'},
}


def main() -> None:
    """Write the files again."""
    for path, text in (
        (TABLES_SCHEMA, tables_schema_text()),
        (CHART / "README.md", with_values((CHART / "README.md").read_text("utf-8"))),
        (CHART / "values.schema.json", with_generated((CHART / "values.schema.json").read_text("utf-8"))),
        (SETTINGS_PAGE, with_settings(SETTINGS_PAGE.read_text("utf-8"))),
    ):
        path.write_text(text, "utf-8")


def with_values(readme: str) -> str:
    """Return the README with the table of values as values.yaml has them now."""
    rows = "".join(
        f"| `{name}` | `{default}` | {description.replace('|', chr(92) + '|')} |\n"
        for name, default, description in values()
    )
    return _between("values", readme, f"| value | default | what it is |\n|---|---|---|\n{rows}")


def with_settings(page: str) -> str:
    """Return docs/settings.md with the table of settings as the code has them now."""
    rows = "".join(
        f"| `{one.variable}` | `{one.flag}` | {'required' if one.default is None else f'`{one.default}`'} "
        f"| {one.description} |\n"
        for one in SETTINGS
    )
    return _between("settings", page, f"| variable | flag | default | what it is |\n|---|---|---|---|\n{rows}\n")


def _between(marks: str, text: str, content: str) -> str:
    """Return a text with other content between the comments that mark where it begins and ends."""
    begin, end = f"<!-- {marks}: begin -->\n", f"<!-- {marks}: end -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{content}{end}{after}"


def values() -> Iterator[tuple[str, str, str]]:
    """Yield name, default as JSON, and description of each value.

    A key with a comment above it is a value, a mapping without one is a group of values. Raises ValueError for
    what is neither.
    """
    text = (CHART / "values.yaml").read_text("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    yield from _described(root, text.splitlines(), "")


def _described(mapping: Any, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, node in mapping.value:
        name = prefix + key.value
        comment = _comment_above(lines, key.start_mark.line)
        if comment:
            default = json.dumps(yaml.SafeLoader("").construct_document(node))
            yield name, default, comment
        elif isinstance(node, yaml.MappingNode) and node.value:
            yield from _described(node, lines, name + ".")
        else:
            raise ValueError(f"values.yaml:{key.start_mark.line + 1}: {name} has no comment above it")


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(comment)


def with_generated(schema: str) -> str:
    """Return values.schema.json with the parts that follow from other files as those are now."""
    document = json.loads(schema)
    tables = _for_helm(tables_schema())
    # Empty is the default, for which the chart has a better message than the schema.
    document["properties"]["tables"] = {"type": "array", "items": tables["properties"]["tables"]["items"]}
    document["$defs"] |= tables["$defs"]
    known = Settings.model_json_schema()["properties"]
    document["properties"]["settings"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["shutdown_timeout"],
        "properties": {
            setting.name: {"description": setting.description, **_written(known[setting.name])}
            for setting in SETTINGS
            if setting.name not in DECIDED_BY_CHART
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _written(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting's text, from pydantic's; of most there is more to know than a schema can say."""
    for word in ("enum", "pattern", "anyOf"):
        if word in known and {"type": "null"} not in known.get("anyOf", ()):
            return {word: known[word]}
    return {"$ref": "#/$defs/setting"}


def _for_helm(part: Any) -> Any:
    if isinstance(part, list):
        return [_for_helm(member) for member in part]
    if not isinstance(part, dict):
        return part
    copied = {name: _for_helm(member) for name, member in part.items()}
    if isinstance(pattern := copied.get("pattern"), str):
        copied |= _PATTERNS.get(pattern, {})
    return copied


if __name__ == "__main__":
    main()
