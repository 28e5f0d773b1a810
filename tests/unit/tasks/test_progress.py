"""How far a task has come: lag, staleness, the target of an owner, and those who wait for a position."""

import asyncio
from dataclasses import dataclass

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.progress import OWNER_TIMEOUT_SECONDS, Progress
from tablehouse.tasks.records import PositionRecord
from tablehouse.tasks.table_state import TableState
from tablehouse.testing.simulated.store import Disk, MemoryStore

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

    def __init__(self) -> None:
        self.clock = _Clock()
        identity = Identity("planes", TopicPartition("changelog", 0), {}, (SOURCE,))
        self.state = TableState(identity, MemoryStore(Disk()), self.clock, Doubts(lambda: None))
        self.progress = Progress(self.state, SOURCE, self.clock)

    def apply(self, last: int) -> None:
        """Apply source offsets up to `last`."""
        self.state.position = PositionRecord(0, last, (0, 1))
        self.progress.advance()

    def list_end(self, end: int, held: int = 0) -> None:
        """List the source's end now."""
        self.progress.observe_end(Bounds(0, end, held), self.clock.seconds, self.state.applied(SOURCE))


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_lag_and_staleness_are_not_known_before_the_source_was_listed_and_after_it_went_missing(
    setting: Setting,
) -> None:
    progress = setting.progress
    assert (progress.lag_records, progress.staleness_ms) == (None, None)
    setting.list_end(10)
    setting.apply(7)
    assert (progress.lag_records, progress.staleness_ms) == (2, None)
    setting.apply(9)
    setting.clock.seconds += 1.5
    assert (progress.lag_records, progress.staleness_ms) == (0, 1500)
    progress.observe_missing()
    assert (progress.lag_records, progress.staleness_ms) == (None, None)


def test_a_source_that_is_not_trusted_gives_no_figures_until_it_is(setting: Setting) -> None:
    setting.progress.distrust_source()
    setting.list_end(10)
    assert setting.progress.lag_records is None
    setting.progress.trust_source()
    setting.list_end(10)
    assert setting.progress.lag_records == 10


def test_an_owner_reaches_its_target_once(setting: Setting) -> None:
    progress = setting.progress
    assert not progress.reach_target()
    progress.aim_at(Bounds(0, 5))
    setting.apply(3)
    assert progress.remaining == 1
    assert not progress.reach_target()
    setting.apply(4)
    assert progress.reach_target()
    assert not progress.reach_target()
    assert progress.remaining is None


def test_a_task_that_does_not_own_has_no_target(setting: Setting) -> None:
    setting.progress.aim_at(Bounds(0, 5, held=2))
    assert setting.progress.held_back_reason is not None
    setting.progress.aim_at_nothing()
    assert setting.progress.remaining is None
    assert setting.progress.held_back_reason is None


async def test_those_who_wait_for_a_position_are_woken_when_it_is_applied(setting: Setting) -> None:
    waiting = [asyncio.create_task(setting.progress.wait_for(offset, 60)) for offset in (3, 5)]
    await asyncio.sleep(0)
    setting.apply(4)
    assert await waiting[0]
    assert not waiting[1].done()
    setting.progress.release_waiters()
    assert not await waiting[1]
    assert await setting.progress.wait_for(4, 0)


def test_a_standby_is_near_or_not_and_after_a_while_the_owner_decides(setting: Setting) -> None:
    progress = setting.progress
    progress.start()
    assert progress.compare_with_source(0) is False
    setting.list_end(10)
    setting.apply(7)
    assert progress.compare_with_source(2) is True
    assert progress.compare_with_source(1) is False
    setting.clock.seconds += OWNER_TIMEOUT_SECONDS
    setting.list_end(10)
    assert progress.compare_with_source(1) is None
    assert progress.compare_with_source(2) is True
    assert progress.compare_with_source(1) is False
