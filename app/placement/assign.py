"""Which worker gets which shard: a pure function over what the members say of themselves.

Rules, in the order of their weight:

- A ghost gets nothing: of several members with one worker id only the highest incarnation counts (and of
  equal incarnations, which a copied data directory makes, the lowest member id).
- Of several worker ids with one URL only one counts, the one that holds the most shards, because peers
  would reach one process under both names; of equals the lower worker id. The other waits until that one
  has left the group.
- Loads differ by one shard at most, over the shards of all topics together.
- A shard goes to the holder with the highest position while that holder has room, else to the next best
  holder, else to the member with the least of its topic. Topics differ in traffic, so a holder keeps more than
  its fair part of one topic only where no shard of another topic needs the room.

Standbys are in the format and are not placed yet.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from app.model import TopicPartition
from app.placement.wire import Assignment, MemberAssignment, MemberMetadata, PlacedMember


def place(
    members: Mapping[str, MemberMetadata],
    partitions: Mapping[str, int],
) -> Mapping[str, MemberAssignment]:
    """Give every shard to one member; the result has every member id, those that get nothing included.

    members are by Kafka's member id, partitions are partition counts by source topic. The same arguments
    give the same result on every worker, whatever the order of the mappings.
    """
    eligible = _eligible(members)
    shards = [
        TopicPartition(topic, partition)
        for partition in range(max(partitions.values(), default=0))
        for topic in sorted(partitions)
        if partition < partitions[topic]
    ]
    taken: dict[str, list[TopicPartition]] = {member: [] for member in members}
    if eligible:
        for shard, member in _owners(members, eligible, shards).items():
            taken[member].append(shard)
    return {member: MemberAssignment(actives=_by_topic(mine), standbys={}) for member, mine in taken.items()}


def assignments(
    members: Mapping[str, MemberMetadata],
    placed: Mapping[str, MemberAssignment],
    partitions: Mapping[str, int],
) -> Mapping[str, Assignment]:
    """Make the message for each member id: its own part, and the whole distribution."""
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
    counts = dict(partitions)
    misplaced: dict[str, tuple[int, int]] = {}
    for member in sorted(members):
        misplaced = {**members[member].misplaced, **misplaced}
    return {
        member: Assignment(own=placed[member], partitions=counts, members=everybody, misplaced=misplaced)
        for member in sorted(members)
    }


def _eligible(members: Mapping[str, MemberMetadata]) -> list[str]:
    """Choose the member ids that may hold shards, ordered by worker id."""
    by_worker: dict[str, str] = {}
    for member in sorted(members):
        rival = by_worker.get(members[member].worker_id)
        if rival is None or members[member].incarnation > members[rival].incarnation:
            by_worker[members[member].worker_id] = member
    by_url: dict[str, str] = {}
    for worker in sorted(by_worker):
        member = by_worker[worker]
        rival = by_url.get(members[member].url)
        if rival is None or _held(members[member]) > _held(members[rival]):
            by_url[members[member].url] = member
    return sorted(by_url.values(), key=lambda member: members[member].worker_id)


def _held(metadata: MemberMetadata) -> int:
    return sum(len(positions) for positions in metadata.positions.values())


class _Plan:
    """Owners chosen so far, and what room that leaves each member: in all, and for its fair part of a topic."""

    def __init__(self, shards: list[TopicPartition], room: dict[str, int]) -> None:
        self.owners: dict[TopicPartition, str] = {}
        self._room = room
        self._of_topic: Counter[tuple[str, str]] = Counter()
        sizes = Counter(shard.topic for shard in shards)
        self._fair = {topic: -(-size // len(room)) for topic, size in sizes.items()}

    def give(self, shard: TopicPartition, candidates: Iterable[str], *, fairly: bool) -> None:
        """Give a shard that has no owner to the first candidate with room for it; to nobody if none has."""
        if shard in self.owners:
            return
        for member in candidates:
            if self._room[member] and (not fairly or self._of_topic[member, shard.topic] < self._fair[shard.topic]):
                self.owners[shard] = member
                self._room[member] -= 1
                self._of_topic[member, shard.topic] += 1
                return

    def least(self, topic: str) -> list[str]:
        """Order the members by how little of this topic they have, equals by most room."""
        return sorted(self._room, key=lambda member: (self._of_topic[member, topic], -self._room[member]))


def _owners(
    members: Mapping[str, MemberMetadata],
    eligible: list[str],
    shards: list[TopicPartition],
) -> dict[TopicPartition, str]:
    """Choose an owner for each shard; eligible is not empty."""
    holders = {shard: _holders(members, eligible, shard) for shard in shards}
    preferred: dict[str, list[TopicPartition]] = {member: [] for member in eligible}
    for shard in shards:
        if holders[shard]:
            preferred[holders[shard][0]].append(shard)
    plan = _Plan(shards, _capacities(preferred, eligible, len(shards)))

    for member in eligible:
        # What nobody else holds stays first: another worker would have to restore it from nothing.
        for shard in sorted(preferred[member], key=lambda shard: len(holders[shard]) > 1):
            plan.give(shard, [member], fairly=True)
    for shard in shards:
        plan.give(shard, holders[shard], fairly=True)
    for shard in sorted(shards):  # topic by topic, which is what shares each of them evenly from the start
        if not holders[shard]:
            plan.give(shard, plan.least(shard.topic), fairly=False)
    for shard in shards:
        plan.give(shard, holders[shard], fairly=False)
    for shard in shards:
        plan.give(shard, plan.least(shard.topic), fairly=False)
    return plan.owners


def _holders(members: Mapping[str, MemberMetadata], eligible: list[str], shard: TopicPartition) -> list[str]:
    """List the members that hold a shard, the highest position first, equals by worker id."""
    held = {
        member: position
        for member in eligible
        if (position := members[member].positions.get(shard.topic, {}).get(shard.partition)) is not None
    }
    return sorted(held, key=lambda member: -held[member])


def _capacities(
    preferred: Mapping[str, list[TopicPartition]],
    eligible: list[str],
    shards: int,
) -> dict[str, int]:
    """Split the shards evenly; the odd ones are room for those who would otherwise have to give one away."""
    share, odd = divmod(shards, len(eligible))
    neediest = sorted(eligible, key=lambda member: -len(preferred[member]))[:odd]
    return {member: share + (member in neediest) for member in eligible}


def _by_topic(shards: list[TopicPartition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(shards):
        topics.setdefault(topic, []).append(partition)
    return topics
