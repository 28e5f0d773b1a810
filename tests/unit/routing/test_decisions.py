"""One decision at a time for a key, within bounds, whatever becomes of each."""

import asyncio

import pytest

from tablehouse.errors import Overloaded, PreconditionFailed
from tablehouse.routing import decisions
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.ports import Condition
from tablehouse.routing.tables import routed_tables
from tests.support.cluster_fakes import CATALOG, FakeOwner, FakeSource, FakeTables
from tests.support.schemas import NO_REGISTRY

TABLE = routed_tables(CATALOG, "g", NO_REGISTRY)["planes"]
ABSENT, PRESENT = Condition(exists=False), Condition(exists=True)


class Setting:
    """Decisions over dictionaries, which wait for `go_on` at the partitions in `held_up`."""

    def __init__(self) -> None:
        self.source, self.local = FakeSource(), FakeTables()
        self.owner = FakeOwner(self.local, self.source)
        self.owner.catching_up = self._catching_up
        self.held_up: set[int] = set()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.decisions = Decisions(self.local, self.owner, asyncio.get_running_loop().time)

    async def _catching_up(self, partition: int) -> None:
        self.begun.set()
        if partition in self.held_up:
            await self.go_on.wait()

    async def write(
        self, key: bytes, value: bytes | None, condition: Condition, seconds: float = 5.0, partition: int = 0
    ) -> int:
        """Write a key of partition 0."""
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.decisions.write(
            TABLE, partition, key, key=key, value=value, condition=condition, deadline=deadline
        )


async def test_a_turn_that_does_not_come_in_time_is_a_refusal_and_the_next_one_comes() -> None:
    setting = Setting()
    setting.held_up = {0}
    first = asyncio.create_task(setting.write(b"k", b"1", ABSENT))
    await setting.begun.wait()
    with pytest.raises(Overloaded, match="nothing was written"):
        await setting.write(b"k", b"2", PRESENT, seconds=0.01)
    third = asyncio.create_task(setting.write(b"k", b"3", PRESENT))
    setting.go_on.set()
    assert [await first, await third] == [100, 101]
    assert [record[3] for record in setting.source.records] == [b"1", b"3"]


async def test_who_gives_up_leaves_the_turn_to_the_next() -> None:
    setting = Setting()
    setting.held_up = {0}
    first = asyncio.create_task(setting.write(b"k", b"1", ABSENT))
    await setting.begun.wait()
    second = asyncio.create_task(setting.write(b"k", b"2", ABSENT))
    third = asyncio.create_task(setting.write(b"k", b"3", ABSENT))
    await asyncio.sleep(0)
    for gone in (first, second):
        gone.cancel()
    setting.go_on.set()
    assert await third == 100
    assert [record[3] for record in setting.source.records] == [b"3"]


async def test_so_many_at_once_are_taken_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_UNDER_WAY", 3)
    setting = Setting()
    setting.held_up = {0}
    waiting = [asyncio.create_task(setting.write(key, b"1", ABSENT)) for key in (b"a", b"a", b"b")]
    await setting.begun.wait()
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await setting.write(b"c", b"1", ABSENT)
    setting.go_on.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, PreconditionFailed, int]
    # Those that are through leave their places.
    assert await setting.write(b"c", b"1", ABSENT) > 0


async def test_a_write_rests_on_the_end_that_was_read_up_to() -> None:
    setting = Setting()
    setting.local.applied[0] = 41
    await setting.write(b"k", b"1", ABSENT)
    assert [end.offset for end in setting.owner.ends] == [42]


@pytest.mark.parametrize(
    ("condition", "holds_without_row", "holds"),
    [
        (Condition(), True, True),
        (Condition(exists=True), False, True),
        (Condition(exists=False), True, False),
        (Condition(offsets=(100,)), False, True),
        (Condition(offsets=(7, 100)), False, True),
        (Condition(offsets=(101,)), False, False),
        (Condition(offsets=()), False, False),
        (Condition(offsets=(100,), exists=False), False, False),
    ],
)
async def test_a_condition_is_about_the_offset_of_the_row_that_is_there(
    condition: Condition, *, holds_without_row: bool, holds: bool
) -> None:
    for is_there, expected in ((False, holds_without_row), (True, holds)):
        setting = Setting()
        if is_there:
            assert await setting.write(b"k", b"1", ABSENT) == 100
        if expected:
            assert await setting.write(b"k", None, condition) == 100 + is_there
        else:
            with pytest.raises(PreconditionFailed) as failed:
                await setting.write(b"k", None, condition)
            tag = TABLE.entity_tag(0, 100) if is_there else None
            assert failed.value.details.get("etag") == tag
