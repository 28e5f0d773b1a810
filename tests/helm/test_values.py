import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml

from deploy.helm.generate import CHART, DECIDED_BY_CHART, values, with_generated, with_values
from tablehouse.catalog.load import load_catalog
from tablehouse.config.settings import SETTINGS, Settings
from tests.support.helm import HELM_4, only
from tests.support.helm_cases import CASES

_SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
_DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def test_the_readme_lists_the_values_as_they_are() -> None:
    readme = (CHART / "README.md").read_text("utf-8")
    assert with_values(readme) == readme, "run: python -m deploy.helm.generate"


def test_the_schema_knows_the_settings_and_tables_as_they_are() -> None:
    schema = (CHART / "values.schema.json").read_text("utf-8")
    assert with_generated(schema) == schema, "run: python -m deploy.helm.generate"


def test_each_setting_can_be_given_in_exactly_one_way() -> None:
    known = {setting.name for setting in SETTINGS}
    accepted = set(_SCHEMA["properties"]["settings"]["properties"])
    assert accepted | DECIDED_BY_CHART == known
    assert not accepted & DECIDED_BY_CHART


def test_the_environment_of_the_pods_is_the_settings_that_the_code_knows(home: Path) -> None:
    accepted = _SCHEMA["properties"]["settings"]["properties"]
    everything = {
        **CASES["zone and secrets"],
        "settings": {name: _default(name) for name in accepted},
    }
    variables = _variables(everything, home)
    # No worker logs in by password and by token, so it takes several to have everything.
    for case in (
        "a schema registry by token",
        "a login by password over TLS",
        "a login by token",
        "certificates on both sides",
    ):
        variables |= _variables(CASES[case], home)
    # The URL follows from the address and the port.
    known = {setting.variable for setting in SETTINGS} - {"TABLEHOUSE_ADVERTISED_URL"}
    assert variables == known


def test_without_values_of_their_own_zone_and_secrets_are_not_set(home: Path) -> None:
    decided = {f"TABLEHOUSE_SCHEMA_REGISTRY_{name}" for name in ("USER", "PASSWORD", "TOKEN")}
    assert not _variables({}, home) & {"TABLEHOUSE_ZONE", "TABLEHOUSE_INTERNAL_SECRETS", *decided}


def test_the_chart_s_times_ports_and_memory_are_those_of_the_code() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert _DEFAULTS["settings"]["shutdown_timeout"] == defaults["shutdown_timeout"]
    assert {name: _DEFAULTS["containerPorts"][name] for name in ("http", "internal")} == {
        "http": defaults["http_port"],
        "internal": defaults["internal_port"],
    }
    helpers = (CHART / "templates" / "_helpers.tpl").read_text("utf-8")
    assert f'default "{defaults["memory_budget"]}" .Values.settings.memory_budget' in helpers


def test_the_schema_and_the_values_name_the_same() -> None:
    described = {tuple(name.split(".")) for name, _, _ in values()}
    for path in described:
        part = _SCHEMA
        for name in path:
            part = part["properties"][name]
    for path in set(_leaves(_SCHEMA, ())) - {("global",)}:
        # What has many members may be described as a whole.
        assert any(path[:length] in described for length in range(1, len(path) + 1)), path


def test_the_default_values_satisfy_the_schema() -> None:
    jsonschema.validate(_DEFAULTS, _SCHEMA)


def test_no_group_of_values_takes_a_member_that_it_does_not_know() -> None:
    loose = [
        part["properties"] for part in _parts(_SCHEMA) if part.get("properties") and "additionalProperties" not in part
    ]
    # The schema of tables.yaml adds conditions to what is strict already.
    conditional = {
        "source",
        "key",
        "value",
        "format",
        "framing",
        "schema",
        "partitioner",
        "envelope",
        "columns",
        "writable",
    }
    assert all(set(properties) <= conditional for properties in loose)


def test_patterns_are_such_as_helm_can_read() -> None:
    patterns = [part["pattern"] for part in _parts(_SCHEMA) if isinstance(part.get("pattern"), str)]
    assert patterns
    assert not [pattern for pattern in patterns if re.search(r"\(\?[=!<]|\\u", pattern)]


def test_workers_load_the_tables_as_they_were_given(home: Path, tmp_path: Path) -> None:
    for case in (CASES["what is required"], CASES["every kind of table"]):
        config = only(HELM_4.template(case, home), "ConfigMap")
        file = tmp_path / "tables.yaml"
        file.write_text(config["data"]["tables.yaml"], "utf-8")
        names = list(load_catalog(file).tables)
        assert names == [table["name"] for table in case.get("tables", [{"name": "airlines"}])]


def test_numbers_in_settings_keep_their_digits(home: Path) -> None:
    container = _container({"settings": {"memory_budget": 536870912}}, home)
    assert {"name": "TABLEHOUSE_MEMORY_BUDGET", "value": "536870912"} in container["env"]


def _default(name: str) -> str:
    """Return a value that the setting can have: its default, unless that says how it is made from others."""
    default = next(setting.default for setting in SETTINGS if setting.name == name)
    return "1" if default is None or "<" in default else default


def _container(values: dict[str, Any], home: Path) -> Any:
    return only(HELM_4.template(values, home), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]


def _variables(values: dict[str, Any], home: Path) -> set[str]:
    names = [variable["name"] for variable in _container(values, home)["env"]]
    assert len(set(names)) == len(names)
    return {name for name in names if name.startswith("TABLEHOUSE_")}


def _leaves(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not schema.get("properties"):
        yield path
        return
    for name, member in schema["properties"].items():
        yield from _leaves(member, (*path, name))


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for member in schema.values():
            yield from _parts(member)
    elif isinstance(schema, list):
        for member in schema:
            yield from _parts(member)
