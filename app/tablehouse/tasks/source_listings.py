"""Lists the ends of the inputs of a worker's shards, from which lag and staleness are computed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tablehouse.model import ShardId, TopicPartition
from tablehouse.tasks import background
from tablehouse.tasks.log import LogUnavailable, PartitionMissing
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.shard import Shard
from tablehouse.tasks.source_ends import SOURCE_ENDS_INTERVAL

if TYPE_CHECKING:
    import asyncio


class SourceListings:
    """Lists the end of each input separately, so that one unavailable end does not make other lags unknown.

    `held` returns the shards that this worker has.
    """

    def __init__(self, held: Callable[[], Mapping[ShardId, Shard]], ports: Ports) -> None:
        self._held = held
        self._ports = ports
        self._listings: dict[tuple[ShardId, TopicPartition], asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """List the end of each input, every SOURCE_ENDS_INTERVAL, until cancelled."""
        try:
            while True:
                self._listings = {what: listing for what, listing in self._listings.items() if not listing.done()}
                for shard in self._held():
                    self.start(shard)
                await self._ports.sleep(SOURCE_ENDS_INTERVAL)
        finally:
            for listing in self._listings.values():
                listing.cancel()

    def start(self, shard_id: ShardId) -> None:
        """Start listing the ends of a shard's inputs, unless this is in progress; returns at once."""
        shard = self._held().get(shard_id)
        for source in () if shard is None else shard.inputs:
            listing = self._listings.get((shard_id, source))
            if listing is None or listing.done():
                self._listings[shard_id, source] = background.start(
                    self._list(shard_id, source), f"end of {source}", self._ports.on_fatal
                )

    async def _list(self, shard_id: ShardId, source: TopicPartition) -> None:
        listed_at, shard = self._ports.clock.monotonic(), self._held().get(shard_id)
        if shard is None:
            return
        positions = [(task, task.applied(source)) for task in shard.tasks.values() if source in task.inputs]
        try:
            bounds = (await self._ports.sources.bounds([source]))[source]
        except PartitionMissing:
            shard.observe_source_missing(source)
            return
        except LogUnavailable:
            return
        if self._held().get(shard_id) is shard:
            shard.observe_source_end(source, bounds, listed_at, positions)
