"""How far a task has come: lag, staleness, the target of an owner, and those who wait for a position."""

import asyncio
from dataclasses import dataclass

import pytest

from tablehouse.model import Epoch, TopicPartition
from tablehouse.positions import Position
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.progress import OWNER_TIMEOUT_SECONDS, Progress
from tablehouse.tasks.records import PositionRecord
from tablehouse.tasks.table_state import TableState
from tablehouse.testing.simulated.store import Disk, MemoryStore
from tests.support.positions import at, with_names

SOURCE = TopicPartition("source", 0)


@dataclass
class _Clock:
    seconds: float = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return int(self.seconds * 1000)


class Setting:
    """A task's progress, and what it goes by."""

    def __init__(self, *inputs: TopicPartition) -> None:
        self.clock = _Clock()
        identity = Identity("planes", TopicPartition("changelog", 0), {}, with_names(*inputs))
        self.state = TableState(identity, MemoryStore(Disk()), self.clock, Doubts(lambda: None))
        self.progress = Progress(self.state, self.clock)

    async def apply(self, last: int, source: TopicPartition = SOURCE) -> None:
        """Apply the offsets of an input up to `last`."""
        state = self.state
        position = PositionRecord(state.applied(source) + 1, last, (0, 1)).among(state.inputs, source, state.position)
        await state.commit({}, position, Epoch(0, 1), state.next_offset + 1, 0)
        self.progress.advance()

    def list_end(self, end: int, held: int = 0, source: TopicPartition = SOURCE) -> None:
        """List an input's end now."""
        bounds = Bounds(0, end, held)
        self.progress.observe_end(source, bounds, self.clock.seconds, self.state.applied(source))

    def lag(self) -> int | None:
        """How far the task is behind."""
        return self.progress.lag_records

    def staleness(self) -> int | None:
        """How stale the task is, in milliseconds."""
        return self.progress.staleness_ms


@pytest.fixture
def setting() -> Setting:
    return Setting(SOURCE)


async def test_lag_and_staleness_are_not_known_before_the_source_was_listed_and_after_it_went_missing(
    setting: Setting,
) -> None:
    progress = setting.progress
    assert (progress.lag_records, progress.staleness_ms) == (None, None)
    setting.list_end(10)
    await setting.apply(7)
    assert (progress.lag_records, progress.staleness_ms) == (2, None)
    await setting.apply(9)
    setting.clock.seconds += 1.5
    assert (progress.lag_records, progress.staleness_ms) == (0, 1500)
    progress.observe_missing(SOURCE)
    assert (progress.lag_records, progress.staleness_ms) == (None, None)


def test_a_source_that_is_not_trusted_gives_no_figures_until_it_is(setting: Setting) -> None:
    setting.progress.distrust_source()
    setting.list_end(10)
    assert setting.progress.lag_records is None
    setting.progress.trust_source()
    setting.list_end(10)
    assert setting.progress.lag_records == 10


async def test_an_owner_reaches_its_target_once(setting: Setting) -> None:
    progress = setting.progress
    assert not progress.reach_target()
    progress.aim_at(SOURCE, Bounds(0, 5))
    await setting.apply(3)
    assert progress.remaining == 1
    assert not progress.reach_target()
    await setting.apply(4)
    assert progress.reach_target()
    assert not progress.reach_target()
    assert progress.remaining is None


def test_a_task_that_does_not_own_has_no_target(setting: Setting) -> None:
    setting.progress.aim_at(SOURCE, Bounds(0, 5, held=2))
    assert setting.progress.held_back_reason is not None
    setting.progress.aim_at_nothing()
    assert setting.progress.remaining is None
    assert setting.progress.held_back_reason is None


async def test_those_who_wait_for_a_position_are_woken_when_it_is_applied(setting: Setting) -> None:
    waiting = [asyncio.create_task(setting.progress.wait_for(at(0, offset), 60)) for offset in (3, 5)]
    await asyncio.sleep(0)
    await setting.apply(4)
    assert await waiting[0]
    assert not waiting[1].done()
    setting.progress.release_waiters()
    assert not await waiting[1]
    assert await setting.progress.wait_for(at(0, 4), 0)


async def test_a_standby_is_near_or_not_and_after_a_while_the_owner_decides(setting: Setting) -> None:
    progress = setting.progress
    progress.start()
    assert progress.compare_with_source(0) is False
    setting.list_end(10)
    await setting.apply(7)
    assert progress.compare_with_source(2) is True
    assert progress.compare_with_source(1) is False
    setting.clock.seconds += OWNER_TIMEOUT_SECONDS
    setting.list_end(10)
    assert progress.compare_with_source(1) is None
    assert progress.compare_with_source(2) is True
    assert progress.compare_with_source(1) is False


ORDERS, REFUNDS = TopicPartition("orders", 2), TopicPartition("refunds", 2)


@pytest.fixture
def two() -> Setting:
    return Setting(ORDERS, REFUNDS)


async def test_the_lag_of_two_inputs_is_their_sum_and_not_known_while_that_of_one_is_not(two: Setting) -> None:
    two.list_end(10, source=ORDERS)
    assert two.lag() is None
    two.list_end(5, source=REFUNDS)
    assert two.lag() == 15
    await two.apply(7, ORDERS)
    await two.apply(3, REFUNDS)
    assert two.lag() == 3
    assert two.state.reached.text == "orders/2:7,refunds/2:3"
    two.progress.observe_missing(ORDERS)
    assert two.lag() is None


async def test_the_staleness_of_two_inputs_is_that_of_the_one_that_is_longer_behind(two: Setting) -> None:
    two.list_end(10, source=ORDERS)
    two.list_end(5, source=REFUNDS)
    await two.apply(9, ORDERS)
    assert two.staleness() is None
    two.clock.seconds += 1
    await two.apply(4, REFUNDS)
    assert two.staleness() == 1000
    two.list_end(11, source=ORDERS)
    two.list_end(5, source=REFUNDS)
    two.clock.seconds += 0.5
    assert two.staleness() == 1500, "refunds were at an end lately, orders were not"


@pytest.mark.parametrize("first", [ORDERS, REFUNDS], ids=str)
async def test_a_task_with_two_inputs_has_caught_up_once_both_have_reached_their_targets(
    two: Setting, first: TopicPartition
) -> None:
    progress, last = two.progress, REFUNDS if first == ORDERS else ORDERS
    progress.aim_at(first, Bounds(0, 5))
    await two.apply(4, first)
    assert (progress.remaining, progress.reach_target()) == (None, False), "the other has no target yet"
    progress.aim_at(last, Bounds(0, 3))
    assert (progress.remaining, progress.reach_target()) == (3, False)
    await two.apply(1, last)
    assert (progress.remaining, progress.reach_target()) == (1, False)
    await two.apply(2, last)
    assert progress.reach_target()
    assert (progress.remaining, progress.reach_target()) == (None, False)


@pytest.mark.parametrize("source", [ORDERS, REFUNDS], ids=str)
async def test_an_open_transaction_in_any_input_holds_back_the_task(two: Setting, source: TopicPartition) -> None:
    for one in (ORDERS, REFUNDS):
        two.progress.aim_at(one, Bounds(0, 5, held=2 if one == source else 0))
        two.list_end(5, held=2 if one == source else 0, source=one)
    two.clock.seconds += 1
    two.list_end(5, held=2, source=source)
    reason = two.progress.held_back_reason
    assert reason is not None
    assert str(source) in reason
    assert two.progress.held_back_seconds == 1
    two.progress.aim_at_nothing()
    two.list_end(5, source=source)
    assert (two.progress.held_back_reason, two.progress.held_back_seconds) == (None, 0)


async def test_a_position_in_two_inputs_is_waited_for_until_all_of_it_is_applied(two: Setting) -> None:
    required = Position.parse("orders/2:3,refunds/2:1,refunds/7:99")
    waiting = asyncio.create_task(two.progress.wait_for(required, 60))
    await asyncio.sleep(0)
    await two.apply(5, ORDERS)
    await two.apply(0, REFUNDS)
    await asyncio.sleep(0)
    assert not waiting.done()
    await two.apply(1, REFUNDS)
    assert await waiting
    assert await two.progress.wait_for(required, 0)
    assert not await two.progress.wait_for(Position.parse("orders/2:5,refunds/2:2"), 0)


async def test_a_standby_of_two_inputs_is_near_when_it_lacks_little_of_both_together(two: Setting) -> None:
    progress = two.progress
    progress.start()
    two.list_end(10, source=ORDERS)
    await two.apply(7, ORDERS)
    assert progress.compare_with_source(9) is False, "how far behind refunds it is is not known"
    two.list_end(3, source=REFUNDS)
    assert progress.compare_with_source(4) is False
    assert progress.compare_with_source(5) is True


async def test_a_source_that_is_not_trusted_makes_no_input_known_until_all_are_compared(two: Setting) -> None:
    two.progress.distrust_source()
    for source in (ORDERS, REFUNDS):
        two.list_end(10, source=source)
    assert two.lag() is None
    two.progress.trust_source()
    for source in (ORDERS, REFUNDS):
        two.list_end(10, source=source)
    assert two.lag() == 20


async def test_what_a_store_came_with_of_each_input_is_compared_with_its_end(two: Setting) -> None:
    await two.apply(7, ORDERS)
    await two.apply(3, REFUNDS)
    two.progress.load()
    two.list_end(8, source=ORDERS)
    two.list_end(3, source=REFUNDS)
    assert two.lag() is None, "refunds end before what was applied of them"
    two.progress.trust_source()
    two.list_end(9, source=ORDERS)
    two.list_end(4, source=REFUNDS)
    assert two.lag() == 1
