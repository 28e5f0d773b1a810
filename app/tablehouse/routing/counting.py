"""How many rows a table has between two stored keys, over all its partitions."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from tablehouse.errors import DeadlineExceeded, ExpressionFailed, InvalidExpression, RequestError
from tablehouse.model import Consistency
from tablehouse.routing.asking import Asker
from tablehouse.routing.outcomes import PartitionAnswer, worse
from tablehouse.routing.ranges import ALL_ROWS, PARTIAL_SHARE, Ranges
from tablehouse.routing.search import Asked
from tablehouse.routing.spread import AT_ONCE, all_of
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.counting import CountRange
from tablehouse.tasks.ranges import Range
from tablehouse.telemetry import Metrics

#: Of the time for a count, the share in which questions are asked. A worker that is asked later than that could hardly
#: answer in time, and would look as if it could not be reached.
ASKING_SHARE = 0.9


@dataclass(slots=True)
class Counted:
    """The number of rows; the rest is as in a Scan, and what is missing is not counted."""

    count: int = 0
    rows_read: int = 0
    partitions: dict[int, PartitionAnswer] = field(default_factory=dict)
    missing: dict[int, RequestError] = field(default_factory=dict)


class RowCounts:
    """Counts rows over the whole cluster; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        tables: Mapping[str, RoutedTable],
        asker: Asker,
        ranges: Ranges,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._tables = tables
        self._asker = asker
        self._ranges = ranges
        self._clock = clock
        self._metrics = metrics

    async def count(
        self,
        table: str,
        bounds: CountRange,
        *,
        deadline: float,
        request_id: str,
        consistency: Consistency,
        wait: float | None = None,
        partial: bool = False,
    ) -> Counted:
        """Count the rows of a range, a key that has rows in several partitions once; see Ranges.scan for the rest.

        Raises what Ranges.scan and Scan.parts raise, and DeadlineExceeded when there are too many rows for the time.
        """
        routed = table_named(self._tables, table)
        if not routed.has_keys_once:
            return await self._count_keys(routed, bounds, deadline, request_id, consistency, wait, partial=partial)
        asked = self._asker.asked(routed, deadline=deadline, request_id=request_id, consistency=consistency, wait=wait)
        timed, asks_until = asked, self._asks_until(deadline)
        counted = Counted()

        async def count(partition: int) -> None:
            try:
                await self._count_partition(timed, asks_until, partition, bounds, counted)
            except RequestError as error:
                if not partial or isinstance(error, ExpressionFailed | InvalidExpression):
                    raise
                counted.missing[partition] = error

        partitions = range(asked.partitions)
        for begin in range(0, len(partitions), AT_ONCE):
            if partial:
                # So that time is left for the partitions that follow, whatever becomes of these.
                now = self._clock()
                until = now + PARTIAL_SHARE * (deadline - now)
                timed = asked._replace(deadline=until, waits_until=min(asked.waits_until, until))
                asks_until = self._asks_until(until)
            await all_of(count, partitions[begin : begin + AT_ONCE])
        return counted

    async def _count_partition(
        self, asked: Asked, asks_until: float, partition: int, bounds: CountRange, counted: Counted
    ) -> None:
        """Add the rows of a partition where they are; all of them or, if this raises, none."""
        rest: CountRange | None = bounds
        count, label = 0, None
        while rest is not None:
            self._check_time(asks_until, asked.routed)
            told = await self._asker.answer(asked, partition, rest)
            rest, count = told.result.rest, count + told.result.count
            answer = PartitionAnswer(told.result.freshness, told.served_by)
            label = answer if label is None else worse(label, answer)
            rows_read = told.result.count if told.result.rows_read is None else told.result.rows_read
            counted.rows_read += rows_read
            self._metrics.rows_scanned.labels(asked.routed.spec.name).inc(rows_read)
        counted.count += count
        if label is not None:
            counted.partitions[partition] = label

    async def _count_keys(
        self,
        routed: RoutedTable,
        bounds: CountRange,
        deadline: float,
        request_id: str,
        consistency: Consistency,
        wait: float | None,
        *,
        partial: bool,
    ) -> Counted:
        """Count the keys of all partitions together."""
        asks_until = self._asks_until(deadline)
        scan = self._ranges.scan(
            routed.spec.name,
            Range(bounds.start, bounds.end, limit=ALL_ROWS, keys_only=True, where=bounds.where),
            deadline=deadline,
            request_id=request_id,
            consistency=consistency,
            wait=wait,
            partial=partial,
        )
        count = 0
        async with aclosing(scan.parts()) as parts:
            async for part in parts:
                count += len(part.rows)
                self._check_time(asks_until, routed)
        return Counted(count, scan.rows_read, scan.partitions, scan.missing)

    def _asks_until(self, deadline: float) -> float:
        now = self._clock()
        return now + ASKING_SHARE * (deadline - now)

    def _check_time(self, asks_until: float, routed: RoutedTable) -> None:
        if self._clock() >= asks_until:
            raise DeadlineExceeded(
                f"the range of table {routed.spec.name} has more rows than can be counted in the request's time: count "
                "parts of it, with prefix, or from and to",
                table=routed.spec.name,
            )
