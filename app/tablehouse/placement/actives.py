"""Which member is each shard's active, and which is to become it.

Every shard starts where it is best off: at its active of before if that has caught up, else at the caught-up copy of
the member with the least to do. From there shards are moved until each topic, and all topics together, are shared out
to within one shard a member: first those that can move at once, because the member that gets them has caught up, and
only then others. A shard of the second kind stays active where it started and is warmed up where it is to go.

Moves of the first kind come before all others so that a second placement, with nothing changed, finds none to make.
"""

from collections.abc import Callable, Iterable

from tablehouse.placement.copies import Copies
from tablehouse.placement.spread import UNEVEN, Spread

#: From, to and of how much use to the balance: the higher, the better.
_Worth = Callable[[int, int, int], tuple[int, int] | None]


def place_actives(copies: Copies) -> tuple[list[int], dict[int, int]]:
    """Return each shard's active, and the members to be warmed up by shard; there has to be a member."""
    placing = _Actives(copies)
    return placing.owners()


class _Actives:
    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._spread = Spread(copies.topic_of, len(copies.topics), copies.members)
        self._start = self._best_off()
        self._target = list(self._start)
        while any([*map(self._even_at_once, self._spread.topics), self._even_all_at_once()]):
            pass
        for topic in self._spread.topics:
            self._even_later(topic)
        self._even_all_later()

    def owners(self) -> tuple[list[int], dict[int, int]]:
        owners, warming = list(self._target), {}
        for shard, target in enumerate(self._target):
            if not self._copies.caught_up(shard, target):
                owners[shard], warming[shard] = self._start[shard], target
        return owners, warming

    # Where shards are best off

    def _best_off(self) -> list[int]:
        copies, spread = self._copies, self._spread
        start: dict[int, int] = {}

        def give(shard: int, member: int) -> None:
            start[shard] = member
            spread.put(shard, member)

        for shard, claimed in enumerate(copies.before):
            able = [member for member in claimed if copies.caught_up(shard, member)]
            if able:
                give(shard, max(able, key=lambda member: copies.position(shard, member)))
        left: dict[int, list[int]] = {}
        for shard, held in enumerate(copies.positions):
            if shard not in start:
                left[shard] = [member for member in held if copies.caught_up(shard, member)]
        # Those with the least choice first, and those without a copy, which can go anywhere, last.
        for shard in sorted(left, key=lambda shard: (not left[shard], len(left[shard]), shard)):
            loads = spread.of_topic[copies.topic_of[shard]]
            if left[shard]:
                give(
                    shard,
                    min(
                        left[shard],
                        key=lambda member: (
                            loads[member],
                            spread.total[member],
                            -copies.position(shard, member),
                            member,
                        ),
                    ),
                )
            else:
                give(shard, spread.least(copies.topic_of[shard]))
        return [start[shard] for shard in range(len(copies.shards))]

    # Moves to members that have caught up

    def _even_at_once(self, topic: int) -> bool:
        """Share out a topic as far as that goes at once; return whether anything moved."""
        loads, total = self._spread.of_topic[topic], self._spread.total
        moved = False
        while True:
            most, least = self._spread.most(topic), self._spread.least(topic)
            if loads[most] - loads[least] < UNEVEN:
                return moved
            shard = self._movable(self._spread.shards[topic][most], least)
            if shard is not None:
                self._move(shard, least)
            elif not self._best_move(
                self._copies.of_topic[topic],
                lambda giver, taker, _: (
                    (loads[giver] - loads[taker], total[giver] - total[taker])
                    if loads[giver] - loads[taker] >= UNEVEN
                    else None
                ),
                least,
            ):
                return moved
            moved = True

    def _even_all_at_once(self) -> bool:
        """Share out all topics together as far as that goes at once, each staying as even as it is."""
        spread = self._spread
        total = spread.total
        moved = False
        while True:
            most, least = spread.fullest(), spread.emptiest()
            if total[most] - total[least] < UNEVEN:
                return moved
            shard = next(
                (
                    shard
                    for topic in spread.topics
                    if spread.of_topic[topic][most] > spread.of_topic[topic][least]
                    and (shard := self._movable(spread.shards[topic][most], least)) is not None
                ),
                None,
            )
            if shard is not None:
                self._move(shard, least)
            elif not self._best_move(
                range(len(self._target)),
                lambda giver, taker, topic: (
                    (total[giver] - total[taker], 0)
                    if total[giver] - total[taker] >= UNEVEN
                    and spread.of_topic[topic][giver] > spread.of_topic[topic][taker]
                    else None
                ),
                least,
            ):
                return moved
            moved = True

    def _movable(self, shards: dict[int, None], taker: int) -> int | None:
        # What came last has moved anyway, what came first may have been active there before.
        return next((shard for shard in reversed(shards) if self._copies.caught_up(shard, taker)), None)

    def _best_move(self, shards: Iterable[int], worth: _Worth, least: int) -> bool:
        """Make the move of the highest worth to a member that has caught up; return whether there is one."""
        copies = self._copies
        best: tuple[tuple[int, int], bool, int, int] | None = None
        for shard in shards:
            takers = [member for member in copies.positions[shard] if copies.caught_up(shard, member)]
            if copies.anywhere(shard):
                takers.append(least)
            for taker in takers:
                value = worth(self._target[shard], taker, copies.topic_of[shard])
                if value is not None:
                    moves_anyway = self._target[shard] not in copies.before[shard]
                    candidate = (value, moves_anyway, -shard, -taker)
                    best = candidate if best is None else max(best, candidate)
        if best is None:
            return False
        self._move(-best[2], -best[3])
        return True

    # Moves to members that have to be warmed up

    def _even_later(self, topic: int) -> None:
        loads = self._spread.of_topic[topic]
        while True:
            most, least = self._spread.most(topic), self._spread.least(topic)
            if loads[most] - loads[least] < UNEVEN:
                return
            self._move(self._nearest(topic, most, least), least)

    def _even_all_later(self) -> None:
        spread = self._spread
        total = spread.total
        while True:
            most, least = spread.fullest(), spread.emptiest()
            if total[most] - total[least] < UNEVEN:
                return
            # Whoever has more in all has more of some topic.
            topic = max(spread.topics, key=lambda topic: spread.of_topic[topic][most] - spread.of_topic[topic][least])
            self._move(self._nearest(topic, most, least), least)

    def _nearest(self, topic: int, giver: int, taker: int) -> int:
        """Choose what to warm up: what is not warm where it is, else what is being warmed up, else what lacks least.

        What the taker has caught up with comes last: had it been of use to move, it would have moved at once.
        """
        copies, mine = self._copies, self._spread.shards[topic][giver]
        undone = next((shard for shard in mine if self._start[shard] == taker), None)
        if undone is None:
            undone = next((shard for shard in mine if not copies.caught_up(shard, giver)), None)
        if undone is not None:
            return undone
        held = [shard for shard in copies.held[topic][taker] if shard in mine]
        begun = [shard for shard in held if not copies.caught_up(shard, taker)]
        if begun:
            return min(
                begun,
                key=lambda shard: (taker not in copies.warming[shard], copies.lacking(shard, taker), shard),
            )
        return next((shard for shard in reversed(mine) if not copies.caught_up(shard, taker)), next(reversed(mine)))

    def _move(self, shard: int, taker: int) -> None:
        self._spread.take(shard, self._target[shard])
        self._spread.put(shard, taker)
        self._target[shard] = taker
