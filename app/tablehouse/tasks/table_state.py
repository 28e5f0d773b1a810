"""Table state: a task's store with its checkpoint and position. An owner commits to it, and a replay rebuilds it.

It decides which changelog records count, and from which offset on the store may be read. DESIGN.md, "Replaying",
explains each rule.
"""

from collections.abc import Mapping

import structlog

from tablehouse.model import NO_EPOCH, Epoch, TopicPartition
from tablehouse.positions import Position
from tablehouse.stores.rows import LAYOUT_VERSION, ROW_PREFIX
from tablehouse.stores.store import TaskStore
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.identity import FingerprintChanged, Identity, require_same_definition
from tablehouse.tasks.log import Bounds, BrokerClock, LogRecord, LogSlice
from tablehouse.tasks.records import (
    CLAIM_KEY,
    POSITION_KEY,
    RECORDS_VERSION,
    Checkpoint,
    Claim,
    MalformedRecord,
    NewerRecord,
    PositionRecord,
    decode,
    encode,
    epoch_header,
    epoch_of,
)
from tablehouse.tasks.retention import DELETE_RETENTION_MS, MIN_COMPACTION_LAG_MS

log = structlog.get_logger(__name__)

#: The first byte of a row's key.
_ROW = ROW_PREFIX[0]

_REBUILD = "give the table a new version to rebuild it from its source"


class Untrusted(Exception):
    """The store cannot be trusted: quarantine it and rebuild it from the changelog."""


class ChangelogRefused(Exception):
    """The changelog itself cannot be used, and rebuilding the store would not help; a person has to act."""


class TableState:
    """A task's store, its checkpoint, and how far a replay has come.

    `next_offset`, `epoch`, `position`, `log_id` and `claim_offset` are those of the store's checkpoint; they change
    only after the store was written. `reached` is `position` as callers see it, made once each time it changes.
    `inputs` are the source partitions that the task reads, and `committable` has the offset of each to continue at
    after a restart, None while nothing was applied of it. `claim` is the newest claim seen by this process, None before
    the first.
    """

    def __init__(self, identity: Identity, store: TaskStore, clock: BrokerClock, doubts: Doubts) -> None:
        self._identity = identity
        self.inputs = tuple(identity.inputs)
        self._names = tuple(identity.inputs.values())
        self._doubts = doubts
        self.store = store
        self._clock = clock
        self.foreign_records = 0
        #: The changelog offset of the last contradiction found, until the store has passed it; -1 while there is none.
        self._contradiction = -1
        self._reset()

    def _reset(self) -> None:
        self.next_offset = 0
        self.applied_at = 0
        self.epoch = NO_EPOCH
        self.log_id = b""
        self.claim_offset = -1
        self._move_to(None)
        self.claim: Claim | None = None
        self.readable_from = -1
        self.log_verified = False
        self._open: dict[bytes, bytes | None] = {}
        self._expected = -1
        self._direct = False
        self._unbroken = False
        self._from_start = False

    @property
    def table(self) -> str:
        """Return the table's name."""
        return self._identity.table

    @property
    def changelog(self) -> TopicPartition:
        """Return the changelog partition."""
        return self._identity.changelog

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Return the table's fingerprint."""
        return self._identity.fingerprint

    @property
    def readable(self) -> bool:
        """Return whether the store has no half-applied batch, and misses no rows because of compaction."""
        return 0 <= self.readable_from <= self.next_offset

    def applied(self, source: TopicPartition) -> int:
        """Return the last offset of an input that is applied; -1 before the first."""
        return self.reached.offsets[self.inputs.index(source)]

    def now_ms(self) -> int:
        """Return the brokers' time, with which the age of changelog records is measured."""
        return self._clock.now_ms()

    async def forget(self) -> None:
        """Delete the store's content, so that the next replay covers the whole changelog."""
        await self.store.wipe()
        self._reset()

    def load(self) -> None:
        """Load the store's checkpoint; raises Untrusted, FingerprintChanged and the store's errors."""
        self._reset()
        data = self.store.checkpoint()
        if data is None:
            return
        try:
            checkpoint = decode(Checkpoint, data)
            if checkpoint.position is not None:
                checkpoint.position.require_inputs(self.inputs)
        except MalformedRecord as error:
            raise Untrusted(str(error)) from error
        if checkpoint.layout != LAYOUT_VERSION:
            raise Untrusted(f"its rows have layout {checkpoint.layout}; this version writes {LAYOUT_VERSION}")
        group = self._identity.fingerprint.get("group")
        if checkpoint.fingerprint.get("group", group) != group:
            raise Untrusted(f"it was built by group {checkpoint.fingerprint['group']}, and this is group {group}")
        require_same_definition(self._identity, checkpoint.fingerprint, "the store")
        self.next_offset = checkpoint.next_offset
        self.applied_at = checkpoint.applied_at
        self.epoch = Epoch(*checkpoint.epoch)
        self.log_id = checkpoint.log_id
        self.claim_offset = checkpoint.claim_offset
        self._unbroken = checkpoint.unbroken
        self._move_to(checkpoint.position)

    def begin(self, bounds: Bounds) -> None:
        """Prepare to replay a log with these bounds from next_offset on.

        After load() and forget(), the store becomes readable once the log's present end is reached; other calls leave
        it as readable as it was. Raises Untrusted for a store that does not fit the log, ChangelogRefused for a log
        that has lost its beginning.
        """
        if bounds.start > 0 and not bounds.start <= self.next_offset <= bounds.end:
            # A deleted store could not be restored from this log, so the store is kept.
            raise ChangelogRefused(
                f"{self._identity.changelog} begins at offset {bounds.start}: its first records were deleted, so the "
                f"table cannot be restored from it; {_REBUILD}"
            )
        if self.next_offset > bounds.end:
            raise Untrusted(f"it is at changelog offset {self.next_offset}, past the log's end {bounds.end}")
        if 0 < self.next_offset < bounds.end and self.now_ms() - self.applied_at > DELETE_RETENTION_MS:
            raise Untrusted("it is older than the retention of tombstones, so it may have missed deletes")
        if self.readable_from < 0:
            self.readable_from = bounds.end

    def rewind(self) -> None:
        """Prepare to apply slices from next_offset on; rows in memory from later offsets are dropped."""
        self._open.clear()
        self._expected, self._direct = self.next_offset, self._unbroken
        self._from_start = self.next_offset == 0
        if self._from_start:
            # A claim that was seen but not written may be from another log than the present one.
            self.log_id, self.log_verified, self.claim = b"", False, None
            # The retention of tombstones that delete rows read from now on begins later than this. The clock may be
            # ahead by as much.
            self.applied_at = self.now_ms() - MIN_COMPACTION_LAG_MS // 2

    def verify_log(self, record: LogRecord | None) -> None:
        """Compare the first record at or after claim_offset with the claim that the store has recorded there.

        If compaction has removed that claim, there is a newer one later in the log, which apply() compares.
        """
        if record is not None and record.offset == self.claim_offset and record.key == CLAIM_KEY:
            self._see_claim(record)

    def require_verified(self) -> None:
        """Check that the log, replayed to its end, is complete and the one that the store was built from.

        Raises Untrusted unless a claim has proved the latter, and ChangelogRefused for records without any claim: the
        topic was created again while an owner kept appending.
        """
        if self.log_id and not self.log_verified:
            raise Untrusted("the changelog is not the one it was built from; it was deleted and created again")
        if self.epoch != NO_EPOCH and not self.log_id:
            raise ChangelogRefused(
                f"{self._identity.changelog} has records but no claim: it was deleted and created again while a worker "
                "appended to it; delete it while no worker runs, or give the table a new version, to rebuild it "
                "from its source"
            )

    def tears(self, piece: LogSlice) -> bool:
        """Return whether a store with this slice applied may miss rows whose only version left is further ahead.

        If the last record is too young for compaction, so are all that follow. A slice without records proves nothing.
        """
        if piece.next_offset < self.readable_from:
            return False
        return not piece.records or self.now_ms() - piece.records[-1].timestamp > MIN_COMPACTION_LAG_MS // 2

    def postpone_reading(self, end: int) -> None:
        """Make the store unreadable until `end`."""
        self.readable_from = max(self.readable_from, end)

    async def apply(self, piece: LogSlice) -> int:  # noqa: C901, PLR0912 - one loop over every record restored
        """Apply a slice and return how many rows were written.

        Up to readable_from every row is written as it comes. After that rows wait for the position record that closes
        their batch, because a slice may end in the middle of one. Raises Untrusted, ChangelogRefused,
        FingerprintChanged and the store's errors; after any of them, or a cancellation, call rewind() before the next
        slice.
        """
        done: dict[bytes, bytes | None] = {}
        epoch, position = self.epoch, self.position
        claim_offset, applied_at, complete_to = self.claim_offset, self.applied_at, -1
        header = epoch_header(epoch)
        for record in piece.records:
            key, headers = record.key, record.headers
            if record.offset != self._expected:
                self._direct = False
            self._expected = record.offset + 1
            if len(headers) != 1 or headers[0] != header:
                written_under = epoch_of(headers)
                if written_under < epoch or written_under == NO_EPOCH or not key:
                    self._drop_foreign(record, written_under, epoch)
                    continue
                # A claim, or records whose claim was removed by compaction because there is a newer one.
                epoch, header = written_under, epoch_header(written_under)
            if not key:
                self._drop_foreign(record, epoch, epoch)
            elif key[0] == _ROW:
                self._open[key] = record.value
            elif key == POSITION_KEY:
                position = self._next_position(record, position)
                done.update(self._open)
                self._open.clear()
                applied_at, complete_to = max(applied_at, record.timestamp), record.offset + 1
            elif key == CLAIM_KEY:
                self._see_claim(record)
                claim_offset = record.offset
            else:
                self._drop_foreign(record, epoch, epoch)
        if piece.next_offset <= self.readable_from:
            done.update(self._open)
            self._open.clear()
        if not self._open:
            complete_to = piece.next_offset
            if piece.records:
                applied_at = max(applied_at, piece.records[-1].timestamp)
        if complete_to > self.next_offset:
            # Open rows follow the last position, so no offset before it can be missing.
            unbroken = bool(self._open) or (self._direct and self._expected == complete_to)
            await self._write(done, complete_to, applied_at, epoch, claim_offset, position, unbroken=unbroken)
        return len(done)

    async def commit(
        self,
        rows: Mapping[bytes, bytes | None],
        position: PositionRecord,
        epoch: Epoch,
        next_offset: int,
        sent_at: int,
    ) -> None:
        """Write a batch of the owner, whose append at next_offset was acknowledged.

        `sent_at` is now_ms() before the append.
        """
        await self._write(rows, next_offset, sent_at, epoch, self.claim_offset, position, unbroken=True)

    async def _write(
        self,
        rows: Mapping[bytes, bytes | None],
        next_offset: int,
        applied_at: int,
        epoch: Epoch,
        claim_offset: int,
        position: PositionRecord | None,
        *,
        unbroken: bool,
    ) -> None:
        checkpoint = Checkpoint(
            next_offset=next_offset,
            applied_at=applied_at,
            epoch=epoch,
            log_id=self.log_id,
            claim_offset=claim_offset,
            layout=LAYOUT_VERSION,
            fingerprint=dict(self._identity.fingerprint),
            position=position,
            unbroken=unbroken,
            v=RECORDS_VERSION if position is None else position.v,
        )
        await self.store.write(rows.items(), encode(checkpoint))
        self.next_offset, self.applied_at = next_offset, applied_at
        self.epoch, self.claim_offset, self._unbroken = epoch, claim_offset, unbroken
        self._move_to(position)
        if next_offset > self._contradiction:
            self._contradiction = -1

    def _move_to(self, position: PositionRecord | None) -> None:
        spans = [None if position is None else position.of(source) for source in self.inputs]
        self.position = position
        self.reached = Position(self._names, tuple([-1 if span is None else span.last for span in spans]))
        self.committable = [
            (source, None if span is None else span.last + 1) for source, span in zip(self.inputs, spans, strict=True)
        ]
        if position is not None and position.misplaced is not None:
            self._doubts.found(self._identity.changelog.topic, position.misplaced)

    def _next_position(self, record: LogRecord, known: PositionRecord | None) -> PositionRecord:
        try:
            position = decode(PositionRecord, record.value or b"")
            position.require_inputs(self.inputs)
        except MalformedRecord as error:
            raise self._unreadable(record, error) from error
        for source in self.inputs:
            before, after = None if known is None else known.of(source), position.of(source)
            if before is None:
                continue
            if after is None:
                raise self._contradicted(record, f"a position without {source}, of which {before.last} was applied")
            if after.last < before.last or (self._direct and after.first != before.last + 1):
                raise self._contradicted(record, f"source offsets {after.first} to {after.last} follow {before.last}")
        self._direct = True
        return position

    def _see_claim(self, record: LogRecord) -> None:
        try:
            claim = decode(Claim, record.value or b"")
        except MalformedRecord as error:
            raise self._unreadable(record, error) from error
        if self.log_id and claim.log_id != self.log_id:
            raise self._contradicted(record, "another log id; the changelog was deleted and created again")
        self._compare_owner(claim)
        require_same_definition(self._identity, claim.fingerprint, f"{self._identity.changelog}")
        self.log_id, self.log_verified = claim.log_id, True
        if self.claim is None or claim.epoch >= self.claim.epoch:
            self.claim = claim

    def _unreadable(self, record: LogRecord, error: MalformedRecord) -> ChangelogRefused:
        """Return the error for a changelog record that cannot be decoded; rebuilding the store would not help."""
        advice = "upgrade this worker" if isinstance(error, NewerRecord) else _REBUILD
        return ChangelogRefused(f"{self._identity.changelog} offset {record.offset}: {error}; {advice}")

    def _contradicted(self, record: LogRecord, what: str) -> Untrusted | ChangelogRefused:
        """Return the error for a record that contradicts what was applied before.

        The log is at fault if this replay began at its start, or if a rebuilt store finds the same contradiction.
        Otherwise the store may be at fault, and has to be rebuilt.
        """
        where = f"{self._identity.changelog} offset {record.offset}"
        if self._from_start or record.offset == self._contradiction:
            self._contradiction = record.offset
            return ChangelogRefused(f"{where}: {what}, in the changelog itself; {_REBUILD}")
        self._contradiction = record.offset
        return Untrusted(f"{where}: {what}")

    def _compare_owner(self, claim: Claim) -> None:
        theirs, ours = claim.fingerprint, self._identity.fingerprint
        if any(theirs.get(part, ours.get(part)) != ours.get(part) for part in ("group", "table")):
            raise FingerprintChanged(
                f"table {self._identity.table}: {self._identity.changelog.topic} is the changelog of version "
                f"{theirs.get('version')} of table {theirs.get('table')} of group {theirs.get('group')}, and cannot be "
                f"that of version {ours.get('version')} of table {ours.get('table')} of group {ours.get('group')} too. "
                "Give this table another name or another version"
            )

    def _drop_foreign(self, record: LogRecord, written_under: Epoch, epoch: Epoch) -> None:
        self.foreign_records += 1
        log.warning(
            "dropped a foreign changelog record",
            table=self._identity.table,
            changelog=str(self._identity.changelog),
            offset=record.offset,
            epoch=tuple(written_under),
            current_epoch=tuple(epoch),
        )
