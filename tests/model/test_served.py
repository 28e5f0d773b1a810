"""Tables that are added to the shards of a running worker, and removed from them."""

import asyncio

import pytest

from tablehouse.errors import NotOwner
from tablehouse.model import DEFAULT_CONSISTENCY, TaskState
from tablehouse.tasks.questions import Get
from tablehouse.tasks.task import Task
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.tables import Table
from tests.model.worker import Worker

RECORDS: list[tuple[bytes | None, bytes | None]] = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(23)]

COUNT, NEW = Table("count"), Table("upsert-new")
ONE, BOTH = [COUNT], [COUNT, NEW]


def _only(scenario: Scenario, tables: list[Table]) -> Worker:
    """Make the worker start with these tables of the scenario."""
    worker = scenario.workers[0]
    worker.tables = list(tables)
    return worker


def _stays_active(scenario: Scenario, worker: Worker, task: Task) -> None:
    """Check wherever the worker awaits something that a task is the same, and ACTIVE."""

    def on_hop(_process: object, _point: str) -> None:
        if worker.task(SOURCE, task.table) is not task or task.state is not TaskState.ACTIVE:
            worker.failures.append(AssertionError(f"{task.table} is {task.state} and {worker.tasks()} are there"))

    scenario.world.on_hop = on_hop


def _unknown(worker: Worker, table: str) -> None:
    assert worker.running is not None
    with pytest.raises(NotOwner):
        worker.running.shards.answer(table, SOURCE.partition, Get(b"k1"), DEFAULT_CONSISTENCY)


@simulated("count", "upsert-new", seeds=range(10))
async def test_a_table_more_is_built_from_the_start_of_the_source_and_the_other_does_not_notice(
    scenario: Scenario,
) -> None:
    worker = _only(scenario, ONE)
    await scenario.started(*RECORDS)
    _unknown(worker, NEW.name)
    _stays_active(scenario, worker, scenario.task())
    worker.serve(BOTH)
    for record in RECORDS:
        scenario.produce(record)
        await asyncio.sleep(scenario.world.choose.random())
    await scenario.caught_up()
    scenario.check()


@simulated("count", "upsert-new", seeds=range(10))
async def test_a_table_less_ends_at_once_and_the_other_does_not_notice(scenario: Scenario) -> None:
    worker = _only(scenario, BOTH)
    await scenario.started(*RECORDS)
    gone = scenario.task(table=NEW.name)
    _stays_active(scenario, worker, scenario.task())
    scenario.produce(*RECORDS)
    worker.serve(ONE)
    _unknown(worker, NEW.name)
    await scenario.world.until(lambda: gone.state is TaskState.CLOSED, "its task is closed")
    scenario.produce(*RECORDS)
    await scenario.caught_up()
    scenario.checks.table(worker, SOURCE, COUNT.name)
    assert worker.disk(SOURCE, NEW.name).unflushed or worker.disk(SOURCE, NEW.name).durable


@simulated("count", "upsert-new", seeds=range(20))
async def test_a_table_that_comes_and_goes_faster_than_it_can_is_right_in_the_end(scenario: Scenario) -> None:
    worker = _only(scenario, ONE)
    await scenario.started(*RECORDS)
    _stays_active(scenario, worker, scenario.task())
    for turn in range(30):
        scenario.produce(RECORDS[turn % len(RECORDS)])
        worker.serve(ONE if turn % 2 else BOTH)
        await asyncio.sleep(scenario.world.choose.choice([0.0, 0.01, 0.1, 1.0]))
    worker.serve(BOTH)
    await scenario.caught_up()
    scenario.check()


@simulated("count", "upsert-new", seeds=range(20))
async def test_tables_change_while_the_store_is_opened_and_in_the_middle_of_rebalances(scenario: Scenario) -> None:
    worker = _only(scenario, ONE)
    scenario.produce(*RECORDS)
    scenario.world.takes["store.open"] = 3
    worker.start()
    await scenario.world.until(lambda: bool(worker.tasks()), "it holds the shard")
    for turn in range(20):
        worker.serve([[COUNT], [NEW], [COUNT, NEW]][turn % 3])
        if scenario.world.happens(0.5):
            scenario.world.group.rebalance()
        scenario.produce(RECORDS[turn])
        await asyncio.sleep(scenario.world.choose.random())
    worker.serve(BOTH)
    await scenario.caught_up()
    scenario.check()


@simulated("count", "upsert-new", seeds=range(20))
async def test_a_crash_in_the_middle_leaves_nothing_that_a_start_with_either_tables_does_not_mend(
    scenario: Scenario,
) -> None:
    worker = _only(scenario, ONE)
    await scenario.started(*RECORDS)
    for turn in range(8):
        worker.serve(ONE if turn % 2 else BOTH)
        scenario.produce(RECORDS[turn])
        await asyncio.sleep(scenario.world.choose.choice([0.0, 0.01, 0.1, 1.0]))
        worker.kill()
        worker.tables = list(scenario.world.choose.choice([ONE, BOTH]))
        worker.start()
        await scenario.caught_up()
        for task in worker.tasks():
            scenario.checks.table(worker, SOURCE, task.table)


@simulated("count", "upsert-new", seeds=range(5))
async def test_a_disk_that_is_full_holds_up_a_table_more_alone_until_there_is_room(scenario: Scenario) -> None:
    worker = _only(scenario, ONE)
    await scenario.started(*RECORDS)
    _stays_active(scenario, worker, scenario.task())
    worker.folder(SOURCE).refusals["add"] = 3
    worker.serve(BOTH)
    await scenario.world.until(
        lambda: "no space left" in (scenario.task(table=NEW.name).reason or ""), "the new table says what it waits for"
    )
    await scenario.caught_up()
    scenario.check()


@simulated("count", "upsert-new", seeds=range(10))
async def test_a_table_that_is_defined_otherwise_is_made_anew_and_the_other_does_not_notice(
    scenario: Scenario,
) -> None:
    worker = _only(scenario, BOTH)
    await scenario.started(*RECORDS)
    before = scenario.task(table=NEW.name)
    _stays_active(scenario, worker, scenario.task())
    worker.serve([COUNT, Table(NEW.name, on_error="skip")])
    assert scenario.task(table=NEW.name) is not before
    scenario.produce(*RECORDS)
    await scenario.caught_up()
    scenario.checks.table(worker, SOURCE, COUNT.name)


@simulated("count", "upsert-new", seeds=range(5))
async def test_a_shard_whose_last_table_went_is_given_up_and_comes_back_with_the_next_assignment(
    scenario: Scenario,
) -> None:
    worker = _only(scenario, ONE)
    await scenario.started(*RECORDS)
    worker.serve([])
    assert not worker.tasks()
    scenario.world.group.rebalance()
    await asyncio.sleep(5)
    assert not worker.tasks()
    worker.serve(BOTH)
    assert not worker.tasks()
    scenario.world.group.rebalance()
    scenario.produce(*RECORDS)
    await scenario.caught_up()
    scenario.check()
