"""How an owner applies a lane batch: fold, append to the changelog, and only then write to the store.

One batch is in flight at a time; the next is folded meanwhile, on top of it. After any failure everything here is
dropped, and the changelog shows what happened. A record that needs a schema waits until the schema is available.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import structlog

from tablehouse.formats.schemas import SchemaName, SchemaNeeded
from tablehouse.formats.values import LARGE_VALUE_BYTES
from tablehouse.tasks.bad_records import BadRecords
from tablehouse.tasks.doubts import Misplaced
from tablehouse.tasks.ingest import Folding, LaneBatch, RecordRefused, TableCodec
from tablehouse.tasks.log import LogRecord
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.records import POSITION_KEY, PositionRecord, anchor_of, encode
from tablehouse.tasks.suggestions import Suggestion
from tablehouse.tasks.table_state import TableState

log = structlog.get_logger(__name__)

#: Maximum number of source records in one changelog batch. Polls are smaller and are coalesced up to it.
LANE_BATCH = 4000

#: Bytes of keys and values up to which polls are coalesced: about what one changelog batch holds by default
#: (max.message.bytes). Larger batches would only be split again.
LANE_BATCH_BYTES = 1 << 20

#: Batches of more bytes than this are large; a worker ingests one of them at a time. Folding, encoding, sending and
#: writing a batch takes five times its size in memory, and rows may be as large as the broker allows.
LARGE_BATCH_BYTES = 4 * LANE_BATCH_BYTES

#: Records decoded and folded in one slice of work, at about 3 us each. Readers wait for one slice, not for a batch.
RECORDS_PER_SLICE = 500

#: Maximum bytes of a slice, by the average size of the batch's records, because large values take longer to decode.
BYTES_PER_SLICE = 256 * 1024

#: An idle owner repeats its position this often, in seconds, well inside the broker's producer.id.expiration.ms (24 h
#: by default), after which the broker would forget the epoch that fences older writers.
IDLE_POSITION_INTERVAL = 3600.0

#: A task that waits longer than this for a schema, in seconds, steps off the lane so that its siblings do not wait.
LANE_TIMEOUT_SECONDS = 1.0


class NotContiguous(Exception):
    """Another writer appended before the owner's batch, which ends before offset `end`."""

    def __init__(self, end: int) -> None:
        super().__init__(f"the batch that ends at changelog offset {end} does not follow the one before it")
        self.end = end


@dataclass(frozen=True, slots=True)
class _Prepared:
    rows: Mapping[bytes, bytes | None]
    position: PositionRecord
    batch: Any
    count: int
    source_records: int


def _within(size: int, batch: LaneBatch) -> int:
    """Return how many of the batch's records fit into `size` bytes, by their average size; at least 1."""
    count = len(batch.records)
    return max(1, count if batch.size <= size else count * size // batch.size)


def _cut(batch: LaneBatch, count: int) -> tuple[LaneBatch, LaneBatch]:
    """Split a batch after its first `count` records."""
    records, border = batch.records, batch.records[count].offset
    return LaneBatch.of(records[:count], batch.first, border), LaneBatch.of(records[count:], border, batch.next_offset)


def _is_large(record: LogRecord) -> bool:
    return record.value is not None and len(record.value) > LARGE_VALUE_BYTES


class Pipeline:
    """Ingests for one ownership, that is under one epoch.

    on_applied is called for each batch that was applied, and step_aside when the pipeline has to wait for long, so that
    the lane's other tasks do not wait too.
    """

    def __init__(
        self,
        state: TableState,
        codec: TableCodec,
        ports: Ports,
        on_applied: Callable[[], None],
        step_aside: Callable[[], None],
    ) -> None:
        self._table = state.table
        self._changelog = state.changelog
        self._codec = codec
        self._state = state
        self._writer = ports.writer
        self._metrics = ports.metrics
        self._doubts = ports.doubts
        self._turns = ports.turns
        self._ingested = ports.metrics.ingest_records.labels(state.table)
        self._schemas = ports.known.schemas
        self._large_batches = ports.large_batches
        self._on_applied = on_applied
        self._step_aside = step_aside
        self._epoch = state.epoch
        self._position = state.position
        self._flight: asyncio.Task[None] | None = None
        self._flying: Mapping[bytes, bytes | None] = {}
        self._bad = BadRecords(state.table, codec, ports.dead_letters, ports.metrics)
        #: The missing schema that folding waits for, as named by SchemaNeeded.
        self._missing: SchemaName | str | None = None
        #: How many records to coalesce: fewer than LANE_BATCH while rows are so large that these do not fit.
        self.limit = LANE_BATCH

    @property
    def needed(self) -> int:
        """Return the source offset that has to be fed next."""
        reached = None if self._position is None else self._position.of(self._codec.source)
        return 0 if reached is None else reached.last + 1

    @property
    def knows_more(self) -> bool:
        """Return whether a misplaced key is known that the position in the changelog does not record.

        One learnt from another worker has to be known right after a restart, before that worker can report it again.
        """
        told = self._position is not None and self._position.misplaced is not None
        return not told and self._changelog.topic in self._doubts.misplaced

    @property
    def waits_for(self) -> str | None:
        """Return what the pipeline waits for, other than the changelog; None when it does not wait."""
        return None if self._missing is None else f"waits for {self._schemas.describe(self._missing)}"

    @property
    def rejection(self) -> str | None:
        """Return what was wrong with the latest record that could not become a row; None when there was none."""
        return self._bad.latest

    async def feed(self, batch: LaneBatch) -> None:
        """Fold a batch, and send it once the batch before it is applied.

        Records that were fed before are skipped. Raises what settle() raises, LettersUndelivered, and RecordRefused
        once everything before that record is applied. If a record needs a schema, this waits until the registry has
        answered. Nothing is in flight during the wait, and the position is before that record, so it is safe to cancel.
        """
        while True:
            try:
                await self._feed(batch)
            except SchemaNeeded as needed:
                await self._wait_for_schema(needed.needed)
            else:
                return

    async def _feed(self, batch: LaneBatch) -> None:
        rest: LaneBatch | None = batch
        if batch.first < self.needed:
            needed = self.needed
            if batch.next_offset <= needed:
                return
            wanted = [record for record in batch.records if record.offset >= needed]
            rest = LaneBatch.of(wanted, needed, batch.next_offset)
        while rest is not None:
            if rest.size <= LARGE_BATCH_BYTES:
                rest = await self._send_off(rest)
                continue
            await self.settle()
            async with self._large_batches:
                rest = await self._send_off(rest)
                await self.settle()

    async def _send_off(self, batch: LaneBatch) -> LaneBatch | None:
        """Fold a batch, and send it once the one before it is applied; return the part that did not fit."""
        try:
            prepared, rest = await self._prepare(batch)
            await self._bad.pass_over()
        except RecordRefused:
            await self.settle()
            raise
        await self.settle()
        self._flying = prepared.rows
        self._flight = asyncio.get_running_loop().create_task(self._deliver(prepared))
        return rest

    async def _wait_for_schema(self, needed: SchemaName | str) -> None:
        # An owner that was fenced, or whose batch has an unknown outcome, has to learn that before the wait.
        await self.settle()
        waiting = self._metrics.waiting_for_schemas.labels(self._table)
        self._missing = needed
        waiting.inc()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LANE_TIMEOUT_SECONDS):
                    await self._schemas.fetch(needed)
                return
            log.warning(
                "partition waits for a schema",
                table=self._table,
                partition=self._changelog.partition,
                reason=self.waits_for,
                offset=self.needed,
            )
            self._step_aside()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_POSITION_INTERVAL):
                        await self._schemas.fetch(needed)
                    return
                await self._feed(LaneBatch.of((), self.needed, self.needed))
                await self.settle()
        finally:
            waiting.dec()
            self._missing = None

    async def settle(self) -> None:
        """Wait until the batch in flight is applied.

        Raises Fenced, OutcomeUnknown and NotContiguous, and the store's errors; the pipeline cannot be used afterwards.
        """
        if self._flight is not None:
            await self._flight
            self._flight, self._flying = None, {}

    async def rest(self, patience: float) -> None:
        """Wait at most `patience` seconds for the batch in flight; does not raise if it fails."""
        if self._flight is not None:
            await asyncio.wait({self._flight}, timeout=patience)

    async def drop(self) -> None:
        """Drop the batch in flight; it may be in the changelog or not."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
            # Waiting does not raise what the flight ended with, so a cancellation seen here is the caller's own.
            await asyncio.wait({flight})
            if not flight.cancelled():
                flight.exception()  # settle() has raised it, or it no longer matters

    def _lookup(self, key: bytes) -> bytes | None:
        if key in self._flying:
            return self._flying[key]
        return self._state.store.get(key)

    async def _prepare(self, batch: LaneBatch) -> tuple[_Prepared, LaneBatch | None]:
        """Return what to append, and the rest of the batch: what does not fit, or follows the record to stop at.

        Raises RecordRefused if that record is the first of the batch.
        """
        part, rest = batch, None
        fitting = _within(LANE_BATCH_BYTES, batch)
        if fitting < len(batch.records):
            # One poll of well compressed records can make many changelog batches.
            part, rest = _cut(batch, fitting)
        oversized: LogRecord | None = None
        while True:
            self._bad.clear()
            folding = await self._fold(part)
            stop_at = self._bad.stop_at
            if stop_at is not None:
                before = bisect_left(part.records, stop_at.record.offset, key=attrgetter("offset"))
                if before == 0:
                    raise self._bad.refusal(stop_at)
                part, rest = _cut(batch, before)
                continue
            if oversized is not None:
                self._bad.add(oversized, "oversized", "its row does not fit into one changelog batch")
            prepared = self._encode(part, folding)
            if prepared is not None:
                self.limit = min(LANE_BATCH, self.limit + len(part.records))
                return prepared, rest
            # The rows of one source record must stay in one batch, so the batch is halved by source records.
            half = len(part.records) // 2
            if half == 0:
                oversized, part = part.records[0], LaneBatch.of((), part.first, part.next_offset)
                continue
            self.limit = max(1, half)
            part, rest = _cut(batch, half)

    async def _fold(self, batch: LaneBatch) -> Folding:
        records = batch.records
        known = self._position
        folding = Folding(self._codec, self._bad.add, self._lookup, -1 if known is None else known.stream_time)
        a_slice = min(RECORDS_PER_SLICE, _within(BYTES_PER_SLICE, batch))
        for start in range(0, len(records), a_slice):
            if start:
                await self._turns.wait()
            part = records[start : start + a_slice]
            if batch.size <= LARGE_VALUE_BYTES:
                folding.add(part)
                continue
            for large, some in groupby(part, _is_large):
                if not large:
                    folding.add(list(some))
                    continue
                for record in some:
                    await self._turns.finish(folding.add_in_pieces(record))
        return folding

    def _encode(self, batch: LaneBatch, folding: Folding) -> _Prepared | None:
        """Encode what to append for a batch, and advance the position; return None when it does not fit."""
        known, records = self._position, batch.records
        misplaced, found = self._doubts.misplaced.get(self._changelog.topic), folding.misplaced_at
        is_news = misplaced is None and found is not None
        if misplaced is None and found is not None:
            misplaced = Misplaced(self._changelog.partition, found)
        source = self._codec.source
        before = None if known is None else known.of(source)
        anchor = anchor_of(records[-1]) if records else (None if before is None else before.anchor)
        position = PositionRecord(
            first=batch.first,
            last=batch.next_offset - 1,
            epoch=self._epoch,
            stream_time=folding.stream_time,
            anchor=anchor,
            misplaced=misplaced,
            rejected=len(self._bad) + (0 if known is None else known.rejected),
        ).among(self._state.inputs, source, known)
        content = [*folding.rows.items(), (POSITION_KEY, encode(position))]
        encoded = self._writer.encode(self._changelog, self._epoch, content)
        if encoded is None:
            return None
        # Not earlier, because a batch that does not fit is folded again, and would report the key again.
        if folding.sample:
            changelog = self._changelog.topic
            suggestion = self._doubts.look_at(changelog, self._codec, folding.sample)
            if is_news and misplaced is not None:
                self._doubts.found(changelog, misplaced)
                self._report_misplaced(misplaced, suggestion)
        self._position = position
        return _Prepared(folding.rows, position, encoded, len(content), len(records))

    async def _deliver(self, prepared: _Prepared) -> None:
        state = self._state
        sent_at = state.now_ms()
        base = await self._writer.append(self._changelog, self._epoch, prepared.batch)
        end = base + prepared.count
        if base != state.next_offset:
            raise NotContiguous(end)
        await state.commit(prepared.rows, prepared.position, self._epoch, end, sent_at)
        self._ingested.inc(prepared.source_records)
        self._on_applied()

    def _report_misplaced(self, misplaced: Misplaced, suggestion: Suggestion) -> None:
        log.error(
            "a key is in another partition than the partitioner says; misses of this table are inconclusive",
            suggestion=str(suggestion),
            table=self._table,
            topic=self._codec.source.topic,
            partition=misplaced.partition,
            offset=misplaced.offset,
        )
