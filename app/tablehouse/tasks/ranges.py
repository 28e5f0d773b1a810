"""The question for the rows between two stored keys."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from tablehouse.model import Consistency, Freshness
from tablehouse.stores.rows import HEAD_SIZE, ROW_PREFIX, ROWS_END, unpack
from tablehouse.stores.store import TaskStore
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.slice_sizes import BYTES_PER_SLICE
from tablehouse.tasks.task import Task


class KeyedRow(NamedTuple):
    """A row with its stored key; `deleted` is set for the mark of a deleted key, as in Row."""

    stored_key: bytes
    payload: bytes
    timestamp_ms: int
    offset: int
    deleted: bool = False


class RangeResult(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """The first rows of a range in a copy, in the range's order, including marks of deleted keys.

    A key up to the last row that is not among the rows does not exist. rest is the rest of the range to ask for; None
    when there is none.
    """

    rows: Sequence[KeyedRow]
    freshness: Freshness
    rest: "Range | None" = None

    @property
    def says_absent(self) -> bool:
        """Whether the result says that keys do not exist: always, namely those between its rows."""
        return True


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """The first `limit` rows of a partition from stored key `start`, inclusive, to `end`, exclusive.

    An `end` of None is the end of all rows. With `reverse` they are the last rows, the last one first. Marks of deleted
    keys do not count towards `limit`. With `keys_only` the rows of the result have empty payloads; a worker that does
    not know it sends them.
    """

    start: bytes = b""
    end: bytes | None = None
    reverse: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    keys_only: bool = False

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> RangeResult:
        """Return the first rows, as many as fit into one slice of work; raises what Reader.read raises for a miss."""
        sizes, table = reader.sizes, task.table
        limit = min(self.limit, sizes.rows(table))
        above = ROWS_END if self.end is None else ROW_PREFIX + self.end

        def scan(store: TaskStore) -> Sequence[tuple[bytes, bytes]]:
            return store.scan(ROW_PREFIX + self.start, above, reverse=self.reverse, limit=limit)

        found, freshness = reader.read_rows(task, scan, consistency)
        if found:
            sizes.learn(table, len(found), sum([len(row) for _, row in found]) - HEAD_SIZE * len(found))
        rows = _within_bytes(found, keys_only=self.keys_only)
        left = self.limit - sum([not row.deleted for row in rows])
        is_all = len(rows) == len(found) < limit or left == 0
        return RangeResult(rows, freshness, None if is_all else self.after(rows[-1].stored_key, left))

    def after(self, last: bytes, limit: int) -> "Range":
        """Return the part of this range that follows a stored key, with another limit."""
        if self.reverse:
            return Range(self.start, last, reverse=True, limit=limit, keys_only=self.keys_only)
        return Range(last + b"\0", self.end, limit=limit, keys_only=self.keys_only)


def _within_bytes(found: Sequence[tuple[bytes, bytes]], *, keys_only: bool) -> list[KeyedRow]:
    """Unpack the first rows, at least one, up to the bytes of a slice; raises RowLayoutError."""
    rows: list[KeyedRow] = []
    size = 0
    for key, data in found:
        if size >= BYTES_PER_SLICE:
            break
        row = unpack(data)
        payload = b"" if keys_only else row.payload
        rows.append(KeyedRow(key[len(ROW_PREFIX) :], payload, row.timestamp_ms, row.offset, row.deleted))
        size += len(key) + len(data)
    return rows
