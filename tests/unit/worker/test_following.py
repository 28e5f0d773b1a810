"""How a running worker follows its catalog, without brokers: what is served when, and what is tried again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

import tablehouse.worker.following as module
from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.errors import TopicError
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.partition_counts import PartitionCounts, settle
from tablehouse.tasks.served import Served
from tablehouse.worker.following import Following
from tablehouse.worker.local_side import LocalSide
from tests.support.polling import until


def catalog(*names: str, version: int = 1) -> Catalog:
    return Catalog(
        {
            name: TableSpec(name, SourceSpec(f"topic-{name}", KeySpec("string"), ValueSpec("json")), version=version)
            for name in names
        }
    )


def topics_of(tables: Catalog) -> Topics:
    counts = settle(tables, "g", dict.fromkeys(tables.topics, 2), {})
    return Topics(tables, counts, dict.fromkeys(counts.built, 1000), dict.fromkeys(tables.topics, 900), None, {})


class Worker:
    """The parts that follow, and what they were told. Preparing waits while `ready` is not set, and may be refused."""

    def __init__(self, tables: Catalog) -> None:
        self.view = CatalogView(tables)
        self.topics = TopicsView(topics_of(tables))
        self.local = LocalSide(self.view, lambda _: None)
        self.told: list[set[str]] = []
        self.shared: list[set[str]] = []
        self.prepared: list[set[str]] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.refusal: Exception | None = None
        self.counts = PartitionCounts(self.topics.current.counts, Doubts(lambda: None))
        parts: Any = self
        self.following = Following(
            self.view,
            self.topics,
            self.prepare,
            group="g",
            letters=parts,
            counts=self.counts,
            local=self.local,
            shards=parts,
            membership=parts,
            share_memory=lambda topics: self.shared.append(set(topics.catalog.tables)),
        )

    async def prepare(self, topics: Topics, wanted: Catalog) -> Topics:
        """Stand in for the brokers."""
        self.prepared.append(wanted.tables.keys() - topics.catalog.tables.keys())
        await self.ready.wait()
        if self.refusal is not None:
            raise self.refusal
        return topics.with_more(topics_of(wanted)).only(wanted, "g")

    def serve(self, served: Served) -> None:
        """Stand in for the shards."""
        assert served.partitions == self.counts.shards
        self.told.append(set(served.catalog.tables))

    def follow(self, before: Topics, after: Topics) -> None:
        """Stand in for the membership."""
        assert before is not after
        assert after is self.topics.current

    @property
    def served(self) -> set[str]:
        """The tables that are served now."""
        return set(self.topics.current.catalog.tables)

    async def serves(self, *names: str) -> None:
        """Wait until these tables are served, and no others."""

        async def ask() -> bool:
            return self.served == set(names)

        await until(ask, f"{names} are served")


@contextlib.asynccontextmanager
async def running(tables: Catalog) -> AsyncIterator[Worker]:
    worker = Worker(tables)
    work = asyncio.create_task(worker.following.follow())
    try:
        yield worker
    finally:
        assert not work.done(), work.result()
        work.cancel()
        await asyncio.wait({work})


async def test_what_was_swapped_before_it_began_to_follow_is_followed_too() -> None:
    worker = Worker(catalog("a", "gone"))
    worker.view.swap(catalog("a", "new"))
    work = asyncio.create_task(worker.following.follow())
    await worker.serves("a", "new")
    work.cancel()
    assert worker.told == worker.shared == [{"a"}, {"a", "new"}]


async def test_a_table_goes_within_the_swap_and_one_comes_when_its_topics_are_prepared() -> None:
    async with running(catalog("a", "gone")) as worker:
        await asyncio.sleep(0)
        worker.ready.clear()
        worker.view.swap(catalog("a", "new"))
        assert worker.served == {"a"}
        assert worker.local.waiting == {"new": "its topics are being prepared"}
        worker.ready.set()
        await worker.serves("a", "new")
        assert worker.local.waiting == {}
        assert worker.prepared == [{"new"}]


async def test_a_table_that_is_defined_otherwise_goes_and_comes_and_one_that_looks_otherwise_stays() -> None:
    async with running(catalog("a", "b")) as worker:
        await asyncio.sleep(0)
        described = replace(catalog("a").tables["a"], description="new", standbys=2)
        worker.view.swap(Catalog({"a": described, **catalog("b", version=2).tables}))
        assert worker.served == {"a"}
        assert worker.topics.current.catalog.tables["a"] is described
        await worker.serves("a", "b")
        assert (worker.told, worker.prepared) == ([{"a"}, {"a", "b"}], [{"b"}])


async def test_what_was_prepared_for_a_catalog_that_is_over_by_then_is_not_served() -> None:
    async with running(catalog("a")) as worker:
        await asyncio.sleep(0)
        worker.ready.clear()
        worker.view.swap(catalog("a", "never"))

        async def preparing() -> bool:
            return worker.prepared == [{"never"}]

        await until(preparing, "it is being prepared")
        worker.view.swap(catalog("a", "other"))
        worker.ready.set()
        await worker.serves("a", "other")
        assert worker.told == [{"a", "other"}]


async def test_what_cannot_be_prepared_is_told_and_tried_again_and_another_swap_does_not_wait_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(catalog("a")) as worker:
        await asyncio.sleep(0)
        worker.refusal = TopicError("there is no topic")
        worker.view.swap(catalog("a", "new"))

        async def told() -> bool:
            return worker.local.waiting == {"new": "there is no topic"}

        await until(told, "the reason is told")
        assert worker.served == {"a"}
        worker.refusal = None
        monkeypatch.setattr(module, "_RETRY_INTERVAL", 0.0)
        worker.view.swap(catalog("a", "new", "more"))
        await worker.serves("a", "new", "more")
        worker.refusal = TimeoutError()
        worker.view.swap(catalog("a", "last"))
        assert worker.served == {"a"}

        async def again() -> bool:
            return worker.prepared.count({"last"}) > 2

        await until(again, "it is tried again")
        worker.refusal = None
        await worker.serves("a", "last")
