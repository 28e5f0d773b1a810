"""Where shards go when a worker dies, joins or comes back, beside stock Faust; and what an assignment costs.

`python -m bench.placement` simulates it, without Kafka, in a few seconds, and prints the tables of README.md.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.cluster_assignment import ClusterAssignment
from faust.assignor.copartitioned_assignor import CopartitionedAssignor

from tablehouse.placement.assign import assignments, place
from tablehouse.placement.wire import (
    MemberAssignment,
    MemberMetadata,
    decode_metadata,
    encode_assignments,
    encode_metadata,
)

#: Members, partitions and standbys a partition.
SIZES = ((3, 12, 1), (5, 60, 1), (10, 256, 1), (3, 12, 2))

#: Where every source ends, far beyond what may be lacking.
_END = 1_000_000_000
_ACCEPTABLE_LAG = 10_000
_TOPIC = "source"
_CHANGELOG = "changelog"
_ROUNDS = 5

#: Groups simulated of each size, the same for both assignors.
_GROUPS = 10


class Cluster(Protocol):
    """A group under one of the two assignors, in which all that is assigned has caught up."""

    def assign(self, members: Iterable[str]) -> None:
        """Make these the members, and go on to where nothing more is to be assigned."""

    def at_once(self, members: Iterable[str]) -> dict[int, str]:
        """Return each partition's active in the first assignment to these members, and change nothing."""

    def actives(self) -> dict[int, str]:
        """Return each partition's active now."""

    def warm(self, member: str) -> set[int]:
        """Return the partitions of which a member has a copy in use."""

    def restarted(self, member: str) -> dict[int, str]:
        """Return each partition's active in the first assignment after a member's process was started again.

        The group has gone on without it, and it has what was on its disk, which is not recent.
        """


@dataclass
class Stock:
    """Faust's CopartitionedAssignor, fed as PartitionAssignor._perform_assignment does."""

    partitions: int
    standbys: int
    _held: dict[str, ClientAssignment] = field(default_factory=dict)

    def assign(self, members: Iterable[str]) -> None:
        """Assign once: it takes nothing further into account."""
        self._held = self._assigned(members)

    def at_once(self, members: Iterable[str]) -> dict[int, str]:
        """Assign without keeping it."""
        return self._owners(self._assigned(members))

    def actives(self) -> dict[int, str]:
        """Read the actives out of what was assigned."""
        return self._owners(self._held)

    def warm(self, member: str) -> set[int]:
        """Read actives and standbys."""
        held = self._held[member]
        return {*held.actives.get(_TOPIC, ()), *held.standbys.get(_TOPIC, ())}

    def restarted(self, member: str) -> dict[int, str]:
        """Go on without the member, then assign with it again."""
        before = self._held
        self._held = self._assigned(other for other in before if other != member)
        owners = self.at_once([*self._held, member])
        self._held = before
        return owners

    def _assigned(self, members: Iterable[str]) -> dict[str, ClientAssignment]:
        topics = {_TOPIC, _CHANGELOG}
        cluster = ClusterAssignment()
        for member in sorted(members):
            held = self._held.get(member, ClientAssignment(actives={}, standbys={}))
            metadata = ClientMetadata(assignment=held, url=f"http://{member}", changelog_distribution={})
            cluster.add_client(member, sorted(topics), metadata)
        placed = {member: ClientAssignment(actives={}, standbys={}) for member in cluster.assignments}
        assignor = CopartitionedAssignor(
            topics=topics,
            cluster_asgn=cluster.copartitioned_assignments(topics),
            num_partitions=self.partitions,
            replicas=self.standbys,
        )
        for member, mine in assignor.get_assignment().items():
            placed[member].add_copartitioned_assignment(mine)
        return placed

    @staticmethod
    def _owners(held: Mapping[str, ClientAssignment]) -> dict[int, str]:
        return {partition: member for member, mine in held.items() for partition in mine.actives.get(_TOPIC, ())}


@dataclass
class Ours:
    """place(), fed with positions: the end of the source for a copy in use, as before for one that is not."""

    partitions: int
    standbys: int
    _held: dict[str, MemberAssignment] = field(default_factory=dict)
    _disks: dict[str, dict[int, int]] = field(default_factory=dict)

    def assign(self, members: Iterable[str]) -> None:
        """Assign, and again for as long as something is warmed up."""
        names = list(members)
        while True:
            self._held = dict(self._assigned(names))
            self._disks = {name: self._disks.get(name, {}) | dict.fromkeys(self.warm(name), _END) for name in names}
            if not any(mine.warming for mine in self._held.values()):
                return

    def at_once(self, members: Iterable[str]) -> dict[int, str]:
        """Assign without keeping it."""
        return self._owners(self._assigned(list(members)))

    def actives(self) -> dict[int, str]:
        """Read the actives out of what was assigned."""
        return self._owners(self._held)

    def warm(self, member: str) -> set[int]:
        """Read actives and standbys."""
        mine = self._held[member]
        return {*mine.actives.get(_TOPIC, ()), *mine.standbys.get(_TOPIC, ())}

    def restarted(self, member: str) -> dict[int, str]:
        """Go on without the member, then assign with what it has on its disk."""
        held, disks = self._held, self._disks
        self.assign(other for other in held if other != member)
        self._disks[member] = dict.fromkeys(disks[member], _END - 100 * _ACCEPTABLE_LAG)
        owners = self.at_once([*self._held, member])
        self._held, self._disks = held, disks
        return owners

    def _assigned(self, members: list[str]) -> Mapping[str, MemberAssignment]:
        described = {
            name: metadata(
                name,
                {_TOPIC: self._disks.get(name, {})},
                self._held.get(name),
            )
            for name in members
        }
        return place(described, {_TOPIC: self.partitions}, {_TOPIC: self.standbys}, _ACCEPTABLE_LAG)

    @staticmethod
    def _owners(held: Mapping[str, MemberAssignment]) -> dict[int, str]:
        return {partition: member for member, mine in held.items() for partition in mine.actives.get(_TOPIC, ())}


def metadata(name: str, positions: dict[str, dict[int, int]], had: MemberAssignment | None = None) -> MemberMetadata:
    """Describe a worker; one that has just started had nothing."""
    url = f"http://{name}.workers.svc:9080"
    if had is None:
        return MemberMetadata(name, 1, url, "0" * 32, positions)
    return MemberMetadata(name, 1, url, "0" * 32, positions, actives=had.actives, standbys=had.standbys)


def started(cluster: Cluster, members: int, chance: random.Random, *, rolling: bool) -> list[str]:
    """Start a group all at once, or one member after the other; return its members.

    Their names are random, as Kafka's member ids are, and assignors go by the order of names.
    """
    names = [f"worker-{chance.getrandbits(32):08x}" for _ in range(members)]
    for count in range(1, members + 1) if rolling else [members]:
        cluster.assign(names[:count])
    return names


@dataclass
class Outcome:
    """Partitions that got another active, in all deaths, joins or restarts of a group, and how many of these were warm.

    disturbed are those of the others that moved with them.
    """

    moved: int = 0
    warm: int = 0
    disturbed: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(self.moved + other.moved, self.warm + other.warm, self.disturbed + other.disturbed)

    def share(self) -> str:
        """Return the warm share of what moved."""
        return "none" if not self.moved else f"{100 * self.warm / self.moved:.0f} %"


def deaths(cluster: Cluster, members: list[str]) -> Outcome:
    """Let each member die, the others unharmed."""
    outcome, before = Outcome(), cluster.actives()
    for dead in members:
        after = cluster.at_once(member for member in members if member != dead)
        for partition, owner in after.items():
            if before[partition] == dead:
                outcome.moved += 1
                outcome.warm += partition in cluster.warm(owner)
            else:
                outcome.disturbed += owner != before[partition]
    return outcome


def join(cluster: Cluster, members: list[str]) -> Outcome:
    """Let a member join that has nothing."""
    outcome, before = Outcome(), cluster.actives()
    for partition, owner in cluster.at_once([*members, "joining"]).items():
        if owner != before[partition]:
            outcome.moved += 1
            outcome.warm += owner != "joining" and partition in cluster.warm(owner)
    return outcome


def restarts(cluster: Cluster, members: list[str]) -> int:
    """Let each member come back after the group has gone on without it; return what it gets before it has caught up."""
    return sum(owner == restarted for restarted in members for owner in cluster.restarted(restarted).values())


def _outcomes(
    kind: type[Stock | Ours], members: int, partitions: int, standbys: int, *, rolling: bool
) -> tuple[str, str, str, str]:
    died, joined, restarted = Outcome(), Outcome(), 0
    for seed in range(_GROUPS):
        cluster: Cluster = kind(partitions, standbys)
        names = started(cluster, members, random.Random(seed), rolling=rolling)  # noqa: S311
        died += deaths(cluster, names)
        joined += join(cluster, names)
        restarted += restarts(cluster, names)
    each = _GROUPS * members
    return (
        died.share(),
        f"{died.disturbed / each:.1f}",
        f"{(joined.moved - joined.warm) / _GROUPS:.1f}",
        f"{restarted / each:.1f}",
    )


def simulate() -> None:
    """Print what becomes of partitions."""
    _say(
        "| members / partitions / standbys | start | failovers that land warm | partitions moved beside them | "
        "partitions on a cold joiner | on a cold restarted worker |"
    )
    _say("|---|---|---|---|---|---|")
    for members, partitions, standbys in SIZES:
        for rolling in (False, True):
            cells = [_outcomes(kind, members, partitions, standbys, rolling=rolling) for kind in (Stock, Ours)]
            both = " | ".join(f"{stock} / {ours}" for stock, ours in zip(*cells, strict=True))
            _say(f"| {members} / {partitions} / {standbys} | {'rolling' if rolling else 'at once'} | {both} |")


def cost(members: int, topics: Mapping[str, int]) -> None:
    """Print the CPU time of assignments to a big group."""
    standbys = dict.fromkeys(topics, 1)
    names = [f"worker-{number:03}" for number in range(members)]

    cold = {name: metadata(name, {}) for name in names}
    rest = {
        name: metadata(
            name, {topic: dict.fromkeys([*mine.actives[topic], *mine.standbys[topic]], _END) for topic in topics}, mine
        )
        for name, mine in place(cold, topics, standbys, _ACCEPTABLE_LAG).items()
    }
    all_of_it = MemberAssignment(actives={topic: list(range(count)) for topic, count in topics.items()}, standbys={})
    everything = {topic: dict.fromkeys(range(count), _END) for topic, count in topics.items()}
    alone = cold | {names[0]: metadata(names[0], everything, all_of_it)}
    groups = {
        "nobody has anything": cold,
        "nothing has changed": rest,
        "one has died": {name: member for name, member in rest.items() if name != names[0]},
        "one joins": rest | {"joining": metadata("joining", {})},
        "one has everything": alone,
        "one had everything": {
            name: metadata(
                name,
                everything
                if name == names[0]
                else {topic: dict.fromkeys(mine.standbys[topic], _END) for topic in topics},
                mine,
            )
            for name, mine in place(alone, topics, standbys, _ACCEPTABLE_LAG).items()
        },
    }
    for case, group in groups.items():
        joins = [encode_metadata(member) for member in group.values()]
        seconds, size = _timed(partial(_assignment, joins, topics, standbys))
        _say(f"| {len(topics)} | {case} | {1000 * seconds:.0f} ms | {(sum(map(len, joins)) + size) / 1024:.0f} KiB |")


def _assignment(joins: list[bytes], topics: Mapping[str, int], standbys: Mapping[str, int]) -> int:
    group = {f"member-{number:03}": decode_metadata(data) for number, data in enumerate(joins)}
    placed = place(group, topics, standbys, _ACCEPTABLE_LAG)
    return sum(map(len, encode_assignments(assignments(group, placed, topics)).values()))


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    taken = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        result = work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken), result


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Print both tables."""
    _say("Each cell: stock Faust / Tablehouse.")
    simulate()
    _say("One assignment, 100 members, 2,000 partitions, one standby:")
    _say("| topics | case | CPU | bytes in the group's record |")
    _say("|---|---|---|---|")
    for topics in (1, 10):
        cost(100, {f"topic-{number}": 2000 // topics for number in range(topics)})


if __name__ == "__main__":
    main()
