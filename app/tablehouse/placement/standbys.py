"""Chooses the standbys of each shard.

A standby is never on the member of its active, nor on that of the copy being warmed up. It is in a different zone than
the active if there is one; then preferably where it was, else where the most advanced copy is, else where few other
standbys of the same active are, so that the active's shards are spread when it fails. From there standbys are moved
until each topic, and all topics together, are balanced to within one per member, as far as zones and the placement of
actives allow; if one member must have one more than another, it is the one with fewer actives.

A standby that moves for balance is not kept at its old member until its successor has caught up. Its store stays on
that member's disk, and its position in the member's metadata, so a failover in the meantime still finds it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from tablehouse.placement.copies import Copies
from tablehouse.placement.spread import UNEVEN, Spread

#: Whether moving one standby from the first to the second member would improve the balance.
_Uneven = Callable[[int, int], bool]


def place_standbys(
    copies: Copies, owners: Sequence[int], warming: Mapping[int, int], wanted: Sequence[int]
) -> list[set[int]]:
    """Return each shard's standbys, without those being warmed up.

    owners are the actives by shard, wanted is the number of standbys per shard by topic: a shard has fewer only if
    there are not enough members.
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
        #: By active and standby, the number of shards that the standby would take over from the active.
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._changes = [0] * len(copies.members)
        #: Pairs in which the first has no standby to move to the second, with the change counts of both at that time.
        self._idle: dict[tuple[int, int, int], tuple[int, int]] = {}
        for shard, topic in enumerate(copies.topic_of):
            for _ in range(wanted[topic]):
                member = self._best_off(shard)
                if member is None:
                    break
                self._put(shard, member)

    def even_out(self) -> None:
        """Move standbys until the balance cannot be improved."""
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

    # Best members

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
                loads[member] >= 2 * fair,  # nearly all of these would be moved again, one by one
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
        """Move one standby from a member with too many to one with too few, through other members if necessary.

        least_apart is the minimum difference between the giver's and the taker's share of a topic.
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
        """Return the shortest chain of moves, each of one shard between two members, that ends at a taker.

        The last move comes first; empty if there is no chain.
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
        """Choose as _best_move does, with a cached result while neither of the two members changes."""
        pair = (topics[0] if least_apart == 0 else -1, giver, taker)
        changes = (self._changes[giver], self._changes[taker])
        if self._idle.get(pair) == changes:
            return None
        shard = self._best_move(topics, giver, taker, least_apart)
        if shard is None:
            self._idle[pair] = changes
        return shard

    def _best_move(self, topics: Sequence[int], source: int, target: int, least_apart: int) -> int | None:
        """Choose the standby of the source that the target could take over with the fewest records to restore."""
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
        """Return whether a move would put a standby into its active's zone."""
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
    """Yield the moves of a chain, the last first."""
    step = before[last]
    while step is not None:
        shard, source = step
        yield shard, source, last
        last, step = source, before[source]
