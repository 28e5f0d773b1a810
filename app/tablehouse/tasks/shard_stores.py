"""Opens and closes the stores of shards, each in a thread that cannot be stopped.

So a store is opened only after the shard's previous store was closed, and closed only after it was opened. A task is
added to it only after the previous task of the same table has released it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from tablehouse.model import ShardId
from tablehouse.recurring import Recurring
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.store import StoreCorrupt, StoreError
from tablehouse.tasks import background
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.shard import Shard
from tablehouse.tasks.task import MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS, Task

log = structlog.get_logger(__name__)

#: Minimum seconds between attempts to reopen a failed store, and the free bytes that it requires. After a background
#: failure, such as a full disk, RocksDB accepts no writes until it is opened again, but can still be read.
REOPEN_INTERVAL = 30.0
MIN_FREE_BYTES = 64 << 20

#: How many databases are opened or closed at once; each takes a core for a fraction of a second.
MAX_OPENERS = 2


class ShardStores:
    """Opens and closes the stores of a worker's shards in the background."""

    def __init__(self, directory: DataDirectory, ports: Ports) -> None:
        self._directory = directory
        self._ports = ports
        self._openers = asyncio.Semaphore(MAX_OPENERS)
        self._closing: dict[ShardId, asyncio.Task[None]] = {}
        self._reopened_at: dict[ShardId, float] = {}

    def start_opening(self, shard: Shard, families: Sequence[str], on_open: Callable[[], None]) -> None:
        """Open a shard's store in the background, and then call on_open; returns at once.

        Opening is retried until it succeeds or the shard is leaving. A corrupt store is deleted.
        """
        work = self._open(shard, families, on_open)
        shard.opening = background.start(work, f"open {shard.id}", self._ports.on_fatal)

    def start_exchange(
        self, shard: Shard, leaving: Sequence[Task], coming: Mapping[str, Task], on_added: Callable[[], None]
    ) -> None:
        """Close tasks of a shard, add the stores of others, and then call on_added; returns at once.

        `coming` is keyed by column family. The rows of the tasks that leave stay in the store.
        """
        work = self._exchange(shard, shard.changing, leaving, coming, on_added)
        shard.changing = background.start(work, f"exchange tasks of {shard.id}", self._ports.on_fatal)

    def start_closing(self, shard: Shard) -> None:
        """Close a shard's tasks and its store in the background; returns at once."""
        shard.is_leaving = True
        closing = background.start(self._close(shard), f"close {shard.id}", self._ports.on_fatal)
        self._closing[shard.id] = closing

        def closed(_: asyncio.Task[None]) -> None:
            if self._closing.get(shard.id) is closing:
                del self._closing[shard.id]

        closing.add_done_callback(closed)

    async def wait_until_closed(self) -> None:
        """Wait until all stores that are being closed are closed."""
        if self._closing:
            await asyncio.wait(list(self._closing.values()))

    def may_reopen(self, shard: ShardId) -> bool:
        """Return whether a failed store may be reopened now; if so, record that as an attempt."""
        now, last = self._ports.clock.monotonic(), self._reopened_at.get(shard)
        if last is not None and now - last < REOPEN_INTERVAL:
            return False
        try:
            free = self._directory.free()
        except OSError:
            return False
        if free < MIN_FREE_BYTES:
            return False
        self._reopened_at[shard] = now
        return True

    async def _open(self, shard: Shard, families: Sequence[str], on_open: Callable[[], None]) -> None:
        closing = self._closing.get(shard.id)
        if closing is not None:
            await asyncio.wait({closing})
        await self._keep_trying(shard, shard.tasks.values(), lambda: self._open_or_destroy(shard, families), on_open)

    async def _exchange(
        self,
        shard: Shard,
        earlier: asyncio.Task[None] | None,
        leaving: Sequence[Task],
        coming: Mapping[str, Task],
        on_added: Callable[[], None],
    ) -> None:
        await asyncio.gather(*(task.suspend(0, "the table is not served any more") for task in leaving))
        for task in leaving:
            task.close()
        for work in (shard.opening, earlier):
            if work is not None:
                await asyncio.wait({work})
        await self._keep_trying(
            shard, coming.values(), lambda: asyncio.to_thread(shard.store.add, list(coming)), on_added
        )

    async def _keep_trying(
        self, shard: Shard, tasks: Collection[Task], attempt: Callable[[], Awaitable[None]], on_done: Callable[[], None]
    ) -> None:
        """Retry `attempt`, which these tasks wait for, until it succeeds or the shard is leaving."""
        pause = MIN_PAUSE_SECONDS
        failures = Recurring(log, self._ports.clock.monotonic)
        while not shard.is_leaving:
            try:
                async with self._openers:
                    await attempt()
            except StoreError as error:
                for task in tasks:
                    task.reason = str(error)
                failures.error("open", "store cannot be opened; trying again", shard=str(shard.id), error=str(error))
                await self._ports.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                failures.end("open", "store is open", shard=str(shard.id))
                on_done()
                return

    async def _open_or_destroy(self, shard: Shard, families: Sequence[str]) -> None:
        """Open a store; raises StoreError. A corrupt store is deleted first."""
        try:
            await asyncio.to_thread(shard.store.open, families)
        except StoreCorrupt as error:
            log.error("store quarantined; it is rebuilt from the changelog", shard=str(shard.id), error=str(error))
            for task in shard.tasks.values():
                self._ports.metrics.store_quarantines.labels(task.table).inc()
            shard.was_destroyed = True
            await asyncio.to_thread(shard.store.destroy)
            raise

    async def _close(self, shard: Shard) -> None:
        # Opening has waited until the shard's previous store was closed.
        for work in (shard.opening, shard.changing):
            if work is not None:
                await asyncio.wait({work})
        await asyncio.gather(*(task.suspend(0, "the partition moved") for task in shard.tasks.values()))
        for task in shard.tasks.values():
            task.close()
        try:
            async with self._openers:
                await asyncio.to_thread(shard.store.close)
        except StoreError as error:
            # What was not flushed is in the changelog.
            log.warning("store not flushed at closing", shard=str(shard.id), error=str(error))
