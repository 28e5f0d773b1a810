"""Which tasks are on a lane, what they are handed, and when the lane stands still."""

import asyncio
from dataclasses import dataclass

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.lane import RECORD_BYTES, Inbox, Lane, LaneMovedOn, SourceLost
from tablehouse.tasks.log import LaneOutage
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES, LARGE_BATCH_BYTES

SOURCE = TopicPartition("source", 0)


@dataclass(frozen=True)
class _Record:
    offset: int
    timestamp: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: tuple[tuple[str, bytes], ...] = ()


class _Control:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        assert partition == SOURCE
        self.asked.append(f"start {offset}")

    def pause_lane(self, partition: TopicPartition) -> None:
        assert partition == SOURCE
        self.asked.append("pause")

    def outage(self, _partition: TopicPartition) -> LaneOutage | None:
        return None

    def resume_lane(self, partition: TopicPartition) -> None:
        assert partition == SOURCE
        self.asked.append("resume")


def records(first: int, after: int, size: int = 2) -> list[_Record]:
    """Make records of `size` bytes each."""
    return [_Record(offset, value=b"v" * (size - 1)) for offset in range(first, after)]


@pytest.fixture
def control() -> _Control:
    return _Control()


@pytest.fixture
def lane(control: _Control) -> Lane:
    return Lane(SOURCE, control)


def admitted(lane: Lane, task: str, needed: int) -> Inbox:
    inbox = lane.admit(task, needed)
    assert inbox is not None
    return inbox


async def offsets(inbox: Inbox, limit: int = 100_000) -> list[int]:
    batch = await inbox.take(limit)
    return [record.offset for record in batch.records]


async def test_the_first_task_starts_the_lane_where_it_is(lane: Lane, control: _Control) -> None:
    inbox = admitted(lane, "a", 7)
    assert control.asked == ["start 7"]
    assert lane.offer(records(7, 9), 9)
    assert await offsets(inbox) == [7, 8]
    assert lane.expected == 9


def test_what_nobody_waits_for_is_refused(lane: Lane) -> None:
    assert not lane.offer(records(0, 5), 5)
    admitted(lane, "a", 0)
    lane.leave("a")
    assert not lane.offer(records(0, 5), 5)
    assert lane.expected is None


async def test_records_before_the_offset_wanted_are_passed_over(lane: Lane) -> None:
    inbox = admitted(lane, "a", 3)
    assert lane.offer(records(0, 3), 3)
    assert lane.offer(records(1, 6), 6)
    assert await offsets(inbox) == [3, 4, 5]


async def test_offsets_without_a_record_are_covered(lane: Lane) -> None:
    inbox = admitted(lane, "a", 0)
    assert lane.offer([_Record(4)], 10)
    batch = await inbox.take(10)
    assert (batch.first, batch.next_offset, len(batch.records)) == (0, 10, 1)
    assert lane.offer([], 12)
    assert (await inbox.take(10)).next_offset == 12


async def test_all_tasks_on_the_lane_get_the_same_records(lane: Lane) -> None:
    one, two = admitted(lane, "a", 0), admitted(lane, "b", 0)
    assert lane.offer(records(0, 3), 3)
    assert await offsets(one) == await offsets(two) == [0, 1, 2]


async def test_a_task_a_little_behind_joins_with_what_was_delivered_lately(lane: Lane, control: _Control) -> None:
    lane.expect("b")
    admitted(lane, "a", 10)
    lane.offer(records(10, 20), 20)
    lane.offer(records(20, 30), 30)
    inbox = admitted(lane, "b", 15)
    assert await offsets(inbox) == list(range(10, 30))
    assert control.asked == ["start 10"]


def test_a_task_behind_what_was_delivered_lately_has_to_catch_up_first(lane: Lane) -> None:
    admitted(lane, "a", 10)
    assert lane.admit("b", 5) is None


def test_a_task_far_behind_the_front_does_not_start_the_lane(lane: Lane, control: _Control) -> None:
    admitted(lane, "joined", 0)
    lane.offer(records(0, 10), 10 * LANE_BATCH)
    assert lane.admit("front", 10 * LANE_BATCH - 1) is None
    lane.leave("joined")
    assert lane.admit("behind", 0) is None
    assert lane.admit("near", 9 * LANE_BATCH) is not None
    assert control.asked == ["start 0", "pause", f"start {9 * LANE_BATCH}"]


def test_a_task_that_only_restores_does_not_belong_to_the_front(lane: Lane, control: _Control) -> None:
    lane.expect("restoring far ahead")
    admitted(lane, "a", 0)
    assert control.asked == ["start 0"]


@pytest.mark.parametrize("joined", [True, False])
def test_a_front_that_gave_up_holds_nobody_back(lane: Lane, control: _Control, joined: bool) -> None:  # noqa: FBT001
    admitted(lane, "front", 100 * LANE_BATCH)
    if not joined:
        # It catches up beside the lane, which a task further ahead took along before it left.
        admitted(lane, "further", 200 * LANE_BATCH)
        assert lane.admit("front", 100 * LANE_BATCH) is None
        lane.leave("further")
    assert lane.admit("healthy", 0) is None
    lane.leave("front")
    admitted(lane, "healthy", 5)
    assert control.asked[-1] == "start 5"


async def test_tasks_with_different_positions_after_a_restart_end_up_on_one_lane(lane: Lane, control: _Control) -> None:
    far = 100 * LANE_BATCH
    lane.expect("new")
    lane.expect("old")
    behind = admitted(lane, "new", 0)
    lane.offer(records(0, 3), 3)
    ahead = admitted(lane, "old", far)
    assert await offsets(behind) == [0, 1, 2]
    with pytest.raises(LaneMovedOn):
        await behind.take(10)
    lane.offer(records(far, far + 10), far + 10)
    assert lane.admit("new", 3) is None
    joined = admitted(lane, "new", far + 4)
    lane.offer(records(far + 10, far + 12), far + 12)
    assert await offsets(ahead) == await offsets(joined) == list(range(far, far + 12))
    assert control.asked == ["start 0", f"start {far}"]


async def test_a_task_that_has_to_claim_again_does_not_disturb_its_sibling(lane: Lane, control: _Control) -> None:
    going_on, fenced = admitted(lane, "a", 0), admitted(lane, "b", 0)
    lane.offer(records(0, 10), 10)
    assert await offsets(fenced) == list(range(10))
    lane.leave("b")
    lane.offer(records(10, 20), 20)
    lane.expect("b")
    lane.offer(records(20, 30), 30)
    assert lane.admit("b", 10) is None, "nothing was kept before it was expected"
    again = admitted(lane, "b", 20)
    assert await offsets(going_on) == list(range(30))
    assert await offsets(again) == list(range(20, 30))
    assert control.asked == ["start 0"]


async def test_the_lane_goes_to_a_task_far_ahead_and_leaves_the_others_to_catch_up(
    lane: Lane, control: _Control
) -> None:
    behind = admitted(lane, "new", 0)
    lane.offer(records(0, 3), 3)
    admitted(lane, "old", 1_000_000)
    assert control.asked == ["start 0", "start 1000000"]
    assert await offsets(behind) == [0, 1, 2]
    with pytest.raises(LaneMovedOn):
        await behind.take(10)
    assert lane.admit("new", 3) is None


async def test_a_full_inbox_pauses_the_lane_until_it_is_drained(lane: Lane, control: _Control) -> None:
    inbox = admitted(lane, "a", 0)
    lane.offer(records(0, 2 * LANE_BATCH), 2 * LANE_BATCH)
    assert control.asked == ["start 0", "pause"]
    await inbox.take(LANE_BATCH)
    assert control.asked == ["start 0", "pause", "resume"]


async def test_large_values_pause_the_lane_long_before_the_records_are_many(lane: Lane, control: _Control) -> None:
    inbox = admitted(lane, "a", 0)
    a_quarter = lane.limit_bytes // 4 - RECORD_BYTES
    for offset in range(3):
        lane.offer(records(offset, offset + 1, a_quarter), offset + 1)
    assert control.asked == ["start 0"]
    lane.offer(records(3, 4, a_quarter), 4)
    assert control.asked == ["start 0", "pause"]
    assert await offsets(inbox, limit=1) == [0]
    assert control.asked == ["start 0", "pause"]
    assert await offsets(inbox, limit=1) == [1]
    assert control.asked == ["start 0", "pause", "resume"]


async def test_a_shard_gets_one_poll_however_little_may_wait(lane: Lane, control: _Control) -> None:
    lane.limit_bytes = 1
    inbox = admitted(lane, "a", 0)
    for first in (0, 3):
        assert lane.offer(records(first, first + 3, 1000), first + 3)
        assert control.asked[-1] == "pause"
        assert await offsets(inbox) == list(range(first, first + 3))
        assert control.asked[-1] == "resume"


async def test_batches_are_coalesced_up_to_so_many_bytes_and_one_is_taken_however_large(lane: Lane) -> None:
    inbox = admitted(lane, "a", 0)
    third = LANE_BATCH_BYTES // 3
    for offset, size in enumerate([third, third, third, third, 3 * LANE_BATCH_BYTES, third]):
        lane.offer(records(offset, offset + 1, size), offset + 1)
    taken = [await inbox.take(LANE_BATCH)]
    while not inbox.empty:
        taken.append(await inbox.take(LANE_BATCH))
    assert [[record.offset for record in batch.records] for batch in taken] == [[0, 1, 2], [3], [4], [5]]
    assert [batch.size for batch in taken] == [3 * third, third, 3 * LANE_BATCH_BYTES, third]
    assert [(batch.first, batch.next_offset) for batch in taken] == [(0, 3), (3, 4), (4, 5), (5, 6)]


def test_what_was_delivered_lately_is_kept_up_to_so_many_bytes(lane: Lane) -> None:
    lane.expect("b")
    admitted(lane, "a", 0)
    a_quarter = lane.limit_bytes // 4 - RECORD_BYTES
    for offset in range(10):
        lane.offer(records(offset, offset + 1, a_quarter), offset + 1)
    assert lane.admit("b", 7) is None
    assert lane.admit("b", 8) is not None


def test_the_last_poll_is_kept_however_large(lane: Lane) -> None:
    lane.expect("b")
    admitted(lane, "a", 0)
    lane.offer(records(0, 1), 1)
    lane.offer(records(1, 4, lane.limit_bytes), 4)
    assert lane.admit("b", 0) is None
    assert lane.admit("b", 1) is not None


def test_a_slow_task_that_leaves_does_not_keep_the_lane_paused(lane: Lane, control: _Control) -> None:
    admitted(lane, "quick", 0)
    admitted(lane, "slow", 0)
    lane.offer(records(0, LANE_BATCH - 1), LANE_BATCH - 1)
    lane.offer(records(LANE_BATCH - 1, 2 * LANE_BATCH), 2 * LANE_BATCH)
    assert control.asked[-1] == "pause"
    lane.leave("slow")
    assert control.asked[-1] == "pause"
    lane.leave("quick")
    assert lane.expected is None


async def test_batches_are_coalesced_up_to_the_limit_and_never_cut(lane: Lane) -> None:
    inbox = admitted(lane, "a", 0)
    for first in range(0, 30, 10):
        lane.offer(records(first, first + 10), first + 10)
    assert await offsets(inbox, limit=25) == list(range(20))
    assert await offsets(inbox, limit=5) == list(range(20, 30))
    assert inbox.empty


async def test_take_waits_for_a_batch(lane: Lane) -> None:
    inbox = admitted(lane, "a", 0)
    taking = asyncio.ensure_future(offsets(inbox))
    await asyncio.wait({taking}, timeout=0)
    assert not taking.done()
    lane.offer(records(0, 1), 1)
    assert await taking == [0]


async def test_a_lost_source_reaches_every_task(lane: Lane, control: _Control) -> None:
    inbox = admitted(lane, "a", 5)
    lane.lost()
    with pytest.raises(SourceLost, match="5"):
        await inbox.take(1)
    assert control.asked[-1] == "pause"
    assert not lane.offer(records(5, 6), 6)


async def test_a_task_joins_only_as_far_back_as_what_was_delivered_lately_reaches(lane: Lane) -> None:
    lane.expect("b")
    admitted(lane, "a", 0)
    batches = 2 * LANE_BATCH // 1000
    for first in range(0, batches * 1000, 1000):
        lane.offer(records(first, first + 1000), first + 1000)
    end = batches * 1000
    assert lane.admit("b", end - LANE_BATCH - 1) is None
    assert await offsets(admitted(lane, "b", end - LANE_BATCH)) == list(range(end - LANE_BATCH, end))


def test_nothing_is_kept_while_nobody_is_behind(lane: Lane) -> None:
    admitted(lane, "a", 0)
    lane.offer(records(0, 10), 10)
    lane.offer(records(10, 20), 20)
    assert lane.admit("b", 15) is None


async def test_stopping_cuts_every_task_off_and_refuses_what_is_fetched(lane: Lane, control: _Control) -> None:
    inbox = admitted(lane, "a", 0)
    lane.offer(records(0, 2), 2)
    lane.stop()
    assert (control.asked, lane.expected) == (["start 0", "pause"], None)
    assert await offsets(inbox) == [0, 1]
    with pytest.raises(LaneMovedOn):
        await inbox.take(1)
    assert not lane.offer(records(2, 3), 3)
    lane.stop()
    assert control.asked == ["start 0", "pause"]


async def test_a_cut_wakes_who_waits_and_the_first_reason_stands(lane: Lane) -> None:
    inbox = admitted(lane, "a", 5)
    taking = asyncio.ensure_future(inbox.take(1))
    await asyncio.wait({taking}, timeout=0)
    lane.lost()
    lane.stop()
    with pytest.raises(SourceLost):
        await taking


async def test_a_task_that_comes_back_starts_the_lane_where_it_is_now(lane: Lane, control: _Control) -> None:
    admitted(lane, "a", 0)
    lane.offer(records(0, 5), 5)
    lane.leave("a")
    inbox = admitted(lane, "a", 3)
    assert control.asked == ["start 0", "pause", "start 3"]
    assert lane.offer(records(3, 6), 6)
    assert await offsets(inbox) == [3, 4, 5]


def test_what_was_delivered_lately_has_to_reach_back_to_where_the_task_is(lane: Lane) -> None:
    lane.expect("b")
    admitted(lane, "a", 10)
    lane.offer(records(10, 20), 20)
    assert lane.admit("b", 9) is None
    assert lane.admit("b", 10) is not None


def test_what_was_kept_for_a_task_that_has_joined_is_not_handed_out_with_a_hole_behind_it(lane: Lane) -> None:
    lane.expect("b")
    admitted(lane, "a", 10)
    lane.offer(records(10, 20), 20)
    admitted(lane, "b", 10)
    lane.offer(records(20, 30), 30)
    assert lane.admit("c", 15) is None


async def test_a_large_batch_counts_as_waiting_until_the_next_is_asked_for(lane: Lane, control: _Control) -> None:
    lane.limit_bytes = LANE_BATCH_BYTES
    inbox = admitted(lane, "a", 0)
    lane.offer(records(0, 1, 2 * LARGE_BATCH_BYTES), 1)
    assert control.asked == ["start 0", "pause"]
    assert (await inbox.take(LANE_BATCH)).next_offset == 1
    assert control.asked == ["start 0", "pause"]
    assert lane.waiting_bytes == 2 * LARGE_BATCH_BYTES
    following = asyncio.create_task(inbox.take(LANE_BATCH))
    await asyncio.sleep(0)
    assert control.asked == ["start 0", "pause", "resume"]
    assert lane.waiting_bytes == 0
    lane.offer(records(1, 2), 2)
    assert (await following).next_offset == 2


async def test_what_a_task_set_aside_was_handed_holds_up_no_other_shard(lane: Lane) -> None:
    inbox = admitted(lane, "a", 0)
    lane.offer(records(0, 1, 2 * LARGE_BATCH_BYTES), 1)
    await inbox.take(LANE_BATCH)
    lane.step_aside("a")
    assert lane.waiting_bytes == 0
    # It was alone on the lane, and stays on it.
    lane.offer(records(1, 2), 2)
    assert (await inbox.take(LANE_BATCH)).next_offset == 2
