"""Stores, changelogs and sources that do not match: rebuilt or refused, and never served with wrong answers."""

import asyncio
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from tablehouse.errors import TooStale
from tablehouse.model import Consistency, ReadMode, Role, TaskState, TopicPartition
from tablehouse.stores.rows import LAYOUT_VERSION
from tablehouse.tasks.identity import FingerprintChanged
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.pipeline import IDLE_POSITION_INTERVAL
from tablehouse.tasks.records import POSITION_KEY, Checkpoint, decode, encode
from tablehouse.tasks.takeover import Takeover
from tablehouse.tasks.task import Task
from tests.model.history import wear_out
from tests.model.scenario import HOUR, SOURCE, Scenario, simulated
from tests.model.tables import Table
from tests.model.worker import Worker

if TYPE_CHECKING:
    from collections import Counter

EARLY = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4")]
CHECKPOINT = b"\x00checkpoint"


def _quarantines(scenario: Scenario) -> list[str]:
    seen: list[str] = []

    def look(_process: object, _point: str) -> None:
        for task in scenario.workers[0].tasks():
            if task.state is TaskState.QUARANTINED and task.reason not in seen:
                seen.append(str(task.reason))

    scenario.world.on_hop = look
    return seen


async def _stopped(scenario: Scenario) -> Worker:
    """Return the first worker, killed after it has applied the early records."""
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    worker.kill(1000)
    return worker


async def _rebuilt(scenario: Scenario, why: str) -> None:
    """Start the first worker, which quarantines its store once, says why, and rebuilds it."""
    seen = _quarantines(scenario)
    scenario.workers[0].start()
    await scenario.caught_up()
    assert len(seen) == 1
    assert why in seen[0]
    scenario.check()


async def _follower(scenario: Scenario) -> Worker:
    """Return the second worker, once it follows the first."""
    scenario.world.group.follows = 1.0
    scenario.world.group.place = lambda _source, members: min(members)
    await scenario.started(*EARLY)
    standby = scenario.workers[1]
    standby.start()
    await scenario.follows(standby)
    return standby


async def _lag_known(scenario: Scenario) -> tuple[Worker, Task]:
    """Return the second worker and its task, once it follows the first and knows its lag."""
    standby = await _follower(scenario)
    task = scenario.task(standby)
    await scenario.world.until(lambda: task.lag_records == 0, "its lag is known")
    return standby, task


async def _applied_one_by_one(scenario: Scenario, records: int) -> None:
    """Let the second worker apply records one by one, and kill it."""
    other = scenario.workers[1]
    other.start()
    for number in range(records):
        scenario.produce((b"a", b"%d" % number))
        await scenario.caught_up(other)
    other.kill()


@simulated("count")
async def test_the_last_epoch_seals_the_producer_id_and_the_next_id_counts_from_one(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    wear_out(scenario.world, Table("count"), SOURCE, 32765)
    await scenario.started(*EARLY)
    scenario.hold_batches()
    scenario.produce((b"a", b"5"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    scenario.release()
    late = scenario.world.held[0]
    assert late.producer == (0, 32766)
    worker.kill()
    worker.start()
    await scenario.caught_up()
    assert scenario.world.paths["seal"] == 1
    assert not isinstance(scenario.world.deliver(late), int), "the sealed id is closed to its last owner too"
    scenario.produce((b"a", b"6"))
    await scenario.caught_up()
    scenario.check()


@simulated("count")
async def test_a_changelog_recreated_while_nobody_ran_is_built_anew_from_the_source(scenario: Scenario) -> None:
    await _stopped(scenario)
    scenario.changelog.recreate()
    await _rebuilt(scenario, "past the log's end")


@simulated("count", workers=2)
async def test_a_recreated_changelog_that_is_longer_than_the_old_one_is_told_by_its_log_id(scenario: Scenario) -> None:
    await _stopped(scenario)
    scenario.changelog.recreate()
    await _applied_one_by_one(scenario, 6)
    await _rebuilt(scenario, "deleted and created again")


@simulated("count", workers=2)
async def test_a_recreated_changelog_is_told_also_where_its_claim_lies_before_what_is_replayed(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    generation = scenario.world.group.generation
    scenario.world.group.rebalance()
    await scenario.world.until(lambda: scenario.world.group.generation > generation, "another generation")
    await scenario.caught_up()
    # The newest claim is the last record, so what follows it in the new log is only rows.
    worker.kill(1000)
    scenario.changelog.recreate()
    await _applied_one_by_one(scenario, 9)
    before = scenario.changelog.end
    seen = _quarantines(scenario)
    worker.start()
    await scenario.world.until(lambda: bool(seen), "quarantined")
    assert "deleted and created again" in seen[0]
    assert scenario.changelog.end == before, "before anything was appended to it"
    await scenario.caught_up()
    scenario.check()


@simulated("count")
async def test_a_changelog_recreated_under_its_owner_is_refused_and_not_served_as_whole(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    scenario.changelog.recreate()
    scenario.produce((b"a", b"5"))
    task = scenario.task()
    await scenario.world.until(
        lambda: task.reason is not None and "no claim" in task.reason, "the changelog is refused", 60
    )
    for _ in range(100):
        await asyncio.sleep(0.5)
        assert task.state is not TaskState.ACTIVE
        for key in (b"a", b"b", b"c", b"never"):
            scenario.checks.read(scenario.workers[0], SOURCE, task, key)


@simulated("count")
async def test_a_store_ahead_of_a_truncated_changelog_is_rebuilt(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    before = scenario.changelog.end
    scenario.produce((b"d", b"5"))
    await scenario.caught_up()
    worker.kill(1000)
    scenario.changelog.truncate(before)
    await _rebuilt(scenario, "past the log's end")


@simulated("upsert", workers=2, seeds=range(6))
async def test_a_standby_that_stood_still_beyond_the_retention_of_tombstones_is_rebuilt(scenario: Scenario) -> None:
    standby = await _follower(scenario)
    owner, world = scenario.workers[0], scenario.world

    def on_hop(process: object, where: str) -> None:
        if where == "read.asked" and process is standby.process and not world.under_way[where]:
            world.takes[where] = 26.5 * HOUR
        else:
            world.takes.clear()

    world.on_hop = on_hop
    scenario.produce((b"b", b"5"))
    await world.until(lambda: bool(world.under_way["read.asked"]), "it is about to read")
    world.on_hop = None
    world.takes.clear()
    scenario.produce((b"a", None), (b"c", b"6"))
    await scenario.caught_up(owner)
    await asyncio.sleep(26 * HOUR)
    scenario.produce((b"d", b"7"))
    await scenario.caught_up(owner)
    assert scenario.changelog.compact(scenario.changelog.cleanable()[-1]) > 0
    assert world.under_way["read.asked"] == 1
    await scenario.follows(standby)
    assert scenario.rows(standby) == scenario.rows(owner)
    scenario.check()


@simulated("count", workers=2)
async def test_a_store_older_than_the_retention_of_tombstones_is_rebuilt(scenario: Scenario) -> None:
    await _stopped(scenario)
    other = scenario.workers[1]
    other.start()
    await scenario.caught_up(other)
    scenario.produce((b"a", None), (b"b", b"5"))
    await scenario.caught_up(other)
    other.kill()
    await asyncio.sleep(26 * HOUR)
    scenario.changelog.compact(scenario.changelog.end)
    await _rebuilt(scenario, "retention of tombstones")
    assert b"a" not in scenario.rows()


@simulated("count")
async def test_a_store_at_the_end_of_its_changelog_is_never_too_old(scenario: Scenario) -> None:
    worker = await _stopped(scenario)
    await asyncio.sleep(100 * HOUR)
    scenario.changelog.compact(scenario.changelog.end)
    seen = _quarantines(scenario)
    worker.start()
    await scenario.caught_up()
    assert seen == []
    scenario.check()


@pytest.mark.parametrize("keep_store", [True, False], ids=["by the store", "by the changelog"])
def test_a_changed_fingerprint_stops_the_worker_and_names_the_field(*, keep_store: bool) -> None:
    @simulated("count")
    async def scenario_of(scenario: Scenario) -> None:
        worker = scenario.workers[0]
        await scenario.started(*EARLY)
        worker.kill(1000)
        if not keep_store:
            worker.disks.clear()
        worker.tables = [Table("count", version="2")]
        worker.start()
        await scenario.world.until(lambda: bool(worker.failures), "refused")
        assert isinstance(worker.failures[0], FingerprintChanged)
        assert "version was 1 and is now 2" in str(worker.failures[0])
        assert scenario.task().state is TaskState.CLOSED

    scenario_of()


@simulated("count")
async def test_a_store_of_another_row_layout_is_rebuilt(scenario: Scenario) -> None:
    worker = await _stopped(scenario)
    disk = worker.disk(SOURCE, "count")
    known = decode(Checkpoint, disk.durable[CHECKPOINT])
    fields = {name: getattr(known, name) for name in known.__struct_fields__}
    disk.durable[CHECKPOINT] = encode(Checkpoint(**(fields | {"layout": LAYOUT_VERSION + 1})))
    await _rebuilt(scenario, "layout")


async def _refused(scenario: Scenario, why: str) -> None:
    task = scenario.task()
    await scenario.world.until(lambda: task.reason is not None and why in task.reason, why, 60)
    for _ in range(30):
        await asyncio.sleep(1)
        assert task.state is not TaskState.ACTIVE
    answer = scenario.workers[0].read(task, b"b")
    assert answer.row is not None
    assert answer.freshness.role is Role.SUSPENDED, "old rows stay readable, and labelled"
    assert (answer.freshness.lag_records, answer.freshness.staleness_ms) == (None, None), "by nothing that is not known"
    for bound in (Consistency(max_lag=10**9), Consistency(max_staleness_ms=10**9)):
        with pytest.raises(TooStale):
            scenario.workers[0].read(task, b"b", bound)
    assert task.status().blocked


async def _refused_at_start(scenario: Scenario, why: str) -> None:
    scenario.workers[0].start()
    await asyncio.sleep(10)
    await _refused(scenario, why)


@simulated("count")
async def test_a_source_recreated_shorter_is_refused_and_the_old_rows_stay_readable(scenario: Scenario) -> None:
    await _stopped(scenario)
    scenario.source.recreate()
    scenario.produce((b"z", b"other"))
    await _refused_at_start(scenario, "was applied already")


@simulated("count")
async def test_a_source_recreated_longer_is_told_by_its_anchor(scenario: Scenario) -> None:
    await _stopped(scenario)
    scenario.source.recreate()
    scenario.produce(*[(b"z", b"other")] * 9)
    await _refused_at_start(scenario, "another record at offset 3")


@simulated("count", seeds=range(4))
async def test_a_source_recreated_under_its_owner_leaves_nothing_known_of_how_old_the_rows_are(
    scenario: Scenario,
) -> None:
    await scenario.started(*EARLY)
    task, worker = scenario.task(), scenario.workers[0]
    assert worker.read(task, b"b").freshness.lag_records == 0
    scenario.source.recreate()
    scenario.produce((b"z", b"other"))
    await _refused(scenario, "was applied already")
    # It grows past the position, and is still another topic.
    scenario.produce(*[(b"z", b"other")] * 9)
    await _refused(scenario, "another record at offset 3")


@simulated("count", workers=2)
async def test_a_standby_does_not_say_how_far_it_is_behind_a_source_that_lacks_what_it_has(scenario: Scenario) -> None:
    standby, task = await _lag_known(scenario)
    scenario.source.recreate()
    await scenario.world.until(lambda: task.lag_records is None, "its lag is not known", 10)
    scenario.produce(*[(b"z", b"other")] * 9)
    await asyncio.sleep(10)
    assert (task.lag_records, task.staleness_ms) == (None, None)
    with pytest.raises(TooStale):
        standby.read(task, b"a", Consistency(ReadMode.ANY, max_staleness_ms=10**9))


@simulated("count", seeds=range(4))
async def test_an_owner_whose_source_is_missing_keeps_its_rows_and_goes_on_once_it_is_back(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    task = scenario.task()
    scenario.source.missing = True
    # A broker that has just started may not know a topic yet.
    await asyncio.sleep(0.9)
    scenario.source.missing = False
    await scenario.world.until(lambda: task.lag_records == 0 and task.staleness_ms is not None, "it is known again")
    assert (task.state, task.halt) == (TaskState.ACTIVE, None)
    scenario.source.missing = True
    await _refused(scenario, "the brokers do not know the topic")
    claims = scenario.changelog.end
    await asyncio.sleep(60)
    assert scenario.changelog.end == claims
    scenario.source.missing = False
    scenario.produce(*EARLY)
    await scenario.caught_up()
    assert task.lag_records == 0
    scenario.check()


@simulated("count", workers=2)
async def test_a_standby_does_not_say_how_far_it_is_behind_a_source_that_is_missing(scenario: Scenario) -> None:
    standby, task = await _lag_known(scenario)
    scenario.source.missing = True
    await scenario.world.until(lambda: task.staleness_ms is None, "nothing is known", 10)
    assert (task.state, task.lag_records) == (TaskState.STANDBY, None)
    for bound in (Consistency(ReadMode.ANY), Consistency(ReadMode.ANY, max_staleness_ms=10**9)):
        with pytest.raises(TooStale):
            standby.read(task, b"a", bound)
    scenario.source.missing = False
    await scenario.world.until(lambda: task.staleness_ms is not None, "it is known again", 10)


@simulated("count")
async def test_records_deleted_by_retention_before_they_were_applied_are_not_skipped_over(scenario: Scenario) -> None:
    await _stopped(scenario)
    scenario.produce(*EARLY)
    scenario.source.delete_before(6)
    await _refused_at_start(scenario, "retention deleted records")


@simulated("count")
async def test_retention_that_strikes_between_the_check_and_the_claim_is_noticed_too(scenario: Scenario) -> None:
    worker = await _stopped(scenario)
    scenario.produce(*EARLY)
    reached = scenario.at("claim.asked", lambda: scenario.source.delete_before(6))
    worker.start()
    await scenario.world.until(reached, "about to claim")
    await asyncio.sleep(10)
    await _refused(scenario, "retention deleted records")


@simulated("count")
async def test_a_new_table_begins_where_the_source_begins(scenario: Scenario) -> None:
    scenario.produce(*EARLY)
    scenario.source.delete_before(2)
    scenario.workers[0].start()
    await scenario.caught_up()
    scenario.check()


@simulated("count")
async def test_a_changelog_that_lost_its_beginning_is_refused(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    worker.kill()
    worker.disks.clear()
    scenario.changelog.delete_before(2)
    worker.start()
    await asyncio.sleep(10)
    task = scenario.task()
    await scenario.world.until(lambda: "first records were deleted" in str(task.reason), "refused", 60)
    assert task.state is TaskState.RESTORING


@simulated("count", workers=2, seeds=range(10))
async def test_an_append_of_unknown_outcome_counts_once_whenever_it_lands(scenario: Scenario) -> None:
    await scenario.started(*EARLY)
    world = scenario.world
    for number in range(4):
        scenario.hold_batches()
        scenario.produce((b"a", b"%d" % number))
        count = len(world.held)
        await world.until(lambda count=count: len(world.held) > count, "a batch on the wire")  # type: ignore[misc]
        await asyncio.sleep(world.choose.random() * 4)
        scenario.release()
        world.deliver(world.held[-1])
        await scenario.caught_up()
    for late in world.held:
        assert not isinstance(world.deliver(late), int) or late.sequence > 0
    scenario.check()


@simulated("count", seeds=range(8))
async def test_a_quarantine_that_a_rebalance_interrupts_is_finished_all_the_same(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    # Wiping the store takes a while, and the rebalance comes in the middle.
    reached = scenario.at("store.wipe", scenario.world.group.rebalance)
    worker.distrust(scenario.task())
    await scenario.world.until(reached, "wiping")
    await asyncio.sleep(5)
    scenario.produce((b"a", b"5"))
    await scenario.caught_up()
    scenario.check()


@simulated("count")
async def test_keys_in_the_wrong_partition_are_remembered_through_restores(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY, (b"~misplaced", b"5"), (b"d", b"6"))
    assert "offset 4 of" in (scenario.task().doubt or "")
    worker.kill()
    worker.disks.clear()
    worker.start()
    await scenario.caught_up()
    assert "offset 4 of" in (scenario.task().doubt or "")
    scenario.checks.read(worker, SOURCE, scenario.task(), b"never seen")
    assert scenario.checks.reads == {"misplaced_keys": 1}
    scenario.check()


@simulated("upsert", "count")
async def test_records_that_do_not_fit_are_skipped_and_batches_that_do_not_fit_are_split(scenario: Scenario) -> None:
    scenario.world.limit = 400
    scenario.produce(
        *[(b"k%d" % number, b"v" * 30) for number in range(9)],
        (b"k1", b"x" * 6000),
        *[(b"k%d" % number, b"w" * 30) for number in range(9)],
    )
    scenario.workers[0].start()
    await scenario.caught_up()
    scenario.check()


def test_an_idle_owner_repeats_its_position_so_that_its_epoch_is_not_forgotten(paths: "Counter[str]") -> None:
    @simulated("count")
    async def scenario_of(scenario: Scenario) -> None:
        await scenario.started(*EARLY)
        before = scenario.changelog.end
        await asyncio.sleep(3 * 3600 + 60)
        assert scenario.changelog.end == before + 3
        assert scenario.task().state is TaskState.ACTIVE
        scenario.check()

    scenario_of()
    assert paths["claimed"] == 1


@simulated("count", workers=2)
async def test_records_of_an_older_epoch_are_dropped_where_a_broker_let_them_in(scenario: Scenario) -> None:
    first, second = scenario.workers
    await scenario.started(*EARLY)
    scenario.hold_batches()
    scenario.produce((b"a", b"5"))
    await scenario.world.until(lambda: bool(scenario.world.held), "a batch on the wire")
    scenario.release()
    first.kill()
    second.start()
    await scenario.caught_up(second)
    # As by a broker that has forgotten the producer.
    late = scenario.world.held[0]
    scenario.changelog.append(late.pairs, late.headers)
    scenario.produce((b"a", b"6"))
    await scenario.caught_up(second)
    assert scenario.rows(second)[b"a"] == b"4"
    first.start()
    await scenario.hands_over(first)
    assert scenario.rows(first)[b"a"] == b"4"


@simulated("upsert")
async def test_an_idle_owner_repeats_its_position_every_hour(scenario: Scenario) -> None:
    await scenario.started((b"a", b"1"))
    before = scenario.changelog.end
    await asyncio.sleep(2 * IDLE_POSITION_INTERVAL + 60)
    assert scenario.changelog.end == before + 2
    assert {record.key for record in scenario.changelog.read(before, 2)[0]} == {POSITION_KEY}
    scenario.produce((b"a", b"2"))
    await scenario.caught_up()
    assert scenario.rows() == {b"a": b"2"}
    scenario.check()


@simulated("count", seeds=range(4))
async def test_an_active_is_as_stale_as_the_listing_by_which_it_has_caught_up(scenario: Scenario) -> None:
    source_bounds = Takeover.source_bounds

    async def source_bounds_late(takeover: Takeover, source: TopicPartition) -> Bounds:
        bounds = await source_bounds(takeover, source)
        await asyncio.sleep(5)
        return bounds

    with (
        patch.object(Takeover, "source_bounds", source_bounds_late),
        patch("tablehouse.tasks.source_listings.SOURCE_ENDS_INTERVAL", 1e6),
    ):
        await scenario.started((b"a", b"1"), (b"b", b"2"))
        staleness = scenario.task().staleness_ms
        assert staleness is not None
        assert staleness >= 5000
