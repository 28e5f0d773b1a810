"""Workers whose clocks are hours off: neither less readable for it, nor deceived about what compaction has taken."""

import asyncio

import pytest

from app.model import Consistency, ReadMode, TaskState
from tests.model.broker import HOUR_MS
from tests.model.scenario import HOUR, SOURCE, Scenario, simulated

KEYS = [b"a", b"b", b"c", b"d"]
EARLY = [(key, b"1") for key in KEYS]
ANY = Consistency(ReadMode.ANY)


async def _follows(scenario: Scenario) -> None:
    standby = scenario.workers[1]

    def done() -> bool:
        for failure in standby.failures:
            raise failure
        return bool(standby.tasks()) and all(
            task.state is TaskState.STANDBY and task.applied + 1 == scenario.source.end for task in standby.tasks()
        )

    await scenario.world.until(done, "it follows", 200)


def _place_first(scenario: Scenario) -> None:
    scenario.world.group.follows = 1.0
    scenario.world.group.place = lambda _source, members: min(members)


@pytest.mark.parametrize("hours", [-6, -1, 1, 6])
def test_a_standby_stays_readable_under_steady_ingest_whatever_its_clock_says(hours: int) -> None:
    @simulated("upsert", workers=2, seeds=range(3))
    async def scenario_of(scenario: Scenario) -> None:
        _place_first(scenario)
        scenario.workers[1].skew_ms = hours * HOUR_MS
        await scenario.started(*EARLY)
        scenario.workers[1].start()
        await _follows(scenario)
        task = scenario.task(scenario.workers[1])
        unread: list[str] = []

        def on_hop(_process: object, _point: str) -> None:
            if task.state is not TaskState.STANDBY or not task.readable:
                unread.append(f"{task.state.name}: {task.reason}")

        scenario.world.on_hop = on_hop
        for _ in range(200):
            scenario.produce(*EARLY * 5)
            await asyncio.sleep(0.05)
        await _follows(scenario)
        assert unread == []

    scenario_of()


@pytest.mark.parametrize("hours", [-6, -1, 0, 1, 6])
def test_a_standby_reads_over_no_hole_whatever_its_clock_says(hours: int) -> None:
    @simulated("upsert", workers=2, seeds=range(12))
    async def scenario_of(scenario: Scenario) -> None:
        _place_first(scenario)
        owner, standby = scenario.workers
        standby.skew_ms = hours * HOUR_MS
        await scenario.started((b"a", b"1"), (b"b", b"1"))
        cleaned = scenario.changelog.end
        scenario.produce((b"c", b"1"), (b"d", b"1"))
        await scenario.caught_up(owner)
        # It stands still before its first slice, for so long that compaction gets at what it is about to read.
        standby.start()
        process = standby.process
        assert process is not None
        reached = scenario.at("read.asked", process.stop, standby)
        await scenario.world.until(reached, "about to read")
        scenario.produce((b"a", b"2"), (b"e", b"3"), (b"b", b"4"), (b"e", b"5"), (b"f", b"6"))
        await scenario.caught_up(owner)
        await asyncio.sleep(1.25 * HOUR)
        scenario.produce((b"g", b"7"))
        await scenario.caught_up(owner)
        # It is in the middle of that: the position which stood last when the replay began is still there.
        assert scenario.changelog.compact(scenario.changelog.cleanable()[-1], cleaned) > 0

        def on_hop(_process: object, _point: str) -> None:
            for task in standby.tasks() if standby.answers else []:
                for key in (*KEYS, b"e", b"f", b"g"):
                    scenario.checks.read(standby, SOURCE, task, key, ANY)

        scenario.world.on_hop = on_hop
        process.go_on()
        await _follows(scenario)
        scenario.world.on_hop = None
        assert scenario.rows(standby) == scenario.rows(owner)

    scenario_of()


@pytest.mark.parametrize(("clock", "hours_away", "rebuilt"), [(-6, 25.5, True), (6, 23.0, False)])
def test_a_store_is_as_old_as_the_broker_says_after_its_machines_clock_was_set(
    clock: int, hours_away: float, *, rebuilt: bool
) -> None:
    @simulated("count", workers=2)
    async def scenario_of(scenario: Scenario) -> None:
        worker, other = scenario.workers
        worker.skew_ms = 0
        await scenario.started(*EARLY)
        worker.kill(1000)
        other.start()
        await scenario.caught_up(other)
        scenario.produce((b"a", None), (b"b", b"5"))
        await scenario.caught_up(other)
        other.kill()
        await asyncio.sleep(hours_away * HOUR)
        scenario.changelog.compact(scenario.changelog.cleanable()[-1])
        reasons: set[str] = set()

        def on_hop(_process: object, _point: str) -> None:
            reasons.update(str(task.reason) for task in worker.tasks() if task.state is TaskState.QUARANTINED)

        scenario.world.on_hop = on_hop
        worker.skew_ms = clock * HOUR_MS
        worker.start()
        await scenario.caught_up()
        assert bool(reasons) is rebuilt, reasons
        assert b"a" not in scenario.rows()
        scenario.check()

    scenario_of()
