"""The rows of a table between two stored keys, in their order, over all its partitions."""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from msgspec.structs import replace

from tablehouse.errors import ExpressionFailed, InvalidExpression, RequestError
from tablehouse.model import Consistency
from tablehouse.routing.asking import Asker, Told
from tablehouse.routing.newest_filter import NewestFilter
from tablehouse.routing.outcomes import PartitionAnswer, worse
from tablehouse.routing.search import Asked
from tablehouse.routing.spread import AT_ONCE, all_of
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tablehouse.tasks.slice_sizes import slice_end
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
    """The next rows of a range that match; may be none.

    Together with those before they are all of them up to the key `reached`, inclusive; None at the end of the range.
    """

    rows: Sequence[KeyedRow]
    reached: bytes | None


class _Stretch:
    """What is known of a partition: rows in order that were not given yet, and what is left to ask for.

    reached is the key up to which, inclusive, all its rows are known; None if that is not beyond those that were given.
    """

    def __init__(self, partition: int, rest: Range) -> None:
        self.partition = partition
        self.rest: Range | None = rest
        self.rows: list[KeyedRow] = []
        self.reached: bytes | None = None
        self._size = 0

    @property
    def is_dry(self) -> bool:
        """Whether nothing is known beyond the rows that were given, though there may be more."""
        return self.reached is None and self.rest is not None

    @property
    def is_low(self) -> bool:
        """Whether most of its rows are given, and there may be more to ask for.

        A stretch without matching rows is not low while it is ahead of others, which have to be asked first.
        """
        return self.rest is not None and (self.is_dry or 0 < 4 * len(self.rows) <= self._size)

    def take(self, asked: Range, result: RangeResult) -> None:
        """Add what a worker told of the next rows."""
        rows, rest = result.rows, result.rest
        if rest is None and sum([not row.deleted for row in rows]) >= asked.limit:
            rest = asked.after(rows[-1].stored_key, asked.limit)
        self.rows += rows
        self.rest = rest
        self.reached = None if rest is None else rest.reached
        self._size = len(self.rows)

    def take_out(self, is_beyond: Callable[[bytes], bool] | None) -> Sequence[KeyedRow]:
        """Remove and return the rows before the first whose key is beyond some key; all without one."""
        if is_beyond is None or (self.reached is not None and not is_beyond(self.reached)):
            self.reached = None
        end = len(self.rows) if is_beyond is None else bisect_left(self.rows, x=True, key=_of_key(is_beyond))
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
        #: Rows read so far, where they are, including marks of deleted keys and rows that do not match.
        self.rows_read = 0
        #: The rows and their bytes that have come here.
        self._rows_received = 0
        self._bytes_received = 0
        self._parts = parts
        self._asked = asked
        self._newest_filter = None
        if bounds.where is not None and not asked.routed.has_keys_once:
            # An older row of a key may match in its partition, though the newest one in another does not.
            self._newest_filter = NewestFilter(asked.routed, bounds)
            bounds = self._newest_filter.question
        self._bounds = bounds
        self._partial = partial
        self._seconds = asked.deadline - parts.clock() if renews else None
        self._stretches = [_Stretch(partition, bounds) for partition in range(asked.partitions)]
        self._rows_read = parts.metrics.rows_scanned.labels(asked.routed.spec.name)

    async def parts(self) -> AsyncGenerator[Part]:
        """Give the rows in order, as many at once as there are; looks for more when asked for more.

        Of the rows that one key has in several partitions it is the newest, and a key that was deleted after that has
        none. Raises what Asker.answer raises for any of the partitions, unless the scan may go on without it: what lies
        between the rows of the others is unknown then. ExpressionFailed is raised in any case.
        """
        left = self._bounds.limit
        while True:
            await self._fill(left)
            await self._parts.turns.wait()
            rows, reached = await self._merge(left)
            if len(rows) > left or (len(rows) == left and reached is not None):
                yield Part(rows[:left], rows[left - 1].stored_key)
                return
            left -= len(rows)
            yield Part(rows, reached)
            if reached is None:
                return

    async def _fill(self, left: int) -> None:
        """Ask until every partition has told its next row, or up to which key it has none."""
        while any(stretch.is_dry for stretch in self._stretches):
            low = [stretch for stretch in self._stretches if stretch.is_low]
            for begin in range(0, len(low), AT_ONCE):
                # What the partitions before have told, and the time they took, counts for the next.
                await self._ask(self._with_deadline(), low[begin : begin + AT_ONCE], self._limit(left))

    def _limit(self, left: int) -> int:
        """Return how many rows each partition is asked for, with this many wanted of all of them together."""
        count = self._asked.partitions
        limit = min(left // count + MIN_ROWS, left, max(MIN_ROWS, ROWS_AHEAD // count))
        fitting = BYTES_AHEAD * self._rows_received // (count * max(1, self._bytes_received))
        return max(1, min(limit, fitting)) if self._rows_received else limit

    def _with_deadline(self) -> Asked:
        """Return what is asked, with the deadline of the next questions."""
        asked, now = self._asked, self._parts.clock()
        deadline = asked.deadline if self._seconds is None else now + self._seconds
        if self._partial:
            deadline = now + PARTIAL_SHARE * (deadline - now)
        return asked._replace(deadline=deadline, waits_until=min(asked.waits_until, deadline))

    async def _ask(self, asked: Asked, stretches: Sequence[_Stretch], limit: int) -> None:
        questions = {
            # What an older worker returns as the rest lacks the members that it does not know.
            stretch.partition: replace(
                stretch.rest,
                limit=limit,
                keys_only=self._bounds.keys_only,
                where=self._bounds.where,
                fields=self._bounds.fields,
            )
            for stretch in stretches
            if stretch.rest is not None
        }

        async def ask(partition: int) -> Told[RangeResult] | RequestError:
            try:
                return await self._parts.asker.answer(asked, partition, questions[partition])
            except RequestError as error:
                if not self._partial or isinstance(error, ExpressionFailed | InvalidExpression):
                    raise
                return error

        for stretch, told in zip(stretches, await all_of(ask, list(questions)), strict=True):
            if isinstance(told, RequestError):
                self.missing[stretch.partition] = told
                stretch.rest = None
                continue
            stretch.take(questions[stretch.partition], told.result)
            self._count(told.result)
            self._label(told)

    def _count(self, result: RangeResult) -> None:
        rows_read = len(result.rows) if result.rows_read is None else result.rows_read
        self.rows_read += rows_read
        self._rows_received += len(result.rows)
        self._bytes_received += sum([len(row.stored_key) + len(row.payload) for row in result.rows])
        self._rows_read.inc(rows_read)

    def _label(self, told: Told[RangeResult]) -> None:
        partition = told.result.freshness.partition
        answer, known = PartitionAnswer(told.result.freshness, told.served_by), self.partitions.get(partition)
        self.partitions[partition] = answer if known is None else worse(known, answer)

    async def _merge(self, left: int) -> Part:
        """Take the rows up to the first key behind which a partition has not told its next row."""
        reverse = self._bounds.reverse
        ends = [stretch.reached for stretch in self._stretches if stretch.reached is not None]
        reached: bytes | None = None
        is_beyond: Callable[[bytes], bool] | None = None
        if ends:
            reached = max(ends) if reverse else min(ends)
            is_beyond = _is_before(reached) if reverse else _is_after(reached)
        taken = [(stretch.partition, stretch.take_out(is_beyond)) for stretch in self._stretches]
        found = [row for _, rows in taken for row in rows]
        # Sorting keeps the order of the partitions among the rows of one key.
        found.sort(key=_stored_key, reverse=reverse)
        newest = _newest(found)
        if self._newest_filter is None:
            return Part(newest, reached)
        # The rows are in `found` as long as their ids are used.
        partitions = {id(row): partition for partition, rows in taken for row in rows}
        matching: list[KeyedRow] = []
        is_over = slice_end(self._parts.clock)
        for place, row in enumerate(newest):
            if len(matching) == left:
                return Part(matching, newest[place - 1].stored_key)
            if is_over():
                await self._parts.turns.wait()
                is_over = slice_end(self._parts.clock)
            match = self._newest_filter.match(row, partitions[id(row)])
            if match is not None:
                matching.append(match)
        return Part(matching, reached)


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


def _is_after(key: bytes) -> Callable[[bytes], bool]:
    return lambda other: other > key


def _is_before(key: bytes) -> Callable[[bytes], bool]:
    return lambda other: other < key


def _of_key(is_beyond: Callable[[bytes], bool]) -> Callable[[KeyedRow], bool]:
    return lambda row: is_beyond(row.stored_key)


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
