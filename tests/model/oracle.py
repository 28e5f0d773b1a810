"""The expected tables: a plain replay of the source, which imports nothing of the code under test."""

import struct
from collections.abc import Iterable
from typing import Protocol

_HEAD = struct.Struct(">BBqq")

#: Values at least this long do not fit into a changelog batch of any history.
OVERSIZED = 6000

#: Milliseconds of stream time after which a row lapses, in tables whose rows do.
LAPSED, LAPSE_MS = b"lapsed", 3


class SourceRecord(Protocol):
    """A record of the source."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


class Expected:
    """The rows of one table after each source offset."""

    def __init__(self, fold: str) -> None:
        self._fold = fold
        #: By key, each change as (offset, row), in order.
        self._changes: dict[bytes, list[tuple[int, bytes | None]]] = {}
        #: The last offset learned.
        self.seen = -1
        #: The highest timestamp learned.
        self._stream_time = -1
        #: The offsets of the records that cannot become rows, and of those that only can if a later record of the key
        #: is in the same batch.
        self.bad: list[int] = []
        self.oversized: list[int] = []

    def learn(self, records: Iterable[SourceRecord]) -> None:
        """Add the records that follow those learned before."""
        for record in records:
            self.seen = record.offset
            key, value = record.key, record.value
            if record.timestamp > self._stream_time:
                self._stream_time = record.timestamp
                if self._fold == "lapse":
                    self._lapse(record)
            if key is None or key.startswith(b"!") or (value is not None and value.startswith(b"!")):
                self.bad.append(record.offset)
                continue
            if self._fold == "upsert" and value is not None and len(value) >= OVERSIZED:
                self.oversized.append(record.offset)
            changes = self._changes.setdefault(key, [])
            before = changes[-1][1] if changes else None
            changes.append((record.offset, self._row(record, before)))

    def _lapse(self, passing: SourceRecord) -> None:
        """Let rows lapse because of the time of a record, whatever the record is."""
        head = _HEAD.pack(1, 0, passing.timestamp, passing.offset)
        for changes in self._changes.values():
            row = changes[-1][1]
            if row is None or row[_HEAD.size :] == LAPSED:
                continue
            _, _, timestamp, _ = _HEAD.unpack_from(row)
            if timestamp + LAPSE_MS <= self._stream_time:
                changes.append((passing.offset, head + LAPSED))

    def _row(self, record: SourceRecord, before: bytes | None) -> bytes | None:
        head = _HEAD.pack(1, 0, record.timestamp, record.offset)
        if self._fold == "toggle":
            return head + b"on" if before is None else None
        if record.value is None:
            return None
        if self._fold == "count":
            return head + b"%d" % (1 if before is None else int(before[_HEAD.size :]) + 1)
        return before if len(record.value) >= OVERSIZED else head + record.value

    def between(self, key: bytes, first: int, last: int) -> list[bytes | None]:
        """Return all values that the row of a key had at positions from `first` to `last`; None is no row."""
        found: list[bytes | None] = [None]
        for offset, row in self._changes.get(key, ()):
            if offset <= first:
                found = [row]
            elif offset <= last:
                found.append(row)
        return found

    def rows(self) -> dict[bytes, bytes]:
        """Return all rows, by key."""
        newest = {key: changes[-1][1] for key, changes in self._changes.items()}
        return {key: row for key, row in newest.items() if row is not None}

    def every_key(self) -> list[bytes]:
        """Return every key that ever had a record."""
        return list(self._changes)
