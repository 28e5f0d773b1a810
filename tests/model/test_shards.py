"""Shards that are opened, owned, suspended and closed while assignments change, disks fail and threads are slow."""

import asyncio
from collections.abc import Callable

import pytest

from tablehouse.errors import NotOwner, PartitionRestoring
from tablehouse.model import TaskState
from tablehouse.tasks.shard_stores import REOPEN_INTERVAL
from tablehouse.testing.simulated.loop import run_virtual
from tablehouse.testing.simulated.store import MemoryShard
from tests.model.history import History
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.worker import Worker

RECORDS: list[tuple[bytes | None, bytes | None]] = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(23)]


def _give(scenario: Scenario, worker: Worker) -> None:
    """Rebalance so that the shard goes to a worker."""
    name = worker.process.name if worker.process is not None else ""
    scenario.world.group.place = lambda _source, _members: name
    scenario.world.group.rebalance()


async def _holds(scenario: Scenario, worker: Worker) -> None:
    await scenario.world.until(lambda: bool(worker.tasks()), f"{worker.name} holds the shard")


async def _lets_go(scenario: Scenario, worker: Worker) -> None:
    await scenario.world.until(lambda: not worker.tasks(), f"{worker.name} lets go of the shard")


async def _two_members(scenario: Scenario) -> tuple[Worker, Worker]:
    """Start two workers in the group, the first of which owns the shard and has caught up."""
    first, second = scenario.workers
    scenario.produce(*RECORDS)
    first.start()
    second.start()
    await scenario.world.until(lambda: scenario.world.group.generation > 0, "a generation")
    _give(scenario, first)
    await scenario.caught_up(first)
    return first, second


def _slowly(scenario: Scenario, point: str) -> Callable[[], bool]:
    """Make a call in a thread take ten seconds; return a function that says whether one is in progress."""
    scenario.world.takes[point] = 10
    return lambda: bool(scenario.world.under_way[point])


@simulated("count", "toggle", workers=2, seeds=range(10))
async def test_a_shard_that_returns_while_it_is_closed_is_opened_once_it_is(scenario: Scenario) -> None:
    first, second = await _two_members(scenario)
    closing = _slowly(scenario, "store.close")
    _give(scenario, second)
    await scenario.world.until(closing, "closing")
    _give(scenario, first)
    await _holds(scenario, first)
    assert closing()
    assert not [task for task in first.tasks() if task.state is TaskState.ACTIVE]
    scenario.produce(*RECORDS)
    await scenario.caught_up(first)
    scenario.check(first)


@simulated("count", workers=2, seeds=range(10))
async def test_a_shard_that_comes_and_goes_while_it_is_closed_and_opened_is_right_in_the_end(
    scenario: Scenario,
) -> None:
    workers = await _two_members(scenario)
    scenario.world.on_commit = scenario.checks.committed
    for turn in range(12):
        scenario.produce(RECORDS[turn])
        _give(scenario, workers[turn % 2])
        await _holds(scenario, workers[turn % 2])
        await asyncio.sleep(scenario.world.choose.random())
    await scenario.caught_up(workers[1])
    scenario.check(workers[1])


@simulated("count", workers=2, seeds=range(5))
async def test_a_shard_still_being_opened_at_a_rebalance_is_owned_in_the_generation_that_is_then(
    scenario: Scenario,
) -> None:
    first = scenario.workers[0]
    scenario.produce(*RECORDS)
    opening = _slowly(scenario, "store.open")
    first.start()
    await scenario.world.until(opening, "opening")
    before = scenario.world.group.generation
    scenario.world.group.rebalance()
    await scenario.world.until(lambda: scenario.world.group.generation > before, "the next generation")
    assert opening()
    await scenario.caught_up(first)
    assert scenario.task().generation == before + 1
    scenario.check()


@simulated("count", workers=2, seeds=range(5))
async def test_a_shard_that_moves_away_while_it_is_opened_is_never_owned(scenario: Scenario) -> None:
    first, second = await _two_members(scenario)
    opening = _slowly(scenario, "store.open")
    _give(scenario, second)
    await scenario.world.until(opening, "opening")
    _give(scenario, first)
    await _lets_go(scenario, second)
    claims = len(scenario.world.sent)
    await asyncio.sleep(30)
    second_name = second.process.name if second.process is not None else ""
    assert not [sent for sent in scenario.world.sent[claims:] if sent[0] is not None and sent[0].name == second_name]
    assert second.folder(SOURCE).holder is None, "closed again"
    await scenario.caught_up(first)
    scenario.check(first)


@simulated("count", seeds=range(5))
async def test_a_store_that_cannot_be_opened_is_tried_again_and_says_why(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    worker.folder(SOURCE).refusals["open"] = 4
    scenario.produce(*RECORDS)
    worker.start()
    await _holds(scenario, worker)
    await scenario.world.until(lambda: "no space left" in str(scenario.task().reason), "says why")
    with pytest.raises((PartitionRestoring, NotOwner)):
        worker.read(scenario.task(), b"k1")
    await scenario.caught_up()
    scenario.check()


@simulated("count", "upsert", seeds=range(5))
async def test_a_store_that_is_corrupt_is_deleted_and_rebuilt_however_often_that_fails(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    await scenario.leaves(worker)
    worker.folder(SOURCE).corrupt = True
    worker.folder(SOURCE).refusals["destroy"] = 3
    scenario.produce(*RECORDS[:4])
    scenario.read_all_at_every_hop(worker)
    worker.start()
    await scenario.caught_up()
    assert not worker.folder(SOURCE).corrupt
    scenario.check()


@simulated("count", workers=2, seeds=range(5))
async def test_what_a_failing_close_did_not_flush_is_replayed(scenario: Scenario) -> None:
    first, second = await _two_members(scenario)
    scenario.produce(*RECORDS)
    await scenario.caught_up(first)
    first.folder(SOURCE).refusals["flush"] = 1000
    _give(scenario, second)
    await scenario.world.until(lambda: first.folder(SOURCE).holder is None, "closed")
    first.folder(SOURCE).refusals.clear()
    _give(scenario, first)
    await scenario.caught_up(first)
    scenario.check(first)


@simulated("count", seeds=range(5))
async def test_a_worker_that_leaves_keeps_all_it_has_applied(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    await scenario.leaves(worker)
    assert worker.folder(SOURCE).holder is None
    assert not any(disk.unflushed for disk in worker.disks.values())
    assert worker.positions == {SOURCE.topic: {SOURCE.partition: len(RECORDS) - 1}}


@simulated("count")
async def test_a_row_on_a_disk_that_cannot_be_read_is_another_copys_to_tell_and_nothing_is_rebuilt(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    worker.disk(SOURCE, "count").unreadable = True
    with pytest.raises(PartitionRestoring, match="Input/output error"):
        worker.read(scenario.task(), b"k1")
    worker.disk(SOURCE, "count").unreadable = False
    assert worker.read(scenario.task(), b"k1").row is not None


@simulated("count", "toggle", seeds=range(5))
async def test_a_row_found_damaged_by_a_reader_is_read_again_once_the_store_is_rebuilt(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    worker.disk(SOURCE, "count").damaged = True
    with pytest.raises(PartitionRestoring):
        worker.read(scenario.task(), b"k1")
    await scenario.caught_up()
    assert not worker.disk(SOURCE, "count").damaged
    scenario.check()


@pytest.mark.parametrize("point", ["store.open", "store.open done", "store.close", "store.close done", "store.destroy"])
@pytest.mark.parametrize("kept", [0, 2, 1000])
def test_a_crash_while_a_shard_moves_away_and_back_loses_and_doubles_nothing(point: str, kept: int) -> None:
    async def run() -> None:
        scenario = Scenario("count", "toggle", workers=2)
        first, second = await _two_members(scenario)
        scenario.produce(*RECORDS)
        reached = scenario.at(point, lambda: first.kill(kept), first)
        _give(scenario, second)
        await _lets_go(scenario, first)
        first.folder(SOURCE).corrupt = point == "store.destroy"
        if not reached():
            _give(scenario, first)
        await scenario.world.until(reached, point)
        scenario.world.on_hop = None
        if not first.alive:
            first.start()
        _give(scenario, first)
        scenario.produce(*RECORDS[:4])
        await scenario.hands_over(first)
        scenario.check(first)

    run_virtual(run())


def test_the_same_seed_is_the_same_history() -> None:
    ends: list[tuple[object, ...]] = []

    async def run() -> None:
        history = History(5)
        await history.run()
        ends.append((asyncio.get_running_loop().time(), history.world.paths, history.checks.reads))

    run_virtual(run())
    run_virtual(run())
    assert ends[0] == ends[1]


@simulated("count", "toggle", seeds=range(10))
async def test_a_store_that_writes_no_more_is_read_while_the_disk_is_full_and_opened_anew_when_it_is_not(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    assert worker.running is not None
    shard = worker.running.stores[SOURCE]
    worker.free = 0
    for store in shard.stores.values():
        store.stuck = True
    scenario.produce(*RECORDS)
    await scenario.world.until(
        lambda: all("the store failed" in (task.reason or "") for task in worker.tasks()), "both tasks wait"
    )
    for task in worker.tasks():
        scenario.checks.read(worker, SOURCE, task, b"k1")
    assert scenario.checks.reads["suspended"] == 2
    await asyncio.sleep(60)
    assert worker.running.stores[SOURCE] is shard
    worker.free = 1 << 40
    await scenario.caught_up()
    assert worker.running.stores[SOURCE] is not shard
    scenario.check()


@simulated("count", seeds=range(3))
async def test_a_store_that_fails_again_and_again_is_not_opened_more_often_than_it_helps(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    opened = set[MemoryShard]()
    ended_at = asyncio.get_running_loop().time() + 10 * REOPEN_INTERVAL
    while asyncio.get_running_loop().time() < ended_at:
        assert worker.running is not None
        shard = worker.running.stores[SOURCE]
        opened.add(shard)
        for store in shard.stores.values():
            store.stuck = True
        await asyncio.sleep(0.1)
        scenario.produce(RECORDS[0])
    assert 5 <= len(opened) <= 12
    await scenario.caught_up()
    scenario.check()


@simulated("count", seeds=range(5))
async def test_a_store_that_cannot_be_flushed_is_opened_again_though_nothing_is_written_to_it(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    assert worker.running is not None
    shard = worker.running.stores[SOURCE]
    worker.folder(SOURCE).refusals["flush"] = 1
    await scenario.world.until(
        lambda: worker.running is not None and worker.running.stores[SOURCE] is not shard, "opened again"
    )
    await scenario.caught_up()
    scenario.check()
