import re
from pathlib import Path
from typing import Any

from tablehouse.telemetry import Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def exported() -> dict[str, tuple[str, str]]:
    metrics = Metrics("0")
    metrics.watch_tasks(list)
    families = {}
    collectors: list[Any] = list(dict.fromkeys(metrics.registry._collector_to_names))  # noqa: SLF001
    for collector in collectors:
        for family in collector.describe():
            name = family.name + ("_total" if family.type == "counter" else "")
            # A family that a collector makes at scrape time carries its labels itself.
            labels = (collector if hasattr(collector, "_labelnames") else family)._labelnames  # noqa: SLF001
            families[name] = (family.type, ",".join(labels))
    return families


def documented() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, ",".join(re.findall(r"`(\w+)`", labels))) for name, kind, labels in found}


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    assert documented() == exported()


def test_every_metric_has_the_project_s_prefix() -> None:
    assert all(name.startswith("tablehouse_") for name in exported())
