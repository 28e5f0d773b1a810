"""What a worker says of tables that it does not serve."""

from collections.abc import Mapping
from typing import Any

import pytest

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.errors import MisplacedKeys, NotOwner
from tablehouse.model import DEFAULT_CONSISTENCY
from tablehouse.tasks.questions import Get
from tablehouse.worker.local_side import LocalSide


class NoShards:
    """Shards that hold nothing, and are not asked."""

    def answer(self, *asked: object) -> Any:
        """Fail."""
        raise AssertionError(asked)


def local_side(waiting: Mapping[str, str], held: frozenset[str]) -> LocalSide:
    tables = {
        name: TableSpec(name, SourceSpec("s", KeySpec("string"), ValueSpec("json"))) for name in ("new", "old", "good")
    }
    local = LocalSide(CatalogView(Catalog(tables)), lambda table: "it grew" if table.name == "old" else None)
    unused: Any = NoShards()
    local.open(unused, unused, unused)
    local.waiting, local.held = waiting, held
    return local


def test_a_table_whose_topics_are_not_prepared_is_another_workers_and_the_reason_is_told() -> None:
    local = local_side({"new": "there is no topic s"}, frozenset())
    with pytest.raises(NotOwner, match="table new is not served: there is no topic s"):
        local.answer("new", 0, Get(b"k"), DEFAULT_CONSISTENCY)
    assert local.table_reason("new") == "table new is not served: there is no topic s"
    assert local.table_reason("good") is None


def test_a_table_that_is_held_back_is_refused_by_its_partition_counts() -> None:
    local = local_side({}, frozenset({"old"}))
    with pytest.raises(MisplacedKeys, match="table old is not served: it grew"):
        local.answer("old", 0, Get(b"k"), DEFAULT_CONSISTENCY)
    assert local.table_reason("old") == "table old is not served: it grew"
