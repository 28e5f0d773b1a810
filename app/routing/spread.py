"""One key that may lie in several partitions: which of their answers is the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from app.model import Role
from app.tasks.reads import ReadResult

#: Partitions that one read asks at the same time.
AT_ONCE = 16


class Answered(Protocol):
    """An answer about one partition."""

    @property
    def result(self) -> ReadResult:
        """The row, or that there is none."""


Found = TypeVar("Found", bound=Answered)
Ask = Callable[[int], Awaitable[Found]]


async def newest_row(ask: Ask[Found], partitions: Sequence[int], others: Sequence[int]) -> Found:
    """Return the newest row of the partitions, by its timestamp, or if they have none of the others.

    Of rows with one timestamp it is that of the first partition. A miss is one of all of them. Raises what asking any
    of them raises.
    """
    misses: list[Found] = []
    for some in (partitions, others):
        answers: list[Found] = []
        for begin in range(0, len(some), AT_ONCE):
            answers += await _all(ask, some[begin : begin + AT_ONCE])
        rows = [(row.timestamp_ms, answer) for answer in answers if (row := answer.result.row) is not None]
        if rows:
            return max(rows, key=lambda row: row[0])[1]
        misses += answers
    return _least_certain(misses)


async def _all(ask: Ask[Found], partitions: Sequence[int]) -> list[Found]:
    """Ask some partitions at once; raises the first failure after all requests have ended."""
    if len(partitions) == 1:
        return [await ask(partitions[0])]
    asked = [asyncio.ensure_future(ask(partition)) for partition in partitions]
    try:
        return await asyncio.gather(*asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _least_certain(misses: Sequence[Found]) -> Found:
    """Choose the miss that labels the answer: a copy's that is not the active, if there is one."""
    uncertain = [miss for miss in misses if miss.result.freshness.role is not Role.ACTIVE]
    return (uncertain or misses)[0]
