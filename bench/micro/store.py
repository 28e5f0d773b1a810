"""The store: writes in lane batches, gets, scans, and a multi-get for comparison."""

import random
import tempfile
from pathlib import Path
from typing import Any

from bench.micro.timing import Timings
from bench.source import Source
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard, RocksTaskStore
from tablehouse.stores.rows import LAYOUT_VERSION, ROW_PREFIX, pack_head
from tablehouse.tasks.pipeline import LANE_BATCH
from tablehouse.turns import Turns

_ROWS = 200_000
_GETS = 10_000
_PAGE = 100
_CHECKPOINT = b"x" * 200
_BUDGET = 256 << 20


async def filled(shard: RocksShard) -> tuple[RocksTaskStore, list[tuple[bytes, bytes]]]:
    """Open a shard and fill one task of it with the benchmark's rows."""
    shard.open(["table"])
    task = shard.task("table")
    head = pack_head(LAYOUT_VERSION, 0, 1_700_000_000_000, 1)
    rows = [(ROW_PREFIX + key, head + value) for key, value in Source(_ROWS, _ROWS, 1).contents()]
    await task.write(rows, _CHECKPOINT)
    return task, rows


async def measure(timings: Timings) -> None:
    """Time a store of 200,000 rows, once from its memtables and once from its files."""
    with tempfile.TemporaryDirectory(prefix="bench-micro-") as folder:
        shard = RocksShard(Path(folder) / "shard", StoreMemory(_BUDGET), Turns())
        task, rows = await filled(shard)
        chosen = random.Random(1).sample([key for key, _ in rows], _GETS)  # noqa: S311  reproducible, not secret
        _measure_reads(timings, shard, task, chosen, "memtables")
        shard.flush()
        _measure_reads(timings, shard, task, chosen, "files")
        batches = [rows[start : start + LANE_BATCH] for start in range(0, _ROWS, LANE_BATCH)]

        async def write() -> None:
            for batch in batches:
                await task.write(batch, _CHECKPOINT)

        await timings.awaited("write in lane batches, a row", _ROWS, write)
        shard.close()


def _measure_reads(timings: Timings, shard: RocksShard, task: RocksTaskStore, keys: list[bytes], where: str) -> None:
    family = shard.families["table"]
    pages: list[Any] = [keys[start : start + _PAGE] for start in range(0, _GETS, _PAGE)]
    timings.sync(f"get, a row, from {where}", _GETS, lambda: [task.get(key) for key in keys])
    timings.sync(
        f"multi-get of {_PAGE}, a row, from {where}",
        _GETS,
        lambda: [family.get(page) for page in pages],
    )
    timings.sync(f"scan in pages of {_PAGE}, a row, from {where}", _GETS, lambda: _scan(task))


def _scan(task: RocksTaskStore) -> None:
    after = b""
    for _ in range(0, _GETS, _PAGE):
        after = task.scan(after, limit=_PAGE)[-1][0] + b"\0"
