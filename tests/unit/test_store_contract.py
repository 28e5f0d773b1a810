"""What every TaskStore does, asked of the one on disk and of the one that the simulation uses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.stores.rocksdb import RocksShard, StoreMemory
from app.stores.store import StoreClosed, TaskStore
from tests.model.store import Disk, MemoryStore


@pytest.fixture(params=["rocksdb", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TaskStore, Callable[[], None]]]:
    """Give an empty store and what closes it."""
    if request.param == "memory":
        memory = MemoryStore(Disk())
        yield memory, memory.close
        return
    shard = RocksShard(tmp_path / "shard", StoreMemory(64 << 20))
    shard.open(["t"])
    yield shard.task("t"), shard.close
    shard.close()


Opened = tuple[TaskStore, Callable[[], None]]


async def test_a_new_store_has_nothing(opened: Opened) -> None:
    store, _ = opened
    assert store.checkpoint() is None
    assert store.get(b"\x01a") is None
    assert store.scan(b"", 10) == []


async def test_rows_and_checkpoint_are_there_once_written(opened: Opened) -> None:
    store, _ = opened
    await store.write([(b"\x01a", b"1"), (b"\x01b", b"2")], b"first")
    await store.write([(b"\x01a", None), (b"\x01c", b"3")], b"second")
    assert store.checkpoint() == b"second"
    assert store.scan(b"", 10) == [(b"\x01b", b"2"), (b"\x01c", b"3")]


async def test_more_rows_than_a_chunk_come_with_one_checkpoint(opened: Opened) -> None:
    store, _ = opened
    rows = [(b"\x01%05d" % number, b"row %d" % number) for number in range(1234)]
    await store.write(iter(rows), b"all")
    assert store.checkpoint() == b"all"
    assert store.scan(b"", 2000) == rows


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
    for ask in (lambda: store.get(b"\x01a"), store.checkpoint, lambda: store.scan(b"", 1)):
        with pytest.raises(StoreClosed):
            ask()
    with pytest.raises(StoreClosed):
        await store.write([(b"\x01a", b"2")], b"second")
