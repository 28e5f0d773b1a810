"""The positions that a worker reports to the group's leader: never more than the shard's slowest table has applied."""

from tablehouse.model import TaskState
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.worker import Worker

RECORDS: list[tuple[bytes | None, bytes | None]] = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(40)]


def _reported(worker: Worker) -> int | None:
    if worker.running is None:
        raise AssertionError("nobody runs here")
    return worker.running.shards.positions().get(SOURCE.topic, {}).get(SOURCE.partition)


@simulated("count", "upsert", seeds=range(4))
async def test_a_shard_of_which_one_table_is_rebuilt_is_as_far_as_that_table(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    task = scenario.task(worker, "upsert")
    assert _reported(worker) == task.position.total == len(RECORDS) - 1
    seen: set[TaskState] = set()

    def on_hop(_process: object, _point: str) -> None:
        if worker.task(SOURCE, "upsert") is task and task.state in {TaskState.QUARANTINED, TaskState.RESTORING}:
            seen.add(task.state)
            assert _reported(worker) == (-1 if task.state is TaskState.QUARANTINED else task.position.total)

    scenario.world.on_hop = on_hop
    worker.distrust(task)
    await scenario.caught_up()
    assert seen == {TaskState.QUARANTINED, TaskState.RESTORING}
    assert _reported(worker) == len(RECORDS) - 1


@simulated("count", "upsert", seeds=range(4))
async def test_a_restarted_worker_reports_what_it_saved_until_its_store_is_open(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    await scenario.leaves(worker)
    scenario.world.takes["store.open"] = 10
    worker.start()
    await scenario.world.until(lambda: bool(worker.tasks()), "it opens its store")
    assert {task.state for task in worker.tasks()} == {TaskState.OPENING}
    assert _reported(worker) == len(RECORDS) - 1
    await scenario.caught_up()


@simulated("count", "upsert", seeds=range(4))
async def test_a_store_that_was_thrown_away_counts_for_nothing_before_it_is_open_again(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*RECORDS)
    await scenario.leaves(worker)
    worker.folder(SOURCE).corrupt = True
    reported: list[int | None] = []
    destroyed = scenario.at("store.destroy done", lambda: reported.append(_reported(worker)), worker)
    worker.start()
    await scenario.world.until(destroyed, "the store is thrown away")
    assert reported == [-1]
    await scenario.caught_up()
    assert _reported(worker) == len(RECORDS) - 1
