"""The memory that the stores of a worker share: what happens when it is full, and how much of it there has to be."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tablehouse.errors import ConfigError
from tablehouse.stores.memory import LARGE_ROW_BYTES, StoreMemory, memory_for_rows
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tests.support.limits import file_size_limit
from tests.support.polling import until

MIB = 1 << 20
BUDGET = 64 * MIB
LARGE_ROW = 8 * MIB


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


@pytest.fixture
def shards(tmp_path: Path, metrics: Metrics) -> Iterator[list[RocksShard]]:
    memory = StoreMemory(BUDGET, metrics)
    made = [RocksShard(tmp_path / f"shard-{number}", memory, Turns()) for number in range(8)]
    for shard in made:
        shard.open(["t"])
    yield made
    for shard in made:
        shard.destroy()


async def write_large(shard: RocksShard) -> None:
    """Write a row that takes more than half of what all memtables may take together."""
    await shard.task("t").write([(b"\x01large", os.urandom(LARGE_ROW))], b"checkpoint")


def stalls(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("tablehouse_write_stall_duration_seconds_count") or 0


async def test_memtables_of_idle_shards_are_flushed_for_a_write_that_finds_no_room(
    shards: list[RocksShard], metrics: Metrics
) -> None:
    with capture_logs() as logs:
        async with asyncio.timeout(60):
            for shard in shards:
                await write_large(shard)
    assert stalls(metrics) > 0
    assert metrics.registry.get_sample_value("tablehouse_writes_stalled") == 0
    # One line, however many writes waited.
    (line,) = [entry for entry in logs if entry["event"] == "a write waits until memtables are flushed"]
    assert line["memtable_bytes"] >= line["limit_bytes"]
    for shard in shards:
        assert len(shard.task("t").get(b"\x01large") or b"") == LARGE_ROW
        assert shard.task("t").waits_for is None


async def test_a_write_waits_with_a_reason_as_long_as_nothing_can_be_flushed_and_its_store_has_not_failed(
    shards: list[RocksShard], metrics: Metrics
) -> None:
    with capture_logs() as logs, file_size_limit(MIB):
        await write_large(shards[0])
        await write_large(shards[1])
        waiting = asyncio.create_task(write_large(shards[2]))

        async def tried() -> bool:
            return {entry["path"] for entry in logs if entry["event"] == "store not flushed"} == {
                str(shard.path) for shard in shards[:2]
            }

        await until(tried, "both full memtables were to be flushed", 60)
        assert shards[2].task("t").waits_for == "waits for a flush: the memtables of all shards are full"
        assert metrics.registry.get_sample_value("tablehouse_writes_stalled") == 1
        assert not waiting.done()
    # RocksDB flushes nothing after such a failure until it is opened again.
    for shard in shards[:2]:
        await asyncio.to_thread(shard.destroy)
    async with asyncio.timeout(60):
        await waiting
    assert shards[2].task("t").checkpoint() == b"checkpoint"
    assert shards[2].task("t").waits_for is None


async def test_a_write_that_waits_can_be_cancelled_and_leaves_nothing(
    shards: list[RocksShard], metrics: Metrics
) -> None:
    with file_size_limit(MIB):
        await write_large(shards[0])
        await write_large(shards[1])
        waiting = asyncio.create_task(write_large(shards[2]))

        async def waits() -> bool:
            return shards[2].task("t").waits_for is not None

        await until(waits, "the write waits", 60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert shards[2].task("t").waits_for is None
    assert shards[2].task("t").checkpoint() is None
    assert metrics.registry.get_sample_value("tablehouse_writes_stalled") == 0


async def blob_files(path: Path, count: int) -> None:
    """Wait until that many are left: RocksDB deletes them in the background."""

    def files() -> int:
        return len(list(path.glob("*.blob")))

    async def left() -> bool:
        return files() == count

    await until(left, f"{count} files of large rows are left", 60)


async def test_large_rows_are_kept_in_files_of_their_own_that_go_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    shard = RocksShard(path, StoreMemory(BUDGET), Turns())
    shard.open(["t"])
    store = shard.task("t")
    for round_number in range(8):
        rows: list[tuple[bytes, bytes | None]] = [
            (b"\x01%d" % key, os.urandom(LARGE_ROW_BYTES + key)) for key in range(3)
        ]
        await store.write([*rows, (b"\x01small", b"%d" % round_number)], b"c")
        await asyncio.to_thread(shard.flush)
    await asyncio.to_thread(shard.families["t"].compact_range, None, None)
    await blob_files(path, 1)
    shard.close()

    shard.open(["t"])
    store = shard.task("t")
    assert list(store.scan(limit=10)) == [*rows, (b"\x01small", b"7")]
    assert store.get_many([b"\x010", b"\x01none"]) == [rows[0][1], None]
    await store.write([(key, None) for key, _ in rows], b"c")
    await asyncio.to_thread(shard.flush)
    await asyncio.to_thread(shard.families["t"].compact_range, None, None)
    await blob_files(path, 0)
    shard.close()


@pytest.mark.parametrize(
    ("shards", "tasks", "budget", "left"),
    [(4, 4, 64, 64), (180, 180, 64, 64), (50, 250, 512, 512), (1000, 1000, 512, 234)],
)
def test_what_open_shards_take_beyond_an_allowance_is_not_there_for_rows(
    shards: int, tasks: int, budget: int, left: int
) -> None:
    assert memory_for_rows(budget * MIB, shards, tasks) // MIB == left


def test_a_budget_that_its_partitions_would_use_up_is_refused_with_the_least_that_is_enough() -> None:
    with pytest.raises(ConfigError, match=r"memory_budget is 64MiB but must be at least 171MiB .* 500 partitions"):
        memory_for_rows(64 * MIB, 500, 500)
    assert memory_for_rows(171 * MIB, 500, 500) >= 64 * MIB
    with pytest.raises(ConfigError):
        memory_for_rows(170 * MIB, 500, 500)


async def test_a_smaller_budget_holds_at_once_and_a_larger_one_gives_room_again(tmp_path: Path) -> None:
    memory = StoreMemory(4 * BUDGET)
    shard = RocksShard(tmp_path / "shard", memory, Turns())
    shard.open(["t"])
    await write_large(shard)
    full = [memory.is_full]
    for budget in (BUDGET // 4, 4 * BUDGET):
        memory.resize(budget)
        full.append(memory.is_full)
    assert full == [False, True, False]
    await write_large(shard)
    shard.close()
