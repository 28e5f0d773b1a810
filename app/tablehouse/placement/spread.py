"""Counts the shards of each member, by topic and in total."""

from collections.abc import Sequence

#: Two members whose counts differ by this much can be balanced by moving one shard.
UNEVEN = 2


class Spread:
    """A distribution in progress; a shard is listed once for each member that has it."""

    def __init__(self, topic_of: Sequence[int], topics: int, members: range) -> None:
        self._topic_of = topic_of
        self.topics = range(topics)
        self.members = members
        #: By topic and member, its shards in the order in which they were assigned.
        self.shards: list[list[dict[int, None]]] = [[{} for _ in members] for _ in self.topics]
        self.of_topic = [[0] * len(members) for _ in self.topics]
        self.total = [0] * len(members)

    def put(self, shard: int, member: int) -> None:
        """Give a shard to a member that does not have it."""
        topic = self._topic_of[shard]
        self.shards[topic][member][shard] = None
        self.of_topic[topic][member] += 1
        self.total[member] += 1

    def take(self, shard: int, member: int) -> None:
        """Take a shard from a member that has it."""
        topic = self._topic_of[shard]
        del self.shards[topic][member][shard]
        self.of_topic[topic][member] -= 1
        self.total[member] -= 1

    def most(self, topic: int) -> int:
        """Return the member with the most shards of a topic; ties: the most shards in total, then the first."""
        return max(self.members, key=lambda member: (self.of_topic[topic][member], self.total[member], -member))

    def least(self, topic: int) -> int:
        """Return the member with the fewest shards of a topic; ties: the fewest shards in total, then the first."""
        return min(self.members, key=lambda member: (self.of_topic[topic][member], self.total[member], member))

    def fullest(self) -> int:
        """Return the member with the most shards in total; ties: the first."""
        return max(self.members, key=lambda member: (self.total[member], -member))

    def emptiest(self) -> int:
        """Return the member with the fewest shards in total; ties: the first."""
        return min(self.members, key=lambda member: (self.total[member], member))
