"""Records that cannot become rows: a dead letter before the position moves past them, or a stop, despite any fault."""

import asyncio
from collections import Counter

import pytest

from tablehouse.errors import PartitionRestoring
from tablehouse.model import Role, TaskState
from tablehouse.testing.simulated.loop import run_virtual
from tests.model.scenario import SOURCE, Scenario, simulated
from tests.model.tables import Table

GOOD = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(20)]
BAD = [(None, b"v"), (b"!key", b"v"), (b"k1", b"!value")]
#: The offsets of the bad records of _ingest().
BAD_OFFSETS = [7, 8, 9]


def _ingest(scenario: Scenario) -> None:
    scenario.source.append([*GOOD[5:7], *BAD, *GOOD[7:]], timestamp=1000)


def _letters(scenario: Scenario, table: str) -> Counter[int]:
    return Counter(offset for name, _, offset, _ in scenario.world.letters if name == table)


@pytest.mark.parametrize("kept", [0, 1, 1000])
@pytest.mark.parametrize(
    ("point", "most"),
    [
        pytest.param("letters.asked", 1, id="before the dead letters are written"),
        pytest.param("letters.written", 2, id="written, not acknowledged"),
        pytest.param("append.sent", 2, id="acknowledged, the batch sent"),
        # The letters of the next batch may be written by now.
        pytest.param("append.acknowledged", 2, id="the batch acknowledged"),
        pytest.param("store.chunk", 2, id="the batch acknowledged, rows not written"),
        pytest.param("commit", 2, id="all written, source offset not committed"),
    ],
)
def test_a_crash_loses_no_dead_letter(point: str, most: int, kept: int) -> None:
    async def run() -> None:
        scenario = Scenario("count")
        worker = scenario.workers[0]
        await scenario.started(*GOOD[:5])
        reached = scenario.at(point, lambda: worker.kill(kept))
        _ingest(scenario)
        await scenario.world.until(reached, point)
        scenario.world.on_hop = None
        worker.start()
        await scenario.caught_up()
        scenario.check()
        letters = _letters(scenario, "count")
        assert sorted(letters) == BAD_OFFSETS
        assert set(letters.values()) <= set(range(1, most + 1))

    run_virtual(run())


@simulated("count")
async def test_a_kill_between_the_letters_and_their_batch_writes_them_twice(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*GOOD[:5])
    reached = scenario.at("letters.written", lambda: worker.kill(0))
    _ingest(scenario)
    await scenario.world.until(reached, "letters are written")
    scenario.world.on_hop = None
    before = _letters(scenario, "count")
    assert before
    worker.start()
    await scenario.caught_up()
    assert _letters(scenario, "count") == before + Counter(BAD_OFFSETS)
    scenario.check()


@simulated("count", "toggle")
async def test_each_table_of_a_topic_writes_letters_of_its_own_with_the_reasons(scenario: Scenario) -> None:
    await scenario.started(*GOOD[:5])
    _ingest(scenario)
    await scenario.caught_up()
    reasons = ["null_key", "undecodable_key", "undecodable_value"]
    for table in ("count", "toggle"):
        assert [(at, why) for name, _, at, why in scenario.world.letters if name == table] == list(
            zip(BAD_OFFSETS, reasons, strict=True)
        )
    scenario.check()


@simulated("count", "toggle", seeds=range(5))
async def test_a_partition_whose_letters_cannot_be_written_waits_and_says_so_and_holds_up_no_sibling(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    worker.tables = [Table("count"), Table("toggle", on_error="skip")]
    scenario.checks = type(scenario.checks)(scenario.world, worker.tables)
    await scenario.started(*GOOD[:5])
    scenario.world.letters_away = True
    scenario.read_all_at_every_hop(worker)
    scenario.produce(*BAD[:1], *(GOOD * 10))
    task, sibling = scenario.task(), scenario.task(table="toggle")
    await scenario.world.until(lambda: "the dead letters cannot be written" in str(task.reason), "it says so")
    await scenario.world.until(lambda: sibling.position.total == 205, "the sibling is at the end")
    await asyncio.sleep(30)
    assert (task.position.total, task.state, sibling.state) == (4, TaskState.SUSPENDED, TaskState.ACTIVE)
    assert (scenario.checks.durable(SOURCE, "count"), scenario.world.letters) == (4, [])
    scenario.world.letters_away = False
    await scenario.caught_up()
    assert set(_letters(scenario, "count")) == {5}
    scenario.check()


def _stopping(scenario: Scenario) -> None:
    scenario.workers[0].tables = [Table("count", on_error="stop"), Table("toggle", on_error="skip")]
    scenario.checks = type(scenario.checks)(scenario.world, scenario.workers[0].tables)


@simulated("count", "toggle", seeds=range(5))
async def test_a_table_that_stops_has_all_before_the_record_and_is_read_for_what_it_is(scenario: Scenario) -> None:
    worker, world = scenario.workers[0], scenario.world
    _stopping(scenario)
    await scenario.started(*GOOD[:5])
    scenario.read_all_at_every_hop(worker)
    _ingest(scenario)
    scenario.produce(*(GOOD * 10))
    task, sibling = scenario.task(), scenario.task(table="toggle")
    await world.until(lambda: task.stopped, "it has stopped")
    await world.until(lambda: sibling.position.total + 1 == scenario.source.end, "the sibling is at the end")
    await asyncio.sleep(30)
    assert (task.position.total, task.state, sibling.state) == (6, TaskState.SUSPENDED, TaskState.ACTIVE)
    stop = "stopped by on_error: offset 7 of source[0] cannot become a row: null_key, a row needs a key; "
    assert (task.reason or "").startswith(stop)
    assert task.lag_records == scenario.source.end - 7
    assert task.status().stopped
    hit = worker.read(task, b"k0")
    assert hit.row is not None
    assert (hit.freshness.role, hit.freshness.position.total) == (Role.SUSPENDED, 6)
    with pytest.raises(PartitionRestoring, match="stopped by on_error"):
        worker.read(task, b"never")
    claims = len([request for _, request in world.sent if request.claims])
    await asyncio.sleep(60)
    assert claims == len([request for _, request in world.sent if request.claims]), "it claims again for nothing"
    assert world.letters == []


@simulated("count", "toggle", seeds=range(5))
async def test_a_stopped_table_tries_again_when_it_is_started_again_and_goes_on_with_another_definition(
    scenario: Scenario,
) -> None:
    worker, world = scenario.workers[0], scenario.world
    _stopping(scenario)
    await scenario.started(*GOOD[:5])
    _ingest(scenario)
    await world.until(lambda: scenario.task().stopped, "it has stopped")
    before = scenario.task().generation
    world.group.rebalance()
    await world.until(
        lambda: scenario.task().generation > before and scenario.task().stopped, "it has stopped once more"
    )
    assert (scenario.task().position.total, scenario.task().state) == (6, TaskState.SUSPENDED)
    worker.kill(1000)
    worker.start()
    await world.until(lambda: bool(worker.tasks()) and scenario.task().stopped, "it has stopped after a restart")
    assert (scenario.task().position.total, scenario.task().state) == (6, TaskState.SUSPENDED)
    worker.kill(1000)
    worker.tables = [Table("count", on_error="skip"), Table("toggle", on_error="skip")]
    worker.start()
    await scenario.caught_up()
    assert not scenario.task().stopped
    scenario.check()


@simulated("count")
async def test_a_table_that_stops_while_it_catches_up_shows_what_it_has(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    _stopping(scenario)
    scenario.produce(*GOOD, *BAD[1:2], *GOOD)
    scenario.read_all_at_every_hop(worker)
    worker.start()
    await scenario.world.until(lambda: bool(worker.tasks()) and scenario.task().stopped, "it has stopped")
    task = scenario.task()
    assert (task.position.total, task.state) == (19, TaskState.SUSPENDED)
    assert worker.read(task, b"k0").row is not None
