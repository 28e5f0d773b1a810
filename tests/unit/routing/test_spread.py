"""One key that may lie in several partitions: whose answer counts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from tablehouse.model import Freshness, Role
from tablehouse.routing.spread import AT_ONCE, newest_row
from tablehouse.stores.rows import Row
from tablehouse.tasks.reads import ReadResult
from tests.support.positions import at


@dataclass
class Answer:
    """Implements Answered."""

    result: ReadResult

    def labelled(self, freshness: Freshness) -> "Answer":
        """See Answered."""
        return Answer(replace(self.result, freshness=freshness))


class Partitions:
    """Partitions with a row's timestamp, or what asking them raises; the rest have none."""

    def __init__(
        self,
        rows: Mapping[int, int | Exception],
        roles: Mapping[int, Role] | None = None,
        *,
        deleted: Mapping[int, int] | None = None,
        behind: Mapping[int, int | None] | None = None,
    ) -> None:
        self._rows = rows
        self._deleted = deleted or {}
        self._behind = behind or {}
        self._roles = roles or {}
        self.asked: list[int] = []
        self.at_once = self._now = 0

    async def ask(self, partition: int) -> Answer:
        """Answer after a turn of the loop."""
        self.asked.append(partition)
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        found = self._rows.get(partition)
        if isinstance(found, Exception):
            raise found
        row = None if found is None else Row(b"%d" % partition, found, 0)
        lag = self._behind.get(partition, 0)
        freshness = Freshness(partition, at(partition, 9), self._roles.get(partition, Role.ACTIVE), lag, lag)
        return Answer(ReadResult(row, freshness, self._deleted.get(partition)))


def partition_of(answer: Answer) -> int:
    return answer.result.freshness.partition


def others(known: list[int], count: int) -> list[int]:
    return [partition for partition in range(count) if partition not in known]


async def test_of_rows_with_one_timestamp_the_first_partition_s_counts() -> None:
    assert partition_of(await newest_row(Partitions({1: 5, 3: 5}).ask, [3, 1], [])) == 3


async def test_the_newest_row_of_the_known_partitions_counts_and_no_other_is_asked() -> None:
    partitions = Partitions({1: 5, 3: 9, 4: 7, 0: 100})
    assert partition_of(await newest_row(partitions.ask, [1, 3, 4], others([1, 3, 4], 8))) == 3
    assert sorted(partitions.asked) == [1, 3, 4]


async def test_after_misses_in_the_known_ones_the_newest_row_of_all_others_counts() -> None:
    partitions = Partitions({0: 5, 7: 9})
    assert partition_of(await newest_row(partitions.ask, [1, 3], others([1, 3], 8))) == 7
    assert partitions.asked[:2] == [1, 3]
    assert sorted(partitions.asked) == list(range(8))


@pytest.mark.parametrize("known", [[], [3], [1, 3], [0, 1, 2, 3]])
async def test_a_miss_is_one_of_every_partition_each_asked_once(known: list[int]) -> None:
    partitions = Partitions({})
    assert (await newest_row(partitions.ask, known, others(known, 4))).result.row is None
    assert sorted(partitions.asked) == [0, 1, 2, 3]


async def test_a_miss_is_labelled_by_the_copy_that_knows_least() -> None:
    partitions = Partitions({}, {2: Role.STANDBY})
    assert partition_of(await newest_row(partitions.ask, [0], others([0], 4))) == 2


@pytest.mark.parametrize("rows", [{1: LookupError(), 3: 9}, {5: LookupError()}, {5: LookupError(), 6: 9}])
async def test_a_partition_that_cannot_answer_might_have_a_newer_row(rows: dict[int, int | Exception]) -> None:
    with pytest.raises(LookupError):
        await newest_row(Partitions(rows).ask, [1, 3], others([1, 3], 8))


async def test_so_many_are_asked_at_the_same_time_and_no_more() -> None:
    partitions = Partitions({})
    await newest_row(partitions.ask, [], range(AT_ONCE * 2 + 3))
    assert partitions.at_once == AT_ONCE
    assert len(partitions.asked) == AT_ONCE * 2 + 3


@pytest.mark.parametrize("how", ["a failure", "a caller who left"])
async def test_nothing_is_asked_any_more_once_there_is_an_end(how: str) -> None:
    asking: set[int] = set()
    all_asked = asyncio.Event()

    async def ask(partition: int) -> Answer:
        asking.add(partition)
        if len(asking) == 4:
            all_asked.set()
        try:
            await all_asked.wait()
            if partition == 2 and how == "a failure":
                raise LookupError
            await asyncio.Event().wait()
        finally:
            asking.remove(partition)
        raise AssertionError("never answers")

    reading = asyncio.ensure_future(newest_row(ask, [0, 1, 2, 3], []))
    await all_asked.wait()
    if how == "a failure":
        with pytest.raises(LookupError):
            await reading
    else:
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert asking == set()


@pytest.mark.parametrize(
    ("deleted", "found"),
    [({2: 6}, None), ({2: 4}, 1), ({2: 5}, 1), ({2: 4, 3: 6}, None), ({0: 1, 2: 2, 3: 3}, 1)],
    ids=["later", "earlier", "at the same time", "earlier and later", "all earlier"],
)
async def test_a_row_is_gone_where_another_partition_has_a_later_mark(
    deleted: dict[int, int], found: int | None
) -> None:
    answer = await newest_row(Partitions({1: 5}, deleted=deleted).ask, range(4), [])
    assert (answer.result.row is None) is (found is None)
    assert found is None or partition_of(answer) == found


async def test_a_row_that_is_newer_than_every_mark_is_there_again() -> None:
    partitions = Partitions({1: 5, 3: 9}, deleted={0: 7})
    assert partition_of(await newest_row(partitions.ask, range(4), [])) == 3


async def test_an_answer_of_several_partitions_is_as_stale_as_the_stalest_of_them() -> None:
    partitions = Partitions({1: 5}, {3: Role.STANDBY}, behind={0: 7, 1: 2})
    label = (await newest_row(partitions.ask, range(4), [])).result.freshness
    assert label == Freshness(1, at(1, 9), Role.STANDBY, 7, 7)


async def test_what_one_partition_does_not_know_of_its_lag_is_not_known_of_the_answer() -> None:
    label = (await newest_row(Partitions({}, behind={2: None}).ask, range(4), [])).result.freshness
    assert (label.partition, label.lag_records, label.staleness_ms) == (2, None, None)
