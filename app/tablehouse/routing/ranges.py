"""The rows of a table between two stored keys, in their order, over all its partitions."""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from msgspec.structs import replace

from tablehouse.errors import RequestError
from tablehouse.model import Consistency
from tablehouse.routing.asking import Asker, Told
from tablehouse.routing.outcomes import PartitionAnswer, worse
from tablehouse.routing.search import Asked
from tablehouse.routing.spread import AT_ONCE, all_of
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

#: Rows of all partitions together, and about the bytes of rows, that a scan asks for ahead of those it has given.
ROWS_AHEAD = 2048
BYTES_AHEAD = 4 << 20

#: The rows that each partition is asked for at least, unless they are large.
MIN_ROWS = 16

#: A `limit` that no range reaches.
ALL_ROWS = 1 << 62

#: Of the time left, the share in which a partition has to answer if the scan may go on without it.
PARTIAL_SHARE = 0.5

_stored_key = attrgetter("stored_key")


class Part(NamedTuple):
    """The next rows of a range; may be none.

    Together with those before they are all rows up to the key `reached`, inclusive; None at the end of the range.
    """

    rows: Sequence[KeyedRow]
    reached: bytes | None


class _Stretch:
    """What is known of a partition: rows in order that were not given yet, and what is left to ask for."""

    def __init__(self, partition: int, rest: Range) -> None:
        self.partition = partition
        self.rest: Range | None = rest
        self.rows: list[KeyedRow] = []
        self._size = 0

    @property
    def is_dry(self) -> bool:
        """Whether its next row is not known, though there may be one."""
        return not self.rows and self.rest is not None

    @property
    def is_low(self) -> bool:
        """Whether most of its rows are given, and there may be more to ask for."""
        return self.rest is not None and 4 * len(self.rows) <= self._size

    def take(self, asked: Range, result: RangeResult) -> None:
        """Add what a worker told of the next rows."""
        rows, rest = result.rows, result.rest
        if rest is None and sum([not row.deleted for row in rows]) >= asked.limit:
            rest = asked.after(rows[-1].stored_key, asked.limit)
        self.rows += rows
        self.rest = rest
        self._size = len(self.rows)

    def take_out(self, is_beyond: Callable[[KeyedRow], bool] | None) -> Sequence[KeyedRow]:
        """Remove and return the rows before the first that is beyond some key; all without one."""
        end = len(self.rows) if is_beyond is None else bisect_left(self.rows, x=True, key=is_beyond)
        rows, self.rows = self.rows[:end], self.rows[end:]
        return rows


@dataclass(frozen=True, slots=True)
class _Parts:
    """What scans work with; clock is monotonic, in seconds."""

    asker: Asker
    clock: Callable[[], float]
    metrics: Metrics
    turns: Turns


class Scan:
    """One scan on its way; to be iterated over once.

    partitions say how fresh what was read of each partition is: the worst of each figure over the whole scan. missing
    are the partitions that could not answer, or not to the end, and why; none unless the scan may go on without them.
    """

    def __init__(self, parts: _Parts, asked: Asked, bounds: Range, *, partial: bool, renews: bool) -> None:
        self.partitions: dict[int, PartitionAnswer] = {}
        self.missing: dict[int, RequestError] = {}
        #: Rows read so far, including marks of deleted keys.
        self.rows_read = 0
        self._bytes_read = 0
        self._parts = parts
        self._asked = asked
        self._bounds = bounds
        self._partial = partial
        self._seconds = asked.deadline - parts.clock() if renews else None
        self._stretches = [_Stretch(partition, bounds) for partition in range(asked.partitions)]
        self._rows_read = parts.metrics.rows_scanned.labels(asked.routed.spec.name)

    async def parts(self) -> AsyncGenerator[Part]:
        """Give the rows in order, as many at once as there are; looks for more when asked for more.

        Of the rows that one key has in several partitions it is the newest, and a key that was deleted after that has
        none. Raises what Asker.answer raises for any of the partitions, unless the scan may go on without it: what lies
        between the rows of the others is unknown then.
        """
        left = self._bounds.limit
        while True:
            await self._fill(left)
            await self._parts.turns.wait()
            rows, reached = self._merge()
            if len(rows) > left or (len(rows) == left and reached is not None):
                yield Part(rows[:left], rows[left - 1].stored_key)
                return
            left -= len(rows)
            yield Part(rows, reached)
            if reached is None:
                return

    async def _fill(self, left: int) -> None:
        """Ask until every partition has told which its next row is."""
        while any(stretch.is_dry for stretch in self._stretches):
            low = [stretch for stretch in self._stretches if stretch.is_low]
            limit = self._limit(left)
            asked = self._with_deadline()
            for begin in range(0, len(low), AT_ONCE):
                await self._ask(asked, low[begin : begin + AT_ONCE], limit)

    def _limit(self, left: int) -> int:
        """Return how many rows each partition is asked for, with this many wanted of all of them together."""
        count = self._asked.partitions
        limit = min(left // count + MIN_ROWS, left, max(MIN_ROWS, ROWS_AHEAD // count))
        fitting = BYTES_AHEAD * self.rows_read // (count * max(1, self._bytes_read))
        return max(1, min(limit, fitting)) if self.rows_read else limit

    def _with_deadline(self) -> Asked:
        """Return what is asked, with the deadline of the next questions."""
        asked, now = self._asked, self._parts.clock()
        deadline = asked.deadline if self._seconds is None else now + self._seconds
        if self._partial:
            deadline = now + PARTIAL_SHARE * (deadline - now)
        return asked._replace(deadline=deadline, waits_until=min(asked.waits_until, deadline))

    async def _ask(self, asked: Asked, stretches: Sequence[_Stretch], limit: int) -> None:
        questions = {
            stretch.partition: replace(stretch.rest, limit=limit, keys_only=self._bounds.keys_only)
            for stretch in stretches
            if stretch.rest is not None
        }

        async def ask(partition: int) -> Told[RangeResult] | RequestError:
            try:
                return await self._parts.asker.answer(asked, partition, questions[partition])
            except RequestError as error:
                if not self._partial:
                    raise
                return error

        for stretch, told in zip(stretches, await all_of(ask, list(questions)), strict=True):
            if isinstance(told, RequestError):
                self.missing[stretch.partition] = told
                stretch.rest = None
                continue
            stretch.take(questions[stretch.partition], told.result)
            self._count(told.result.rows)
            self._label(told)

    def _count(self, rows: Sequence[KeyedRow]) -> None:
        self.rows_read += len(rows)
        self._bytes_read += sum([len(row.stored_key) + len(row.payload) for row in rows])
        self._rows_read.inc(len(rows))

    def _label(self, told: Told[RangeResult]) -> None:
        partition = told.result.freshness.partition
        answer, known = PartitionAnswer(told.result.freshness, told.served_by), self.partitions.get(partition)
        self.partitions[partition] = answer if known is None else worse(known, answer)

    def _merge(self) -> Part:
        """Take the rows up to the first key behind which a partition has not told its next row."""
        reverse = self._bounds.reverse
        ends = [stretch.rows[-1].stored_key for stretch in self._stretches if stretch.rest is not None]
        reached: bytes | None = None
        is_beyond: Callable[[KeyedRow], bool] | None = None
        if ends:
            reached = max(ends) if reverse else min(ends)
            is_beyond = _is_before(reached) if reverse else _is_after(reached)
        found = [row for stretch in self._stretches for row in stretch.take_out(is_beyond)]
        # Sorting keeps the order of the partitions among the rows of one key.
        found.sort(key=_stored_key, reverse=reverse)
        return Part(_newest(found), reached)


class Ranges:
    """Reads ranges over the whole cluster; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        tables: Mapping[str, RoutedTable],
        asker: Asker,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns,
    ) -> None:
        self._tables = tables
        self._parts = _Parts(asker, clock, metrics, turns)
        for name in tables:
            # So that all are there from the start, without a count.
            metrics.rows_scanned.labels(name)

    def scan(
        self,
        table: str,
        bounds: Range,
        *,
        deadline: float,
        request_id: str,
        consistency: Consistency,
        wait: float | None = None,
        partial: bool = False,
        renews: bool = False,
    ) -> Scan:
        """Begin to read a range; see Query.read for the rest.

        With `partial` the scan goes on without partitions that cannot answer. With `renews` each question has as much
        time as the first, for scans that take as long as their client. Raises TableNotFound, and PartitionUnassigned
        before the first assignment.
        """
        asked = self._parts.asker.asked(
            table_named(self._tables, table),
            deadline=deadline,
            request_id=request_id,
            consistency=consistency,
            wait=wait,
        )
        return Scan(self._parts, asked, bounds, partial=partial, renews=renews)


def _is_after(key: bytes) -> Callable[[KeyedRow], bool]:
    return lambda row: row.stored_key > key


def _is_before(key: bytes) -> Callable[[KeyedRow], bool]:
    return lambda row: row.stored_key < key


def _newest(found: Sequence[KeyedRow]) -> Sequence[KeyedRow]:
    """Return the newest of the rows of each key, which stand together; none where that is a mark of a deleted key.

    Of rows with one timestamp it is the first, and a row is not older than its own deletion.
    """
    newest: list[KeyedRow] = []
    for row in found:
        if newest and newest[-1].stored_key == row.stored_key:
            if _age(row) > _age(newest[-1]):
                newest[-1] = row
        else:
            newest.append(row)
    return [row for row in newest if not row.deleted]


def _age(row: KeyedRow) -> tuple[int, bool]:
    return row.timestamp_ms, not row.deleted
