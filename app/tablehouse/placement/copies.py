"""What the members say they hold of each shard, by number: members and shards are indices everywhere in placement.

A topic is here what shards of one name have in common; that of a plain table is its source topic.
"""

from collections.abc import Iterable, Mapping, Sequence

from tablehouse.model import ShardId
from tablehouse.placement.wire import MemberMetadata

#: The position of an empty copy, and of one that is not there.
EMPTY = -1


class Copies:
    """The copies of every shard, and who of the members has caught up with the furthest.

    A member has caught up when at most `acceptable_lag` records lie between its position and the highest that any
    member reports. A member without a copy counts as being before the first record, so where there is no more than
    that to restore, or nothing at all, every member has caught up. After a failover only standbys have, where any
    has: they answer reads while they take over, and a store that has yet to be opened cannot.
    """

    def __init__(self, described: Sequence[MemberMetadata], partitions: Mapping[str, int], acceptable_lag: int) -> None:
        self.members = range(len(described))
        self.zones = [metadata.zone for metadata in described]
        self.topics = sorted(partitions)
        self.shards = [ShardId(topic, partition) for topic in self.topics for partition in range(partitions[topic])]
        self.topic_of = [number for number, topic in enumerate(self.topics) for _ in range(partitions[topic])]
        #: By topic, its shards.
        self.of_topic: list[range] = []
        #: By shard, the position of each member that has a copy.
        self.positions: list[dict[int, int]] = [{} for _ in self.shards]
        #: By topic and member, the shards of which the member has a copy.
        self.held: list[list[list[int]]] = [[[] for _ in described] for _ in self.topics]
        #: By shard, the members that say they were its active.
        self.before: list[list[int]] = [[] for _ in self.shards]
        #: By shard, the members that have it open: they could answer reads now.
        self.open: list[set[int]] = [set() for _ in self.shards]
        #: By shard, the members that were to become its active.
        self.warming: list[set[int]] = [set() for _ in self.shards]
        for number, topic in enumerate(self.topics):
            first = self.of_topic[-1].stop if self.of_topic else 0
            self.of_topic.append(range(first, first + partitions[topic]))
            for member, metadata in enumerate(described):
                self._note(number, member, metadata)
        self._furthest = [max(held.values(), default=EMPTY) for held in self.positions]
        self._enough = [furthest - acceptable_lag for furthest in self._furthest]
        self._open_only = [False for _ in self.shards]
        for shard, members in enumerate(self.open):
            able = [member for member in members & self.positions[shard].keys() if self.caught_up(shard, member)]
            self._open_only[shard] = bool(able) and not any(member in able for member in self.before[shard])

    def _note(self, topic: int, member: int, metadata: MemberMetadata) -> None:
        """Record what a member says of a topic; partitions that there are not any more do not count."""
        shards, name = self.of_topic[topic], self.topics[topic]

        def named(partitions: Iterable[int]) -> list[int]:
            return [shards[partition] for partition in sorted(partitions) if 0 <= partition < len(shards)]

        positions = metadata.positions.get(name, {})
        self.held[topic][member] = named(positions)
        for shard in self.held[topic][member]:
            self.positions[shard][member] = positions[shard - shards.start]
        for shard in named(metadata.actives.get(name, ())):
            self.before[shard].append(member)
            self.open[shard].add(member)
        for shard in named(metadata.standbys.get(name, ())):
            # One that was given a moment ago is not open before it has a position. (An active counts either way.)
            if member in self.positions[shard]:
                self.open[shard].add(member)
        for shard in named(metadata.warming.get(name, ())):
            self.warming[shard].add(member)

    def position(self, shard: int, member: int) -> int:
        """Return how far a member's copy is."""
        return self.positions[shard].get(member, EMPTY)

    def caught_up(self, shard: int, member: int) -> bool:
        """Return whether a member could be the active of a shard at once."""
        if self._open_only[shard] and member not in self.open[shard]:
            return False
        return self.position(shard, member) >= self._enough[shard]

    def lacking(self, shard: int, member: int) -> int:
        """Return how many records a member lacks of the furthest copy."""
        return self._furthest[shard] - self.position(shard, member)

    def anywhere(self, shard: int) -> bool:
        """Return whether every member could."""
        return self._enough[shard] <= EMPTY and not self._open_only[shard]
