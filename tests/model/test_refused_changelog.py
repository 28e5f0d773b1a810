"""Changelogs with a record that a rebuild cannot correct: refused, without wiping the store again and again."""

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from tablehouse.model import TaskState
from tablehouse.tasks.records import POSITION_KEY, PositionRecord, encode
from tests.model.scenario import Scenario, simulated

EARLY = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4")]
QUARANTINED = "store quarantined; it is rebuilt from the changelog"


def _unreadable(_last: PositionRecord) -> bytes:
    return b"\xff"


def _later(last: PositionRecord) -> bytes:
    return encode(msgspec.structs.replace(last, v=3))


def _not_following(last: PositionRecord) -> bytes:
    return encode(msgspec.structs.replace(last, first=last.last + 7, last=last.last + 9))


@pytest.mark.parametrize("keep_store", [True, False], ids=["a store", "an empty disk"])
@pytest.mark.parametrize(
    ("value_after", "why", "quarantines"),
    [
        (_unreadable, "not a PositionRecord", 0),
        (_later, "upgrade this worker", 0),
        (_not_following, "in the changelog itself", 1),
    ],
)
def test_a_record_that_is_wrong_in_the_changelog_wipes_a_store_once_at_most_and_what_is_mended_goes_on(
    value_after: Callable[[PositionRecord], bytes],
    why: str,
    quarantines: int,
    paths: Counter[str],
    *,
    keep_store: bool,
) -> None:
    @simulated("count")
    async def scenario_of(scenario: Scenario) -> None:
        worker, changelog = scenario.workers[0], scenario.changelog
        await scenario.started(*EARLY)
        worker.kill(1000)
        if not keep_store:
            worker.disks.clear()
        newest = next(record for record in reversed(changelog.records) if record.key == POSITION_KEY)
        last = msgspec.msgpack.decode(newest.value or b"", type=PositionRecord)
        wrong = changelog.append([(POSITION_KEY, value_after(last))], newest.headers)
        worker.start()
        await scenario.world.until(lambda: bool(worker.tasks()), "the partition is held")
        task = scenario.task()
        await scenario.world.until(lambda: why in str(task.reason), "refused", 100)
        for _ in range(60):
            await asyncio.sleep(1)
            assert task.state is TaskState.RESTORING
        assert f"source-count[0] offset {wrong}: " in str(task.reason)
        assert changelog.end == wrong + 1, "nothing is appended to it"
        assert [record for record in changelog.records if record.offset == wrong]
        # A newer worker, or a person, has corrected it.
        changelog.records = [record for record in changelog.records if record.offset != wrong]
        scenario.produce((b"b", b"5"))
        await scenario.caught_up()
        scenario.check()

    scenario_of()
    assert paths[QUARANTINED] == (quarantines if keep_store else 0)


@simulated("count")
async def test_a_deleted_changelog_wipes_no_store_when_its_source_has_lost_its_beginning_too(
    scenario: Scenario,
) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    before = scenario.rows()
    worker.kill(1000)
    scenario.changelog.recreate()
    scenario.source.delete_before(3)
    worker.start()
    await scenario.world.until(lambda: bool(worker.tasks()), "the partition is held")
    task = scenario.task()
    await scenario.world.until(lambda: "is empty, though the table had been built" in str(task.reason), "refused", 100)
    for _ in range(60):
        await asyncio.sleep(1)
        assert task.state is TaskState.RESTORING
    assert scenario.changelog.end == 0, "nothing is appended to it"
    assert scenario.rows() == before


@simulated("count")
async def test_a_store_ahead_of_a_changelog_that_lost_its_beginning_is_kept_as_it_is(scenario: Scenario) -> None:
    worker = scenario.workers[0]
    await scenario.started(*EARLY)
    before = scenario.rows()
    worker.kill(1000)
    for number in range(40):
        scenario.changelog.append([(b"\x01a", b"%d" % number)])
    scenario.changelog.delete_before(scenario.changelog.end)
    worker.start()
    await scenario.world.until(lambda: bool(worker.tasks()), "the partition is held")
    task = scenario.task()
    await scenario.world.until(lambda: "its first records were deleted" in str(task.reason), "refused", 100)
    assert task.state is TaskState.RESTORING
    assert scenario.rows() == before
