"""One key that may lie in several partitions: which of their answers is the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, Self, TypeVar

from tablehouse.model import Freshness, Role
from tablehouse.tasks.reads import ReadResult

#: Partitions that one read asks at the same time.
AT_ONCE = 16


class Answered(Protocol):
    """An answer about one partition."""

    @property
    def result(self) -> ReadResult:
        """The row, or that there is none."""

    def labelled(self, freshness: Freshness) -> Self:
        """Return the same answer with another freshness."""


Found = TypeVar("Found", bound=Answered)
Said = TypeVar("Said")
Ask = Callable[[int], Awaitable[Found]]


async def newest_row(ask: Ask[Found], partitions: Sequence[int], others: Sequence[int]) -> Found:
    """Return the newest row of the partitions, by its timestamp, or if they have none of the others.

    Of rows with one timestamp it is that of the first partition. A row that is older than a mark of the key's deletion
    in another partition is gone. A miss is one of all partitions. Where several were asked, the answer is labelled with
    the worst of their roles, lags and stalenesses. Raises what asking any of them raises.
    """
    answers: list[Found] = []
    for some in (partitions, others):
        for begin in range(0, len(some), AT_ONCE):
            answers += await all_of(ask, some[begin : begin + AT_ONCE])
        rows = [(row.timestamp_ms, answer) for answer in answers if (row := answer.result.row) is not None]
        deleted = [answer.result.deleted_ms for answer in answers if answer.result.deleted_ms is not None]
        if rows:
            timestamp, newest = max(rows, key=lambda row: row[0])
            if timestamp >= max(deleted, default=timestamp):
                return _labelled(newest, answers)
    misses = [answer for answer in answers if answer.result.row is None]
    return _labelled(max(misses, key=_uncertainty), answers)


async def all_of(ask: Callable[[int], Awaitable[Said]], partitions: Sequence[int]) -> list[Said]:
    """Ask some partitions at once, AT_ONCE at most; raises the first failure after all requests have ended."""
    if len(partitions) == 1:
        return [await ask(partitions[0])]
    asked = [asyncio.ensure_future(ask(partition)) for partition in partitions]
    try:
        return await asyncio.gather(*asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _labelled(chosen: Found, answers: Sequence[Found]) -> Found:
    """Label an answer that several partitions have a part in; what one of them does not know is not known."""
    if len(answers) == 1:
        return chosen
    labels = [answer.result.freshness for answer in answers]
    roles = [label.role for label in (chosen.result.freshness, *labels) if label.role is not Role.ACTIVE]
    lags = [label.lag_records for label in labels if label.lag_records is not None]
    stalenesses = [label.staleness_ms for label in labels if label.staleness_ms is not None]
    return chosen.labelled(
        Freshness(
            partition=chosen.result.freshness.partition,
            position=chosen.result.freshness.position,
            role=roles[0] if roles else Role.ACTIVE,
            lag_records=max(lags) if len(lags) == len(labels) else None,
            staleness_ms=max(stalenesses) if len(stalenesses) == len(labels) else None,
        )
    )


def _uncertainty(miss: Answered) -> tuple[bool, bool, int]:
    """Return what compares greater for a miss that is less certain."""
    freshness = miss.result.freshness
    return freshness.role is not Role.ACTIVE, freshness.lag_records is None, freshness.lag_records or 0
