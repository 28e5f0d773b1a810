import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tablehouse.errors import PartitionRestoring
from tablehouse.model import DEFAULT_CONSISTENCY, TaskState
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard, RocksTaskStore
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks import digest as digest_module
from tablehouse.tasks.digest import Digest, PartitionDigest
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.task import Task
from tablehouse.turns import Turns
from tests.support.cluster_fakes import PLANES
from tests.support.http_workers import ask, one_worker, two_workers
from tests.support.positions import at

if TYPE_CHECKING:
    from tablehouse.tasks.log import Lease

ROWS = {b"": b"empty key", **{b"%04d" % number: b"row %d" % number for number in range(1000)}}


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[RocksShard]:
    shard = RocksShard(tmp_path / "shard", StoreMemory(64 << 20), Turns())
    shard.open(["one", "two"])
    yield shard
    shard.close()


async def filled(shard: RocksShard) -> RocksTaskStore:
    store = shard.task("one")
    await store.write([(b"\x01" + key, row) for key, row in ROWS.items()], b"checkpoint")
    await shard.task("two").write([(b"\x01other", b"other")], b"checkpoint")
    return store


def task_of(store: RocksTaskStore, *, readable: bool = True) -> Task:
    task = SimpleNamespace(
        store=store, readable=readable, position=at(0, 41), table="t", partition=0, state=TaskState.ACTIVE
    )
    return cast("Task", task)


def digest(task: Task) -> PartitionDigest:
    """Ask until it is a digest; nothing of the reader matters."""
    reader, question = Reader(cast("Lease", None), 0.0), Digest()
    while isinstance(found := question.answer(task, reader, DEFAULT_CONSISTENCY), Digest):
        question = found
    return found


async def test_a_scan_goes_through_the_rows_in_key_order_and_leaves_the_checkpoint_out(shard: RocksShard) -> None:
    store = await filled(shard)
    seen: list[tuple[bytes, bytes]] = []
    while rows := store.scan(seen[-1][0] + b"\0" if seen else b"", limit=7):
        assert len(rows) <= 7
        seen += rows
    assert seen == [(b"\x01" + key, row) for key, row in sorted(ROWS.items())]


async def test_a_scan_sees_neither_deleted_rows_nor_another_tables(shard: RocksShard) -> None:
    store = await filled(shard)
    await store.write([(b"\x01" + key, None) for key in ROWS if key != b"0500"], b"checkpoint")
    assert store.scan(limit=10) == [(b"\x010500", b"row 500")]


async def test_a_scan_holds_nothing_open(shard: RocksShard) -> None:
    store = await filled(shard)
    store.scan(limit=10)
    shard.close()
    with pytest.raises(StoreClosed):
        store.scan(limit=10)
    shard.open(["one", "two"])
    assert len(store.scan(limit=10)) == 10


@pytest.mark.parametrize("rows_a_turn", [1, 7, 1001, 5000])
async def test_a_digest_is_over_every_row_whatever_the_size_of_the_chunks(
    shard: RocksShard, rows_a_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "ROWS_PER_TURN", rows_a_turn)
    found = digest(task_of(await filled(shard)))
    whole = b"".join(
        part
        for key, row in sorted(ROWS.items())
        for part in (struct.pack(">I", len(key)), key, struct.pack(">I", len(row)), row)
    )
    assert found.rows == len(ROWS)
    assert found.rows_hash == blake2b(whole, digest_size=16).hexdigest()
    assert (found.position_before, found.position_after) == (at(0, 41), at(0, 41))


async def test_a_digest_depends_on_where_a_key_ends(shard: RocksShard) -> None:
    one, two = shard.task("one"), shard.task("two")
    await one.write([(b"\x01ab", b"c")], b"checkpoint")
    await two.write([(b"\x01a", b"bc")], b"checkpoint")
    assert digest(task_of(one)).rows_hash != digest(task_of(two)).rows_hash


async def test_there_is_no_digest_of_a_store_that_cannot_be_read_or_is_closed(shard: RocksShard) -> None:
    store = await filled(shard)
    with pytest.raises(PartitionRestoring):
        digest(task_of(store, readable=False))
    shard.close()
    with pytest.raises(PartitionRestoring):
        digest(task_of(store))
    shard.open(["one", "two"])


async def test_the_internal_listener_tells_the_digest_of_a_partition_it_holds() -> None:
    async with two_workers() as workers:
        reply = await ask(workers[1].internal, "/internal/v1/tables/planes/2:digest")
        assert reply.status == 200
        assert reply.json == {
            "table": "planes",
            "partition": 2,
            "rows": 0,
            "state": "active",
            "rows_hash": "c0ffee",
            "position_before": 99,
            "position_after": 99,
            "served_by": "b",
        }
        reply = await ask(workers[0].internal, "/internal/v1/tables/planes/2:digest")
        assert (reply.status, reply.json["code"]) == (421, "not_owner")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/internal/v1/tables/nothing/2:digest", 404, "table_not_found"),
        (f"/internal/v1/tables/{PLANES.name}/x:digest", 400, "invalid_parameter"),
        (f"/internal/v1/tables/{PLANES.name}/2", 404, "route_not_found"),
    ],
)
async def test_a_digest_of_what_is_not_there_is_refused(target: str, status: int, code: str) -> None:
    async with one_worker() as worker:
        reply = await ask(worker.internal, target)
        assert (reply.status, reply.json["code"]) == (status, code)
