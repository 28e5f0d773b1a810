import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm.generate import CHART
from tablehouse.model import TaskState
from tablehouse.telemetry import Metrics
from tests.helm.alerts import CASES, RUNNING
from tests.support.helm import HELM_4, only
from tests.support.helm_cases import MONITORED
from tests.support.promtool import promtool


@pytest.fixture
def rules(home: Path, tmp_path: Path) -> dict[str, Any]:
    """Return the rules as Prometheus gets them, and leave them in rules.yaml."""
    spec: dict[str, Any] = only(HELM_4.template(MONITORED, home), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    return spec


@pytest.mark.usefixtures("rules")
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


@pytest.mark.usefixtures("rules")
def test_alerts_fire_when_they_should_and_at_no_other_time(tmp_path: Path) -> None:
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [
                {"series": series, "values": values} for series, values in {**RUNNING, **case.series}.items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'ALERTS{alertstate="firing"}',
                    "eval_time": f"{case.minute}m",
                    "exp_samples": [{"labels": _firing(alert), "value": 1} for alert in case.firing],
                }
            ],
        }
        for name, case in CASES.items()
    ]
    file = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(file), "utf-8")
    promtool("test", "rules", "tests.yaml", folder=tmp_path)


@pytest.mark.usefixtures("rules")
def test_an_alert_says_what_it_is_about(tmp_path: Path) -> None:
    series = 'tablehouse_misses_in_doubt{namespace="tables",job="tablehouse",table="users"}'
    expected = {
        "exp_labels": {"severity": "critical", "table": "users"},
        "exp_annotations": {
            "summary": "Misses of users are 503 misplaced_keys.",
            "description": "Keys lie in other partitions than the table's partitioner says, or its topic has more "
            "partitions now. It stays so until a person corrects it: see source.partitioner in docs/tables.md.",
        },
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": "1+0x30"}],
        "alert_rule_test": [
            {"eval_time": "20m", "alertname": "TablehouseMissesInDoubt", "exp_alerts": [expected]},
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}), "utf-8")
    promtool("test", "rules", "tests.yaml", folder=tmp_path)


def test_the_readme_s_query_tells_the_partitions_that_lack_a_copy(tmp_path: Path) -> None:
    (query,) = re.findall(
        r"^```\n(count by .*?)^```$", (CHART / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )

    def copies(partition: int, *states: str) -> list[dict[str, str]]:
        labels = f'namespace="tables",job="tablehouse",table="t",partition="{partition}"'
        return [
            {"series": f'tablehouse_partition_state{{{labels},instance="{worker}",state="{state}"}}', "values": "1+0x9"}
            for worker, state in enumerate(states)
        ]

    lacking = [copies(1, "active"), copies(2, "active", "restoring"), copies(3, "opening")]
    whole = [copies(4, "active", "standby"), copies(5, "active", "standby", "standby")]
    test = {
        "interval": "1m",
        "input_series": [series for partition in lacking + whole for series in partition],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "5m",
                "exp_samples": [{"labels": f'{{table="t",partition="{number}"}}', "value": 1} for number in (1, 2, 3)],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}), "utf-8")
    promtool("test", "rules", "tests.yaml", folder=tmp_path)


def test_each_alert_has_a_case_in_which_it_fires_and_a_line_in_the_readme(rules: dict[str, Any]) -> None:
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert alerts == {alert.partition("{")[0] for case in CASES.values() for alert in case.firing}

    rows = re.findall(r"^\| (`Tablehouse.*?) \|", (CHART / "README.md").read_text("utf-8"), re.MULTILINE)
    told = set()
    for row in rows:
        name, *suffix = re.findall(r"`-?(\w+)`", row)
        told |= {name, *(name.removesuffix("Fast") + end for end in suffix)}
    assert told == alerts


def test_rules_and_dashboard_use_metrics_and_states_that_exist(rules: dict[str, Any], home: Path) -> None:
    metrics = Metrics("0")
    metrics.watch_tasks(list)
    known = {
        sample
        for family in metrics.registry.collect()
        for end in ("", "_total", "_bucket", "_count")
        for sample in [family.name + end]
    }
    texts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]] + _dashboard_queries(home)
    used = {name for text in texts for name in re.findall(r"\btablehouse_\w+", text)}
    assert used
    assert used <= known
    states = {state for text in texts for found in re.findall(r'state=~?"([^"]+)"', text) for state in found.split("|")}
    assert states
    assert states <= {state.name.lower() for state in TaskState}


def test_prometheus_takes_the_dashboard_s_queries(home: Path, tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "5m") for query in _dashboard_queries(home)]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


def test_the_dashboard_s_panels_do_not_cover_each_other(home: Path) -> None:
    panels = _dashboard(home)["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def _firing(alert: str) -> str:
    name, _, labels = alert.removesuffix("}").partition("{")
    return f'ALERTS{{alertname="{name}",alertstate="firing",{labels}}}'


def _dashboard(home: Path) -> Any:
    config = only(HELM_4.template(MONITORED, home), "ConfigMap", "tablehouse-dashboard")
    return json.loads(config["data"]["tablehouse.json"])


def _dashboard_queries(home: Path) -> list[str]:
    return [target["expr"] for panel in _dashboard(home)["panels"] for target in panel["targets"]]
