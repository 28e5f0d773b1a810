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
    """The rows that a copy has from the beginning of a range on, in the range's order, marks of deleted keys included.

    A key that is not among them, up to the last one, does not exist. rest is the range that is left to ask for; None
    when this is all.
    """

    rows: Sequence[KeyedRow]
    freshness: Freshness
    rest: "Range | None" = None

    @property
    def says_absent(self) -> bool:
        """Whether it says of keys that they do not exist: always, of those between its rows."""
        return True


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """The first `limit` rows of a partition from stored key `start`, inclusive, to `end`, exclusive.

    None as the end stands for the end of all rows. With reverse they are the last rows, the last one first. Marks of
    deleted keys do not count as rows.
    """

    start: bytes = b""
    end: bytes | None = None
    reverse: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> RangeResult:
        """Return the first rows, as many as one slice of work has; raises what Reader.read raises for a miss."""
        sizes, table = reader.sizes, task.table
        limit = min(self.limit, sizes.rows(table))
        above = ROWS_END if self.end is None else ROW_PREFIX + self.end

        def scan(store: TaskStore) -> Sequence[tuple[bytes, bytes]]:
            return store.scan(ROW_PREFIX + self.start, above, reverse=self.reverse, limit=limit)

        found, freshness = reader.read_rows(task, scan, consistency)
        if found:
            sizes.learn(table, len(found), sum([len(row) for _, row in found]) - HEAD_SIZE * len(found))
        rows = _within_bytes(found)
        left = self.limit - sum([not row.deleted for row in rows])
        is_all = len(rows) == len(found) < limit or left == 0
        return RangeResult(rows, freshness, None if is_all else self.after(rows[-1].stored_key, left))

    def after(self, last: bytes, limit: int) -> "Range":
        """Return the range of what follows a stored key in this one, with another limit."""
        if self.reverse:
            return Range(self.start, last, reverse=True, limit=limit)
        return Range(last + b"\0", self.end, limit=limit)


def _within_bytes(found: Sequence[tuple[bytes, bytes]]) -> list[KeyedRow]:
    """Unpack the first rows, at least one, until they have the bytes of a slice; raises RowLayoutError."""
    rows: list[KeyedRow] = []
    size = 0
    for key, data in found:
        if size >= BYTES_PER_SLICE:
            break
        row = unpack(data)
        rows.append(KeyedRow(key[len(ROW_PREFIX) :], row.payload, row.timestamp_ms, row.offset, row.deleted))
        size += len(key) + len(data)
    return rows
