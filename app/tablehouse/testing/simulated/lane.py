"""The group's consumer of one worker, as seen by lanes: fetches, hands over, or rewinds."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LaneOutage
from tablehouse.tasks.shards import Shards
from tablehouse.testing.simulated.ports import SLICE
from tablehouse.testing.simulated.world import World

_POLL = 0.4


class SimulatedLane:
    """Implements LaneControl."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._positions: dict[TopicPartition, int] = {}
        self._flowing: dict[TopicPartition, None] = {}
        self._started = asyncio.Event()

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch nothing until lanes start."""
        self._positions = dict.fromkeys(partitions, 0)
        self._flowing.clear()

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """See LaneControl."""
        if partition in self._positions:
            self._positions[partition] = offset
            self.resume_lane(partition)

    def pause_lane(self, partition: TopicPartition) -> None:
        """See LaneControl."""
        self._flowing.pop(partition, None)

    def resume_lane(self, partition: TopicPartition) -> None:
        """See LaneControl."""
        if partition in self._positions:
            self._flowing[partition] = None
            self._started.set()

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """See LaneControl."""

    async def run(self, shards: Shards) -> None:
        """Fetch for the shards, indefinitely."""
        while True:
            if not self._flowing:
                self._started.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await self._started.wait()
                continue
            found = False
            for partition in list(self._flowing):
                found = await self._fetch(partition, shards) or found
            if not found:
                await asyncio.sleep(_POLL)

    async def _fetch(self, partition: TopicPartition, shards: Shards) -> bool:
        asked_at = self._positions.get(partition)
        if asked_at is None:
            return False
        log = self._world.log(partition)
        gone = not log.start <= asked_at <= log.end
        records, following = ([], asked_at) if gone else log.read(asked_at, self._world.choose.randint(1, SLICE))
        await self._world.hop("fetched")
        if gone:
            if shards.expected(partition) == asked_at:
                shards.lost(partition)
            return False
        position = self._positions.get(partition)
        if position is None:
            return False
        if position == asked_at:
            position = self._positions[partition] = following
        # Otherwise there was a seek in the meantime: the fetched records come with the new position.
        expected = shards.expected(partition)
        if not records and (expected is None or position <= expected):
            return False
        if not shards.offer(partition, records, position):
            rewind_to = records[0].offset if expected is None and records else expected
            if rewind_to is not None:
                self._positions[partition] = rewind_to
        return True
