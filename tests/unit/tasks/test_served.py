"""Which redefinitions of a table its tasks do not notice."""

from dataclasses import replace

import pytest

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.tasks.served import goes_on

TABLE = TableSpec("t", SourceSpec("s", KeySpec("string"), ValueSpec("json")), columns={"a": "x", "b": "y"})


@pytest.mark.parametrize("after", [replace(TABLE, description="new"), replace(TABLE, standbys=3, writable=True)])
def test_what_no_task_looks_at_leaves_its_tasks_as_they_are(after: TableSpec) -> None:
    assert goes_on(TABLE, after)


@pytest.mark.parametrize(
    "after",
    [
        replace(TABLE, version=2),
        replace(TABLE, columns={"b": "y", "a": "x"}),
        replace(TABLE, source=replace(TABLE.source, on_error="skip")),
        replace(TABLE, source=replace(TABLE.source, topic="other")),
    ],
    ids=["version", "order of columns", "on_error", "topic"],
)
def test_everything_else_needs_tasks_that_are_made_for_it(after: TableSpec) -> None:
    assert not goes_on(TABLE, after)
