"""This worker's own tables as one of the workers that can be asked: positions are waited for, and work takes turns."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast

from tablehouse.errors import PositionNotReached, RequestError
from tablehouse.model import Consistency
from tablehouse.routing.outcomes import worst
from tablehouse.routing.ports import Answered, LocalTables, Slice, Terms, Wanted
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.filters import prepared
from tablehouse.tasks.questions import MultiGet, Question, is_short
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.slice_sizes import BYTES_PER_SLICE
from tablehouse.turns import Turns

Result = TypeVar("Result")

#: The bytes of rows after which a worker leaves the rest of a batch for the next question. It bounds what waits between
#: two workers, and in the one that was asked for a client that takes its answer slowly.
BYTES_PER_ANSWER = 1 << 20


#: Seconds for which a worker goes on counting, or looking for rows that match a condition, before it answers what it
#: has so far, and the share of its time after which it does so in any case: the rest is for the way back.
SECONDS_PER_QUESTION = 0.25
WORKING_SHARE = 0.5


class Here:
    """Implements Answers with the tasks of this worker; clock is monotonic, in seconds."""

    def __init__(self, local: LocalTables, turns: Turns, clock: Callable[[], float], worker_id: str) -> None:
        self._local = local
        self._turns = turns
        self._clock = clock
        self._worker_id = worker_id

    async def answer(
        self, table: str, partition: int, question: Question[Result], consistency: Consistency, terms: Terms
    ) -> Answered[Result]:
        """Answer a question, and once more after up to `terms.wait` seconds where only the wanted position is missing.

        One that is not short is answered when its turn has come. A count, and a search for rows that match, goes on for
        SECONDS_PER_QUESTION if there is time, a slice of work in each turn. Raises what LocalTables.answer and
        wait_for_position raise, and InvalidExpression.
        """
        goes_on_until = 0.0
        if not is_short(question):
            goes_on_until = self._clock() + min(SECONDS_PER_QUESTION, WORKING_SHARE * terms.timeout)
            await self._turns.wait()
            where = _where(question)
            if where is not None:
                await self._turns.finish(prepared(where))
        try:
            result = self._local.answer(table, partition, question, consistency)
        except PositionNotReached as error:
            result = await self._answer_later(table, partition, question, consistency, terms.wait, error)
        if isinstance(result, CountResult):
            counted = await self._count_on(table, partition, result, consistency, goes_on_until)
            return Answered(cast("Result", counted), self._worker_id)
        if isinstance(result, RangeResult) and result.rest is not None and result.rest.where is not None:
            found = await self._search_on(table, partition, result, consistency, goes_on_until)
            return Answered(cast("Result", found), self._worker_id)
        return Answered(result, self._worker_id)

    async def _count_on(
        self, table: str, partition: int, counted: CountResult, consistency: Consistency, until: float
    ) -> CountResult:
        """Count what is left until some time; raises what LocalTables.answer raises."""
        while counted.rest is not None and self._clock() < until:
            await self._turns.wait()
            more = self._local.answer(table, partition, counted.rest, consistency)
            freshness = worst(counted.freshness, more.freshness)
            counted = CountResult(counted.count + more.count, freshness, more.rest, _sum(counted, more))
        return counted

    async def _search_on(
        self, table: str, partition: int, found: RangeResult, consistency: Consistency, until: float
    ) -> RangeResult:
        """Look for further rows until some time, up to the bytes of a slice; raises what LocalTables.answer raises."""
        size = _size(found)
        while found.rest is not None and size < BYTES_PER_SLICE and self._clock() < until:
            await self._turns.wait()
            more = self._local.answer(table, partition, found.rest, consistency)
            size += _size(more)
            freshness = worst(found.freshness, more.freshness)
            found = RangeResult([*found.rows, *more.rows], freshness, more.rest, _sum(found, more))
        return found

    async def answer_many(
        self, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Answer for the keys of one partition after the other, a slice of work in each turn.

        What is beyond BYTES_PER_ANSWER is left out, but never all.
        """
        waits_until = self._clock() + terms.wait
        slices: list[Slice] = []
        size = 0
        for partition, keys in wanted:
            done = 0
            while done < len(keys):
                if size >= BYTES_PER_ANSWER:
                    return Answered(slices, self._worker_id)
                await self._turns.wait()
                rest = keys[done:] if done else keys
                question = MultiGet(rest)
                try:
                    try:
                        result = self._local.answer(table, partition, question, consistency)
                    except PositionNotReached as error:
                        wait = waits_until - self._clock()
                        result = await self._answer_later(table, partition, question, consistency, wait, error)
                except RequestError as error:
                    slices.append(Slice(partition, len(rest), error))
                    break
                slices.append(Slice(partition, len(result.payloads), result))
                done += len(result.payloads)
                size += result.size
        return Answered(slices, self._worker_id)

    async def _answer_later(
        self,
        table: str,
        partition: int,
        question: Question[Result],
        consistency: Consistency,
        wait: float,
        error: PositionNotReached,
    ) -> Result:
        """Answer after up to `wait` seconds for the wanted position; raises `error` when there is no time to wait."""
        required = consistency.min_position
        if required is None or wait <= 0:
            raise error
        # Whether it was reached or not, the copy answers from where it is now.
        with suppress(PositionNotReached):
            await self._local.wait_for_position(table, partition, required, wait)
        return self._local.answer(table, partition, question, consistency)


def _sum(before: CountResult | RangeResult, more: CountResult | RangeResult) -> int:
    return (before.rows_read or 0) + (more.rows_read or 0)


def _size(found: RangeResult) -> int:
    return sum([len(row.stored_key) + len(row.payload) for row in found.rows])


def _where(question: object) -> str | None:
    return question.where if isinstance(question, Range | CountRange) else None
