"""What clients see of each step on Kubernetes: the table that make kubernetes prints, in both pages."""

import re
from pathlib import Path

import pytest

PAGES = ("docs/availability.md", "deploy/helm/tablehouse/README.md")
ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"<!-- steps: begin -->\n(.*?)<!-- steps: end -->", re.DOTALL)

#: Steps in which a client can lose an answer: the connection leads through a node that is cut off.
LOSES_CONNECTIONS = "cut off"

#: The slowest read of any other step.
MAX_MS = 300


def rows(page: str) -> list[list[str]]:
    found = TABLE.search((ROOT / page).read_text("utf-8"))
    assert found is not None, page
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_both_pages_have_the_same_steps() -> None:
    first, second = map(rows, PAGES)
    assert first == second
    assert len(first) > 15


@pytest.mark.parametrize("row", rows(PAGES[0]), ids=lambda row: row[0][:40])
def test_a_step_is_as_promised(row: list[str]) -> None:
    step, reads, failed, slowest, *_ = row
    assert int(reads) > 0
    if LOSES_CONNECTIONS in step:
        return
    assert int(failed) == 0
    assert int(slowest.removesuffix(" ms")) <= MAX_MS
