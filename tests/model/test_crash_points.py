"""A SIGKILL at each point of the table in tasks/DESIGN.md: the tables are correct afterwards."""

from collections.abc import Callable

import pytest

from tablehouse.model import TaskState
from tablehouse.testing.simulated.broker import Pair
from tablehouse.testing.simulated.loop import run_virtual
from tests.model.scenario import SOURCE, Scenario

RECORDS = [(b"k%d" % (number % 5), b"v%d" % number) for number in range(23)]


class _Timed(Scenario):
    """A scenario in which time passes with the records, including bad ones, and most records are late."""

    def produce(self, *pairs: Pair) -> None:
        """Append to the source, with some records that cannot become rows in between."""
        for key, value in pairs:
            self._append(key, value)
            if self.source.end % 3 == 0:
                self._append(b"!", b"bad")

    def _append(self, key: bytes | None, value: bytes | None) -> None:
        end = self.source.end
        self.source.append([(key, value)], timestamp=1000 + end + (12 if end % 7 == 0 else 0))


async def _killed_at(make: Callable[[], Scenario], point: str, kept: int, prepare: Callable[[Scenario], None]) -> None:
    scenario = make()
    worker = scenario.workers[0]
    await scenario.started(*RECORDS[:5])
    reached = scenario.at(point, lambda: worker.kill(kept))
    prepare(scenario)
    await scenario.world.until(reached, point)
    scenario.world.on_hop = None
    scenario.produce(*RECORDS[:3])
    worker.start()
    await scenario.caught_up()
    scenario.check()
    # A delayed append would have arrived by now.
    scenario.produce(*RECORDS[3:6])
    await scenario.caught_up()
    scenario.check()


def _ingest(scenario: Scenario) -> None:
    scenario.produce(*RECORDS[5:])


def _ingest_large(scenario: Scenario) -> None:
    scenario.produce(*RECORDS[5:], (b"k1", b"a large value"), *RECORDS[:3])


def _need_a_schema(scenario: Scenario) -> None:
    scenario.produce(*RECORDS[5:], (b"k1", b"?1:v"), *RECORDS[:3])


def _rebalance(scenario: Scenario) -> None:
    scenario.produce(*RECORDS[5:])
    scenario.world.group.rebalance()


def _distrust(scenario: Scenario) -> None:
    scenario.workers[0].distrust(scenario.task())


def _leave(scenario: Scenario) -> None:
    scenario.produce(*RECORDS[5:])
    scenario.workers[0].leave()


def _return(scenario: Scenario) -> None:
    scenario.workers[0].leave()

    async def start() -> None:
        await scenario.world.until(lambda: not scenario.workers[0].alive, "it has left")
        scenario.workers[0].start()

    scenario.world.outside(start())


def _corrupt(scenario: Scenario) -> None:
    scenario.workers[0].folder(SOURCE).corrupt = True
    _return(scenario)


POINTS = [
    pytest.param("claim.asked", _rebalance, id="before the claim is sent"),
    pytest.param("claim.sent", _rebalance, id="claim sent, not acknowledged"),
    pytest.param("claim.acknowledged", _rebalance, id="claim acknowledged, not read back"),
    pytest.param("append.sent", _ingest, id="batch sent, not acknowledged"),
    pytest.param("append.acknowledged", _ingest, id="acknowledged, rows not written"),
    pytest.param("store.chunk", _ingest, id="between chunks of rows"),
    pytest.param("store.checkpoint", _ingest, id="rows written, checkpoint not"),
    pytest.param("schema.asked", _need_a_schema, id="waiting for a schema"),
    pytest.param("thread", _ingest_large, id="before the thread decodes a large value"),
    pytest.param("thread done", _ingest_large, id="after the thread has decoded a large value"),
    pytest.param("commit", _ingest, id="checkpoint written, source offset not committed"),
    pytest.param("store.wipe", _distrust, id="before wiping"),
    pytest.param("store.wipe done", _distrust, id="after wiping"),
    pytest.param("read.answered", _distrust, id="while replaying"),
    pytest.param("store.flush", _ingest, id="before flushing"),
    pytest.param("store.flush done", _ingest, id="after flushing"),
    pytest.param("store.close", _leave, id="before closing"),
    pytest.param("store.close done", _leave, id="after closing"),
    pytest.param("store.open", _return, id="before opening"),
    pytest.param("store.open done", _return, id="after opening"),
    pytest.param("store.destroy", _corrupt, id="before a store that cannot be opened is deleted"),
    pytest.param("store.destroy done", _corrupt, id="after a store that cannot be opened is deleted"),
]


@pytest.mark.parametrize("kept", [0, 1, 3, 1000])
@pytest.mark.parametrize(("point", "prepare"), POINTS)
def test_a_crash_loses_and_doubles_nothing(point: str, prepare: Callable[[Scenario], None], kept: int) -> None:
    run_virtual(_killed_at(lambda: Scenario("count", "toggle"), point, kept, prepare))


@pytest.mark.parametrize("kept", [0, 3, 1000])
@pytest.mark.parametrize(("point", "prepare"), POINTS)
def test_after_a_crash_time_has_passed_as_far_as_the_records_say_and_no_further(
    point: str, prepare: Callable[[Scenario], None], kept: int
) -> None:
    run_virtual(_killed_at(lambda: _Timed("lapse", "count"), point, kept, prepare))


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_a_crash_while_replaying_below_readable_from_leaves_a_store_that_is_not_read(pieces: int) -> None:
    async def run() -> None:
        scenario = Scenario("count", workers=2)
        first, second = scenario.workers
        await scenario.started(*RECORDS)
        first.kill()
        second.start()
        answered = 0

        def kill_in_the_middle(point: str) -> None:
            nonlocal answered
            answered += point == "read.answered"
            if answered == pieces:
                second.kill(1000)

        scenario.world.on_hop = lambda _process, point: kill_in_the_middle(point)
        await scenario.world.until(lambda: not second.alive, "killed in the middle of a replay")
        scenario.world.on_hop = lambda _process, _point: _ask(scenario)
        second.start()
        await scenario.caught_up(second)
        scenario.check(second)

    def _ask(scenario: Scenario) -> None:
        second = scenario.workers[1]
        for task in second.tasks():
            assert (
                task.state in {TaskState.ACTIVE, TaskState.SUSPENDED} or not task.readable or task.position.total >= -1
            )
            for number in range(5):
                scenario.checks.read(second, SOURCE, task, b"k%d" % number)

    run_virtual(run())
