from collections import Counter
from collections.abc import Mapping

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.placement.assign import assignments
from tablehouse.placement.assign import place as place_all
from tablehouse.placement.wire import MemberAssignment, MemberMetadata
from tests.support.placement import owners


def member(
    worker: str,
    positions: dict[str, dict[int, int]] | None = None,
    *,
    incarnation: int = 1,
    url: str | None = None,
) -> MemberMetadata:
    return MemberMetadata(
        worker_id=worker,
        incarnation=incarnation,
        url=url or f"http://{worker}:9080",
        catalog_digest="",
        positions=positions or {},
    )


def place(
    members: Mapping[str, MemberMetadata], topics: Mapping[str, int], acceptable_lag: int = 100
) -> Mapping[str, MemberAssignment]:
    return place_all(members, topics, dict.fromkeys(topics, 0), acceptable_lag)


def loads(placed: Mapping[str, MemberAssignment]) -> list[int]:
    return [sum(len(partitions) for partitions in mine.actives.values()) for mine in placed.values()]


def holding(placed: Mapping[str, MemberAssignment], position: int = 5) -> dict[str, dict[str, dict[int, int]]]:
    return {
        member_id: {topic: dict.fromkeys(partitions, position) for topic, partitions in mine.actives.items()}
        for member_id, mine in placed.items()
    }


topic_counts = st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), max_size=3)


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, MemberMetadata], dict[str, int]]:
    topics = draw(topic_counts)
    positions = st.fixed_dictionaries(
        {topic: st.dictionaries(st.integers(0, count), st.integers(-1, 3)) for topic, count in topics.items()},
    )
    members = {
        f"m{number}": member(
            draw(st.sampled_from("pqrstu")),
            draw(positions),
            incarnation=draw(st.integers(1, 3)),
            url=draw(st.sampled_from([None, None, "http://same:9080"])),
        )
        for number in range(draw(st.integers(0, 6)))
    }
    return members, topics


@given(groups())
@settings(max_examples=60, deadline=None)
def test_every_shard_has_one_owner_and_the_order_of_members_does_not_matter(
    group: tuple[dict[str, MemberMetadata], dict[str, int]],
) -> None:
    members, topics = group
    placed = place(members, topics)
    assert placed.keys() == members.keys()
    every = Counter(
        (topic, partition)
        for mine in placed.values()
        for topic, partitions in mine.actives.items()
        for partition in partitions
    )
    expected = {(topic, partition) for topic, count in topics.items() for partition in range(count)}
    assert every == (Counter(expected) if members else Counter())
    assert place(dict(reversed(members.items())), dict(reversed(topics.items()))) == placed
    assert all(not mine.standbys for mine in placed.values())


@given(groups())
@settings(max_examples=60, deadline=None)
def test_loads_differ_by_one_at_most_among_those_that_may_hold_shards(
    group: tuple[dict[str, MemberMetadata], dict[str, int]],
) -> None:
    members, topics = group
    placed = place(members, topics)
    incarnations = {
        m.worker_id: max(o.incarnation for o in members.values() if o.worker_id == m.worker_id)
        for m in members.values()
    }
    living = [m for m in members.values() if m.incarnation == incarnations[m.worker_id]]
    chosen = [load for load in loads(placed) if load]
    if sum(topics.values()) >= len(members) and members:
        assert max(chosen) - min(chosen) <= 1
        workers = {members[member_id].worker_id for member_id, mine in placed.items() if mine.actives}
        urls = [members[member_id].url for member_id, mine in placed.items() if mine.actives]
        assert len(urls) == len(set(urls)) == len(workers)
        assert set(urls) <= {m.url for m in living}


@given(topic_counts, st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_nothing_moves_when_the_same_members_are_placed_again(topics: dict[str, int], count: int) -> None:
    members = {f"m{number}": member(f"w{number}") for number in range(count)}
    first = place(members, topics)
    again = place({key: member(f"w{key[1:]}", held) for key, held in holding(first).items()}, topics)
    assert owners(again) == owners(first)


@given(st.integers(1, 20), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_member_that_joins_takes_its_share_of_a_topic_and_nothing_else_moves(size: int, count: int) -> None:
    members = {f"m{number}": member(f"w{number}") for number in range(count)}
    before = place(members, {"t": size})
    joined = {key: member(f"w{key[1:]}", held) for key, held in holding(before).items()} | {"new": member("x")}
    after = place(joined, {"t": size})
    moved = {shard for shard, owner in owners(after).items() if owner != owners(before)[shard]}
    assert {owners(after)[shard] for shard in moved} <= {"new"}
    assert len(moved) <= -(-size // (count + 1))


@given(st.integers(1, 20), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_when_a_member_leaves_only_its_own_shards_of_a_topic_move(size: int, count: int) -> None:
    members = {f"m{number}": member(f"w{number}") for number in range(count)}
    before = place(members, {"t": size})
    left = {key: member(f"w{key[1:]}", held) for key, held in holding(before).items() if key != "m0"}
    after = place(left, {"t": size})
    assert {
        shard for shard, owner in owners(before).items() if owner != "m0" and owners(after)[shard] != owner
    } == set()


def test_the_holder_with_the_highest_position_gets_the_shard() -> None:
    members = {
        "a": member("w1", {"t": {0: 10, 1: 90}}),
        "b": member("w2", {"t": {0: 11, 1: 80}}),
    }
    assert owners(place(members, {"t": 2}, acceptable_lag=0)) == {("t", 0): "b", ("t", 1): "a"}


def test_a_worker_that_comes_back_gets_what_it_still_holds_rather_than_what_it_never_had() -> None:
    members = {
        "a": member("w1", {"t": dict.fromkeys(range(4), 90)}),
        "b": member("w2", {"t": {0: 70, 1: 70}}),
    }
    assert place(members, {"t": 4})["b"].actives == {"t": [0, 1]}


def test_each_topic_is_spread_when_nobody_holds_anything() -> None:
    placed = place({"a": member("w1"), "b": member("w2")}, {"s": 4, "t": 4})
    assert {len(partitions) for mine in placed.values() for partitions in mine.actives.values()} == {2}


def test_topics_are_shared_with_a_worker_that_joins_when_the_first_had_opened_only_some_of_them() -> None:
    first = member("w1", {topic: dict.fromkeys(range(6), 9) for topic in "ab"})
    placed = place({"a": first, "b": member("w2")}, dict.fromkeys("abcd", 6))
    assert [{topic: len(held) for topic, held in mine.actives.items()} for mine in placed.values()] == [
        dict.fromkeys("abcd", 3),
        dict.fromkeys("abcd", 3),
    ]


def test_a_ghost_of_the_same_worker_gets_nothing() -> None:
    members = {
        "a": member("w1", {"t": {0: 10, 1: 10}}, incarnation=1),
        "b": member("w1", {"t": {0: 9}}, incarnation=2),
    }
    placed = place(members, {"t": 2})
    assert placed["a"].actives == {}
    assert placed["b"].actives == {"t": [0, 1]}


def test_of_two_workers_with_one_url_the_one_without_data_waits() -> None:
    ghost = member("w9", {"t": {0: 10}}, url="http://pod-0:9080")
    pod = member("w1", url="http://pod-0:9080")
    placed = place({"a": pod, "b": ghost}, {"t": 2})
    assert (placed["a"].actives, placed["b"].actives) == ({}, {"t": [0, 1]})
    assert place({"a": pod}, {"t": 2})["a"].actives == {"t": [0, 1]}


def test_of_two_empty_workers_with_one_url_the_later_worker_id_waits() -> None:
    placed = place({"a": member("w2", url="http://x:1"), "b": member("w1", url="http://x:1")}, {"t": 1})
    assert owners(placed) == {("t", 0): "b"}


def test_no_members_and_no_topics_place_nothing() -> None:
    assert place({}, {"t": 3}) == {}
    assert place({"a": member("w1")}, {})["a"].actives == {}


def test_every_member_is_told_its_own_shards_and_everybody_s() -> None:
    members = {"a": member("w1"), "b": member("w2")}
    placed = place(members, {"t": 3})
    messages = assignments(members, placed, {"t": 3})
    assert messages["a"].own == placed["a"]
    assert messages["a"].members == messages["b"].members
    assert [(m.worker_id, m.url, m.actives) for m in messages["b"].members] == [
        ("w1", "http://w1:9080", placed["a"].actives),
        ("w2", "http://w2:9080", placed["b"].actives),
    ]
    assert messages["b"].partitions == {"t": 3}


def test_every_member_learns_what_any_member_knows_of_misplaced_keys() -> None:
    members = {
        "m1": msgspec.structs.replace(member("w1"), misplaced={"a-changelog": (0, 5)}),
        "m2": msgspec.structs.replace(member("w2"), misplaced={"a-changelog": (1, 7), "b-changelog": (2, 9)}),
        "m3": member("w3"),
    }
    messages = assignments(members, place(members, {"t": 3}), {"t": 3})
    assert [message.misplaced for message in messages.values()] == [{"a-changelog": (0, 5), "b-changelog": (2, 9)}] * 3
