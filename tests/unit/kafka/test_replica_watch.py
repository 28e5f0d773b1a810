"""What is said of changelogs with too few replicas follows the tables."""

import asyncio
from collections.abc import Collection

import pytest

import tablehouse.kafka.replica_watch as module
from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.kafka.client import Connection
from tablehouse.kafka.replica_watch import ReplicaWatch
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.tasks.partition_counts import settle
from tablehouse.telemetry import Metrics
from tests.support.polling import until


def topics_of(*names: str) -> Topics:
    source = SourceSpec("t", KeySpec("string"), ValueSpec("json"))
    catalog = Catalog({name: TableSpec(name, source) for name in names})
    counts = settle(catalog, "g", {"t": 2}, {})
    return Topics(catalog, counts, {}, {}, None, dict.fromkeys(counts.built, 3))


async def test_a_table_that_comes_is_watched_and_one_that_goes_is_not_told_of_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def one_replica(_connection: Connection, topics: Collection[str]) -> dict[str, int]:
        await asyncio.sleep(0)
        return dict.fromkeys(topics, 1)

    monkeypatch.setattr(module, "replica_counts", one_replica)
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    metrics, view = Metrics("test"), TopicsView(topics_of("a", "gone"))
    watch = ReplicaWatch(Connection("127.0.0.1:9", "test"), "g", lambda: view.current, metrics)
    work = asyncio.create_task(watch.watch())

    def missing(table: str) -> float | None:
        return metrics.registry.get_sample_value("tablehouse_changelog_replicas_missing", {"table": table})

    async def told_of(*tables: str) -> bool:
        return {table for table in ("a", "gone", "new") if missing(table) == 2} == set(tables) and (
            len(watch.reasons) == len(tables)
        )

    await until(lambda: told_of("a", "gone"), "both are watched")
    view.current = topics_of("a", "new")
    await until(lambda: told_of("a", "new"), "the new one is watched")
    assert missing("gone") is None
    work.cancel()
