"""Which worker gets which shard: a pure function over what the members say of themselves.

Rules, in the order of their weight:

- Ghosts, and all but one of the workers with one URL, get nothing (eligible.py).
- Every shard has an active, on a member that has caught up with the furthest copy of it (copies.py). Where the balance
  wants it on another member, that one is warmed up first: it gets a standby beyond the number asked for, and the
  assignment after it has caught up makes it the active. So members may have more actives than their part meanwhile.
- Actives stay where they were, but for the balance: each topic, since topics differ in traffic, and all topics together
  are shared out to within one shard a member, counting what is warmed up where it is to go (actives.py).
- A shard has as many standbys as asked for, or one on each other member where these are fewer (standbys.py).
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tablehouse.model import ShardId
from tablehouse.placement.actives import place_actives
from tablehouse.placement.catalogs import in_use
from tablehouse.placement.copies import Copies
from tablehouse.placement.eligible import eligible
from tablehouse.placement.standbys import place_standbys
from tablehouse.placement.wire import Assignment, MemberAssignment, MemberMetadata, PlacedMember


def place(
    members: Mapping[str, MemberMetadata],
    partitions: Mapping[str, int],
    standbys: Mapping[str, int],
    acceptable_lag: int,
) -> Mapping[str, MemberAssignment]:
    """Give every shard to its members; the result has every member id, those that get nothing included.

    members are by Kafka's member id, partitions are partition counts by shard name, standbys how many a shard of
    each name should have. Who lacks no more than acceptable_lag records has caught up. The same arguments give the
    same result on every worker, whatever the order of the mappings.
    """
    chosen = eligible(members)
    if not chosen:
        return {member: MemberAssignment(actives={}, standbys={}) for member in members}
    copies = Copies([members[member] for member in chosen], partitions, acceptable_lag)
    owners, warming = place_actives(copies)
    kept = place_standbys(copies, owners, warming, [standbys[topic] for topic in copies.topics])
    actives: dict[str, list[ShardId]] = {member: [] for member in members}
    following: dict[str, list[ShardId]] = {member: [] for member in members}
    warmed: dict[str, list[ShardId]] = {member: [] for member in members}
    for number, shard in enumerate(copies.shards):
        actives[chosen[owners[number]]].append(shard)
        for member in kept[number]:
            following[chosen[member]].append(shard)
        if number in warming:
            following[chosen[warming[number]]].append(shard)
            warmed[chosen[warming[number]]].append(shard)
    return {
        member: MemberAssignment(
            actives=_by_name(actives[member]),
            standbys=_by_name(following[member]),
            warming=_by_name(warmed[member]),
        )
        for member in members
    }


def assignments(
    members: Mapping[str, MemberMetadata],
    placed: Mapping[str, MemberAssignment],
    partitions: Mapping[str, int],
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Assignment]:
    """Make the message for each member id: its own part, the whole distribution, and the members left out of it."""
    everybody = [
        PlacedMember(
            worker_id=members[member].worker_id,
            incarnation=members[member].incarnation,
            url=members[member].url,
            actives=placed[member].actives,
            standbys=placed[member].standbys,
        )
        for member in sorted(members)
    ]
    counts, unused = dict(partitions), dict(left_out)
    misplaced: dict[str, tuple[int, int]] = {}
    for member in sorted(members):
        misplaced = {**members[member].misplaced, **misplaced}
    catalogs = in_use(members)
    return {
        member: Assignment(
            own=placed[member],
            partitions=counts,
            members=everybody,
            misplaced=misplaced,
            left_out=unused,
            catalogs=catalogs,
        )
        for member in sorted(members)
    }


def _by_name(shards: Iterable[ShardId]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for name, partition in shards:
        named.setdefault(name, []).append(partition)
    return named
