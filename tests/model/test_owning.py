"""What a write by the owner can depend on: everything that the source held, and a claim that only the owner has."""

import asyncio
from dataclasses import replace

import pytest

from tablehouse.errors import NotOwner, PositionNotReached, SourceUnavailable
from tablehouse.model import SourceEnd, TaskState
from tablehouse.testing.simulated.world import FAIR
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.worker import Worker

TABLE = "count"


async def catch_up(worker: Worker, seconds: float) -> SourceEnd:
    assert worker.running is not None
    return await worker.running.shards.catch_up(TABLE, SOURCE.partition, seconds)


def epoch(worker: Worker) -> int:
    assert worker.running is not None
    return worker.running.shards.ownership(TABLE, SOURCE.partition).epoch.number


@simulated(TABLE, seeds=range(10))
async def test_all_that_the_source_holds_is_applied_before_its_end_is_told(scenario: Scenario) -> None:
    await scenario.started((b"k", b"1"))
    [worker], task = scenario.workers, scenario.task()
    for number in range(20):
        before = asyncio.get_running_loop().time()
        scenario.produce((b"k", b"%d" % number))
        held = scenario.source.end
        end = await catch_up(worker, 60)
        assert end.offset >= held
        assert task.position.total >= end.offset - 1
        assert end.listed_at >= before


@simulated(TABLE)
async def test_what_an_open_transaction_holds_back_is_waited_for(scenario: Scenario) -> None:
    await scenario.started((b"k", b"1"))
    [worker] = scenario.workers
    scenario.source.begin_transaction([(b"k", b"2")], timestamp=1000)
    held = scenario.source.end
    with pytest.raises(PositionNotReached):
        await catch_up(worker, 2)
    waiting = asyncio.ensure_future(catch_up(worker, 60))
    await asyncio.sleep(1)
    assert not waiting.done()
    scenario.source.end_transaction(commit=True)
    assert (await waiting).offset >= held


@simulated(TABLE)
async def test_without_a_broker_that_tells_the_end_nothing_can_rest_on_it(scenario: Scenario) -> None:
    await scenario.started((b"k", b"1"))
    [worker] = scenario.workers
    scenario.world.weather = replace(FAIR, unavailable=1.0)
    with pytest.raises(SourceUnavailable, match="nothing was written"):
        await catch_up(worker, 5)


@simulated(TABLE, workers=2, seeds=range(5))
async def test_each_ownership_has_a_higher_epoch_and_only_the_owner_has_one(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started((b"k", b"1"))
    epochs = [epoch(first)]
    second.start()
    for owner, other in ((second, first), (first, second)) * 2:
        name = owner.process.name if owner.process is not None else ""
        scenario.world.group.place = lambda _source, _members, name=name: name
        await scenario.hands_over(owner)
        epochs.append(epoch(owner))
        with pytest.raises(NotOwner):
            epoch(other)
    assert epochs == sorted(set(epochs))


@simulated(TABLE)
async def test_an_owner_whose_lease_has_run_out_rests_nothing_on_its_claim(scenario: Scenario) -> None:
    await scenario.started((b"k", b"1"))
    [worker] = scenario.workers
    assert worker.running is not None
    assert epoch(worker) > 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker.running.shards.ports.lease, "holds", lambda _generation: False)
        # The task does not know yet.
        assert scenario.task().state is TaskState.ACTIVE
        with pytest.raises(NotOwner):
            epoch(worker)
