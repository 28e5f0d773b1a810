"""Turns source records into the rows of one changelog batch: decode, check, fold.

Only this code runs for each source record, so it does as little as possible.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol, Self

from tablehouse.catalog.spec import OnError, SourceSpec
from tablehouse.folds.fold import Decoded, Fold, Lookup, Slice
from tablehouse.formats.errors import DECODE_ERRORS, reason_of
from tablehouse.formats.row_form import TEXT_AND_JSON, RowForm
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import ROW_PREFIX
from tablehouse.tasks.log import LogRecord
from tablehouse.tasks.suggestions import MAX_KEYS
from tablehouse.tasks.suspicions import KeySuspicion
from tablehouse.turns import Work


class LaneBatch(NamedTuple):
    """Source records on their way to a task: all those from offset `first` up to, not including, `next_offset`.

    `size` is the bytes of their keys and values.
    """

    records: Sequence[LogRecord]
    first: int
    next_offset: int
    size: int

    @classmethod
    def of(cls, records: Sequence[LogRecord], first: int, next_offset: int) -> Self:
        """Make a batch of records and measure their size, at about 0.1 us each."""
        size = sum([len(record.key or b"") + len(record.value or b"") for record in records])
        return cls(records, first, next_offset, size)


class BadRecord(NamedTuple):
    """A source record that cannot become a row.

    reason is one of REASONS in dead_letters.py, including unreadable for offsets that an operator has skipped; detail
    is for people, and has nothing of the record's content.
    """

    record: LogRecord
    reason: str
    detail: str


class RecordRefused(Exception):
    """Ingesting stops at a record that cannot become a row."""

    def __init__(self, source: TopicPartition, bad: BadRecord) -> None:
        super().__init__(f"offset {bad.record.offset} of {source} cannot become a row: {bad.reason}, {bad.detail}")
        self.bad = bad


class Skips(Protocol):
    """Receives the records that cannot become rows; the fold skips them."""

    def __call__(self, record: LogRecord, reason: str, detail: str) -> None:
        """Record one; see BadRecord."""


@dataclass(frozen=True, slots=True)
class TableCodec:
    """How the records of one table's source partition are read.

    spec is the source's definition, and `source` one of its `partitions`. store_key turns a wire key into its stored
    form, and decode_value a value into the payload to keep, or None for a delete; both are given the headers of the
    record, and raise DecodeError. misplaced returns the index of the first of some wire keys that the partitioner would
    not have put into this partition; None when there is none. empty_keys is False where producers send records with an
    empty key to any partition, so that none of them can be the latest. on_error says what happens to records that
    cannot become rows. likely_cause is given such a record and its reason, and returns what the record probably is and
    which definition would fit; None when that is not known. suspicion checks records, and the keys that can be read.

    decode_in_pieces does what decode_value does, yielding every few milliseconds; it is for values of more than
    LARGE_VALUE_BYTES. Without it they are decoded at once. form is how expressions read the rows.
    """

    source: TopicPartition
    store_key: Callable[[bytes, Sequence[tuple[str, bytes]]], bytes]
    decode_value: Callable[[bytes, Sequence[tuple[str, bytes]]], bytes | None]
    misplaced: Callable[[Sequence[bytes]], int | None]
    fold: Fold
    spec: SourceSpec
    partitions: int
    empty_keys: bool = True
    on_error: OnError = "skip"
    likely_cause: Callable[[LogRecord, str], str | None] = lambda _record, _reason: None
    suspicion: KeySuspicion | None = None
    decode_in_pieces: Callable[[bytes, Sequence[tuple[str, bytes]]], Work[bytes | None]] | None = None
    form: RowForm = TEXT_AND_JSON


class Folding:
    """Folds a lane batch, a slice at a time. Records that cannot become rows go to `skip`.

    rows are those of all slices so far (prefixed keys; None deletes). misplaced_at is the offset of the first misplaced
    key. stream_time is the highest timestamp of the partition, including records before the batch; -1 before the first
    record. sample is the first misplaced key and keys that follow it, in their wire form.
    """

    def __init__(self, codec: TableCodec, skip: Skips, lookup: Lookup, stream_time: int = -1) -> None:
        self._codec = codec
        self._skip = skip
        self._lookup_before = lookup
        self.rows: dict[bytes, bytes | None] = {}
        self.misplaced_at: int | None = None
        self.sample: Sequence[bytes] = ()
        self.stream_time = stream_time

    def add(self, records: Sequence[LogRecord]) -> None:
        """Decode, check and fold the next records."""
        self._add(records, self._codec.decode_value)

    def add_in_pieces(self, record: LogRecord) -> Work[None]:
        """Do what add() does for one record with a large value, yielding as TableCodec.decode_in_pieces does."""
        value, decode_in_pieces = record.value, self._codec.decode_in_pieces
        if value is None or decode_in_pieces is None:
            self.add((record,))
            return
        outcome: bytes | Exception | None
        try:
            outcome = yield from decode_in_pieces(value, record.headers)
        except Exception as error:  # noqa: BLE001  raised again where decode_value would have raised it
            outcome = error

        def decode_value(_value: bytes, _headers: Sequence[tuple[str, bytes]]) -> bytes | None:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self._add((record,), decode_value)

    def _add(
        self,
        records: Sequence[LogRecord],
        decode_value: Callable[[bytes, Sequence[tuple[str, bytes]]], bytes | None],
    ) -> None:
        decoded: list[Decoded] = []
        wires: list[bytes] = []
        store_key, skip = self._codec.store_key, self._skip
        append, append_wire = decoded.append, wires.append
        for record in records:
            wire = record.key
            if not wire:
                if wire is None:
                    skip(record, "null_key", "a row needs a key")
                    continue
                if not self._codec.empty_keys:
                    skip(record, "empty_key", "the partitioner spreads empty keys over all partitions")
                    continue
            try:
                key = store_key(wire, record.headers)
            except DECODE_ERRORS as error:
                skip(record, "undecodable_key", reason_of(error))
                continue
            value = record.value
            if value is not None:
                try:
                    value = decode_value(value, record.headers)
                except DECODE_ERRORS as error:
                    skip(record, "undecodable_value", reason_of(error))
                    continue
            append_wire(wire)
            append(Decoded(ROW_PREFIX + key, value, record.timestamp, record.offset))
        self._look_at_keys(records, wires, decoded)

        def refuse(record: Decoded, error: Exception) -> None:
            refused = records[bisect_left(records, record.offset, key=attrgetter("offset"))]
            skip(refused, "undecodable_value", reason_of(error))

        self.rows.update(self._codec.fold(decoded, self._lookup, Slice(self.stream_time, records, refuse)))
        self.stream_time = max(self.stream_time, max((record.timestamp for record in records), default=-1))

    def _look_at_keys(self, records: Sequence[LogRecord], wires: Sequence[bytes], decoded: Sequence[Decoded]) -> None:
        """Check that the partitioner puts the keys here, and that they look like the table's format."""
        if self._codec.suspicion is not None:
            self._codec.suspicion.look(wires, records)
        if self.misplaced_at is None:
            index = self._codec.misplaced(wires)
            if index is not None:
                self.misplaced_at = decoded[index].offset
                self.sample = wires[index : index + MAX_KEYS]

    def _lookup(self, key: bytes) -> bytes | None:
        return self.rows[key] if key in self.rows else self._lookup_before(key)
