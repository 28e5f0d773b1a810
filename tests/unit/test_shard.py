"""Who is on the lane of a shard, what it is handed, and when the lane stands still."""

import asyncio
from dataclasses import dataclass

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LaneOutage
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES, LARGE_BATCH_BYTES
from tablehouse.tasks.shard import RECORD_BYTES, Inbox, LaneMovedOn, Shard, SourceLost

SOURCE = TopicPartition("source", 0)


@dataclass(frozen=True)
class _Record:
    offset: int
    timestamp: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: tuple[tuple[str, bytes], ...] = ()


class _Lane:
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
def lane() -> _Lane:
    return _Lane()


@pytest.fixture
def shard(lane: _Lane) -> Shard:
    return Shard(SOURCE, lane)


def admitted(shard: Shard, task: str, needed: int) -> Inbox:
    inbox = shard.admit(task, needed)
    assert inbox is not None
    return inbox


async def offsets(inbox: Inbox, limit: int = 100_000) -> list[int]:
    batch = await inbox.take(limit)
    return [record.offset for record in batch.records]


async def test_the_first_task_starts_the_lane_where_it_is(shard: Shard, lane: _Lane) -> None:
    inbox = admitted(shard, "a", 7)
    assert lane.asked == ["start 7"]
    assert shard.offer(records(7, 9), 9)
    assert await offsets(inbox) == [7, 8]
    assert shard.expected == 9


def test_what_nobody_waits_for_is_refused(shard: Shard) -> None:
    assert not shard.offer(records(0, 5), 5)
    admitted(shard, "a", 0)
    shard.leave("a")
    assert not shard.offer(records(0, 5), 5)
    assert shard.expected is None


async def test_records_before_the_offset_wanted_are_passed_over(shard: Shard) -> None:
    inbox = admitted(shard, "a", 3)
    assert shard.offer(records(0, 3), 3)
    assert shard.offer(records(1, 6), 6)
    assert await offsets(inbox) == [3, 4, 5]


async def test_offsets_without_a_record_are_covered(shard: Shard) -> None:
    inbox = admitted(shard, "a", 0)
    assert shard.offer([_Record(4)], 10)
    batch = await inbox.take(10)
    assert (batch.first, batch.next_offset, len(batch.records)) == (0, 10, 1)
    assert shard.offer([], 12)
    assert (await inbox.take(10)).next_offset == 12


async def test_all_tasks_on_the_lane_get_the_same_records(shard: Shard) -> None:
    one, two = admitted(shard, "a", 0), admitted(shard, "b", 0)
    assert shard.offer(records(0, 3), 3)
    assert await offsets(one) == await offsets(two) == [0, 1, 2]


async def test_a_task_a_little_behind_joins_with_what_was_delivered_lately(shard: Shard, lane: _Lane) -> None:
    shard.expect("b")
    admitted(shard, "a", 10)
    shard.offer(records(10, 20), 20)
    shard.offer(records(20, 30), 30)
    inbox = admitted(shard, "b", 15)
    assert await offsets(inbox) == list(range(10, 30))
    assert lane.asked == ["start 10"]


def test_a_task_behind_what_was_delivered_lately_has_to_catch_up_first(shard: Shard) -> None:
    admitted(shard, "a", 10)
    assert shard.admit("b", 5) is None


def test_a_task_far_behind_the_front_does_not_start_the_lane(shard: Shard, lane: _Lane) -> None:
    admitted(shard, "joined", 0)
    shard.offer(records(0, 10), 10 * LANE_BATCH)
    assert shard.admit("front", 10 * LANE_BATCH - 1) is None
    shard.leave("joined")
    assert shard.admit("behind", 0) is None
    assert shard.admit("near", 9 * LANE_BATCH) is not None
    assert lane.asked == ["start 0", "pause", f"start {9 * LANE_BATCH}"]


def test_a_task_that_only_restores_does_not_belong_to_the_front(shard: Shard, lane: _Lane) -> None:
    shard.expect("restoring far ahead")
    admitted(shard, "a", 0)
    assert lane.asked == ["start 0"]


@pytest.mark.parametrize("joined", [True, False])
def test_a_front_that_gave_up_holds_nobody_back(shard: Shard, lane: _Lane, joined: bool) -> None:  # noqa: FBT001
    admitted(shard, "front", 100 * LANE_BATCH)
    if not joined:
        # It catches up beside the lane, which a task further ahead took along before it left.
        admitted(shard, "further", 200 * LANE_BATCH)
        assert shard.admit("front", 100 * LANE_BATCH) is None
        shard.leave("further")
    assert shard.admit("healthy", 0) is None
    shard.leave("front")
    admitted(shard, "healthy", 5)
    assert lane.asked[-1] == "start 5"


async def test_tasks_with_different_positions_after_a_restart_end_up_on_one_lane(shard: Shard, lane: _Lane) -> None:
    far = 100 * LANE_BATCH
    shard.expect("new")
    shard.expect("old")
    behind = admitted(shard, "new", 0)
    shard.offer(records(0, 3), 3)
    ahead = admitted(shard, "old", far)
    assert await offsets(behind) == [0, 1, 2]
    with pytest.raises(LaneMovedOn):
        await behind.take(10)
    shard.offer(records(far, far + 10), far + 10)
    assert shard.admit("new", 3) is None
    joined = admitted(shard, "new", far + 4)
    shard.offer(records(far + 10, far + 12), far + 12)
    assert await offsets(ahead) == await offsets(joined) == list(range(far, far + 12))
    assert lane.asked == ["start 0", f"start {far}"]


async def test_a_task_that_has_to_claim_again_does_not_disturb_its_sibling(shard: Shard, lane: _Lane) -> None:
    going_on, fenced = admitted(shard, "a", 0), admitted(shard, "b", 0)
    shard.offer(records(0, 10), 10)
    assert await offsets(fenced) == list(range(10))
    shard.leave("b")
    shard.offer(records(10, 20), 20)
    shard.expect("b")
    shard.offer(records(20, 30), 30)
    assert shard.admit("b", 10) is None, "nothing was kept before it was expected"
    again = admitted(shard, "b", 20)
    assert await offsets(going_on) == list(range(30))
    assert await offsets(again) == list(range(20, 30))
    assert lane.asked == ["start 0"]


async def test_the_lane_goes_to_a_task_far_ahead_and_leaves_the_others_to_catch_up(shard: Shard, lane: _Lane) -> None:
    behind = admitted(shard, "new", 0)
    shard.offer(records(0, 3), 3)
    admitted(shard, "old", 1_000_000)
    assert lane.asked == ["start 0", "start 1000000"]
    assert await offsets(behind) == [0, 1, 2]
    with pytest.raises(LaneMovedOn):
        await behind.take(10)
    assert shard.admit("new", 3) is None


async def test_a_full_inbox_pauses_the_lane_until_it_is_drained(shard: Shard, lane: _Lane) -> None:
    inbox = admitted(shard, "a", 0)
    shard.offer(records(0, 2 * LANE_BATCH), 2 * LANE_BATCH)
    assert lane.asked == ["start 0", "pause"]
    await inbox.take(LANE_BATCH)
    assert lane.asked == ["start 0", "pause", "resume"]


async def test_large_values_pause_the_lane_long_before_the_records_are_many(shard: Shard, lane: _Lane) -> None:
    inbox = admitted(shard, "a", 0)
    a_quarter = shard.limit_bytes // 4 - RECORD_BYTES
    for offset in range(3):
        shard.offer(records(offset, offset + 1, a_quarter), offset + 1)
    assert lane.asked == ["start 0"]
    shard.offer(records(3, 4, a_quarter), 4)
    assert lane.asked == ["start 0", "pause"]
    assert await offsets(inbox, limit=1) == [0]
    assert lane.asked == ["start 0", "pause"]
    assert await offsets(inbox, limit=1) == [1]
    assert lane.asked == ["start 0", "pause", "resume"]


async def test_a_shard_gets_one_poll_however_little_may_wait(shard: Shard, lane: _Lane) -> None:
    shard.limit_bytes = 1
    inbox = admitted(shard, "a", 0)
    for first in (0, 3):
        assert shard.offer(records(first, first + 3, 1000), first + 3)
        assert lane.asked[-1] == "pause"
        assert await offsets(inbox) == list(range(first, first + 3))
        assert lane.asked[-1] == "resume"


async def test_batches_are_coalesced_up_to_so_many_bytes_and_one_is_taken_however_large(shard: Shard) -> None:
    inbox = admitted(shard, "a", 0)
    third = LANE_BATCH_BYTES // 3
    for offset, size in enumerate([third, third, third, third, 3 * LANE_BATCH_BYTES, third]):
        shard.offer(records(offset, offset + 1, size), offset + 1)
    taken = [await inbox.take(LANE_BATCH)]
    while not inbox.empty:
        taken.append(await inbox.take(LANE_BATCH))
    assert [[record.offset for record in batch.records] for batch in taken] == [[0, 1, 2], [3], [4], [5]]
    assert [batch.size for batch in taken] == [3 * third, third, 3 * LANE_BATCH_BYTES, third]
    assert [(batch.first, batch.next_offset) for batch in taken] == [(0, 3), (3, 4), (4, 5), (5, 6)]


def test_what_was_delivered_lately_is_kept_up_to_so_many_bytes(shard: Shard) -> None:
    shard.expect("b")
    admitted(shard, "a", 0)
    a_quarter = shard.limit_bytes // 4 - RECORD_BYTES
    for offset in range(10):
        shard.offer(records(offset, offset + 1, a_quarter), offset + 1)
    assert shard.admit("b", 7) is None
    assert shard.admit("b", 8) is not None


def test_the_last_poll_is_kept_however_large(shard: Shard) -> None:
    shard.expect("b")
    admitted(shard, "a", 0)
    shard.offer(records(0, 1), 1)
    shard.offer(records(1, 4, shard.limit_bytes), 4)
    assert shard.admit("b", 0) is None
    assert shard.admit("b", 1) is not None


def test_a_slow_task_that_leaves_does_not_keep_the_lane_paused(shard: Shard, lane: _Lane) -> None:
    admitted(shard, "quick", 0)
    admitted(shard, "slow", 0)
    shard.offer(records(0, LANE_BATCH - 1), LANE_BATCH - 1)
    shard.offer(records(LANE_BATCH - 1, 2 * LANE_BATCH), 2 * LANE_BATCH)
    assert lane.asked[-1] == "pause"
    shard.leave("slow")
    assert lane.asked[-1] == "pause"
    shard.leave("quick")
    assert shard.expected is None


async def test_batches_are_coalesced_up_to_the_limit_and_never_cut(shard: Shard) -> None:
    inbox = admitted(shard, "a", 0)
    for first in range(0, 30, 10):
        shard.offer(records(first, first + 10), first + 10)
    assert await offsets(inbox, limit=25) == list(range(20))
    assert await offsets(inbox, limit=5) == list(range(20, 30))
    assert inbox.empty


async def test_take_waits_for_a_batch(shard: Shard) -> None:
    inbox = admitted(shard, "a", 0)
    taking = asyncio.ensure_future(offsets(inbox))
    await asyncio.wait({taking}, timeout=0)
    assert not taking.done()
    shard.offer(records(0, 1), 1)
    assert await taking == [0]


async def test_a_lost_source_reaches_every_task(shard: Shard, lane: _Lane) -> None:
    inbox = admitted(shard, "a", 5)
    shard.lost()
    with pytest.raises(SourceLost, match="5"):
        await inbox.take(1)
    assert lane.asked[-1] == "pause"
    assert not shard.offer(records(5, 6), 6)


async def test_a_task_joins_only_as_far_back_as_what_was_delivered_lately_reaches(shard: Shard) -> None:
    shard.expect("b")
    admitted(shard, "a", 0)
    batches = 2 * LANE_BATCH // 1000
    for first in range(0, batches * 1000, 1000):
        shard.offer(records(first, first + 1000), first + 1000)
    end = batches * 1000
    assert shard.admit("b", end - LANE_BATCH - 1) is None
    assert await offsets(admitted(shard, "b", end - LANE_BATCH)) == list(range(end - LANE_BATCH, end))


def test_nothing_is_kept_while_nobody_is_behind(shard: Shard) -> None:
    admitted(shard, "a", 0)
    shard.offer(records(0, 10), 10)
    shard.offer(records(10, 20), 20)
    assert shard.admit("b", 15) is None


async def test_stopping_cuts_every_task_off_and_refuses_what_is_fetched(shard: Shard, lane: _Lane) -> None:
    inbox = admitted(shard, "a", 0)
    shard.offer(records(0, 2), 2)
    shard.stop()
    assert (lane.asked, shard.expected) == (["start 0", "pause"], None)
    assert await offsets(inbox) == [0, 1]
    with pytest.raises(LaneMovedOn):
        await inbox.take(1)
    assert not shard.offer(records(2, 3), 3)
    shard.stop()
    assert lane.asked == ["start 0", "pause"]


async def test_a_cut_wakes_who_waits_and_the_first_reason_stands(shard: Shard) -> None:
    inbox = admitted(shard, "a", 5)
    taking = asyncio.ensure_future(inbox.take(1))
    await asyncio.wait({taking}, timeout=0)
    shard.lost()
    shard.stop()
    with pytest.raises(SourceLost):
        await taking


async def test_a_task_that_comes_back_starts_the_lane_where_it_is_now(shard: Shard, lane: _Lane) -> None:
    admitted(shard, "a", 0)
    shard.offer(records(0, 5), 5)
    shard.leave("a")
    inbox = admitted(shard, "a", 3)
    assert lane.asked == ["start 0", "pause", "start 3"]
    assert shard.offer(records(3, 6), 6)
    assert await offsets(inbox) == [3, 4, 5]


def test_what_was_delivered_lately_has_to_reach_back_to_where_the_task_is(shard: Shard) -> None:
    shard.expect("b")
    admitted(shard, "a", 10)
    shard.offer(records(10, 20), 20)
    assert shard.admit("b", 9) is None
    assert shard.admit("b", 10) is not None


def test_what_was_kept_for_a_task_that_has_joined_is_not_handed_out_with_a_hole_behind_it(shard: Shard) -> None:
    shard.expect("b")
    admitted(shard, "a", 10)
    shard.offer(records(10, 20), 20)
    admitted(shard, "b", 10)
    shard.offer(records(20, 30), 30)
    assert shard.admit("c", 15) is None


async def test_a_large_batch_counts_as_waiting_until_the_next_is_asked_for(shard: Shard, lane: _Lane) -> None:
    shard.limit_bytes = LANE_BATCH_BYTES
    inbox = admitted(shard, "a", 0)
    shard.offer(records(0, 1, 2 * LARGE_BATCH_BYTES), 1)
    assert lane.asked == ["start 0", "pause"]
    assert (await inbox.take(LANE_BATCH)).next_offset == 1
    assert lane.asked == ["start 0", "pause"]
    assert shard.waiting_bytes == 2 * LARGE_BATCH_BYTES
    following = asyncio.create_task(inbox.take(LANE_BATCH))
    await asyncio.sleep(0)
    assert lane.asked == ["start 0", "pause", "resume"]
    assert shard.waiting_bytes == 0
    shard.offer(records(1, 2), 2)
    assert (await following).next_offset == 2


async def test_what_a_task_set_aside_was_handed_holds_up_no_other_shard(shard: Shard) -> None:
    inbox = admitted(shard, "a", 0)
    shard.offer(records(0, 1, 2 * LARGE_BATCH_BYTES), 1)
    await inbox.take(LANE_BATCH)
    shard.step_aside("a")
    assert shard.waiting_bytes == 0
    # It was alone on the lane, and stays on it.
    shard.offer(records(1, 2), 2)
    assert (await inbox.take(LANE_BATCH)).next_offset == 2
