"""The copies of each shard that members report; placement uses indices for members and shards.

Here, a topic is a shard name with all its shards; that of a plain table is its source topic.
"""

from collections.abc import Iterable, Mapping, Sequence

from tablehouse.model import ShardId
from tablehouse.placement.wire import MemberMetadata

#: The position of an empty or a missing copy.
EMPTY = -1


class Copies:
    """The copies of every shard, and which members have caught up with the most advanced one.

    A member has caught up if at most `acceptable_lag` records lie between its position and the highest reported
    position. A member without a copy counts as being before the first record, so if no more than that has to be
    restored, every member has caught up. After a failover, only standbys count as caught up, if any has: they answer
    reads during the takeover, and an unopened store cannot.
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
        #: By shard, the members that report having been its active.
        self.before: list[list[int]] = [[] for _ in self.shards]
        #: By shard, the members that have it open and can answer reads now.
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
        """Record a member's metadata of a topic; partitions that no longer exist are ignored."""
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
            # A standby that was just assigned is not open before it has a position. (An active counts either way.)
            if member in self.positions[shard]:
                self.open[shard].add(member)
        for shard in named(metadata.warming.get(name, ())):
            self.warming[shard].add(member)

    def position(self, shard: int, member: int) -> int:
        """Return the position of a member's copy."""
        return self.positions[shard].get(member, EMPTY)

    def caught_up(self, shard: int, member: int) -> bool:
        """Return whether a member could be the active of a shard immediately."""
        if self._open_only[shard] and member not in self.open[shard]:
            return False
        return self.position(shard, member) >= self._enough[shard]

    def lacking(self, shard: int, member: int) -> int:
        """Return how many records a member is behind the most advanced copy."""
        return self._furthest[shard] - self.position(shard, member)

    def anywhere(self, shard: int) -> bool:
        """Return whether every member could be the active of a shard immediately."""
        return self._enough[shard] <= EMPTY and not self._open_only[shard]
