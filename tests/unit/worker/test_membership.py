"""When a worker whose tables change asks for a rebalance, which suspends every table of the group for a moment."""

from dataclasses import replace
from typing import Any

import pytest

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.kafka.topics import Topics
from tablehouse.placement.wire import Assignment, CatalogInUse, MemberAssignment
from tablehouse.tasks.partition_counts import settle
from tablehouse.worker.membership import MemberOptions, Membership

A, BESIDE, ELSEWHERE = (
    TableSpec(name, SourceSpec(topic, KeySpec("string"), ValueSpec("json")))
    for name, topic in (("a", "t"), ("beside", "t"), ("elsewhere", "u"))
)


def topics_of(*tables: TableSpec) -> Topics:
    catalog = Catalog({table.name: table for table in tables})
    return Topics(catalog, settle(catalog, "g", dict.fromkeys(catalog.topics, 2), {}), {}, {}, None, {})


class Worker:
    """A member, and stand-ins for everything that it asks."""

    worker_id, incarnation = "w", 1

    def __init__(self, *tables: TableSpec) -> None:
        parts: Any = self
        self.view = CatalogView(topics_of(*tables).catalog)
        self.misplaced: dict[str, Any] = {}
        self.shards: dict[str, int] = {}
        self.subscribes = False
        self.rejoined = 0
        self.membership = Membership(
            MemberOptions(url="http://w", zone="", acceptable_lag=0, takeover_interval=1.0),
            directory=parts,
            catalog=self.view,
            shards=parts,
            owner_writer=parts,
            counts=parts,
            doubts=parts,
            consumer=parts,
            view=parts,
            local=parts,
            health=parts,
            metrics=parts,
        )
        self.membership.describe()

    def positions(self) -> dict[str, dict[int, int]]:
        """Stand in for the shards."""
        return {}

    def follow_topics(self) -> bool:
        """Stand in for the consumer."""
        return self.subscribes

    def rejoin(self) -> None:
        """Stand in for the consumer."""
        self.rejoined += 1

    def swap(self, before: tuple[TableSpec, ...], after: tuple[TableSpec, ...]) -> int:
        """Have other tables; return how many rebalances were asked for."""
        self.view.swap(topics_of(*after).catalog)
        self.membership.follow(topics_of(*before), topics_of(*after))
        return self.rejoined


@pytest.mark.parametrize(
    ("before", "after", "rebalances"),
    [
        ((A,), (A, BESIDE), 0),
        ((A, BESIDE), (BESIDE,), 0),
        ((A,), (replace(A, description="new"),), 0),
        ((A,), (replace(A, standbys=3),), 1),
        # The shards of the last table were given up, and their topic is still subscribed to.
        ((), (A,), 1),
        ((A,), (), 0),
    ],
    ids=["more", "less", "description", "standbys", "first", "last"],
)
def test_a_rebalance_is_asked_for_where_the_others_have_to_know(
    before: tuple[TableSpec, ...], after: tuple[TableSpec, ...], rebalances: int
) -> None:
    assert Worker(*before).swap(before, after) == rebalances


def test_another_subscription_is_a_rebalance_by_itself() -> None:
    worker = Worker(A)
    worker.subscribes = True
    assert worker.swap((A,), (A, ELSEWHERE)) == 0


def test_where_the_members_had_different_tables_they_hear_of_each_change() -> None:
    worker = Worker(A)
    own = MemberAssignment(actives={}, standbys={})
    worker.membership.assignor.latest = Assignment(
        own, {}, [], {}, {}, [CatalogInUse(["w"], {}), CatalogInUse(["v"], {})]
    )
    assert worker.swap((A,), (A, BESIDE)) == 1
    worker.membership.describe()
    # What does not tell two catalogs apart is no news.
    assert worker.swap((A, BESIDE), (A, replace(BESIDE, description="new"))) == 1
