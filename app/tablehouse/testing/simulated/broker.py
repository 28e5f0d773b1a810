"""Partitions of a simulated Kafka broker: producer epochs, append times, compaction, retention, aborted records.

Models brokers' handling of idempotent producers: a lower epoch is rejected; a duplicate batch is answered with its
existing offset; a higher epoch starts at sequence 0; an unknown producer id may start anywhere.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

HOUR_MS = 3_600_000
#: min.compaction.lag.ms and delete.retention.ms of changelogs.
COMPACTION_LAG_MS = HOUR_MS
TOMBSTONE_RETENTION_MS = 24 * HOUR_MS

#: Number of batches per producer that a broker remembers, to detect duplicates.
BATCHES_REMEMBERED = 5


class Record(NamedTuple):
    """Implements LogRecord."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Refused(Exception):
    """The broker rejects the append."""


class EpochRefused(Refused):
    """INVALID_PRODUCER_EPOCH."""


class SequenceRefused(Refused):
    """OUT_OF_ORDER_SEQUENCE_NUMBER."""


Pair = tuple[bytes | None, bytes | None]


@dataclass
class _Producer:
    epoch: int
    last_sequence: int
    batches: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))


class Log:
    """One partition."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self.start = 0
        self.end = 0
        self.records: list[Record] = []
        self.duplicates = 0
        #: Whether the brokers report the partition as unknown.
        self.missing = False
        #: The open transaction: its first offset, and its records, which become visible when it is committed.
        self._open: tuple[int, list[Record]] | None = None
        #: The end of the log over the loop's time.
        self._ends: list[tuple[float, int]] = []
        #: The starts of batches: compaction and retention only act there.
        self.batches: list[int] = [0]
        self._wall_ms = wall_ms
        self._producers: dict[int, _Producer] = {}
        #: Called once at the next change.
        self.watchers: list[Callable[[], None]] = []

    def append(
        self, pairs: Sequence[Pair], headers: Sequence[tuple[str, bytes]] = (), timestamp: int | None = None
    ) -> int:
        """Append a batch without a producer id; return the offset of its first record."""
        base = self.end
        written_at = self._wall_ms() if timestamp is None else timestamp
        for number, (key, value) in enumerate(pairs):
            self.records.append(Record(base + number, written_at, key, value, headers))
        self.end += len(pairs)
        self.batches.append(self.end)
        self._changed()
        return base

    def produce(
        self, producer: tuple[int, int], sequence: int, pairs: Sequence[Pair], headers: Sequence[tuple[str, bytes]]
    ) -> int:
        """Append a batch of a producer, given by id and epoch; raises Refused."""
        identifier, epoch = producer
        last = sequence + len(pairs) - 1
        known = self._producers.get(identifier)
        if known is not None:
            if epoch < known.epoch:
                raise EpochRefused
            if epoch == known.epoch:
                for first_seen, last_seen, offset in known.batches:
                    if (first_seen, last_seen) == (sequence, last):
                        self.duplicates += 1
                        return offset
                if sequence != known.last_sequence + 1:
                    raise SequenceRefused
            elif sequence != 0:
                raise SequenceRefused
        if known is None or epoch > known.epoch:
            known = self._producers[identifier] = _Producer(epoch, -1)
        base = self.append(pairs, headers)
        known.last_sequence = last
        known.batches.append((sequence, last, base))
        return base

    def skip(self, count: int) -> None:
        """Use up offsets without visible records, as aborted records and markers do."""
        self.end += count
        self._changed()

    @property
    def stable(self) -> int:
        """Return the last stable offset: the end, or the start of an open transaction."""
        return self.end if self._open is None else self._open[0]

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._open is not None

    @property
    def settled(self) -> bool:
        """Return whether an open transaction holds back committed records of others."""
        return any(record.offset >= self.stable for record in self.records[-1:])

    def begin_transaction(self, pairs: Sequence[Pair], timestamp: int) -> None:
        """Append records of a transaction that stays open; only one at a time."""
        assert self._open is None
        records = [Record(self.end + number, timestamp, key, value) for number, (key, value) in enumerate(pairs)]
        self._open = self.end, records
        self.skip(len(pairs))

    def end_transaction(self, *, commit: bool) -> None:
        """Append the marker that commits or aborts the open transaction."""
        assert self._open is not None
        (_, records), self._open = self._open, None
        if commit:
            self.records = sorted([*self.records, *records])
        self.skip(1)

    def end_at(self, time: float) -> int:
        """Return the end at a time of the loop."""
        later = bisect_right(self._ends, time, key=itemgetter(0))
        return self._ends[later - 1][1] if later else 0

    def read(self, offset: int, limit: int) -> tuple[list[Record], int]:
        """Return up to `limit` readable records from an offset, and the offset after them."""
        low, high = 0, len(self.records)
        while low < high:
            middle = (low + high) // 2
            if self.records[middle].offset < offset:
                low = middle + 1
            else:
                high = middle
        stable = self.stable
        found = [record for record in self.records[low : low + limit] if record.offset < stable]
        return found, stable if len(found) < limit or low + limit >= len(self.records) else found[-1].offset + 1

    def at(self, offset: int) -> Record | None:
        """Return the record at an offset."""
        found, _ = self.read(offset, 1)
        return found[0] if found and found[0].offset == offset else None

    def cleanable(self) -> list[int]:
        """Return the offsets at which a compaction may end now: at a batch end, with all records before old enough."""
        now = self._wall_ms()
        young = (record.offset for record in self.records if now - record.timestamp < COMPACTION_LAG_MS)
        limit = next(young, self.end)
        return [offset for offset in self.batches if offset <= limit]

    def compact(self, before: int, reached: int | None = None) -> int:
        """Compact the log before an offset; return the number of removed records.

        With `reached`, compaction is in progress: the log is unchanged from there on. Tombstones are removed as soon as
        any broker could do so, which is a compaction lag after their retention began.
        """
        now = self._wall_ms()
        newest = {record.key: record.offset for record in self.records if record.offset < before}
        horizon = now - TOMBSTONE_RETENTION_MS - COMPACTION_LAG_MS
        kept = [
            record
            for record in self.records
            if record.offset >= (before if reached is None else reached)
            or (newest[record.key] == record.offset and (record.value is not None or record.timestamp > horizon))
        ]
        gone = len(self.records) - len(kept)
        self.records = kept
        return gone

    def delete_before(self, offset: int) -> None:
        """Delete records as retention does."""
        self.start = max(self.start, min(offset, self.end))
        self.records = [record for record in self.records if record.offset >= self.start]

    def truncate(self, end: int) -> None:
        """Lose the last records, as after an unclean election."""
        self.end = min(self.end, end)
        self.records = [record for record in self.records if record.offset < self.end]
        self.batches = [offset for offset in self.batches if offset <= self.end]

    def recreate(self) -> None:
        """Delete the topic and create it again."""
        self.start = self.end = 0
        self._open = None
        self.records = []
        self.batches = [0]
        self._producers.clear()
        self._changed()

    def forget_producers(self) -> None:
        """Forget epochs, as brokers do a day after a producer's last append."""
        self._producers.clear()

    def _changed(self) -> None:
        self._ends.append((asyncio.get_running_loop().time(), self.end))
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher()
