"""The memory shared by the stores of a worker, and what happens when it is full.

If the shared memory is full, a RocksDB only flushes its own memtables, so idle shards could occupy all of it. Therefore
a write that finds the memory full triggers a flush of the largest memtables of all shards.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import structlog
from rocksdict import BlockBasedOptions, Cache, DbClosedError, DBCompressionType, Options, Rdict, WriteBufferManager

from tablehouse.errors import ConfigError
from tablehouse.recurring import Recurring
from tablehouse.stores.failures import to_store_error
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

_MIB = 1 << 20

#: Maximum size of a memtable. Inserting into one that does not fit into the CPU caches takes twice as long.
_MEMTABLE_BYTES = 8 << 20

#: Memory that a memtable takes with its first row. With RocksDB's default of 1 MiB, 256 tasks would fill the budget.
ARENA_BLOCK_BYTES = 32 * 1024

#: Rows of this size or larger are stored in separate blob files. Otherwise RocksDB would rewrite them in each
#: compaction, those of four files at once, and cache them.
LARGE_ROW_BYTES = 1 << 20

#: The eighths of the memory budget for block cache and memtables of all stores together.
STORES_SHARE_OF_8 = 5

#: Memtables may take this fraction of block cache and memtables: one part in this many.
_MEMTABLES_SHARE = 3

#: When memtables have filled their memory, they are flushed until they take at most this fraction of it.
_FLUSHED_TO = 0.5

#: Seconds to wait after a failed flush before memtables are flushed again.
_FLUSH_AGAIN = 1.0

#: Seconds between log lines about waiting writes.
_LOG_INTERVAL = 60.0

#: Memory of an open, empty shard and of each of its tasks, in RocksDB and in Python, measured with 500 shards of one
#: task each: 345 KiB together.
_SHARD_BYTES = 220 * 1024
_TASK_BYTES = 130 * 1024

#: Memory that open shards may take in addition to the memory budget, and the minimum that must remain of the budget for
#: rows.
_SHARDS_BESIDE_BUDGET = 64 << 20
_MIN_ROW_BYTES = 64 << 20

_ACTIVE_MEMTABLE_BYTES = "rocksdb.cur-size-active-mem-table"


def memory_for_rows(budget: int, shards: int, tasks: int) -> int:
    """Return how much of a memory budget remains for rows if this worker holds `shards` and `tasks`.

    Raises ConfigError if that is too little.
    """
    taken = max(0, shards * _SHARD_BYTES + tasks * _TASK_BYTES - _SHARDS_BESIDE_BUDGET)
    left = budget - taken
    if left < _MIN_ROW_BYTES:
        least = -(-(taken + _MIN_ROW_BYTES) // _MIB)
        raise ConfigError(
            f"memory_budget is {budget / _MIB:g}MiB but must be at least {least}MiB for these tables, which have "
            f"{tasks} partitions in total: the last remaining worker holds all of them, and open partitions take "
            f"memory even without rows. Set TABLEHOUSE_MEMORY_BUDGET to {least}MiB or more"
        )
    return left


class OpenShard(Protocol):
    """A database with memtables in the shared memory, and its open column families by task name."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def families(self) -> Mapping[str, Rdict]:
        """Its column families."""


class StoreMemory:
    """The memory shared by all RocksDB instances of a worker, for any number of shards.

    Memtables are charged to the block cache, so the two together stay within five eighths of the budget; the rest is
    for data fetched ahead and records waiting to be ingested. Memtables have a third of that: while it is full, writes
    are refused until enough has been flushed. Waiting writes are counted in `metrics`, if given.
    """

    def __init__(self, budget: int, metrics: Metrics | None = None) -> None:
        cache_size, memtables = _shares(budget)
        self._cache = Cache(cache_size)
        self._write_buffers = WriteBufferManager.new_write_buffer_manager_with_cache(
            memtables, allow_stall=True, cache=self._cache
        )
        self._memtable_size = _memtable_size(memtables)
        self._metrics = metrics
        self._shards: set[OpenShard] = set()
        self._flushing: asyncio.Task[None] | None = None
        self._stalls = 0
        self._logged_at: float | None = None
        #: Whether the last attempt to free memory failed. RocksDB reports the reason to the next write of the failed
        #: store.
        self.flush_fails = False
        self._failures = Recurring(log)

    def resize(self, budget: int) -> None:
        """Change the budget; memtables of column families that are already open may still grow as large as before."""
        cache_size, memtables = _shares(budget)
        self._cache.set_capacity(cache_size)
        self._write_buffers.set_buffer_size(memtables)
        self._memtable_size = _memtable_size(memtables)

    def write_buffer_usage(self) -> int:
        """Return the current size of all memtables in bytes."""
        return self._write_buffers.get_usage()

    @property
    def is_full(self) -> bool:
        """Return whether memtables have reached their limit, so that RocksDB refuses writes."""
        return self._write_buffers.get_usage() >= self._write_buffers.get_buffer_size()

    def add(self, shard: OpenShard) -> None:
        """Register an open shard, so that its memtables can be flushed."""
        self._shards.add(shard)

    def remove(self, shard: OpenShard) -> None:
        """Forget a closed shard."""
        self._shards.discard(shard)

    @contextmanager
    def stalled(self, shard: Path, task: str) -> Iterator[None]:
        """Count and log a waiting write until the block ends."""
        began = time.monotonic()
        self._stalls += 1
        if self._logged_at is None or began - self._logged_at >= _LOG_INTERVAL:
            log.warning(
                "a write waits until memtables are flushed",
                shard=str(shard),
                task=task,
                memtable_bytes=self.write_buffer_usage(),
                limit_bytes=self._write_buffers.get_buffer_size(),
                writes_since_last_line=self._stalls,
            )
            self._logged_at, self._stalls = began, 0
        metrics = self._metrics
        if metrics is not None:
            metrics.writes_stalled.inc()
        try:
            yield
        finally:
            if metrics is not None:
                metrics.writes_stalled.dec()
                metrics.write_stall_duration.observe(time.monotonic() - began)

    def make_room(self) -> None:
        """Start flushing the largest memtables of all shards, unless this is already running; returns immediately."""
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._make_room(), name="flush memtables")

    async def _make_room(self) -> None:
        self.flush_fails = not await asyncio.to_thread(self._flush_largest)
        if self.flush_fails:
            await asyncio.sleep(_FLUSH_AGAIN)

    def _flush_largest(self) -> bool:
        """Flush memtables, the largest first, until enough memory is free; return False if a flush failed. Blocks."""
        memtables = [
            (size, shard.path, family)
            for shard in list(self._shards)
            for family in list(shard.families.values())
            if (size := _active_memtable(family))
        ]
        enough = self._write_buffers.get_buffer_size() * _FLUSHED_TO
        flushed: set[Path] = set()
        failed: set[Path] = set()
        for _, path, family in sorted(memtables, key=lambda memtable: memtable[0], reverse=True):
            if self._write_buffers.get_usage() <= enough:
                break
            try:
                family.flush(wait=True)
            except DbClosedError:
                continue
            except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
                failed.add(path)
                reason = str(to_store_error(error, f"flushing {path}", path))
                self._failures.error(path, "store not flushed", path=str(path), error=reason)
            else:
                flushed.add(path)
        for path in flushed - failed:
            self._failures.end(path, "store is flushed again", path=str(path))
        return not failed

    def options(self) -> Options:
        """Return new options for a database or a column family that uses this memory."""
        options = Options(raw_mode=True)
        options.create_if_missing(create_if_missing=True)
        options.create_missing_column_families(create_missing_cfs=True)
        options.set_write_buffer_manager(self._write_buffers)
        options.set_write_buffer_size(self._memtable_size)
        options.set_arena_block_size(ARENA_BLOCK_BYTES)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_min_level_to_compress(1)
        options.set_max_background_jobs(2)
        options.set_max_open_files(256)
        # Shards of the table cache take 20 KiB per database, and only one file is opened at a time anyway.
        options.set_table_cache_num_shard_bits(0)
        options.set_enable_blob_files(val=True)
        options.set_min_blob_size(LARGE_ROW_BYTES)
        options.set_blob_compression_type(DBCompressionType.lz4())
        options.set_enable_blob_gc(val=True)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(_MIB)
        options.set_stats_dump_period_sec(0)
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        table.set_bloom_filter(10, block_based=False)
        options.set_block_based_table_factory(table)
        return options


def _shares(budget: int) -> tuple[int, int]:
    """Return the size of the block cache, and that of all memtables, which is charged to it."""
    cache_size = budget * STORES_SHARE_OF_8 // 8
    return cache_size, cache_size // _MEMTABLES_SHARE


def _memtable_size(memtables: int) -> int:
    return max(_MIB, min(_MEMTABLE_BYTES, memtables // 2))


def _active_memtable(family: Rdict) -> int:
    try:
        return family.property_int_value(_ACTIVE_MEMTABLE_BYTES) or 0
    except DbClosedError:
        # Another thread is closing it.
        return 0
