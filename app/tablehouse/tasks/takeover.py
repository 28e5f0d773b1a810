"""Becoming the owner of a changelog partition: replay it, check the source, claim, and read the claim back."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog

from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.lane import SourceLost
from tablehouse.tasks.log import Bounds, Cursor, Fenced, LogSlice, OffsetOutOfRange, PartitionMissing
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.records import CLAIM_KEY, Claim, anchor_of, encode
from tablehouse.tasks.table_state import ChangelogRefused, TableState

log = structlog.get_logger(__name__)

#: The producer epoch (int16 maximum) under which only the record that seals a producer id is written.
SEALING_EPOCH = 32767

_NEW_VERSION = "Give the table a new version to rebuild it from what the topic holds"


class SourceRefused(Exception):
    """The source topic is missing, is not the one the position refers to, or has lost the records after it."""


class Takeover:
    """Replays the changelog, checks the source and claims, for one task."""

    def __init__(self, state: TableState, ports: Ports) -> None:
        self._state = state
        self._ports = ports
        self._foreign_reported = 0
        #: How many changelog offsets are left to replay; None when no replay is in progress.
        self.remaining: int | None = None

    async def restore(self) -> None:
        """Replay the changelog to its end, and check that it and the source are what the store was built from.

        Raises Untrusted, OffsetOutOfRange and StoreCorrupt when the store has to be rebuilt, ChangelogRefused and
        SourceRefused when that would not help, and FingerprintChanged, SourceLost, LogUnavailable, StoodStill and
        StoreError.
        """
        end = await self._begin()
        await self._replay_until(end)
        self._state.require_verified()
        for source in self._state.inputs:
            await self._check_source(source)

    async def follow(self, on_end: Callable[[], None], on_applied: Callable[[], None]) -> NoReturn:
        """Replay the changelog, and keep replaying what an owner appends, until cancelled.

        Calls on_end whenever the store is readable and has reached the end that the log had when the replay began, and
        on_applied after every slice. Raises what restore() raises about the changelog and the store.
        """
        state = self._state
        end = await self._begin()
        async with self._replaying() as cursor:
            reached = state.next_offset
            while True:
                if reached >= end and state.readable:
                    self.remaining = None
                    state.require_verified()
                    on_end()
                else:
                    self.remaining = max(0, max(end, state.readable_from) - reached)
                reached = await self._apply_next(cursor)
                on_applied()

    async def _begin(self) -> int:
        """Prepare a replay, and return the changelog's present end."""
        state = self._state
        bounds = await self._changelog_bounds()
        if state.log_id and not state.log_verified and bounds.start <= state.claim_offset < bounds.end:
            state.verify_log(await self._ports.changelog.peek(state.changelog, state.claim_offset))
        if bounds.end == 0 < state.next_offset and state.position is not None:
            for source in state.inputs:
                await self._require_whole_source(source)
        state.begin(bounds)
        if bounds.end > state.next_offset:
            log.debug("replaying", changelog=str(state.changelog), offset=state.next_offset, end=bounds.end)
        return bounds.end

    async def _require_whole_source(self, source: TopicPartition) -> None:
        """Check that the source can rebuild a table whose changelog is gone; otherwise the store has to be kept."""
        start = (await self.source_bounds(source)).start
        if start > 0:
            raise ChangelogRefused(
                f"{self._state.changelog} is empty, though the table had been built: it was deleted. {source} "
                f"begins at offset {start}, so the table cannot be rebuilt as it was. {_NEW_VERSION}"
            )

    async def claim(self, generation: int) -> None:
        """Claim the changelog partition until this worker's claim is read back as the newest.

        Raises LeaseLost when the generation ends first, OutcomeUnknown when a claim may have been appended, and what
        restore() raises.
        """
        state, ports = self._state, self._ports
        known = state.epoch
        while True:
            await ports.lease.confirm(generation)
            known = max(known, state.epoch)
            epoch, seals = _next_epoch(known)
            claim = Claim(
                epoch=epoch,
                nonce=secrets.token_bytes(12),
                generation=generation,
                worker=ports.worker_id,
                fingerprint=dict(state.fingerprint),
                log_id=state.log_id or secrets.token_bytes(12),
                seals=seals,
            )
            try:
                offset = await ports.writer.claim(state.changelog, epoch, CLAIM_KEY, encode(claim))
            except Fenced:
                # The broker knows a higher epoch. The log has it too, unless its records were deleted.
                ports.metrics.claims.labels(state.table, "refused").inc()
                log.info("claim refused", changelog=str(state.changelog), epoch=tuple(epoch), generation=generation)
                await self._replay_until((await self._changelog_bounds()).end)
                known = max(epoch, state.epoch)
                continue
            await self._read_back(offset)
            newest = state.claim
            if seals:
                continue
            held = newest is not None and newest.nonce == claim.nonce and state.epoch == epoch
            ports.metrics.claims.labels(state.table, "held" if held else "lost").inc()
            (log.debug if held else log.info)(
                "claimed" if held else "claim lost",
                changelog=str(state.changelog),
                epoch=tuple(epoch),
                generation=generation,
                offset=offset,
            )
            if held:
                return

    async def _read_back(self, offset: int) -> None:
        """Replay up to and including the offset at which a claim was acknowledged."""
        state = self._state
        if offset == state.next_offset:
            # Nothing was appended in between, so peek at the one record: replays of other tasks do not delay that.
            record = await self._ports.changelog.peek(state.changelog, offset)
            if record is not None and record.offset == offset:
                state.rewind()
                await state.apply(LogSlice([record], offset + 1))
                return
        await self._replay_until(offset + 1)

    async def source_bounds(self, source: TopicPartition) -> Bounds:
        """Ask for the bounds of an input; raises SourceRefused if it is missing, and LogUnavailable."""
        try:
            return (await self._ports.sources.bounds([source]))[source]
        except PartitionMissing as error:
            raise SourceRefused(
                f"{error}. The table keeps the rows it has. If the topic is created again, it needs a new version, "
                "which is built from what the topic holds then"
            ) from error

    async def lacking(self) -> int:
        """Return how many changelog offsets are not replayed yet; raises LogUnavailable."""
        return max(0, (await self._changelog_bounds()).end - self._state.next_offset)

    async def _changelog_bounds(self) -> Bounds:
        changelog = self._state.changelog
        return (await self._ports.changelog.bounds([changelog]))[changelog]

    async def _replay_until(self, end: int) -> None:
        state = self._state
        if state.next_offset >= end:
            return
        async with self._replaying() as cursor:
            reached = state.next_offset
            while reached < end:
                self.remaining = end - reached
                reached = await self._apply_next(cursor)
                end = max(end, state.readable_from)

    @asynccontextmanager
    async def _replaying(self) -> AsyncIterator[Cursor]:
        """Open a cursor at the store's next offset, and count foreign records when the cursor is closed."""
        state, ports = self._state, self._ports
        try:
            async with ports.changelog.read(state.changelog, state.next_offset) as cursor:
                state.rewind()
                yield cursor
        finally:
            self.remaining = None
            foreign, self._foreign_reported = (
                state.foreign_records - self._foreign_reported,
                state.foreign_records,
            )
            ports.metrics.foreign_changelog_writes.labels(state.table).inc(foreign)

    async def _apply_next(self, cursor: Cursor) -> int:
        """Apply the next slice, and return the offset after it."""
        state, ports = self._state, self._ports
        piece = await cursor.next()
        await ports.turns.wait()
        if state.tears(piece):
            # Before the slice is applied, so that the store is not read in between.
            state.postpone_reading((await self._changelog_bounds()).end)
        ports.metrics.restore_records.labels(state.table).inc(await state.apply(piece))
        return piece.next_offset

    async def _check_source(self, source: TopicPartition) -> None:
        position = self._state.position
        bounds = await self.source_bounds(source)
        reached = None if position is None else position.of(source)
        if reached is None:
            return
        needed, anchor = reached.last + 1, reached.anchor
        if needed > bounds.end:
            raise SourceRefused(
                f"{source} ends at offset {bounds.high_watermark}, but offset {reached.last} was applied already: the "
                f"topic was deleted and created again, restored, or lost its last records. {_NEW_VERSION}"
            )
        if needed < bounds.start:
            raise SourceRefused(
                f"{source} begins at offset {bounds.start}, but {needed} comes next: retention deleted records before "
                f"they were applied. {_NEW_VERSION}"
            )
        if anchor is None or not bounds.start <= anchor.offset < bounds.end:
            return
        try:
            record = await self._ports.sources.peek(source, anchor.offset)
        except OffsetOutOfRange as error:
            raise SourceLost(str(error)) from error
        # Compaction may have removed the anchor, but another record at its offset means another topic.
        if record is not None and record.offset == anchor.offset and anchor_of(record) != anchor:
            raise SourceRefused(
                f"{source} has another record at offset {anchor.offset} than the one that was applied: the topic was "
                f"deleted and created again. {_NEW_VERSION}"
            )


def _next_epoch(known: Epoch) -> tuple[Epoch, bool]:
    """Return the epoch to claim after `known`, and whether its record only seals the producer id."""
    if known.number == SEALING_EPOCH:
        return Epoch(known.id_index + 1, 1), False
    return Epoch(known.id_index, known.number + 1), known.number + 1 == SEALING_EPOCH
