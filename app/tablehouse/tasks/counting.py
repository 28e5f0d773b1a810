"""The question for the number of rows between two stored keys."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from tablehouse.model import Consistency, Freshness
from tablehouse.stores.rows import ROW_PREFIX, count_live, unpack
from tablehouse.tasks.filters import RowMatches, matches_of
from tablehouse.tasks.ranges import read_slice
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.slice_sizes import slice_end
from tablehouse.tasks.task import Task


class CountResult(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """The number of rows in the first part of a range in a copy, without marks of deleted keys.

    rest is the part that is left to count; None when there is none. rows_read also counts marks and rows that do not
    match; None from a worker that does not know conditions.
    """

    count: int
    freshness: Freshness
    rest: "CountRange | None" = None
    rows_read: int | None = None

    @property
    def says_absent(self) -> bool:
        """Whether the result says that keys do not exist: always, namely all that were not counted."""
        return True


class CountRange(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """The number of rows of a partition from stored key `start`, inclusive, to `end`, exclusive.

    An `end` of None is the end of all rows. `where` is the text of a condition, and only rows that match it are
    counted; that needs a worker that knows it, which `rows_read` shows.
    """

    start: bytes = b""
    end: bytes | None = None
    where: str | None = None

    @property
    def needs_rows_read(self) -> bool:
        """Whether only a result with rows_read is an answer."""
        return self.where is not None

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> CountResult:
        """Count the first rows, as many as fit into one slice of work.

        Raises what Reader.read raises for a miss, InvalidExpression, and ExpressionFailed for a row without a value.
        """
        limit = reader.sizes.rows(task.table)
        found, freshness = read_slice(task, reader, consistency, self.start, self.end, limit=limit)
        is_over = slice_end(reader.clock)
        return self.result(found, freshness, matches_of(self.where, task), is_end=len(found) < limit, is_over=is_over)

    def result(
        self,
        found: Sequence[tuple[bytes, bytes]],
        freshness: Freshness,
        matches: RowMatches | None,
        *,
        is_end: bool,
        is_over: Callable[[], bool],
    ) -> CountResult:
        """Return the result of the first rows of the range, of which there are no more with `is_end`.

        At least one of them is used, and with a condition others until the slice is over; raises RowLayoutError and
        ExpressionFailed.
        """
        if matches is None:
            count, used = count_live([row for _, row in found]), len(found)
        else:
            count, used = _count_matching(found, matches, is_over)
        is_all = is_end and used == len(found)
        rest = None if is_all else replace(self, start=found[used - 1][0][len(ROW_PREFIX) :] + b"\0")
        return CountResult(count, freshness, rest, used)


def _count_matching(
    found: Sequence[tuple[bytes, bytes]], matches: RowMatches, is_over: Callable[[], bool]
) -> tuple[int, int]:
    """Return how many rows match, and how many were read for it."""
    count = 0
    for used, (key, data) in enumerate(found):
        if used and is_over():
            return count, used
        row = unpack(data)
        count += not row.deleted and matches(key[len(ROW_PREFIX) :], row.payload, row.timestamp_ms)
    return count, len(found)
