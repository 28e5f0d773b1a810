"""Flushes a worker's stores, saves their positions, and measures disk usage."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from tablehouse.model import ShardId
from tablehouse.recurring import Recurring
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.store import StoreClosed, StoreError
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.shard import Shard

log = structlog.get_logger(__name__)

#: Seconds between flushes. There is no write-ahead log, so this bounds the tail that is replayed after a SIGKILL.
FLUSH_INTERVAL = 30.0


class Flushing:
    """Flushes the shards that `held` returns. on_store_failed is called with a shard whose store cannot be flushed.

    `positions` returns the position of each shard, by name and partition.
    """

    def __init__(
        self,
        held: Callable[[], Mapping[ShardId, Shard]],
        positions: Callable[[], Mapping[str, Mapping[int, int]]],
        directory: DataDirectory,
        ports: Ports,
        on_store_failed: Callable[[Shard], None],
    ) -> None:
        self._held = held
        self._positions = positions
        self._directory = directory
        self._ports = ports
        self._on_store_failed = on_store_failed
        self._failures = Recurring(log, ports.clock.monotonic)

    async def keep_flushed(self) -> None:
        """Flush all stores every FLUSH_INTERVAL, until cancelled."""
        while True:
            await self._ports.sleep(FLUSH_INTERVAL)
            for shard in list(self._held().values()):
                try:
                    await asyncio.to_thread(shard.store.flush)
                except StoreError as error:
                    self._failures.error(shard.id, "store not flushed", shard=str(shard.id), error=str(error))
                    if not isinstance(error, StoreClosed):
                        # A store without writes would not fail elsewhere, and its memtables take memory from all.
                        self._on_store_failed(shard)
                else:
                    self._failures.end(shard.id, "store is flushed again", shard=str(shard.id))
            await self.save_positions()

    async def save_positions(self) -> None:
        """Save each shard's position, for placement after a restart, and measure disk usage."""
        await asyncio.to_thread(self._save, self._positions(), list(self._held().values()))

    def _save(self, positions: Mapping[str, Mapping[int, int]], shards: list[Shard]) -> None:
        metrics, directory = self._ports.metrics, self._directory
        try:
            # First, because what follows fails on a full disk.
            directory.measure(metrics)
            directory.save_positions(positions)
            for shard in shards:
                metrics.store_size.labels(shard.id.name, str(shard.id.partition)).set(shard.store.size())
        except (OSError, StoreError) as error:
            self._failures.error("directory", "data directory unusable", path=str(directory.path), error=str(error))
        else:
            self._failures.end("directory", "data directory usable again", path=str(directory.path))
