"""The one loop that asks: the candidates of each partition in turn, and once more those that may know better later.

What is asked of them, and what their answers are worth, is in asking.py; DESIGN.md beside it says why the loop is made
this way.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from tablehouse.errors import (
    Draining,
    NotOwner,
    Overloaded,
    OwnerUnreachable,
    PartitionRestoring,
    PositionNotReached,
    RequestError,
    TooStale,
)
from tablehouse.model import Consistency, HostInfo, TopicPartition
from tablehouse.routing.candidates import Candidate, Candidates
from tablehouse.routing.cluster import ClusterSnapshot, ClusterView
from tablehouse.routing.refusals import Refusal, explained, last_answer, worth_asking_again
from tablehouse.routing.tables import RoutedTable

#: Seconds before a worker that says it does not hold a partition, and should, is asked again.
NOT_OWNER_PAUSE = 0.05

#: What another candidate may know better. Any other error would be the same everywhere, or is a fault to be seen.
ASK_THE_NEXT = (NotOwner, OwnerUnreachable, PartitionRestoring, TooStale, Draining, Overloaded, PositionNotReached)


@dataclass(frozen=True, slots=True)
class Asked:
    """What all parts of a request have in common; count is the partition count that its keys are hashed with.

    deadline and waits_until, to which wanted positions are waited for, are points on the clock.
    """

    routed: RoutedTable
    count: int
    consistency: Consistency
    deadline: float
    waits_until: float
    request_id: str


class Part(ABC):
    """What one partition is asked for a request, and who was asked so far.

    It has places, each of which is answered or refused by itself: one for each key of a batch, and one for any other
    question.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.candidates: list[Candidate] = []
        self.refusals: list[Refusal] = []

    @property
    @abstractmethod
    def places(self) -> int:
        """The number of places that are left to ask for."""

    @abstractmethod
    def fail(self, error: RequestError, places: Sequence[int]) -> None:
        """End the search for some places with an error."""

    @abstractmethod
    def keep(self, places: Sequence[int]) -> None:
        """Leave only these places to ask for."""


class Refused(NamedTuple):
    """Why some places of a part have no answer from a candidate."""

    error: RequestError
    places: Sequence[int]


class Outcome(NamedTuple):
    """What a candidate said of the next places of a part: why it gives no answer, or how its answer is taken.

    Taking an answer returns what of it the caller must not have.
    """

    places: int
    said: RequestError | Callable[[range], Sequence[Refused]]


PartT = TypeVar("PartT", bound=Part)


class Asking(NamedTuple, Generic[PartT]):
    """Parts that have the same worker as their next candidate.

    is_followed says that other candidates follow it, and waits that wanted positions are waited for there.
    """

    host: HostInfo
    parts: Sequence[PartT]
    generation: int
    is_followed: bool
    waits: bool


#: Asks a worker, and returns the outcomes of each of the parts.
Send = Callable[[Asking[PartT]], Awaitable[Sequence[Sequence[Outcome]]]]


def _once_more(candidates: Sequence[Candidate], refusals: Sequence[Refusal]) -> tuple[list[Candidate], bool]:
    kept, at_once = worth_asking_again(candidates, refusals)
    return kept, bool(kept) and not at_once


@dataclass(frozen=True, slots=True)
class Policy:
    """Which errors send a search to the next candidate, and which reach the caller as they are.

    again names the candidates to ask once more, under a newer snapshot, and whether after a pause.
    """

    moves_on: tuple[type[RequestError], ...] = ASK_THE_NEXT
    final: tuple[type[RequestError], ...] = ()
    again: Callable[[Sequence[Candidate], Sequence[Refusal]], tuple[list[Candidate], bool]] = _once_more


READS = Policy()


class Search(Generic[PartT]):
    """Asks for the parts of one request; clock is monotonic, in seconds."""

    def __init__(
        self,
        asked: Asked,
        send: Send[PartT],
        *,
        view: ClusterView,
        candidates: Candidates,
        clock: Callable[[], float],
        policy: Policy = READS,
    ) -> None:
        self._asked = asked
        self._send = send
        self._view = view
        self._candidates = candidates
        self._clock = clock
        self._policy = policy

    async def run(self, parts: Sequence[PartT]) -> None:
        """Ask until each place of the parts has an answer or an error."""
        asked = self._asked
        topic, name = asked.routed.spec.source.topic, asked.routed.spec.name
        for again in (False, True):
            snapshot = self._view.current
            # Under another partition count the keys were hashed wrongly, and a miss would be a false one.
            if snapshot.partitions.get(topic) != asked.count:
                break
            await self._line_up(parts, snapshot, again=again)
            while waiting := [part for part in parts if self._goes_on(part)]:
                await self._ask_next(waiting, snapshot.generation)
            if not any(part.places for part in parts):
                return
        generation = self._view.current.generation
        for part in parts:
            if part.places:
                error = last_answer(part.refusals, name, part.partition)
                error = explained(error, part.refusals, name, part.partition, generation)
                part.fail(error, range(part.places))

    async def _line_up(self, parts: Sequence[PartT], snapshot: ClusterSnapshot, *, again: bool) -> None:
        """List the candidates of each part; those that may know better now, after a pause, if it is done again."""
        topic, mode = self._asked.routed.spec.source.topic, self._asked.consistency.mode
        pauses = False
        for part in parts:
            part.candidates = self._candidates.of(TopicPartition(topic, part.partition), snapshot, mode)
            if again:
                part.candidates, pause = self._policy.again(part.candidates, part.refusals)
                pauses = pauses or (pause and part.places > 0)
        if pauses:
            await asyncio.sleep(min(NOT_OWNER_PAUSE, max(0.0, self._asked.deadline - self._clock())))

    def _goes_on(self, part: PartT) -> bool:
        return bool(part.places and part.candidates) and not (part.refusals and self._clock() >= self._asked.deadline)

    async def _ask_next(self, parts: Sequence[PartT], generation: int) -> None:
        """Ask the next candidate of each part; each worker once for all the parts that have it next."""
        groups: dict[tuple[HostInfo, bool], list[tuple[PartT, Candidate]]] = {}
        for part in parts:
            candidate = part.candidates.pop(0)
            waits = self._candidates.worth_waiting(part.candidates)
            groups.setdefault((candidate.host, waits), []).append((part, candidate))
        if len(groups) == 1:
            [((host, waits), group)] = groups.items()
            await self._ask_host(host, group, generation, waits=waits)
            return
        async with asyncio.TaskGroup() as tasks:
            for (host, waits), group in groups.items():
                tasks.create_task(self._ask_host(host, group, generation, waits=waits))

    async def _ask_host(
        self, host: HostInfo, group: Sequence[tuple[PartT, Candidate]], generation: int, *, waits: bool
    ) -> None:
        parts = [part for part, _ in group]
        is_followed = any(part.candidates for part in parts)
        outcomes: Sequence[Sequence[Outcome]]
        try:
            outcomes = await self._send(Asking(host, parts, generation, is_followed, waits))
        except RequestError as error:
            if isinstance(error, self._policy.moves_on):
                self._candidates.heard(host, error)
            outcomes = [[Outcome(part.places, error)] for part in parts]
        else:
            self._candidates.heard(host)
        for (part, candidate), said in zip(group, outcomes, strict=True):
            self._settle(part, candidate, said, generation)

    def _settle(self, part: PartT, candidate: Candidate, outcomes: Sequence[Outcome], generation: int) -> None:
        """Have a part take what a candidate said, and keep what another one has to be asked.

        Places that the candidate did not get to are no longer in the part.
        """
        kept: list[int] = []
        start, end = 0, part.places
        for count, said in outcomes:
            places = range(start, min(start + count, end))
            start += count
            refused = [Refused(said, places)] if isinstance(said, RequestError) else said(places)
            for error, some in refused:
                if some and isinstance(error, self._policy.moves_on):
                    part.refusals.append(Refusal(candidate, error))
                    kept += some
                elif some:
                    part.fail(self._explained(part, candidate, error, generation), some)
        part.keep(sorted(kept))

    def _explained(self, part: PartT, candidate: Candidate, error: RequestError, generation: int) -> RequestError:
        if isinstance(error, self._policy.final):
            return error
        refusals = [*part.refusals, Refusal(candidate, error)]
        return explained(error, refusals, self._asked.routed.spec.name, part.partition, generation)
