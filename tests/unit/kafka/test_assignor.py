from collections.abc import Collection, Mapping
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocol
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.kafka.assignor import TableAssignor
from tablehouse.placement.wire import Assignment, MemberMetadata, decode_assignment, decode_metadata
from tests.support.placement import owners, shards_of

COUNTS = {"flights": 4, "planes": 3, "weather": 2}


class Cluster:
    """What aiokafka knows of the topics."""

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Return the partitions of a topic."""
        return set(range(COUNTS[topic]))


class Worker:
    """A member that reads some topics, and the assignor that it runs."""

    def __init__(
        self, name: str, topics: Collection[str], standbys: Mapping[str, int], incarnation: int = 1, url: str = ""
    ) -> None:
        self.topics = set(topics)
        self.positions: dict[str, dict[int, int]] = {}
        self.name = name
        self.incarnation = incarnation
        self.url = url or f"http://{name}:9080"
        self.counts = {topic: COUNTS[topic] for topic in topics}
        self.standbys = standbys
        self.assignor = TableAssignor(self._describe, lambda: self.counts, lambda: self.standbys, acceptable_lag=10)

    def _describe(self) -> MemberMetadata:
        return MemberMetadata(self.name, self.incarnation, self.url, str(sorted(self.topics)), self.positions)

    def joins(self) -> Any:
        """Return what it sends to the group."""
        return self.assignor.metadata(self.topics)


def rebalance(leader: str, workers: Mapping[str, Worker]) -> dict[str, Assignment]:
    joined = {name: worker.joins() for name, worker in workers.items()}
    assignor = workers[leader].assignor
    admitted = assignor.admit([(name, metadata.encode()) for name, metadata in joined.items()])
    assert [name for name, _ in admitted] == list(workers)
    encoded = assignor.assign(Cluster(), joined)()
    sent = {name: ConsumerProtocol.ASSIGNMENT.decode(data) for name, data in encoded.items()}
    for name, worker in workers.items():
        assert worker.assignor.accept(encoded[name]) == encoded[name]
        assert {(topic, tuple(held)) for topic, held in sent[name].assignment} == {
            (topic, tuple(held)) for topic, held in decode_assignment(sent[name].user_data).own.actives.items()
        }
    return {name: decode_assignment(sent[name].user_data) for name in workers}


def decode_sent(data: bytes) -> Assignment:
    return decode_assignment(ConsumerProtocol.ASSIGNMENT.decode(data).user_data)


def test_a_worker_says_what_it_owned_and_followed_once_it_has() -> None:
    workers = {name: Worker(f"w-{name}", ["flights"], {"flights": 1}) for name in "ab"}
    said = decode_metadata(workers["a"].joins().user_data)
    assert (said.actives, said.standbys) == ({}, {})
    own = rebalance("a", workers)["a"].own
    said = decode_metadata(workers["a"].joins().user_data)
    assert (said.actives, said.standbys) == (own.actives, own.standbys)
    assert shards_of(said.actives) | shards_of(said.standbys) == {("flights", partition) for partition in range(4)}


def test_each_topic_has_its_number_of_standbys_and_every_worker_is_told_of_all_of_them() -> None:
    topics = {"flights": 2, "planes": 0}
    workers = {name: Worker(f"w-{name}", topics, topics) for name in "abc"}
    told = rebalance("b", workers)
    assert told["a"].members == told["b"].members == told["c"].members
    copies = [shard for member in told["a"].members for shard in shards_of(member.standbys)]
    assert {shard: copies.count(shard) for shard in copies} == {("flights", partition): 2 for partition in range(4)}


def test_a_ghost_gets_nothing_of_a_topic_that_its_worker_reads_no_more() -> None:
    old, new = {"flights": 1, "weather": 1}, {"flights": 1}
    workers = {
        "ghost": Worker("w1", old, old),
        "back": Worker("w1", new, new, incarnation=2),
        "other": Worker("w2", new, new),
    }
    told = rebalance("other", workers)
    assert not shards_of(told["ghost"].own.actives) | shards_of(told["ghost"].own.standbys)
    assert owners({name: assignment.own for name, assignment in told.items()}).keys() == {
        ("flights", partition) for partition in range(4)
    }


def test_one_of_two_workers_with_one_url_gets_nothing_whatever_topics_it_reads() -> None:
    old, new = {"flights": 1, "weather": 1}, {"flights": 1}
    workers = {
        "first": Worker("w1", old, old, url="http://same:9080"),
        "second": Worker("w2", new, new, url="http://same:9080"),
    }
    workers["second"].positions = {"flights": {0: 5, 1: 5}}
    told = rebalance("first", workers)
    assert not shards_of(told["first"].own.actives)
    assert len(shards_of(told["second"].own.actives)) == COUNTS["flights"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00",
        b"garbage",
        b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x00\x7f\xff\xff\xff",
        b"\x00\x00\x00\x00\x00\x01\x00\x02\xe9\xe9\x00\x00\x00\x00",
    ],
)
def test_bytes_that_are_no_metadata_take_nothing_from_the_others(sent: bytes) -> None:
    topics = {"flights": 1}
    worker = Worker("w1", topics, topics)
    admitted = worker.assignor.admit([("a", worker.joins().encode()), ("stranger", None, sent)])
    assert [member for member, *_ in admitted] == ["a"]
    told = {name: decode_sent(data) for name, data in worker.assignor.assign(Cluster(), {})().items()}
    assert shards_of(told["a"].own.actives) == {("flights", partition) for partition in range(4)}
    assert shards_of(told["stranger"].own.actives) == set()
    assert list(told["a"].left_out) == list(told["stranger"].left_out) == ["stranger"]


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Worker]:
    """Members of which some are ghosts, some share a URL, and each reads topics of its own."""
    topics = st.sets(st.sampled_from(sorted(COUNTS)), min_size=1)
    return {
        f"m{number}": Worker(
            draw(st.sampled_from("pqrs")),
            draw(topics),
            dict.fromkeys(COUNTS, 1),
            incarnation=draw(st.integers(1, 3)),
            url=draw(st.sampled_from(["", "", "http://same:9080"])),
        )
        for number in range(draw(st.integers(1, 6)))
    }


@given(rollouts())
@settings(max_examples=100, deadline=None)
def test_shards_are_given_to_one_process_of_a_worker_and_of_a_url_whatever_each_reads(
    workers: dict[str, Worker],
) -> None:
    told = rebalance("m0", workers)
    given_to = {name: shards_of(mine.own.actives) | shards_of(mine.own.standbys) for name, mine in told.items()}
    holders = [worker for name, worker in workers.items() if given_to[name]]
    assert holders
    newest: dict[str, int] = {}
    for worker in workers.values():
        newest[worker.name] = max(worker.incarnation, newest.get(worker.name, 0))
    assert all(worker.incarnation == newest[worker.name] for worker in holders)
    assert len({worker.name for worker in holders}) == len({worker.url for worker in holders}) == len(holders)
    placed = owners({name: assignment.own for name, assignment in told.items()})
    read = frozenset().union(*(worker.topics for worker in holders))
    assert placed.keys() == {(topic, partition) for topic in read for partition in range(COUNTS[topic])}


def test_while_tables_are_rolled_out_each_topic_stays_with_its_readers_standbys_included() -> None:
    old = {"flights": 1, "planes": 1}
    new = {"flights": 1, "weather": 1}
    workers = {
        "old-1": Worker("w1", old, old),
        "old-2": Worker("w2", old, old),
        "new-1": Worker("w3", new, new),
        "new-2": Worker("w4", new, new),
    }
    for leader in ("old-1", "new-1"):
        told = rebalance(leader, workers)
        own = {name: assignment.own for name, assignment in told.items()}
        assert owners(own).keys() == {(topic, n) for topic, count in COUNTS.items() for n in range(count)}
        for name, mine in own.items():
            assert {topic for topic, _ in shards_of(mine.actives) | shards_of(mine.standbys)} <= workers[name].topics
            assert not shards_of(mine.actives) & shards_of(mine.standbys)
        following = sorted(shard for mine in own.values() for shard in shards_of(mine.standbys))
        assert following == sorted(owners(own))


def test_who_is_beyond_the_acceptable_lag_is_told_what_it_is_warmed_up_for() -> None:
    topics = {"flights": 1}
    workers = {"a": Worker("w1", topics, topics), "b": Worker("w2", topics, topics)}
    workers["a"].positions = {"flights": dict.fromkeys(range(4), 1_000)}
    own = rebalance("a", workers)["b"].own
    assert own.actives == {}
    assert len(own.warming["flights"]) == 2
    assert decode_metadata(workers["b"].joins().user_data).warming == own.warming
    workers["b"].positions = {"flights": dict.fromkeys(range(4), 990)}
    own = rebalance("a", workers)["b"].own
    assert len(own.actives["flights"]) == 2
    assert own.warming == {}


def test_a_worker_that_gets_other_topics_while_it_runs_is_placed_by_them_and_by_their_standbys() -> None:
    workers = {name: Worker(f"w-{name}", ["flights", "planes"], {"flights": 0, "planes": 0}) for name in "ab"}
    rebalance("a", workers)
    for worker in workers.values():
        worker.topics = {"flights", "weather"}
        worker.counts = {topic: COUNTS[topic] for topic in worker.topics}
        worker.standbys = {"flights": 0, "weather": 1}
    own = {name: told.own for name, told in rebalance("a", workers).items()}
    assert owners(own).keys() == {(topic, n) for topic in ("flights", "weather") for n in range(COUNTS[topic])}
    following = sorted(shard for mine in own.values() for shard in shards_of(mine.standbys))
    assert following == [("weather", 0), ("weather", 1)]


def test_a_leader_that_got_a_topic_after_it_had_joined_does_not_place_it_before_somebody_reads_it() -> None:
    workers = {name: Worker(f"w-{name}", ["flights"], {"flights": 0}) for name in "ab"}
    workers["a"].counts = {"flights": 4, "planes": 3}
    told = rebalance("a", workers)
    assert told["a"].partitions == {"flights": 4}


def test_an_assignment_of_a_topic_that_this_worker_reads_no_more_is_refused() -> None:
    workers = {"a": Worker("w-a", ["flights", "planes"], {})}
    joined = workers["a"].joins()
    assignor = workers["a"].assignor
    assignor.admit([("a", joined.encode())])
    encoded = assignor.assign(Cluster(), {"a": joined})()
    workers["a"].counts = {"flights": 4}
    assignor.accept(encoded["a"])
    assert "partitions of topics that it does not read: planes" in str(assignor.refused)
