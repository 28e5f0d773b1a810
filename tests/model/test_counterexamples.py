"""Histories that break simpler protocols, each run against the real tasks."""

import asyncio
from collections import Counter

from tablehouse.model import TaskState
from tablehouse.tasks.records import Claim, decode
from tablehouse.testing.simulated.broker import EpochRefused
from tests.model.history import wear_out
from tests.model.scenario import HOUR, SOURCE, Scenario, simulated
from tests.model.tables import Table
from tests.model.worker import METRICS

EARLY = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


def _claims() -> Counter[str]:
    """Count the claims of all scenarios so far by their outcomes."""
    outcomes: Counter[str] = Counter()
    for sample in (sample for metric in METRICS.claims.collect() for sample in metric.samples):
        if sample.name.endswith("_total"):
            outcomes[sample.labels["outcome"]] += int(sample.value)
    return outcomes


@simulated("upsert", workers=2)
async def test_a_late_append_cannot_replace_a_newer_row_that_compaction_would_then_drop(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started((b"a", b"old"))
    scenario.hold_batches()
    scenario.produce((b"a", b"late"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    scenario.release()
    first.kill()
    second.start()
    await scenario.caught_up(second)
    scenario.produce((b"a", b"new"))
    await scenario.caught_up(second)
    late = scenario.world.held[0]
    assert isinstance(scenario.world.deliver(late), EpochRefused)
    await asyncio.sleep(2 * HOUR)
    scenario.changelog.compact(scenario.changelog.end)
    assert scenario.rows(second) == {b"a": b"new"}
    scenario.check(second)


@simulated("count")
async def test_a_zombie_may_be_the_same_worker_before_its_restart(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    scenario.hold_batches()
    scenario.produce((b"a", b"4"), (b"b", b"5"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    scenario.release()
    worker.kill()
    worker.start()
    await scenario.caught_up()
    assert isinstance(scenario.world.deliver(scenario.world.held[0]), EpochRefused)
    scenario.produce((b"a", b"6"))
    await scenario.caught_up()
    assert scenario.rows() == {b"a": b"4", b"b": b"2"}
    scenario.check()


@simulated("count", workers=2)
async def test_a_produce_in_flight_outlives_the_lease_it_was_sent_under(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started(*EARLY)
    scenario.hold_batches()
    scenario.produce((b"a", b"4"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    scenario.release()
    process = first.process
    assert process is not None
    process.stop()
    second.start()
    await scenario.caught_up(second)
    assert isinstance(scenario.world.deliver(scenario.world.held[0]), EpochRefused)
    scenario.read_all_at_every_hop(first)
    process.go_on()
    await asyncio.sleep(30)
    await scenario.hands_over(second)
    scenario.check(second)


@simulated("count", "toggle")
async def test_an_acknowledged_offset_that_jumps_makes_the_owner_read_what_it_jumped_over(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    scenario.hold_batches("count")
    scenario.produce((b"a", b"4"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    # The append arrives after the owner has replayed to the end, and before its next claim.
    scenario.at("claim.asked", lambda: scenario.world.deliver(scenario.world.held[0]))
    await scenario.world.until(lambda: len(scenario.world.held) > 1 or scenario.task().state < TaskState.ACTIVE, "lost")
    scenario.release()
    await scenario.caught_up()
    scenario.changelog.append([(b"junk", b"of a stranger")])
    scenario.produce((b"b", b"5"), (b"c", b"6"))
    await scenario.caught_up()
    assert scenario.rows() == {b"a": b"3", b"b": b"2", b"c": b"1"}
    scenario.check()


@simulated("count")
async def test_the_position_is_known_after_a_batch_of_which_nothing_became_a_row(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY, (b"a", None))
    scenario.produce((None, b"no key"), (b"!", b"bad key"), (b"a", b"!bad value"))
    await scenario.caught_up()
    await asyncio.sleep(40 * HOUR)
    scenario.changelog.compact(scenario.changelog.end)
    worker.kill()
    worker.disks.clear()
    asked: list[int] = []
    scenario.world.on_hop = lambda _process, _point: asked.extend(task.position.total for task in worker.tasks())
    worker.start()
    await scenario.caught_up()
    scenario.check()
    # The worker continued at the source's end after its replay: no source record was read again.
    assert set(asked) == {-1, 6}


@simulated("upsert", workers=2, seeds=range(5))
async def test_a_reader_inside_a_cleaned_region_says_nothing(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started(*[(b"k%d" % (number % 4), b"%d" % number) for number in range(30)])
    await asyncio.sleep(2 * HOUR)
    scenario.produce((b"k0", b"newer"))
    await scenario.caught_up()
    await asyncio.sleep(2 * HOUR)
    scenario.changelog.compact(scenario.changelog.end)
    first.kill()
    scenario.read_all_at_every_hop(second)
    second.start()
    await scenario.caught_up(second)
    scenario.check(second)
    assert scenario.checks.reads["partition_restoring"] > 0
    assert "miss" not in scenario.checks.reads


@simulated("count", workers=2)
async def test_source_times_of_long_ago_make_neither_changelog_nor_store_old(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    assert {record.timestamp for record in scenario.source.records} == {1000}
    assert scenario.changelog.cleanable() == [0]
    worker.kill(1000)
    scenario.produce((b"a", b"4"))
    worker.start()
    await scenario.caught_up()
    scenario.check()
    assert scenario.world.paths["store quarantined; it is rebuilt from the changelog"] == 0


@simulated("count", "toggle", "count-twin")
async def test_tables_of_one_source_go_on_from_positions_of_their_own(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    scenario.hold_batches("toggle")
    scenario.produce((b"a", b"4"), (b"b", b"5"))
    await scenario.world.until(
        lambda: bool(scenario.world.held) and scenario.task().position.total + 1 == scenario.source.end, "one is ahead"
    )
    assert scenario.task(table="toggle").position.total < scenario.task().position.total
    scenario.release()
    worker.kill()
    worker.start()
    await scenario.caught_up()
    scenario.check()


@simulated("upsert", "count", workers=2, seeds=range(5))
async def test_half_a_batch_is_never_shown_at_the_full_position(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started(*EARLY)
    process = first.process
    assert process is not None
    process.stop()
    second.start()
    await scenario.caught_up(second)
    # Batches with more rows than a slice, and with keys that are in the next batch again.
    for number in range(4):
        scenario.produce(*[(b"k%d" % key, b"%d" % number) for key in range(9)])
        await scenario.caught_up(second)
    scenario.read_all_at_every_hop(first)
    process.go_on()
    await scenario.hands_over(first)
    scenario.check(first)


@simulated("count")
async def test_the_loser_of_a_claim_is_told_success_and_finds_out(scenario: Scenario) -> None:
    world = scenario.world
    # Another worker's claim of the same epoch arrives first.
    reached = scenario.at("claim.asked", lambda: wear_out(world, Table("count"), SOURCE, 1))
    before = _claims()
    await scenario.started(*EARLY)
    assert reached()
    assert world.paths["claim answered as another"] == 1
    assert _claims() - before == Counter(lost=1, held=1)
    assert [request.producer for _, request in world.sent if request.claims] == [(0, 1), (0, 2)]
    assert {request.producer for _, request in world.sent if not request.claims} == {(0, 2)}
    scenario.check()


@simulated("count")
async def test_a_claim_that_the_broker_refuses_is_made_again_above_the_one_it_knows(scenario: Scenario) -> None:
    world = scenario.world
    # Another worker's claim of a higher epoch arrives first.
    reached = scenario.at("claim.asked", lambda: wear_out(world, Table("count"), SOURCE, 2))
    before = _claims()
    await scenario.started(*EARLY)
    assert reached()
    assert [request.producer for _, request in world.sent if request.claims] == [(0, 1), (0, 3)]
    assert _claims() - before == Counter(refused=1, held=1)
    scenario.check()


@simulated("count", workers=2)
async def test_a_worker_whose_generation_is_over_does_not_claim(scenario: Scenario) -> None:
    first, second = scenario.workers
    scenario.produce(*EARLY)
    first.start()
    process = first.process
    assert process is not None
    reached = scenario.at("bounds.answered", process.stop, first)
    await scenario.world.until(reached, "restoring")
    second.start()
    await scenario.caught_up(second)
    over = scenario.world.group.generation - 1
    process.go_on()
    await asyncio.sleep(30)
    await scenario.hands_over(first)
    claims = [
        decode(Claim, sent.pairs[0][1] or b"")
        for sender, sent in scenario.world.sent
        if sender is process and sent.claims
    ]
    assert claims
    assert min(claim.generation for claim in claims) > over
    scenario.check(first)
