"""The search for an answer about one partition: which workers are asked, in which order, and what the caller is told.

What is asked, and what an answer is worth, is in asking.py; DESIGN.md says why the search is made this way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

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
from tablehouse.model import Consistency
from tablehouse.routing.candidates import Candidate, Candidates
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.refusals import Refusal, explained, last_answer, worth_asking_again
from tablehouse.routing.tables import RoutedTable

#: Seconds before a worker that says it does not hold a partition, and should, is asked again.
NOT_OWNER_PAUSE = 0.05

#: What another candidate may know better. Any other error would be the same everywhere, or is a fault to be seen.
ASK_THE_NEXT = (NotOwner, OwnerUnreachable, PartitionRestoring, TooStale, Draining, Overloaded, PositionNotReached)

Found = TypeVar("Found")


class Asked(NamedTuple):
    """What all searches of a request have in common; partitions is the count that its keys are hashed with.

    deadline and waits_until, to which wanted positions are waited for, are points on the clock.
    """

    routed: RoutedTable
    partitions: int
    consistency: Consistency
    deadline: float
    waits_until: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Which errors send a search to the next candidate, and which reach the caller as they are.

    asks_all_again says that the second round begins after a pause in any case, and asks every candidate there is then.
    Otherwise it asks those that may know better, and pauses when all of them were asked before.
    """

    moves_on: tuple[type[RequestError], ...] = ASK_THE_NEXT
    final: tuple[type[RequestError], ...] = ()
    asks_all_again: bool = False


READS = Policy()


class Search:
    """Asks the candidates of a partition in turn, and once more those that a newer snapshot may help.

    It is driven by run(), or for several partitions at once by a caller of next() that reports the outcome of each
    candidate. clock is monotonic, in seconds.
    """

    __slots__ = (
        "_asked",
        "_candidates",
        "_clock",
        "_has_paused",
        "_policy",
        "_refusals",
        "_round",
        "_shard",
        "_view",
        "generation",
        "later",
        "pause",
    )

    def __init__(
        self,
        asked: Asked,
        partition: int,
        view: ClusterView,
        candidates: Candidates,
        clock: Callable[[], float],
        policy: Policy = READS,
    ) -> None:
        self._asked = asked
        self._shard = asked.routed.spec.shard(partition)
        self._view = view
        self._candidates = candidates
        self._clock = clock
        self._policy = policy
        #: The round that the candidates are of, 0 before the first; whether there was a pause before they are listed.
        self._round = 0
        self._has_paused = False
        self._refusals: list[Refusal] = []
        #: The candidates that follow in this round, and the generation of the snapshot that names them.
        self.later: list[Candidate] = []
        self.generation = -1
        #: Seconds to let pass before the candidate that next() has returned is asked, or before the next call of it.
        self.pause = 0.0

    async def run(self, ask: Callable[[Candidate, "Search"], Awaitable[Found]]) -> Found:
        """Return what the first candidate that answers gives; raises what refused() and exhausted() return."""
        while True:
            candidate = self.next()
            if self.pause:
                await asyncio.sleep(self.pause)
            elif candidate is None:
                raise self.exhausted()
            if candidate is None:
                continue
            try:
                found = await ask(candidate, self)
            except RequestError as error:
                final = self.refused(candidate, error)
                if final is not None:
                    raise final from None
            else:
                self.answered(candidate)
                return found

    def next(self) -> Candidate | None:
        """Return the candidate to ask, after a pause if there is to be one; None and no pause when there is none."""
        self.pause = 0.0
        while True:
            if self.later and not (self._refusals and self._clock() >= self._asked.deadline):
                return self.later.pop(0)
            if not self._next_round():
                return None

    def _next_round(self) -> bool:
        """List the candidates of a round; return whether there is a round, and no pause before they can be listed."""
        if self._round == 2:  # noqa: PLR2004 - two rounds
            return False
        again = self._round == 1
        if again and self._policy.asks_all_again and not self._has_paused:
            self._has_paused = True
            self.pause = self._bounded_pause()
            return False
        self._round += 1
        snapshot = self._view.current
        # Under another partition count the keys were hashed wrongly, and a miss would be a false one.
        if snapshot.partitions.get(self._shard.name) != self._asked.partitions:
            self._round, self.later = 2, []
            return False
        self.generation = snapshot.generation
        self.later = self._candidates.of(self._shard, snapshot, self._asked.consistency.mode)
        if again and not self._policy.asks_all_again:
            self.later, at_once = worth_asking_again(self.later, self._refusals)
            if self.later and not at_once:
                self.pause = self._bounded_pause()
        return True

    def _bounded_pause(self) -> float:
        return min(NOT_OWNER_PAUSE, max(0.0, self._asked.deadline - self._clock()))

    @property
    def is_worth_waiting(self) -> bool:
        """Whether the candidate that next() has returned is to be waited for until it has applied a wanted position."""
        return self._candidates.worth_waiting(self.later)

    def refused(self, candidate: Candidate, error: RequestError) -> RequestError | None:
        """Record that a candidate gives no answer; return what the caller is told, None if another may know better."""
        if isinstance(error, self._policy.moves_on):
            self._candidates.heard(candidate.host, error)
            self._refusals.append(Refusal(candidate, error))
            return None
        if isinstance(error, self._policy.final):
            return error
        return self._explained(error, [*self._refusals, Refusal(candidate, error)], self.generation)

    def answered(self, candidate: Candidate) -> None:
        """Record that a candidate has answered."""
        self._candidates.heard(candidate.host)

    def exhausted(self) -> RequestError:
        """Return what to tell the caller when no candidate is left."""
        error = last_answer(self._refusals, self._asked.routed.spec.name, self._shard.partition)
        return self._explained(error, self._refusals, self._view.current.generation)

    def _explained(self, error: RequestError, refusals: list[Refusal], generation: int) -> RequestError:
        return explained(error, refusals, self._asked.routed.spec.name, self._shard.partition, generation)
