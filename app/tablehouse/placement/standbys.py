"""Which members keep a standby of each shard.

A standby is never beside its active, nor beside the copy that is being warmed up. It is in another zone than the
active where there is one, then where it was, else where the furthest copy is, else where few others of the same active
are, so that its shards are shared out when it dies. From there standbys are
moved until each topic, and all topics together, are shared out to within one a member, as far as zones and the places
of the actives allow; where one member has to have one more than another, it is the one with fewer actives.

A standby that moves for balance is not kept where it was until its successor has caught up. Its store stays on that
member's disk, and its position in what the member reports, so a failover meanwhile still finds it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from tablehouse.placement.copies import Copies
from tablehouse.placement.spread import UNEVEN, Spread

#: Whether one standby more for the second and one less for the first member would be more even.
_Uneven = Callable[[int, int], bool]


def place_standbys(
    copies: Copies, owners: Sequence[int], warming: Mapping[int, int], wanted: Sequence[int]
) -> list[set[int]]:
    """Return each shard's standbys, without those that are warmed up.

    owners are the actives by shard, wanted how many standbys a shard of each topic should have: it has fewer only
    where there are not enough members.
    """
    placing = _Standbys(copies, owners, warming, wanted)
    placing.even_out()
    return placing.standbys


class _Standbys:
    def __init__(
        self, copies: Copies, owners: Sequence[int], warming: Mapping[int, int], wanted: Sequence[int]
    ) -> None:
        self._copies = copies
        self._owners = owners
        self._warming = warming
        self._wanted = wanted
        self._spread = Spread(copies.topic_of, len(copies.topics), copies.members)
        self._actives = Counter(warming.get(shard, owner) for shard, owner in enumerate(owners))
        self.standbys: list[set[int]] = [set() for _ in owners]
        #: By active and standby, how many shards they have in common: what the one takes over from the other.
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._changes = [0] * len(copies.members)
        #: Pairs of which the first has nothing for the second, and the changes of both when that was found.
        self._idle: dict[tuple[int, int, int], tuple[int, int]] = {}
        for shard, topic in enumerate(copies.topic_of):
            for _ in range(wanted[topic]):
                member = self._best_off(shard)
                if member is None:
                    break
                self._put(shard, member)

    def even_out(self) -> None:
        """Move standbys until nothing more can be gained."""
        total, topics = self._spread.total, self._spread.topics

        def uneven_in(topic: int) -> _Uneven:
            loads = self._spread.of_topic[topic]
            return lambda giver, taker: loads[giver] - loads[taker] >= UNEVEN

        def uneven(giver: int, taker: int) -> bool:
            apart = total[giver] - total[taker]
            return apart >= UNEVEN or (apart == 1 and 1 + self._actives[giver] - self._actives[taker] >= UNEVEN)

        while True:
            moved = False
            for topic in topics:
                while self._even([topic], uneven_in(topic), 0):
                    moved = True
            while self._even(topics, uneven, 1):
                moved = True
            if not moved:
                return

    # Where standbys are best off

    def _best_off(self, shard: int) -> int | None:
        copies = self._copies
        topic, owner = copies.topic_of[shard], self._owners[shard]
        loads, total, held = self._spread.of_topic[topic], self._spread.total, copies.positions[shard]
        fair = -(-self._wanted[topic] * len(copies.of_topic[topic]) // len(copies.members))
        zones = Counter(copies.zones[member] for member in self.standbys[shard])
        zones[copies.zones[owner]] += len(copies.members)
        return min(
            (member for member in copies.members if self._free(shard, member)),
            key=lambda member: (
                zones[copies.zones[member]],
                loads[member] >= 2 * fair,  # nearly all of these would be moved on, one by one
                0 if member in held and copies.caught_up(shard, member) else 1 if member in held else 2,
                member not in copies.open[shard],
                loads[member] >= fair,
                -copies.position(shard, member),
                self._pairs[owner, member],
                loads[member],
                total[member],
                self._actives[member],
                member,
            ),
            default=None,
        )

    def _free(self, shard: int, member: int) -> bool:
        return (
            member != self._owners[shard] and member != self._warming.get(shard) and member not in self.standbys[shard]
        )

    # Moves

    def _even(self, topics: Sequence[int], uneven: _Uneven, least_apart: int) -> bool:
        """Move one standby from a member with too many to one with too few, through others where it has to be.

        least_apart is by how much a giver's part of a topic has to exceed the taker's.
        """
        by_load = sorted(self._spread.members, key=lambda member: (-self._load(topics, member), member))
        for giver in by_load:
            for taker in reversed(by_load):
                if not uneven(giver, taker):
                    continue
                shard = self._direct_move(topics, giver, taker, least_apart)
                if shard is not None:
                    self._take(shard, giver)
                    self._put(shard, taker)
                    return True
        takers = {taker for taker in by_load if uneven(by_load[0], taker)}
        way = self._way(topics, by_load[0], takers, least_apart) if takers else []
        for shard, source, target in way:
            self._take(shard, source)
            self._put(shard, target)
        return bool(way)

    def _load(self, topics: Sequence[int], member: int) -> int:
        return sum(self._spread.of_topic[topic][member] for topic in topics)

    def _way(self, topics: Sequence[int], giver: int, takers: set[int], least_apart: int) -> list[tuple[int, int, int]]:
        """Find the shortest chain of moves, each of a shard from one member to another, that ends at a taker.

        The last move comes first; empty when there is no chain.
        """
        before: dict[int, tuple[int, int] | None] = {giver: None}
        waiting = deque([giver])
        while waiting:
            source = waiting.popleft()
            for target in sorted(set(self._spread.members) - before.keys()):
                shard = self._best_move(topics, source, target, least_apart)
                if shard is None:
                    continue
                before[target] = (shard, source)
                if target in takers:
                    return list(_steps(before, target))
                waiting.append(target)
        return []

    def _direct_move(self, topics: Sequence[int], giver: int, taker: int, least_apart: int) -> int | None:
        """Choose what to move as _best_move does, looking once only while neither of the two changes."""
        pair = (topics[0] if least_apart == 0 else -1, giver, taker)
        changes = (self._changes[giver], self._changes[taker])
        if self._idle.get(pair) == changes:
            return None
        shard = self._best_move(topics, giver, taker, least_apart)
        if shard is None:
            self._idle[pair] = changes
        return shard

    def _best_move(self, topics: Sequence[int], source: int, target: int, least_apart: int) -> int | None:
        """Choose the standby that the target could take over from the source with the least to restore."""
        copies, spread = self._copies, self._spread
        best: tuple[int, int, int] | None = None
        for topic in topics:
            if spread.of_topic[topic][source] - spread.of_topic[topic][target] < least_apart:
                continue
            for shard in spread.shards[topic][source]:
                if self._free(shard, target) and not self._nearer(shard, source, target):
                    owner = self._owners[shard]
                    key = (
                        max(0, copies.lacking(shard, target) - max(0, copies.lacking(shard, source))),
                        self._pairs[owner, target] - self._pairs[owner, source],
                        shard,
                    )
                    best = key if best is None else min(best, key)
        return None if best is None else best[2]

    def _nearer(self, shard: int, source: int, target: int) -> bool:
        """Return whether a move would bring a standby into its active's zone."""
        zones = self._copies.zones
        active = zones[self._owners[shard]]
        return zones[target] == active and zones[source] != active

    def _put(self, shard: int, member: int) -> None:
        self.standbys[shard].add(member)
        self._spread.put(shard, member)
        self._pairs[self._owners[shard], member] += 1
        self._changes[member] += 1

    def _take(self, shard: int, member: int) -> None:
        self.standbys[shard].remove(member)
        self._spread.take(shard, member)
        self._pairs[self._owners[shard], member] -= 1
        self._changes[member] += 1


def _steps(before: Mapping[int, tuple[int, int] | None], last: int) -> Iterator[tuple[int, int, int]]:
    """Give the moves of a chain, the last first."""
    step = before[last]
    while step is not None:
        shard, source = step
        yield shard, source, last
        last, step = source, before[source]
