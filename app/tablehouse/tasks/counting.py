"""The question for the number of rows between two stored keys."""

from collections.abc import Sequence

import msgspec

from tablehouse.model import Consistency, Freshness
from tablehouse.stores.rows import HEAD_SIZE, ROW_PREFIX, ROWS_END, count_live
from tablehouse.stores.store import TaskStore
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.task import Task


class CountResult(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """The number of rows in the first part of a range in a copy, without marks of deleted keys.

    rest is the part that is left to count; None when there is none.
    """

    count: int
    freshness: Freshness
    rest: "CountRange | None" = None

    @property
    def says_absent(self) -> bool:
        """Whether the result says that keys do not exist: always, namely all that were not counted."""
        return True


class CountRange(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """The number of rows of a partition from stored key `start`, inclusive, to `end`, exclusive.

    An `end` of None is the end of all rows.
    """

    start: bytes = b""
    end: bytes | None = None

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> CountResult:
        """Count the first rows, as many as fit into one slice of work; raises what Reader.read raises for a miss."""
        sizes, table = reader.sizes, task.table
        limit = sizes.rows(table)
        above = ROWS_END if self.end is None else ROW_PREFIX + self.end

        def scan(store: TaskStore) -> Sequence[tuple[bytes, bytes]]:
            return store.scan(ROW_PREFIX + self.start, above, limit=limit)

        found, freshness = reader.read_rows(task, scan, consistency)
        rows = [row for _, row in found]
        if rows:
            sizes.learn(table, len(rows), sum(map(len, rows)) - HEAD_SIZE * len(rows))
        rest = None if len(found) < limit else CountRange(found[-1][0][len(ROW_PREFIX) :] + b"\0", self.end)
        return CountResult(count_live(rows), freshness, rest)
