"""Partitions as a Kafka broker keeps them: producer epochs, append times, compaction, retention, aborted records.

Modelled on what brokers do with idempotent producers: a lower epoch is refused; a batch that was appended before is
answered with the offset it has; a higher epoch starts at sequence 0; a producer id that is not known may start
anywhere.
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

#: How many batches a broker remembers of each producer, to recognise those that are sent again.
BATCHES_REMEMBERED = 5


class Record(NamedTuple):
    """Implements LogRecord."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Refused(Exception):
    """The broker does not append."""


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
        #: Whether the brokers say that they do not know it.
        self.missing = False
        #: Of the open transaction: its first offset, and its records, which are there once it is committed.
        self._open: tuple[int, list[Record]] | None = None
        #: What the end was from which time of the loop on.
        self._ends: list[tuple[float, int]] = []
        #: Where batches begin: nothing is compacted or cut anywhere else.
        self.batches: list[int] = [0]
        self._wall_ms = wall_ms
        self._producers: dict[int, _Producer] = {}
        #: Called once at the next change of any kind.
        self.watchers: list[Callable[[], None]] = []

    def append(
        self, pairs: Sequence[Pair], headers: Sequence[tuple[str, bytes]] = (), timestamp: int | None = None
    ) -> int:
        """Append a batch that carries no producer id; return the offset of its first record."""
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
        """Append a batch of a producer, given as id and epoch; raises Refused."""
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
        """Use up offsets without records that a reader sees, as aborted records and markers do."""
        self.end += count
        self._changed()

    @property
    def stable(self) -> int:
        """Return the offset up to which a reader gets records: the end, or where an open transaction begins."""
        return self.end if self._open is None else self._open[0]

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._open is not None

    @property
    def settled(self) -> bool:
        """Return whether an open transaction holds back records of others, which are there for good."""
        return any(record.offset >= self.stable for record in self.records[-1:])

    def begin_transaction(self, pairs: Sequence[Pair], timestamp: int) -> None:
        """Append records of a transaction that stays open; one at a time."""
        assert self._open is None
        records = [Record(self.end + number, timestamp, key, value) for number, (key, value) in enumerate(pairs)]
        self._open = self.end, records
        self.skip(len(pairs))

    def end_transaction(self, *, commit: bool) -> None:
        """Append the marker that commits or aborts what is open."""
        assert self._open is not None
        (_, records), self._open = self._open, None
        if commit:
            self.records = sorted([*self.records, *records])
        self.skip(1)

    def end_at(self, time: float) -> int:
        """Return what the end was at a time of the loop."""
        later = bisect_right(self._ends, time, key=itemgetter(0))
        return self._ends[later - 1][1] if later else 0

    def read(self, offset: int, limit: int) -> tuple[list[Record], int]:
        """Return up to `limit` records from an offset on that can be read, and the offset after what was looked at."""
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
        """Return the offsets up to which compaction may come now: batches end there, and all before is old enough."""
        now = self._wall_ms()
        young = (record.offset for record in self.records if now - record.timestamp < COMPACTION_LAG_MS)
        limit = next(young, self.end)
        return [offset for offset in self.batches if offset <= limit]

    def compact(self, before: int, reached: int | None = None) -> int:
        """Compact what lies before an offset; return how many records went.

        With `reached` it is in the middle of that: what lies from there on is as it was. Tombstones go as soon as any
        broker could remove them, which is a compaction lag after their retention began.
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
