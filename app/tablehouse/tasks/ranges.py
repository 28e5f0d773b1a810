"""The question for the rows between two stored keys."""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec.structs import replace

from tablehouse.model import Consistency, Freshness
from tablehouse.stores.rows import HEAD_SIZE, ROW_PREFIX, ROWS_END, unpack
from tablehouse.stores.store import TaskStore
from tablehouse.tasks.filters import RowMatches, matches_of
from tablehouse.tasks.projection import Path, projection
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.slice_sizes import BYTES_PER_SLICE, slice_end
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

    A key up to the last row that is not among the rows does not exist, or does not match. rest is the rest of the range
    to ask for; None when there is none. rows_read also counts rows that do not match; None from a worker that does not
    know conditions.
    """

    rows: Sequence[KeyedRow]
    freshness: Freshness
    rest: "Range | None" = None
    rows_read: int | None = None

    @property
    def says_absent(self) -> bool:
        """Whether the result says that keys do not exist: always, namely those between its rows."""
        return True


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """The first `limit` rows of a partition from stored key `start`, inclusive, to `end`, exclusive.

    An `end` of None is the end of all rows. With `reverse` they are the last rows, the last one first. Marks of deleted
    keys do not count towards `limit`. With `keys_only` the rows of the result have empty payloads; a worker that does
    not know it sends them.

    `where` is the text of a condition, and the rows are those that match it; marks never do. With `fields`, the
    payloads are objects with only these members; both need a worker that knows them, which `rows_read` shows.
    """

    start: bytes = b""
    end: bytes | None = None
    reverse: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    keys_only: bool = False
    where: str | None = None
    fields: tuple[Path, ...] = ()

    @property
    def needs_rows_read(self) -> bool:
        """Whether only a result with rows_read is an answer."""
        return self.where is not None or bool(self.fields)

    @property
    def reached(self) -> bytes:
        """The stored key that this range follows, if it is what `after` returned."""
        if self.reverse:
            return self.end or b""
        return self.start[:-1]

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> RangeResult:
        """Return the first rows, as many as fit into one slice of work.

        Raises what Reader.read raises for a miss, InvalidExpression, and ExpressionFailed for a row without a value.
        """
        # A slice of work is bounded by the rows that are read: how many of them match is not known before.
        most = reader.sizes.rows(task.table)
        limit = most if self.where is not None else min(self.limit, most)
        found, freshness = read_slice(
            task, reader, consistency, self.start, self.end, reverse=self.reverse, limit=limit
        )
        is_over = slice_end(reader.clock) if self.needs_rows_read else None
        return self.result(found, freshness, matches_of(self.where, task), is_end=len(found) < limit, is_over=is_over)

    def result(
        self,
        found: Sequence[tuple[bytes, bytes]],
        freshness: Freshness,
        matches: RowMatches | None,
        *,
        is_end: bool,
        is_over: Callable[[], bool] | None = None,
    ) -> RangeResult:
        """Return the result of the first rows of the range, of which there are no more with `is_end`.

        At least one of them is used, and others up to the bytes of a slice and until it is over; raises RowLayoutError
        and ExpressionFailed.
        """
        rows: list[KeyedRow] = []
        project = projection(self.fields) if self.fields else None
        size, used, left = 0, 0, self.limit
        for key, data in found:
            if size >= BYTES_PER_SLICE or left == 0 or (used and is_over is not None and is_over()):
                break
            size += len(key) + len(data)
            used += 1
            row = unpack(data)
            stored_key, payload = key[len(ROW_PREFIX) :], row.payload
            if matches is not None and (row.deleted or not matches(stored_key, payload, row.timestamp_ms)):
                continue
            if self.keys_only:
                payload = b""
            elif project is not None and not row.deleted:
                payload = project(payload)
            rows.append(KeyedRow(stored_key, payload, row.timestamp_ms, row.offset, row.deleted))
            left -= not row.deleted
        is_all = left == 0 or (is_end and used == len(found))
        rest = None if is_all else self.after(found[used - 1][0][len(ROW_PREFIX) :], left)
        return RangeResult(rows, freshness, rest, used)

    def after(self, last: bytes, limit: int) -> "Range":
        """Return the part of this range that follows a stored key, with another limit."""
        if self.reverse:
            return replace(self, end=last, limit=limit)
        return replace(self, start=last + b"\0", limit=limit)


def read_slice(
    task: Task,
    reader: Reader,
    consistency: Consistency,
    start: bytes,
    end: bytes | None,
    *,
    limit: int,
    reverse: bool = False,
) -> tuple[Sequence[tuple[bytes, bytes]], Freshness]:
    """Return up to `limit` rows between stored keys as the store has them, and their freshness; learn their size.

    An `end` of None is the end of all rows. Raises what Reader.read raises for a miss.
    """
    above = ROWS_END if end is None else ROW_PREFIX + end

    def scan(store: TaskStore) -> Sequence[tuple[bytes, bytes]]:
        return store.scan(ROW_PREFIX + start, above, reverse=reverse, limit=limit)

    found, freshness = reader.read_rows(task, scan, consistency)
    if found:
        payload_bytes = sum([len(row) for _, row in found]) - HEAD_SIZE * len(found)
        reader.sizes.learn(task.table, len(found), payload_bytes)
    return found, freshness
