"""Assigns shards to workers: a pure function of the members' metadata.

Rules, in order of priority:

- Ghosts, and all but one of several workers with the same URL, get nothing (eligible.py).
- Every shard has an active, on a member that has caught up with the most advanced copy (copies.py). If another member
  should have it for balance, that one is warmed up first: it gets a standby in addition to the configured number, and
  becomes the active in the assignment after it has caught up. Until then members may have more actives than their
  share.
- Actives stay where they were, except for balance: each topic, since topics differ in traffic, and all topics together
  are balanced to within one shard per member, counting warmed-up shards at their target (actives.py).
- A shard has the configured number of standbys, or one on each other member if there are fewer (standbys.py).
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
    """Assign every shard to its members; the result has every member id, including those that get nothing.

    members are by Kafka's member id, partitions and standbys are partition counts and numbers of standbys per shard,
    by shard name. A member at most acceptable_lag records behind has caught up. The same arguments give the same result
    on every worker, regardless of the order of the mappings.
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
    """Return the message for each member id: its own part, the whole distribution, and the excluded members."""
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
