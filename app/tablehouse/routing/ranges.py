"""The rows of a table between two stored keys, in their order, over all its partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tablehouse.model import Consistency
from tablehouse.routing.asking import Asker, Told
from tablehouse.routing.outcomes import PartitionAnswer, worse
from tablehouse.routing.search import Asked
from tablehouse.routing.spread import AT_ONCE, all_of
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult

#: Rows, and bytes of rows, after which the rest of a range is left for the next read.
MAX_ROWS = 10_000
BYTES_PER_READ = 1 << 20


class RowsBetween(NamedTuple):
    """The first rows of a range, and the range that is left; None when these are all.

    partitions say how fresh what was said of each partition is.
    """

    rows: Sequence[KeyedRow]
    rest: Range | None
    partitions: Mapping[int, PartitionAnswer]


@dataclass(slots=True)
class _Stretch:
    """What is known of a partition: rows in order that were not given yet, and what is left to ask for."""

    partition: int
    rest: Range | None
    rows: Sequence[KeyedRow] = ()
    given: int = 0
    answer: PartitionAnswer | None = None

    @property
    def head(self) -> KeyedRow | None:
        """The next row; None where there is no other as far as is known."""
        return self.rows[self.given] if self.given < len(self.rows) else None

    def take(self, told: Told[RangeResult]) -> None:
        """Go on with what a worker told, once the rows before are given."""
        asked, rows, rest = self.rest, told.result.rows, told.result.rest
        if rest is None and asked is not None and sum([not row.deleted for row in rows]) == asked.limit:
            # There may be others, and they matter if one of these was deleted later in another partition.
            rest = asked.after(rows[-1].stored_key, asked.limit)
        self.rows, self.rest, self.given = rows, rest, 0
        answer = PartitionAnswer(told.result.freshness, told.served_by)
        self.answer = answer if self.answer is None else worse(self.answer, answer)


class Ranges:
    """Reads ranges over the whole cluster; deadlines are points on the asker's clock."""

    def __init__(self, tables: Mapping[str, RoutedTable], asker: Asker) -> None:
        self._tables = tables
        self._asker = asker

    async def read(
        self,
        table: str,
        bounds: Range,
        *,
        deadline: float,
        request_id: str,
        consistency: Consistency,
        wait: float | None = None,
    ) -> RowsBetween:
        """Find the first rows of a range; see Query.read for the rest.

        Of the rows that one key has in several partitions it is the newest, and a key that was deleted after that has
        none. What is beyond MAX_ROWS and BYTES_PER_READ is left out, but never all. Raises TableNotFound,
        PartitionUnassigned before the first assignment, and what Asker.answer raises for any of the partitions: without
        it, what lies between the rows of the others is unknown.
        """
        asked = self._asker.asked(
            table_named(self._tables, table),
            deadline=deadline,
            request_id=request_id,
            consistency=consistency,
            wait=wait,
        )
        limit = min(bounds.limit, MAX_ROWS)
        first = Range(bounds.start, bounds.end, reverse=bounds.reverse, limit=limit)
        stretches = [_Stretch(partition, first) for partition in range(asked.partitions)]
        rows: list[KeyedRow] = []
        size, rest = 0, None
        while (row := await self._next(asked, stretches, reverse=bounds.reverse)) is not None:
            if row.deleted:
                continue
            rows.append(row)
            size += len(row.stored_key) + len(row.payload)
            if len(rows) == limit or size >= BYTES_PER_READ:
                left = bounds.limit - len(rows)
                rest = bounds.after(row.stored_key, left) if left else None
                break
        answers = {stretch.partition: stretch.answer for stretch in stretches if stretch.answer is not None}
        return RowsBetween(rows, rest, answers)

    async def _next(self, asked: Asked, stretches: Sequence[_Stretch], *, reverse: bool) -> KeyedRow | None:
        """Return the row, or the mark, of the next key, once every partition has told which its next one is."""
        dry = [stretch for stretch in stretches if stretch.head is None and stretch.rest is not None]
        while dry:
            await self._ask(asked, dry)
            dry = [stretch for stretch in dry if stretch.head is None and stretch.rest is not None]
        heads = [row.stored_key for stretch in stretches if (row := stretch.head) is not None]
        if not heads:
            return None
        key = max(heads) if reverse else min(heads)
        found: list[KeyedRow] = []
        for stretch in stretches:
            row = stretch.head
            if row is not None and row.stored_key == key:
                found.append(row)
                stretch.given += 1
        # Of rows with one timestamp it is that of the first partition, and a row is not older than its own deletion.
        return max(found, key=lambda row: (row.timestamp_ms, not row.deleted))

    async def _ask(self, asked: Asked, stretches: Sequence[_Stretch]) -> None:
        left = {stretch.partition: stretch.rest for stretch in stretches if stretch.rest is not None}

        async def ask(partition: int) -> Told[RangeResult]:
            return await self._asker.answer(asked, partition, left[partition])

        for begin in range(0, len(stretches), AT_ONCE):
            some = stretches[begin : begin + AT_ONCE]
            for stretch, told in zip(some, await all_of(ask, [stretch.partition for stretch in some]), strict=True):
                stretch.take(told)
