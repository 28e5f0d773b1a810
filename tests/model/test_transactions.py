"""An open transaction holds back records of others: labels account for them, and no key is reported as missing."""

import asyncio

import pytest

from tablehouse.errors import PartitionRestoring, PositionNotReached, TooStale
from tablehouse.model import Consistency, ReadMode, TaskState
from tablehouse.tasks.open_transactions import HELD_BACK_TIMEOUT_SECONDS
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.support.positions import at

EARLY = [(b"a", b"1"), (b"b", b"2")]
NONE_BEHIND = Consistency(max_lag=0)
RECENT = Consistency(max_staleness_ms=2_000)


async def _held_back(scenario: Scenario) -> None:
    """Begin a transaction that stays open, write after it, and wait until the task knows that records are held back."""
    scenario.source.begin_transaction([(b"x", b"9")], 1000)
    scenario.produce((b"a", b"5"), (b"new", b"6"))
    task = scenario.task()
    await scenario.world.until(lambda: task.held_back_reason is not None, "it is known to be held back", 30)


@simulated("upsert", seeds=range(4))
async def test_rows_behind_an_open_transaction_are_as_old_as_they_are_labelled_and_bounds_refuse_them(
    scenario: Scenario,
) -> None:
    await scenario.started(*EARLY)
    await _held_back(scenario)
    await asyncio.sleep(3)
    task, worker = scenario.task(), scenario.workers[0]
    seen = worker.read(task, b"a")
    assert seen.row is not None
    assert seen.row.payload == b"1"
    assert (seen.freshness.lag_records, task.status().held_back_seconds > 3) == (3, True)
    assert (seen.freshness.staleness_ms or 0) > 3_000
    for bound in (NONE_BEHIND, RECENT):
        with pytest.raises(TooStale):
            worker.read(task, b"a", bound)
    with pytest.raises(PositionNotReached, match="open transaction holds back 3 offsets"):
        worker.read(task, b"a", Consistency(min_position=at(0, 4)))
    assert task.status().reason == task.held_back_reason
    scenario.source.end_transaction(commit=False)
    await scenario.caught_up()
    await scenario.world.until(lambda: task.lag_records == 0, "nothing is held back", 10)
    assert task.status().reason is None
    seen = worker.read(task, b"a", NONE_BEHIND)
    assert seen.row is not None
    assert seen.row.payload == b"5"
    assert worker.read(task, b"x").row is None
    scenario.check()


@simulated("upsert", seeds=range(4))
async def test_a_task_that_catches_up_blames_no_transaction_where_there_is_none(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    scenario.workers[0].kill()
    scenario.produce(*EARLY)
    scenario.hold_batches()
    scenario.workers[0].start()
    await scenario.world.until(lambda: bool(scenario.world.held), "it has begun to apply what follows")
    task = scenario.task()
    for _ in range(10):
        assert task.held_back_reason is None
        assert "transaction" not in (task.status().reason or "")
        await asyncio.sleep(0.3)
    scenario.release()
    await scenario.caught_up()
    scenario.check()


@simulated("upsert", seeds=range(4))
async def test_no_key_is_called_missing_while_a_transaction_holds_back_records(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    await _held_back(scenario)
    task, worker = scenario.task(), scenario.workers[0]
    assert task.state is TaskState.ACTIVE
    for _ in range(50):
        for mode in ReadMode:
            with pytest.raises(PartitionRestoring, match="open transaction holds back 3 offsets"):
                worker.read(task, b"new", Consistency(mode))
        await asyncio.sleep(0.3)
    scenario.source.end_transaction(commit=True)
    await scenario.caught_up()
    await scenario.world.until(lambda: task.held_back_reason is None, "nothing is held back", 10)
    assert worker.read(task, b"new").row is not None
    assert worker.read(task, b"x").row is not None
    assert worker.read(task, b"never").row is None
    scenario.check()


@simulated("upsert", seeds=range(4))
async def test_a_short_transaction_is_lag_like_any_other(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    task, worker = scenario.task(), scenario.workers[0]
    for number in range(20):
        scenario.source.begin_transaction([(b"x", b"%d" % number)], 1000)
        await asyncio.sleep(HELD_BACK_TIMEOUT_SECONDS / 3)
        assert worker.read(task, b"never").row is None
        scenario.source.end_transaction(commit=True)
    await scenario.caught_up()
    scenario.check()


@simulated("upsert", seeds=range(4))
async def test_a_long_transaction_that_holds_back_nothing_of_others_leaves_misses_what_they_are(
    scenario: Scenario,
) -> None:
    await scenario.started(*EARLY)
    task, worker = scenario.task(), scenario.workers[0]
    scenario.source.begin_transaction([(b"x", b"9")], 1000)
    await scenario.world.until(lambda: task.status().held_back_seconds > HELD_BACK_TIMEOUT_SECONDS, "it stays open", 30)
    seen = worker.read(task, b"x")
    assert (seen.row, seen.freshness.lag_records) == (None, 1)
    scenario.produce((b"new", b"6"))
    await scenario.world.until(lambda: task.held_back_reason is not None, "a record of another is held back", 30)
    with pytest.raises(PartitionRestoring, match="open transaction"):
        worker.read(task, b"new")
    scenario.source.end_transaction(commit=True)
    await scenario.caught_up()
    scenario.check()


@simulated("upsert", workers=2, seeds=range(4))
async def test_rows_are_there_at_once_after_a_takeover_in_a_transaction_and_misses_only_after_it(
    scenario: Scenario,
) -> None:
    owner, other = scenario.workers
    await scenario.started(*EARLY)
    await _held_back(scenario)
    owner.kill()
    other.start()
    await scenario.world.until(other.active, "the next owner is active", 200)
    task = scenario.task(other)
    seen = other.read(task, b"a")
    assert seen.row is not None
    assert seen.freshness.lag_records == 3
    for _ in range(30):
        for key in (b"new", b"x", b"never"):
            with pytest.raises(PartitionRestoring):
                other.read(task, key)
        scenario.checks.read(other, SOURCE, task, b"new")
        await asyncio.sleep(0.3)
    scenario.source.end_transaction(commit=False)
    await scenario.caught_up(other)
    assert other.read(task, b"new").row is not None
    assert other.read(task, b"never").row is None


@simulated("upsert", workers=2)
async def test_a_standby_behind_an_open_transaction_may_be_promoted_and_calls_nothing_missing(
    scenario: Scenario,
) -> None:
    scenario.world.group.follows = 1.0
    scenario.world.group.place = lambda _source, members: min(members)
    _, standby = scenario.workers
    await scenario.started(*EARLY)
    standby.start()
    await scenario.follows(standby)
    await _held_back(scenario)
    task = scenario.task(standby)
    await scenario.world.until(lambda: task.held_back_reason is not None, "the standby knows", 30)
    with pytest.raises(PartitionRestoring, match="open transaction"):
        standby.read(task, b"new", Consistency(ReadMode.ANY))
    assert await task.compare_with_owner(0)
