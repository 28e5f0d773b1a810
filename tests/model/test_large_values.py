"""Large values, which a thread decodes: whatever happens meanwhile, they are folded in order and exactly once."""

import pytest

from tablehouse.model import TaskState
from tablehouse.testing.simulated.loop import run_virtual
from tests.model.scenario import SOURCE, Scenario, simulated

RECORDS = [
    (b"k1", b"v1"),
    (b"k2", b"a large value"),
    (b"k1", b"!a large value that is bad"),
    (b"k2", b"v2"),
    (b"k3", b"?7:one that needs a schema"),
    (b"k3", None),
    (b"k1", b"another large value"),
]


@simulated("toggle", "upsert", seeds=range(5))
async def test_large_values_keep_their_place_among_others_and_a_bad_one_is_dead_lettered(scenario: Scenario) -> None:
    await scenario.started(*RECORDS)
    scenario.check()
    assert scenario.rows(table="upsert") == {b"k1": b"another large value", b"k2": b"v2"}
    assert sorted(scenario.world.letters) == [(table, SOURCE, 2, "undecodable_value") for table in ("toggle", "upsert")]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("point", ["thread", "thread done"])
def test_a_partition_may_move_while_the_thread_decodes_and_its_next_owner_folds_the_value(
    point: str, seed: int
) -> None:
    async def run() -> None:
        scenario = Scenario("count", workers=2, seed=seed)
        first, second = scenario.workers
        await scenario.started(*RECORDS[:1])
        reached = scenario.at(point, second.start, first)
        scenario.produce(*RECORDS[1:])
        await scenario.world.until(reached, "the first is decoding")
        await scenario.hands_over(second)
        scenario.check(second)
        assert scenario.rows(second) == {b"k1": b"2", b"k2": b"2"}

    run_virtual(run())


@pytest.mark.parametrize("seed", range(5))
def test_an_owner_that_is_suspended_while_the_thread_decodes_begins_again_at_its_position(seed: int) -> None:
    async def run() -> None:
        scenario = Scenario("count", seed=seed)
        await scenario.started(*RECORDS[:1])
        states: list[TaskState] = []

        def rebalance() -> None:
            scenario.world.group.rebalance()
            states.append(scenario.task().state)

        reached = scenario.at("thread", rebalance)
        scenario.produce(*RECORDS[1:])
        await scenario.world.until(reached, "it is decoding")
        await scenario.caught_up()
        scenario.check()
        assert states == [TaskState.ACTIVE]

    run_virtual(run())
