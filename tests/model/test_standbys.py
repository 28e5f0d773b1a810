"""Standbys: they follow what the owner appends, answer while no other copy can, and take over without a long replay."""

import asyncio
from dataclasses import replace
from unittest.mock import patch

import pytest

from tablehouse.errors import NotOwner, PartitionRestoring, PositionNotReached, TooStale
from tablehouse.model import Consistency, ReadMode, Role, ShardId, TaskState
from tablehouse.tasks.progress import OWNER_TIMEOUT_SECONDS
from tablehouse.tasks.source_ends import KNOWN_SECONDS, SOURCE_ENDS_INTERVAL
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.tables import Table
from tests.model.worker import Worker
from tests.support.positions import at

EARLY = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4")]
ANY = Consistency(ReadMode.ANY)
SHARD = ShardId(*SOURCE)


async def _with_standby(scenario: Scenario) -> tuple[Worker, Worker]:
    """Start two workers: the first owns the partition, the second follows and has caught up with it."""
    owner, standby = scenario.workers
    scenario.world.group.follows = 1.0
    scenario.world.group.place = lambda _source, members: min(members)
    await scenario.started(*EARLY)
    standby.start()
    await _follows(scenario, standby)
    return owner, standby


async def _follows(scenario: Scenario, worker: Worker) -> None:
    def done() -> bool:
        for failure in worker.failures:
            raise failure
        tasks = worker.tasks()
        return bool(tasks) and all(
            task.state is TaskState.STANDBY and task.position.total + 1 == scenario.source.end and task.lag_records == 0
            for task in tasks
        )

    await scenario.world.until(done, f"{worker.name} follows", 200)


@simulated("count", "upsert", workers=2)
async def test_a_standby_has_what_the_owner_has_and_says_so_with_its_role(scenario: Scenario) -> None:
    _, standby = await _with_standby(scenario)
    scenario.produce((b"a", b"5"), (b"d", b"6"))
    await _follows(scenario, standby)
    for task in standby.tasks():
        for key in (b"a", b"b", b"c", b"d"):
            answer = standby.read(task, key)
            assert answer.row is not None
            assert (answer.freshness.role, answer.freshness.position.total) == (Role.STANDBY, scenario.source.end - 1)
            scenario.checks.read(standby, SOURCE, task, key)


@simulated("count", workers=2, seeds=range(4))
async def test_a_new_standby_does_not_wait_for_the_next_round_of_listings_to_be_trusted(scenario: Scenario) -> None:
    with patch("tablehouse.tasks.source_listings.SOURCE_ENDS_INTERVAL", 1e6):
        _, standby = await _with_standby(scenario)
        assert standby.read(scenario.task(standby), b"a").freshness.staleness_ms is not None


@simulated("count", workers=2)
async def test_a_copy_does_not_know_how_far_it_is_behind_once_the_source_was_not_listed_for_a_while(
    scenario: Scenario,
) -> None:
    _, standby = await _with_standby(scenario)
    task, none_behind = scenario.task(standby), Consistency(ReadMode.ANY, max_lag=0)
    assert standby.read(task, b"a", none_behind).freshness.lag_records == 0
    # The worker is paused, so it does not know of records produced meanwhile when it resumes.
    with patch.object(task, "observe_source_end"):
        await asyncio.sleep(KNOWN_SECONDS + SOURCE_ENDS_INTERVAL)
    assert standby.read(task, b"a", ANY).freshness.lag_records is None
    for key in (b"a", b"missing"):
        with pytest.raises(TooStale):
            standby.read(task, key, none_behind)
    await scenario.world.until(lambda: task.lag_records == 0, "it was listed again")


@simulated("count", workers=2)
async def test_a_standby_says_that_a_key_is_missing_to_those_alone_who_asked_for_standbys(scenario: Scenario) -> None:
    _, standby = await _with_standby(scenario)
    task = scenario.task(standby)
    with pytest.raises(PartitionRestoring):
        standby.read(task, b"missing")
    with pytest.raises(NotOwner):
        standby.read(task, b"a", Consistency(ReadMode.ACTIVE))
    answer = standby.read(task, b"missing", ANY)
    assert (answer.row, answer.freshness.role) == (None, Role.STANDBY)


@simulated("count", "upsert", workers=2, seeds=range(4))
async def test_a_standby_becomes_the_owner_after_a_kill_and_is_readable_all_the_time(scenario: Scenario) -> None:
    owner, standby = await _with_standby(scenario)
    scenario.produce(*EARLY)
    await _follows(scenario, standby)
    roles: set[Role] = set()

    def on_hop(_process: object, _point: str) -> None:
        if standby.answers:
            for task in standby.tasks():
                roles.add(standby.read(task, b"a").freshness.role)
                scenario.checks.read(standby, SOURCE, task, b"a")

    scenario.world.on_hop = on_hop
    owner.kill()
    await scenario.hands_over(standby)
    scenario.world.on_hop = None
    assert roles >= {Role.STANDBY, Role.ACTIVE}
    scenario.produce((b"a", b"9"))
    await scenario.caught_up(standby)
    scenario.check(standby)


@simulated("count", workers=2)
async def test_a_former_owner_stays_on_as_a_standby_and_never_stops_answering(scenario: Scenario) -> None:
    owner, standby = await _with_standby(scenario)
    task = scenario.task(owner)

    def on_hop(_process: object, _point: str) -> None:
        assert owner.read(task, b"a").row is not None
        scenario.checks.read(owner, SOURCE, task, b"a")

    scenario.world.on_hop = on_hop
    scenario.world.group.place = lambda _source, members: max(members)
    await scenario.hands_over(standby)
    await _follows(scenario, owner)
    scenario.world.on_hop = None
    assert scenario.task(owner) is task
    scenario.produce((b"a", b"5"))
    await _follows(scenario, owner)
    assert scenario.rows(owner) == scenario.rows(standby)


@simulated("count", workers=2, seeds=range(4))
async def test_a_standby_that_was_killed_goes_on_from_its_checkpoint(scenario: Scenario) -> None:
    _, standby = await _with_standby(scenario)
    for number in range(8):
        scenario.produce(*((b"k%d" % key, b"%d" % number) for key in range(9)))
        reached = scenario.at(("store.chunk", "turn")[number % 2], standby.kill, standby)
        await scenario.world.until(reached, "a slice is applied")
        scenario.world.on_hop = None
        standby.start()
        await _follows(scenario, standby)
    assert scenario.rows(standby) == scenario.rows()


@simulated("count", workers=2)
async def test_a_standby_in_whose_store_damage_is_found_is_rebuilt_and_follows_again(scenario: Scenario) -> None:
    _, standby = await _with_standby(scenario)
    standby.distrust(scenario.task(standby))
    with pytest.raises(PartitionRestoring):
        standby.read(scenario.task(standby), b"a")
    await _follows(scenario, standby)
    assert scenario.rows(standby) == scenario.rows()


@simulated("count", workers=2)
async def test_a_reader_waits_for_a_position_on_the_standby_and_is_told_when_it_does_not_come(
    scenario: Scenario,
) -> None:
    _, standby = await _with_standby(scenario)
    task = scenario.task(standby)
    assert await task.wait_for(task.position, 0.0)
    assert not await task.wait_for(at(0, task.position.total + 1), 0.5)
    scenario.produce((b"a", b"5"))
    assert await task.wait_for(at(0, scenario.source.end - 1), 30.0)
    assert standby.running is not None
    with pytest.raises(PositionNotReached) as refused:
        await standby.running.shards.wait_for_position("count", 0, at(0, scenario.source.end), 0.1)
    assert refused.value.details["position"] == scenario.source.end - 1


@simulated("count", workers=2)
async def test_whoever_waits_for_a_position_is_told_at_once_when_the_partition_leaves(scenario: Scenario) -> None:
    _, standby = await _with_standby(scenario)
    assert standby.running is not None
    waiting = asyncio.ensure_future(
        standby.running.shards.wait_for_position("count", 0, at(0, scenario.source.end + 1000), 10_000.0)
    )
    scenario.world.group.follows = 0.0
    scenario.world.group.rebalance()
    await scenario.world.until(waiting.done, "the wait has ended", 100)
    with pytest.raises(NotOwner):
        await waiting


@simulated("count", "upsert", workers=2, seeds=range(4))
async def test_a_standby_of_an_owner_that_has_stopped_can_take_over_however_far_the_source_has_gone_on(
    scenario: Scenario,
) -> None:
    for worker in scenario.workers:
        worker.tables = [Table("count", on_error="stop"), Table("upsert")]
    owner, standby = await _with_standby(scenario)
    scenario.produce((None, b"no key"), *EARLY * 10)
    await scenario.world.until(lambda: scenario.task(owner).stopped, "the owner has stopped")
    task, running = scenario.task(standby), standby.running
    assert running is not None
    await scenario.world.until(
        lambda: scenario.task(standby, "upsert").lag_records == 0 and task.lag_records == len(EARLY * 10) + 1,
        "the standby knows that",
    )
    assert not await running.shards.warm({SHARD}, 0), "the owner may yet get on"
    await asyncio.sleep(2 * OWNER_TIMEOUT_SECONDS)
    assert await running.shards.warm({SHARD}, 0) == [SHARD]
    fair = scenario.world.weather
    scenario.world.weather = replace(fair, unavailable=1)
    assert not await running.shards.warm({SHARD}, 0), "nobody can tell"
    scenario.world.weather = fair
    owner.kill()
    await scenario.world.until(
        lambda: scenario.task(standby).stopped, "the standby has taken over, and stopped too", 400
    )
    assert task.position.total == len(EARLY) - 1


@simulated("count", workers=2, seeds=range(4))
async def test_a_standby_that_is_not_there_yet_cannot_take_over(scenario: Scenario) -> None:
    _, standby = scenario.workers
    scenario.world.group.follows = 1.0
    scenario.world.group.place = lambda _source, members: min(members)
    await scenario.started(*EARLY)
    standby.start()
    await scenario.world.until(lambda: bool(standby.tasks()), "it holds the partition")
    running = standby.running
    assert running is not None
    assert scenario.task(standby).state < TaskState.STANDBY
    assert not await running.shards.warm({SHARD}, 1000)
    await _follows(scenario, standby)
    assert await running.shards.warm({SHARD}, 0)
    assert not await running.shards.warm(set(), 1000)
