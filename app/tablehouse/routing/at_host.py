"""One other worker that can be asked, by a way to all of them."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tablehouse.model import Consistency, HostInfo
from tablehouse.routing.ports import Answered, Slice, Terms, Wanted
from tablehouse.tasks.questions import Question

Result = TypeVar("Result")


class Way(Protocol):
    """Asks other workers, as Answers does one of them."""

    async def answer(
        self,
        host: HostInfo,
        table: str,
        partition: int,
        question: Question[Result],
        consistency: Consistency,
        terms: Terms,
    ) -> Answered[Result]:
        """Ask a worker about one partition."""

    async def answer_many(
        self, host: HostInfo, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Ask a worker for keys of some partitions."""


class AtHost:
    """Implements Answers with one other worker."""

    __slots__ = ("_host", "_way")

    def __init__(self, way: Way, host: HostInfo) -> None:
        self._way = way
        self._host = host

    async def answer(
        self, table: str, partition: int, question: Question[Result], consistency: Consistency, terms: Terms
    ) -> Answered[Result]:
        """Ask it about one partition."""
        return await self._way.answer(self._host, table, partition, question, consistency, terms)

    async def answer_many(
        self, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Ask it for keys of some partitions."""
        return await self._way.answer_many(self._host, table, wanted, consistency, terms)
