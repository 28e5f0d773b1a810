"""What an owner does after its claim: ingest from the lane, and next to it until it can join."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tablehouse.tasks.ingest import LaneBatch, TableCodec
from tablehouse.tasks.lane import Inbox, Lane, LaneMovedOn, SourceLost
from tablehouse.tasks.log import Bounds, Cursor, LogSlice, OffsetOutOfRange
from tablehouse.tasks.pipeline import IDLE_POSITION_INTERVAL, Pipeline
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.table_state import TableState

#: A task that catches up checks on its batch in flight after this many seconds without a slice.
SLICE_TIMEOUT_SECONDS = 1.0


class Ingestion:
    """Ingests under one claim. on_applied is called for each batch that was applied."""

    def __init__(
        self, state: TableState, codec: TableCodec, lane: Lane, ports: Ports, on_applied: Callable[[], None]
    ) -> None:
        self._table = state.table
        self._state = state
        self._lane = lane
        self._sources = ports.sources
        self.pipeline = Pipeline(state, codec, ports, on_applied, partial(lane.step_aside, state.table))

    async def begin(self, bounds: Bounds) -> None:
        """Check the source and feed the batches that come before any record.

        `bounds` are the source's, listed after the claim. Raises SourceLost where the source does not have the next
        offset, and what Pipeline.feed() raises.
        """
        pipeline, source = self.pipeline, self._lane.source
        if bounds.high_watermark < pipeline.needed:
            raise SourceLost(f"{source} ends at offset {bounds.high_watermark}, before {pipeline.needed}")
        if bounds.start > pipeline.needed:
            if self._state.position is not None and self._state.position.of(source) is not None:
                raise SourceLost(f"{source} has no offset {pipeline.needed}")
            # Offsets that retention removed before the table read any record count as applied: they have no records.
            await pipeline.feed(LaneBatch.of((), pipeline.needed, bounds.start))
        if pipeline.knows_more:
            await pipeline.feed(LaneBatch.of((), pipeline.needed, pipeline.needed))

    async def run(self) -> None:
        """Ingest until cancelled; raises what Pipeline.feed() raises, SourceLost, and what a Cursor raises."""
        while True:
            inbox = self._lane.admit(self._table, self.pipeline.needed) or await self._catch_up()
            await self._take_from(inbox)

    async def _catch_up(self) -> Inbox:
        """Ingest from the source next to the lane until it can be joined."""
        pipeline = self.pipeline
        async with self._sources.read(self._lane.source, pipeline.needed) as cursor:
            while True:
                piece = await self._next_slice(cursor)
                await pipeline.feed(LaneBatch.of(piece.records, pipeline.needed, piece.next_offset))
                inbox = self._lane.admit(self._table, pipeline.needed)
                if inbox is not None:
                    return inbox

    async def _next_slice(self, cursor: Cursor) -> LogSlice:
        """Wait for a slice. If none comes soon, settle the batch in flight, which may raise, and wait again."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SLICE_TIMEOUT_SECONDS):
                    return await cursor.next()
            await self.pipeline.settle()
            return await cursor.next()
        except OffsetOutOfRange as error:
            raise SourceLost(str(error)) from error

    async def _take_from(self, inbox: Inbox) -> None:
        """Ingest what the lane delivers, until the lane moves on without this task."""
        pipeline = self.pipeline
        while True:
            if inbox.empty:
                await pipeline.settle()
            try:
                async with asyncio.timeout(IDLE_POSITION_INTERVAL):
                    batch = await inbox.take(pipeline.limit)
            except TimeoutError:
                batch = LaneBatch.of((), pipeline.needed, pipeline.needed)
            except LaneMovedOn:
                return
            await pipeline.feed(batch)
            # The batch may be large, and the next one may not come for a long time.
            del batch
