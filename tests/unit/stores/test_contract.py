"""What every TaskStore does, asked of the one on disk and of the one that the simulation uses."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.stores.store import StoreClosed, TaskStore
from tablehouse.testing.simulated.store import Disk, MemoryStore
from tablehouse.turns import Turns


@pytest.fixture(params=["rocksdb", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TaskStore, Callable[[], None]]]:
    """Give an empty store and what closes it."""
    if request.param == "memory":
        memory = MemoryStore(Disk())
        yield memory, memory.close
        return
    shard = RocksShard(tmp_path / "shard", StoreMemory(64 << 20), Turns())
    shard.open(["t"])
    yield shard.task("t"), shard.close
    shard.close()


Opened = tuple[TaskStore, Callable[[], None]]


async def test_a_new_store_has_nothing(opened: Opened) -> None:
    store, _ = opened
    assert store.checkpoint() is None
    assert store.get(b"\x01a") is None
    assert store.scan(limit=10) == []


async def test_rows_and_checkpoint_are_there_once_written(opened: Opened) -> None:
    store, _ = opened
    await store.write([(b"\x01a", b"1"), (b"\x01b", b"2")], b"first")
    await store.write([(b"\x01a", None), (b"\x01c", b"3")], b"second")
    assert store.checkpoint() == b"second"
    assert store.scan(limit=10) == [(b"\x01b", b"2"), (b"\x01c", b"3")]


async def test_many_rows_are_read_in_the_order_of_the_keys(opened: Opened) -> None:
    store, close = opened
    await store.write([(b"\x01a", b"1"), (b"\x01b", b"2")], b"first")
    assert store.get_many([b"\x01b", b"\x01none", b"\x01a", b"\x01b"]) == [b"2", None, b"1", b"2"]
    assert store.get_many([]) == []
    close()
    with pytest.raises(StoreClosed):
        store.get_many([b"\x01a"])


async def test_more_rows_than_a_chunk_come_with_one_checkpoint(opened: Opened) -> None:
    store, _ = opened
    rows = [(b"\x01%05d" % number, b"row %d" % number) for number in range(1234)]
    await store.write(iter(rows), b"all")
    assert store.checkpoint() == b"all"
    assert store.scan(limit=2000) == rows


async def test_a_checkpoint_alone_is_written_too(opened: Opened) -> None:
    store, _ = opened
    await store.write([], b"nothing new")
    assert store.checkpoint() == b"nothing new"


async def test_a_wiped_store_is_a_new_one(opened: Opened) -> None:
    store, _ = opened
    await store.write([(b"\x01a", b"1")], b"first")
    await store.wipe()
    assert store.checkpoint() is None
    assert store.get(b"\x01a") is None
    await store.write([(b"\x01b", b"2")], b"again")
    assert (store.get(b"\x01b"), store.checkpoint()) == (b"2", b"again")


async def test_a_closed_store_says_so(opened: Opened) -> None:
    store, close = opened
    await store.write([(b"\x01a", b"1")], b"first")
    close()
    for ask in (lambda: store.get(b"\x01a"), store.checkpoint, lambda: store.scan(limit=1)):
        with pytest.raises(StoreClosed):
            ask()
    with pytest.raises(StoreClosed):
        await store.write([(b"\x01a", b"2")], b"second")


ROWS = [(b"\x01" + key, b"v" + key) for key in (b"", b"\x00", b"a", b"a\x00", b"b", b"c", b"\xff\xff")]
BOUNDS = (b"", b"\x01", b"\x01a", b"\x01aa", b"\x01b", b"\x01z", b"\x01\xff\xff", b"\x02", b"\x09")


@pytest.mark.parametrize("start", BOUNDS)
async def test_a_scan_has_the_rows_from_its_start_to_below_its_end(opened: Opened, start: bytes) -> None:
    store, _ = opened
    await store.write(ROWS, b"c")
    for end in BOUNDS:
        within = [row for row in ROWS if start <= row[0] < end]
        for limit in (0, 1, 2, len(ROWS), 100):
            assert store.scan(start, end, limit=limit) == within[:limit]
            assert store.scan(start, end, reverse=True, limit=limit) == within[::-1][:limit]


async def test_a_scan_of_everything_has_rows_alone_and_neither_the_checkpoint_nor_other_records(opened: Opened) -> None:
    store, _ = opened
    await store.write([(b"\x00other", b"x"), (b"\x02index", b"x"), (b"\xff", b"x"), *ROWS], b"checkpoint")
    for bounds in ((), (b"",), (b"", b"\xff\xff"), (b"\x00checkpoint", b"\x03")):
        assert store.scan(*bounds, limit=100) == ROWS
        assert store.scan(*bounds, reverse=True, limit=100) == ROWS[::-1]
    store.count_rows()
    assert store.rows_estimate() == len(ROWS)


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_scan_goes_on_where_the_one_before_ended_over_rows_that_come_and_go(
    opened: Opened, *, reverse: bool
) -> None:
    store, _ = opened
    await store.write(ROWS, b"c")
    seen = list(store.scan(reverse=reverse, limit=3))
    first, gone = (b"\x01z", b"\x01a") if reverse else (b"\x01", b"\x01b")
    await store.write([(gone, None), (first, b"new"), (b"\x01a\x00\x00", b"between")], b"c")
    while True:
        start, end = (b"", seen[-1][0]) if reverse else (seen[-1][0] + b"\x00", b"\xff")
        rows = store.scan(start, end, reverse=reverse, limit=1)
        if not rows:
            break
        seen += rows
    left = {key: value for key, value in ROWS if key != gone} | {b"\x01a\x00\x00": b"between"}
    assert seen == sorted(left.items(), reverse=reverse)


async def test_a_scan_keeps_nothing_open_and_sees_no_later_write(opened: Opened) -> None:
    store, close = opened
    await store.write(ROWS, b"c")
    rows = store.scan(limit=100)
    await store.write([(key, None) for key, _ in ROWS], b"d")
    assert rows == ROWS
    assert store.scan(limit=100) == []
    close()
    assert rows == ROWS
    for reverse in (False, True):
        with pytest.raises(StoreClosed):
            store.scan(reverse=reverse, limit=1)


async def test_deleting_what_is_not_there_is_nothing_and_the_last_write_of_a_key_counts(opened: Opened) -> None:
    store, _ = opened
    await store.write([(b"\x01a", None), (b"\x01b", b"1"), (b"\x01b", None), (b"\x01c", b"1"), (b"\x01c", b"")], b"c")
    assert store.scan(limit=10) == [(b"\x01c", b"")]


async def test_a_write_that_is_cancelled_leaves_its_first_rows_and_the_old_checkpoint(opened: Opened) -> None:
    store, _ = opened
    await store.write([], b"old")
    rows = [(b"\x01%05d" % number, b"row") for number in range(5000)]
    writing = asyncio.ensure_future(store.write(rows, b"new"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    written = store.scan(limit=10_000)
    assert 0 < len(written) < len(rows)
    assert written == rows[: len(written)]
    assert store.checkpoint() == b"old"


async def test_rows_that_end_in_an_error_leave_the_old_checkpoint(opened: Opened) -> None:
    store, _ = opened
    await store.write([], b"old")

    def failing() -> Iterator[tuple[bytes, bytes | None]]:
        for number in range(2000):
            yield b"\x01%05d" % number, b"row"
        raise ValueError("no more rows")

    with pytest.raises(ValueError, match="no more rows"):
        await store.write(failing(), b"new")
    assert store.checkpoint() == b"old"


async def test_few_rows_are_counted_exactly_however_often_they_were_overwritten_and_deleted(opened: Opened) -> None:
    store, _ = opened
    for round_number in range(200):
        await store.write([(b"\x01%02d" % key, b"%d" % round_number) for key in range(20)], b"c")
        await store.write([(b"\x01%02d" % key, None) for key in range(16, 20)], b"c")
    store.count_rows()
    assert store.rows_estimate() == 16
    assert not store.count_rows()
    await store.write([(b"\x01new", b"row")], b"c")
    store.count_rows()
    assert store.rows_estimate() == 17
    await store.wipe()
    store.count_rows()
    assert store.rows_estimate() == 0
