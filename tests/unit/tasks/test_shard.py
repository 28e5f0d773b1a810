"""What a shard tells of its tasks: one number for placement, and the offsets to commit of each input."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from tablehouse.model import ShardId, TaskState, TopicPartition
from tablehouse.positions import Position
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.shard import Shard

if TYPE_CHECKING:
    from tablehouse.tasks.lane import Lane

ORDERS, REFUNDS = BOTH = (TopicPartition("orders", 2), TopicPartition("refunds", 2))


class _Task(SimpleNamespace):
    """A task that has applied these offsets of its inputs, None of those that nothing was fed of."""

    def __init__(self, **offsets: int | None) -> None:
        inputs = tuple(TopicPartition(topic, 2) for topic in offsets)
        reached = tuple(-1 if offset is None else offset for offset in offsets.values())
        super().__init__(
            inputs=inputs,
            state=TaskState.ACTIVE,
            position=Position(tuple(f"{topic}/2" for topic in offsets), reached),
            committable=[
                (source, None if offset is None else offset + 1)
                for source, offset in zip(inputs, offsets.values(), strict=True)
            ],
            ends=[],
            missing=[],
        )

    def observe_source_end(self, source: TopicPartition, bounds: Bounds, _at: float, position: int) -> None:
        """Note it."""
        self.ends.append((source, bounds.end, position))

    def observe_source_missing(self, source: TopicPartition) -> None:
        """Note it."""
        self.missing.append(source)


class _Lane(SimpleNamespace):
    """A lane that counts how often it was told that its source is lost."""

    def lost(self) -> None:
        """Count it."""
        self.times_lost += 1


def shard_of(*tasks: _Task) -> Shard:
    lane = cast("Lane", _Lane(source=ORDERS, times_lost=0))
    store: Any = None
    shard = Shard(ShardId("orders", 2), lane, store, is_active=True)
    shard.tasks.update({f"t{number}": cast("Any", task) for number, task in enumerate(tasks)})
    return shard


@pytest.mark.parametrize(
    ("tasks", "committable", "position"),
    [
        ([_Task(orders=7)], {ORDERS: 8}, 7),
        ([_Task(orders=7), _Task(orders=4)], {ORDERS: 5}, 4),
        ([_Task(orders=7), _Task(orders=None)], {}, -1),
        ([_Task(orders=7, refunds=3)], {ORDERS: 8, REFUNDS: 4}, 11),
        ([_Task(orders=7, refunds=None)], {ORDERS: 8}, 7),
        ([_Task(orders=7, refunds=3), _Task(orders=9, refunds=2)], {ORDERS: 8, REFUNDS: 3}, 11),
        ([_Task(orders=7, refunds=3), _Task(orders=9)], {ORDERS: 8, REFUNDS: 4}, 9),
        ([], {}, -1),
    ],
)
def test_the_offset_to_commit_of_an_input_is_that_of_the_slowest_table_which_is_also_the_position(
    tasks: list[_Task], committable: dict[TopicPartition, int], position: int
) -> None:
    shard = shard_of(*tasks)
    assert (shard.committable, shard.position) == (committable, position)


def test_the_inputs_of_a_shard_are_those_of_its_tasks_each_once() -> None:
    assert shard_of(_Task(orders=7), _Task(orders=7, refunds=3)).inputs == BOTH


def test_the_end_of_an_input_is_told_to_the_tasks_that_read_it_and_only_the_lanes_own_ends_the_lane() -> None:
    one, two = _Task(orders=7), _Task(orders=7, refunds=3)
    shard = shard_of(one, two)
    shard.observe_source_end(REFUNDS, Bounds(0, 9), 1.0, [(cast("Any", two), 3)])
    assert (one.ends, two.ends) == ([], [(REFUNDS, 9, 3)])
    for _ in range(2):
        shard.observe_source_missing(REFUNDS)
    assert (one.missing, two.missing) == ([], [REFUNDS, REFUNDS])
    lane = cast("_Lane", shard.lane)
    assert lane.times_lost == 0
    shard.observe_source_missing(ORDERS)
    shard.observe_source_end(ORDERS, Bounds(0, 9), 1.0, [])
    shard.observe_source_missing(ORDERS)
    assert lane.times_lost == 0, "it was there in between"
    shard.observe_source_missing(ORDERS)
    assert lane.times_lost == 1
