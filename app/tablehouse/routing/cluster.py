"""The owners of all partitions, as one immutable snapshot per generation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from tablehouse.model import HostInfo, ShardId


class Placed(Protocol):
    """One worker as the assignor's distribution describes it: its partitions are by shard name."""

    @property
    def worker_id(self) -> str:
        """The worker's id."""

    @property
    def incarnation(self) -> int:
        """The number of its process's start."""

    @property
    def url(self) -> str:
        """Its internal listener, as peers reach it."""

    @property
    def actives(self) -> Mapping[str, Sequence[int]]:
        """The partitions that it owns."""

    @property
    def standbys(self) -> Mapping[str, Sequence[int]]:
        """The partitions that it follows."""


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The whole distribution of one generation.

    generation is the consumer group's, -1 before the first assignment. partitions are partition counts by
    shard name, as the group's leader read them: keys are hashed with these, so that all workers hash
    alike. differences are what differs in the tables.yaml of other workers from that of this one, in words, by their
    ids. former are the last workers that held a shard, as long as none of them is in the group: their copies may
    still answer while new ones are built.
    """

    generation: int
    members: tuple[HostInfo, ...]
    actives: Mapping[ShardId, HostInfo]
    standbys: Mapping[ShardId, tuple[HostInfo, ...]]
    partitions: Mapping[str, int]
    differences: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    former: Mapping[ShardId, tuple[HostInfo, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def holders(self, shard: ShardId) -> tuple[HostInfo, ...]:
        """Return the workers that have a copy of a shard, the active first."""
        active, standbys = self.actives.get(shard), self.standbys.get(shard, ())
        return standbys if active is None else (active, *standbys)


#: What a worker knows before its first assignment.
NO_CLUSTER = ClusterSnapshot(-1, (), MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def snapshot_of(
    generation: int,
    partitions: Mapping[str, int],
    members: Iterable[Placed],
    differences: Mapping[str, str] = MappingProxyType({}),
) -> ClusterSnapshot:
    """Turn a distribution around: from workers and their partitions to partitions and their workers."""
    hosts: list[HostInfo] = []
    actives: dict[ShardId, HostInfo] = {}
    standbys: dict[ShardId, tuple[HostInfo, ...]] = {}
    for member in members:
        host = HostInfo(member.worker_id, member.incarnation, member.url)
        hosts.append(host)
        for shard in shards_of(member.actives):
            actives[shard] = host
        for shard in shards_of(member.standbys):
            standbys[shard] = (*standbys.get(shard, ()), host)
    return ClusterSnapshot(
        generation,
        tuple(hosts),
        MappingProxyType(actives),
        MappingProxyType(standbys),
        MappingProxyType(dict(partitions)),
        MappingProxyType(dict(differences)),
    )


def shards_of(by_name: Mapping[str, Sequence[int]]) -> Iterable[ShardId]:
    """Return the shards of a distribution, which gives partitions by name."""
    return (ShardId(name, partition) for name, numbers in by_name.items() for partition in numbers)


class ClusterView:
    """Where the current snapshot is found; a request takes it once and keeps what it took."""

    def __init__(self) -> None:
        self._current = NO_CLUSTER

    @property
    def current(self) -> ClusterSnapshot:
        """The snapshot of the latest assignment, NO_CLUSTER before the first."""
        return self._current

    def swap(self, snapshot: ClusterSnapshot) -> None:
        """Make `snapshot` the one that later requests use; what it says of former holders is found out here."""
        self._current = replace(snapshot, former=_former_holders(self._current, snapshot))


def _former_holders(before: ClusterSnapshot, now: ClusterSnapshot) -> Mapping[ShardId, tuple[HostInfo, ...]]:
    """Return the last holders of the shards of which no holder is in the group now.

    Brokers that were away for longer than a session have forgotten every member. Those that are back first get all
    shards, while the copies of the others are as good as before.
    """
    present = {member.worker_id for member in now.members}
    if not before.former and present.issuperset(member.worker_id for member in before.members):
        return MappingProxyType({})
    former: dict[ShardId, tuple[HostInfo, ...]] = {}
    for shard in {*before.actives, *before.standbys, *before.former}:
        holders = before.former.get(shard) or before.holders(shard)
        is_lost = present.isdisjoint(host.worker_id for host in holders)
        # Under another partition count the same shard has other keys.
        if is_lost and before.partitions.get(shard.name) == now.partitions.get(shard.name):
            former[shard] = holders
    return MappingProxyType(former)
