"""A group without Kafka: members whose copies advance, and the placement of one generation after the other."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tablehouse.placement.assign import place
from tablehouse.placement.wire import MemberAssignment, MemberMetadata

Shard = tuple[str, int]


def shards_of(topics: Mapping[str, Iterable[int]]) -> set[Shard]:
    """Return the shards of an assignment's part."""
    return {(topic, partition) for topic, partitions in topics.items() for partition in partitions}


def owners(placed: Mapping[str, MemberAssignment]) -> dict[Shard, str]:
    """Return the active of each shard."""
    return {shard: member for member, mine in placed.items() for shard in shards_of(mine.actives)}


def settled(placed: Mapping[str, MemberAssignment]) -> dict[Shard, str]:
    """Return each shard's active when all that is warmed up will have caught up."""
    return owners(placed) | {shard: member for member, mine in placed.items() for shard in shards_of(mine.warming)}


def _by_topic(shards: Iterable[Shard]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(shards):
        topics.setdefault(topic, []).append(partition)
    return topics


@dataclass
class Member:
    """A worker: its copies on disk with their positions, and what it was assigned."""

    worker: str
    zone: str = ""
    incarnation: int = 1
    copies: dict[Shard, int] = field(default_factory=dict)
    actives: set[Shard] = field(default_factory=set)
    standbys: set[Shard] = field(default_factory=set)
    warming: set[Shard] = field(default_factory=set)

    @property
    def open(self) -> set[Shard]:
        """The shards that it can answer reads of; what was assigned to it and has no copy yet is still to be opened."""
        return (self.actives | self.standbys) & self.copies.keys()

    def describe(self) -> MemberMetadata:
        """Return what it says of itself when it joins."""
        positions: dict[str, dict[int, int]] = {}
        for (topic, partition), position in self.copies.items():
            positions.setdefault(topic, {})[partition] = position
        return MemberMetadata(
            self.worker,
            self.incarnation,
            f"http://{self.worker}:9080",
            "",
            positions,
            zone=self.zone,
            actives=_by_topic(self.actives),
            standbys=_by_topic(self.standbys),
            warming=_by_topic(self.warming),
        )


@dataclass
class Group:
    """Members by id, and the end of each shard's source."""

    topics: dict[str, int]
    standbys: dict[str, int]
    acceptable_lag: int
    ends: dict[Shard, int]
    members: dict[str, Member] = field(default_factory=dict)

    def described(self) -> dict[str, MemberMetadata]:
        """Return what every member says of itself."""
        return {name: member.describe() for name, member in self.members.items()}

    def placed(self) -> Mapping[str, MemberAssignment]:
        """Place and change nothing."""
        return place(self.described(), self.topics, self.standbys, self.acceptable_lag)

    def rebalance(self) -> Mapping[str, MemberAssignment]:
        """Place, and hand out what was placed; what is closed stays on disk, what is new is not there yet."""
        placed = self.placed()
        for name, mine in placed.items():
            member = self.members[name]
            member.actives, member.standbys = shards_of(mine.actives), shards_of(mine.standbys)
            member.warming = shards_of(mine.warming)
        return placed

    def catch_up(self) -> None:
        """Let every copy in use reach the end of its source."""
        for member in self.members.values():
            for shard in member.actives | member.standbys:
                member.copies[shard] = self.ends[shard]

    def come_to_rest(self, rounds: int = 20) -> int:
        """Rebalance and catch up until nothing is warmed up; return how often, or raise when that does not end."""
        for number in range(rounds):
            placed = self.rebalance()
            self.catch_up()
            if not any(mine.warming for mine in placed.values()):
                return number
        raise AssertionError(f"something is still warmed up after {rounds} rebalances")

    def furthest(self, shard: Shard) -> int:
        """Return the highest position of any member."""
        return max((member.copies.get(shard, -1) for member in self.members.values()), default=-1)

    def has_caught_up(self, name: str, shard: Shard) -> bool:
        """Say whether a member could be the active at once."""
        return self.members[name].copies.get(shard, -1) >= self.furthest(shard) - self.acceptable_lag


def random_group(chance: random.Random, *, zones: int = 1, small: bool = False) -> Group:
    """Make a group in which anybody may have any copy, however far behind, and some say what they owned before."""
    topics = {topic: chance.randint(1, 12) for topic in "abc"[: chance.randint(1, 3)]}
    every = [(topic, partition) for topic, count in topics.items() for partition in range(count)]
    ends = {shard: chance.choice([0, 50, 5_000] if small else [-1, 50, 5_000, 10**6]) for shard in every}
    group = Group(topics, {topic: chance.choice([0, 1, 1, 1, 2, 3]) for topic in topics}, 100, ends)
    for number in range(chance.randint(1, 7)):
        add(group, f"m{number}", chance, zones)
    dense = chance.random()
    for shard in every:
        for member in group.members.values():
            if chance.random() < dense:
                lag = chance.choice([0, 0, 0, 60, 1_000, ends[shard] + 1])
                member.copies[shard] = max(-1, ends[shard] - lag)
        if chance.random() < 0.7:
            chance.choice(list(group.members.values())).actives.add(shard)
    return group


def add(group: Group, name: str, chance: random.Random, zones: int = 1) -> None:
    """Let a member join that has nothing."""
    group.members[name] = Member(f"w{name}", zone=f"zone-{chance.randrange(zones)}")


def loads(where: Mapping[Shard, str], members: Iterable[str], topic: str | None = None) -> Counter[str]:
    """Count the shards of each member, of a topic or in all."""
    counted = Counter(dict.fromkeys(members, 0))
    counted.update(member for shard, member in where.items() if topic is None or shard[0] == topic)
    return counted


def apart(counted: Mapping[str, int]) -> int:
    """Return by how much the fullest member exceeds the emptiest."""
    return max(counted.values()) - min(counted.values())
