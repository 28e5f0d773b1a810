"""By which partition count a topic's tables are served, and which of them its growth holds back."""

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.partition_counts import PartitionCounts, settle
from tests.support.several import union


def catalog(**topics: str) -> Catalog:
    return Catalog(
        {
            name: TableSpec(name, SourceSpec(topic, KeySpec("string"), ValueSpec("json")))
            for name, topic in topics.items()
        }
    )


def test_tables_are_built_with_what_their_topic_has() -> None:
    counts = settle(catalog(one="t", two="u"), "g", {"t": 4, "u": 2}, {"g-one-changelog": 4})
    assert counts.shards == {"t": 4, "u": 2}
    assert counts.built == {"g-one-changelog": 4, "g-two-changelog": 2}
    assert counts.held == frozenset()


def test_a_table_goes_on_with_its_own_count_when_its_topic_grows_and_other_topics_do_not_notice() -> None:
    found = {"g-one-changelog": 4, "g-two-changelog": 2}
    counts = settle(catalog(one="t", two="u"), "g", {"t": 6, "u": 2}, found)
    assert (counts.shards, counts.built, counts.held) == ({"t": 4, "u": 2}, found, frozenset())


def test_a_table_with_the_present_count_holds_back_those_of_the_same_topic_that_were_built_before() -> None:
    now = {"t": 6}
    for found in ({"g-one-changelog": 4}, {"g-one-changelog": 4, "g-two-changelog": 6}):
        counts = settle(catalog(one="t", two="t"), "g", now, found)
        assert (counts.shards, counts.held) == (now, frozenset({"one"}))
    counts = settle(catalog(one="t", two="t"), "g", now, {"g-one-changelog": 4, "g-two-changelog": 5})
    assert (counts.shards, counts.held) == ({"t": 5}, frozenset({"one"}))


def test_a_table_goes_on_with_its_own_count_when_its_topic_was_created_again_with_fewer_partitions() -> None:
    counts = settle(catalog(one="t"), "g", {"t": 2}, {"g-one-changelog": 4})
    assert (counts.shards, counts.held) == ({"t": 4}, frozenset())
    counts = settle(catalog(one="t", new="t"), "g", {"t": 2}, {"g-one-changelog": 4})
    assert (counts.shards, counts.held) == ({"t": 2}, frozenset({"one"}))


def test_a_table_whose_topic_has_another_count_is_in_doubt_from_the_start() -> None:
    doubts = Doubts(lambda: None)
    counts = settle(catalog(one="t", two="u"), "g", {"t": 6, "u": 2}, {"g-one-changelog": 4})
    found = PartitionCounts(counts, doubts)
    why = doubts.why("g-one-changelog", "t")
    assert why is not None
    assert "topic t has 6 partitions and the table was built with 4" in why
    assert doubts.why("g-two-changelog", "u") is None
    shared, disagreements = found.agreed({"t": 6, "u": 2, "other": 9})
    assert shared == {"u": 2, "other": 9}
    assert "uses 6 partitions of t and this worker 4" in disagreements["t"]


def test_counts_follow_tables_that_come_and_go_and_what_is_known_of_the_others_stays() -> None:
    doubts = Doubts(lambda: None)
    before = settle(catalog(one="t"), "g", {"t": 6}, {"g-one-changelog": 4})
    found = PartitionCounts(before, doubts)
    both = before.with_more(settle(catalog(two="u"), "g", {"u": 3}, {"g-two-changelog": 2}))
    found.follow(both)
    assert found.shards == {"t": 4, "u": 2}
    assert [doubts.why(f"g-{name}-changelog", topic) is None for name, topic in (("one", "t"), ("two", "u"))] == [
        False,
        False,
    ]
    found.follow(both.only(catalog(two="u"), "g"))
    assert found.shards == {"u": 2}
    assert doubts.why("g-one-changelog", "t") is None
    assert doubts.why("g-two-changelog", "u") is not None


def test_the_counts_of_some_tables_keep_those_that_are_held_back_alone() -> None:
    tables = catalog(one="t", two="t", three="u")
    counts = settle(tables, "g", {"t": 6, "u": 2}, {"g-one-changelog": 4})
    assert counts.held == {"one"}
    without = counts.only(catalog(two="t"), "g")
    assert (without.shards, without.built, without.held) == ({"t": 6}, {"g-two-changelog": 6}, frozenset())
    assert counts.only(tables, "g") == counts


def test_a_table_of_several_topics_is_in_doubt_once_any_of_them_has_another_count() -> None:
    doubts = Doubts(lambda: None)
    tables = Catalog({"sales": union("sales", "orders", "refunds")})
    counts = settle(tables, "g", {"orders": 4, "refunds": 4}, {"g-sales-changelog": 4})
    assert (counts.shards, counts.held) == ({"orders": 4}, frozenset())
    found = PartitionCounts(counts, doubts)
    assert doubts.why("g-sales-changelog", "orders, refunds") is None
    found.follow(settle(tables, "g", {"orders": 4, "refunds": 6}, {"g-sales-changelog": 4}))
    assert doubts.why("g-sales-changelog", "orders, refunds") is None, "what is known of topics in use stays"
    PartitionCounts(settle(tables, "g", {"orders": 4, "refunds": 6}, {"g-sales-changelog": 4}), doubts)
    why = doubts.why("g-sales-changelog", "orders, refunds")
    assert why is not None
    assert why.startswith("topic refunds has 6 partitions and the table was built with 4")
