"""Chooses the active of each shard, and the member that is warmed up to become it.

Every shard starts at its best member: its previous active if that has caught up, otherwise the least loaded member with
a caught-up copy. From there, shards are moved until each topic, and all topics together, are balanced to within one
shard per member: first shards that can move at once, because the target member has caught up, and only then others. A
shard of the second kind stays active at its start and is warmed up at its target.

Moves of the first kind come first so that repeating an unchanged placement makes no moves.
"""

from collections.abc import Callable, Iterable

from tablehouse.placement.copies import Copies
from tablehouse.placement.spread import UNEVEN, Spread

#: Source, target and benefit for the balance: the higher, the better.
_Worth = Callable[[int, int, int], tuple[int, int] | None]


def place_actives(copies: Copies) -> tuple[list[int], dict[int, int]]:
    """Return each shard's active, and by shard the members to warm up; there must be at least one member."""
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

    # Best members

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
        # Shards with the fewest candidates first; shards without a copy, which can go anywhere, last.
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
        """Balance a topic with immediate moves; return whether a shard moved."""
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
        """Balance all topics together with immediate moves, without making any single topic less balanced."""
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
        # The last shards have moved anyway; the first ones may have been active at the giver before.
        return next((shard for shard in reversed(shards) if self._copies.caught_up(shard, taker)), None)

    def _best_move(self, shards: Iterable[int], worth: _Worth, least: int) -> bool:
        """Make the move with the highest benefit to a caught-up member; return whether there is one."""
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
            # A member with more shards in total has more of some topic.
            topic = max(spread.topics, key=lambda topic: spread.of_topic[topic][most] - spread.of_topic[topic][least])
            self._move(self._nearest(topic, most, least), least)

    def _nearest(self, topic: int, giver: int, taker: int) -> int:
        """Choose a shard to warm up: one that is cold at its member, else one being warmed up, else the least lagging.

        Shards that the taker has caught up with come last: a useful move of one would already have been made.
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
