"""This worker's own tables as one of the workers that can be asked: positions are waited for, and work takes turns."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast

from tablehouse.errors import PositionNotReached, RequestError
from tablehouse.model import Consistency
from tablehouse.routing.outcomes import worst
from tablehouse.routing.ports import Answered, LocalTables, Slice, Terms, Wanted
from tablehouse.tasks.counting import CountResult
from tablehouse.tasks.questions import MultiGet, Question, is_short
from tablehouse.turns import Turns

Result = TypeVar("Result")

#: The bytes of rows after which a worker leaves the rest of a batch for the next question. It bounds what waits between
#: two workers, and in the one that was asked for a client that takes its answer slowly.
BYTES_PER_ANSWER = 1 << 20


#: Seconds for which a worker goes on counting before it answers what it has counted so far.
SECONDS_PER_COUNT = 0.25


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

        One that is not short is answered when its turn has come, and a count goes on for SECONDS_PER_COUNT, a slice of
        work in each turn. Raises what LocalTables.answer and wait_for_position raise.
        """
        if not is_short(question):
            await self._turns.wait()
        try:
            result = self._local.answer(table, partition, question, consistency)
        except PositionNotReached as error:
            result = await self._answer_later(table, partition, question, consistency, terms.wait, error)
        if isinstance(result, CountResult):
            counted = await self._count_on(table, partition, result, consistency)
            return Answered(cast("Result", counted), self._worker_id)
        return Answered(result, self._worker_id)

    async def _count_on(
        self, table: str, partition: int, counted: CountResult, consistency: Consistency
    ) -> CountResult:
        """Count what is left for some time; raises what LocalTables.answer raises."""
        until = self._clock() + SECONDS_PER_COUNT
        while counted.rest is not None and self._clock() < until:
            await self._turns.wait()
            more = self._local.answer(table, partition, counted.rest, consistency)
            freshness = worst(counted.freshness, more.freshness)
            counted = CountResult(counted.count + more.count, freshness, more.rest)
        return counted

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
