"""Several tables on one source: each gets as far as it can, and none waits for another."""

import asyncio

import pytest

from tablehouse.model import TaskState, TopicPartition
from tablehouse.tasks.log import LogSlice
from tablehouse.testing.simulated import ports
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.tables import Table


def _records(first: int, after: int) -> list[tuple[bytes | None, bytes | None]]:
    return [(b"k%d" % (number % 7), b"v%d" % number) for number in range(first, after)]


@simulated("count", "count-new", seeds=range(5))
async def test_a_new_table_catches_up_beside_the_lane_while_its_sibling_goes_on(scenario: Scenario) -> None:
    worker, world = scenario.workers[0], scenario.world
    worker.tables = [Table("count")]
    await scenario.started(*_records(0, 60))
    worker.kill(1000)
    worker.tables = scenario.tables
    scenario.read_all_at_every_hop(worker)
    scenario.hold_batches("count-new")
    worker.start()
    await world.until(lambda: bool(world.held), "the new table is on its way")
    scenario.produce(*_records(60, 120))
    await world.until(lambda: scenario.task().position.total == 119, "the sibling is at the end")
    newcomer = scenario.task(table="count-new")
    assert scenario.task().state is TaskState.ACTIVE
    assert newcomer.state is TaskState.RESTORING
    assert newcomer.position.total == -1
    scenario.release()
    await scenario.caught_up()
    scenario.check()


@simulated("count", "toggle", seeds=range(5))
async def test_the_lane_moves_on_without_a_table_that_cannot_append(scenario: Scenario) -> None:
    world = scenario.world
    await scenario.started(*_records(0, 20))
    scenario.hold_batches("toggle")
    # Many more records than may wait in an inbox.
    scenario.produce(*_records(20, 150))
    await world.until(lambda: scenario.task().position.total == 149, "the sibling is at the end")
    assert scenario.task().state is TaskState.ACTIVE
    assert scenario.task(table="toggle").position.total < 149
    scenario.release()
    await scenario.caught_up()
    scenario.check()
    scenario.produce(*_records(150, 170))
    await scenario.caught_up()
    scenario.check()


@simulated("toggle", "count", seeds=range(20))
async def test_a_table_whose_store_was_lost_joins_again_wherever_the_lane_is_meanwhile(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*_records(0, 60))
    worker.kill(1000)
    del worker.disks[SOURCE, "toggle"]
    scenario.changelog.recreate()
    scenario.produce(*_records(60, 70))
    scenario.read_all_at_every_hop(worker)
    worker.start()
    await asyncio.sleep(scenario.world.choose.random() * 8)
    scenario.produce(*_records(70, 100))
    await scenario.caught_up()
    scenario.check()


@simulated("count", "toggle", "upsert", seeds=range(5))
async def test_tables_that_claim_one_after_the_other_in_a_rebalance_join_without_readers_of_their_own(
    scenario: Scenario,
) -> None:
    worker, world = scenario.workers[0], scenario.world
    await scenario.started(*_records(0, 20))
    beside: list[object] = []
    read = ports.SimulatedReader.read

    def reading(reader: ports.SimulatedReader, partition: TopicPartition, offset: int) -> object:
        if partition == SOURCE:
            beside.append(offset)
        return read(reader, partition, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports.SimulatedReader, "read", reading)
        world.group.rebalance()
        await world.until(lambda: not worker.active(), "the rebalance has begun")
        scenario.produce(*_records(20, 28))
        await scenario.caught_up()
    assert beside == []
    scenario.check()


@simulated("count", "count-new")
async def test_what_became_of_a_batch_is_noticed_while_a_source_that_is_read_beside_the_lane_is_silent(
    scenario: Scenario,
) -> None:
    worker, world = scenario.workers[0], scenario.world
    worker.tables = [Table("count")]
    await scenario.started(*_records(0, 60))
    worker.kill(1000)
    worker.tables = scenario.tables
    world.hold = lambda request: request.partition == Table("count-new").changelog(SOURCE)
    answered: list[object] = []
    answer = ports._Cursor.next  # noqa: SLF001

    async def silent_after_one(cursor: ports._Cursor) -> LogSlice:
        if cursor._log is scenario.source:  # noqa: SLF001
            if cursor in answered:
                await asyncio.Event().wait()
            answered.append(cursor)
        return await answer(cursor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports._Cursor, "next", silent_after_one)  # noqa: SLF001
        worker.start()

        def sibling_is_at_the_front() -> bool:
            return any(task.table == "count" and task.state is TaskState.ACTIVE for task in worker.tasks())

        await world.until(sibling_is_at_the_front, "the sibling is at the front")
        scenario.hold_batches("count-new")
        await world.until(lambda: any(not request.claims for request in world.held), "the new table catches up")
        newcomer = scenario.task(table="count-new")
        assert newcomer.reason == "catching up with the source"
        await world.until(lambda: "outcome of an append is not known" in str(newcomer.reason), "noticed", 60)
    scenario.release()
    await scenario.caught_up()
    scenario.check()


@simulated("count")
async def test_aborted_records_and_markers_are_passed_over_and_the_position_is_past_them(scenario: Scenario) -> None:
    scenario.produce(*_records(0, 3))
    scenario.source.skip(40)
    scenario.produce(*_records(3, 5))
    scenario.source.skip(5)
    scenario.workers[0].start()
    await scenario.caught_up()
    assert scenario.task().position.total == 49
    scenario.source.skip(2)
    await scenario.caught_up()
    scenario.check()


@simulated("count", "toggle")
async def test_retention_that_overtakes_a_running_lane_is_refused_and_old_rows_stay_readable(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*_records(0, 20))
    scenario.hold_batches()
    scenario.produce(*_records(20, 60))
    await scenario.world.until(lambda: bool(scenario.world.held), "stuck")
    for name in ("count", "toggle"):
        scenario.checks.expected(SOURCE, name)  # learns what there was
    scenario.source.delete_before(55)
    scenario.release()
    for name in ("count", "toggle"):
        task = scenario.task(worker, name)
        await scenario.world.until(lambda task=task: "retention deleted" in str(task.reason), "refused", 60)  # type: ignore[misc]
        assert task.state is TaskState.SUSPENDED
        assert task.position.total < 54
    await asyncio.sleep(10)
    scenario.checks.read(worker, SOURCE, scenario.task(), b"k1")
    assert scenario.checks.reads == {"suspended": 1}
