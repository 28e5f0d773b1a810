"""A schema registry that is unavailable: the tables that need it wait, and no others."""

import asyncio

from tablehouse.model import TaskState
from tablehouse.testing.simulated.broker import Pair
from tablehouse.testing.simulated.world import World
from tests.model.scenario import SOURCE, Scenario, simulated

PLAIN: list[Pair] = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(40)]
FRAMED: list[Pair] = [(b"k%d" % (number % 5), b"?%d:v%d" % (number // 10, number)) for number in range(40)]


def take_registry_away(world: World, seconds: float) -> None:
    world.no_registry_until = asyncio.get_running_loop().time() + seconds


async def wait_for_wait(scenario: Scenario, worker: int = 0) -> None:
    await scenario.world.until(
        lambda: (scenario.task(scenario.workers[worker]).status().reason or "").startswith("waits for schema"),
        "it waits for a schema",
    )


@simulated("count", "upsert-bytes", seeds=range(5))
async def test_a_table_that_waits_for_a_schema_keeps_its_sibling_on_the_lane_from_nothing(scenario: Scenario) -> None:
    await scenario.started(*PLAIN)
    take_registry_away(scenario.world, 10_000)
    scenario.produce(*FRAMED)
    for number in range(10):
        scenario.produce(*PLAIN[:20])
        await asyncio.sleep(number)
    sibling = scenario.task(table="upsert-bytes")
    await scenario.world.until(lambda: sibling.position.total + 1 == scenario.source.end, "the sibling has everything")
    waiting = scenario.task(table="count")
    status = waiting.status()
    assert (status.position, status.state, status.reason) == (39, TaskState.ACTIVE, "waits for schema 0")
    assert sibling.status().reason is None
    for key in range(5):
        scenario.checks.read(scenario.workers[0], SOURCE, waiting, b"k%d" % key)
    scenario.world.no_registry_until = 0.0
    await scenario.caught_up()
    scenario.check()


@simulated("count", workers=2, seeds=range(5))
async def test_a_partition_that_waits_can_move_to_a_worker_that_waits_as_well(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started(*PLAIN)
    take_registry_away(scenario.world, 10_000)
    scenario.produce(*FRAMED)
    await wait_for_wait(scenario)
    second.start()
    first.leave()
    await scenario.world.until(lambda: not first.alive, "the first has left", 10)
    await scenario.world.until(lambda: bool(second.tasks()), "the second holds the partition")
    await wait_for_wait(scenario, worker=1)
    assert scenario.task(second).position.total == 39
    scenario.world.no_registry_until = 0.0
    await scenario.caught_up(second)
    scenario.check(second)


@simulated("count", seeds=range(5))
async def test_a_worker_that_starts_while_the_registry_is_away_restores_and_catches_up_later(
    scenario: Scenario,
) -> None:
    await scenario.started(*FRAMED)
    scenario.workers[0].kill()
    take_registry_away(scenario.world, 60)
    scenario.produce((b"k1", b"?99:v"))
    scenario.workers[0].start()
    await scenario.world.until(lambda: bool(scenario.workers[0].tasks()), "it holds the partition")
    await wait_for_wait(scenario)
    assert scenario.task().state is TaskState.RESTORING
    assert scenario.task().position.total >= 39
    await scenario.caught_up()
    scenario.check()


@simulated("count", workers=2, seeds=range(5))
async def test_a_standby_needs_no_schemas(scenario: Scenario) -> None:
    first, second = scenario.workers
    scenario.world.group.follows = 1.0
    await scenario.started(*FRAMED)
    take_registry_away(scenario.world, 10_000)
    second.start()
    await scenario.world.until(
        lambda: any(
            task.state is TaskState.STANDBY and task.position.total + 1 == scenario.source.end
            for worker in (first, second)
            for task in worker.tasks()
        ),
        "a standby that has everything",
    )
