"""Questions to workers: for how long each is asked, and which of their answers the caller may have.

A planner (query.py, batch.py, ranges.py) turns a request into questions about partitions, has them answered here, and
makes one answer of the results. search.py has the loop over the workers.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from tablehouse.errors import DeadlineExceeded, NotOwner, OwnerUnreachable, PartitionRestoring, RequestError
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, HostInfo, ReadMode, Role
from tablehouse.routing.candidates import Candidate, Candidates
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.ports import Answers, Peer, QuickPeer, Slice, Terms, Wanted
from tablehouse.routing.search import READS, Asked, Policy, Search
from tablehouse.routing.tables import RoutedTable, partition_count
from tablehouse.tasks.questions import Get, Question
from tablehouse.tasks.reads import ReadResult, SliceResult
from tablehouse.telemetry import Metrics

#: Of the time left, the share that a candidate gets while others follow.
SHARE = 0.5

#: The share of the time left that a caller waits for a position if it does not say how long.
WAITING_SHARE = 0.5


class Labelled(Protocol):
    """The result of a question about rows."""

    @property
    def freshness(self) -> Freshness:
        """How fresh it is."""

    @property
    def says_absent(self) -> bool:
        """Whether it says of a key that it does not exist."""


Result = TypeVar("Result")
Found = TypeVar("Found", bound=Labelled)


class Told(NamedTuple, Generic[Found]):
    """A result that the caller may have; served_by is the id of the worker that looked."""

    result: Found
    served_by: str
    path: Literal["local", "forwarded"]


class Refused(NamedTuple):
    """Why some keys have no answer from a candidate, by their places in what is left of a partition's keys."""

    error: RequestError
    places: Sequence[int]


class Keys(ABC):
    """Keys of one partition, in order, that are left to ask for; each is answered or refused separately."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.stored_keys: list[bytes] = []

    @abstractmethod
    def take(self, outcome: SliceResult, worker_id: str, places: range) -> Sequence[Refused]:
        """Take what a worker has for some of the keys, and return what of it the caller must not have."""

    @abstractmethod
    def fail(self, error: RequestError, places: Sequence[int]) -> None:
        """End the search for some keys with an error."""

    def keep(self, places: Sequence[int]) -> None:
        """Leave only some keys to ask for."""
        keys = self.stored_keys
        self.stored_keys = [keys[place] for place in places]


class _Turn(NamedTuple):
    """Whose turn it is to be asked for the keys of a partition."""

    keys: Keys
    search: Search
    candidate: Candidate


class Asker:
    """Asks workers; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(
        self,
        *,
        view: ClusterView,
        here: Answers,
        peer: Peer,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
        quick: QuickPeer | None = None,
    ) -> None:
        self._view = view
        self._quick = quick
        self._here = here
        self._peer = peer
        self._worker_id = worker_id
        self._clock = clock
        self._metrics = metrics
        #: Workers that were unresponsive lately are remembered for every request.
        self._candidates = Candidates(worker_id, clock)

    def asked(
        self, routed: RoutedTable, *, deadline: float, request_id: str, consistency: Consistency, wait: float | None
    ) -> Asked:
        """Begin a request, which waits for wanted positions for `wait` seconds, or if that is None half of its time.

        Raises PartitionUnassigned before the first assignment.
        """
        waits_until = started = self._clock()
        if consistency.min_position is not None:
            waits_until = min(deadline, started + ((deadline - started) * WAITING_SHARE if wait is None else wait))
        count = partition_count(routed, self._view.current)
        return Asked(routed, count, consistency, deadline, waits_until, request_id)

    async def answer(self, asked: Asked, partition: int, question: Question[Found]) -> Told[Found]:
        """Have a question about one partition answered by a worker that may, and return what it told.

        Raises what no other candidate would know better, and else what the active said: PartitionUnassigned,
        PartitionRestoring, TooStale, PositionNotReached, MisplacedKeys, OwnerUnreachable, Draining or DeadlineExceeded,
        with `table`, `partition`, `generation` and `tried` in their details, and with the freshness of a copy that
        refused where it is known.
        """
        name, consistency = asked.routed.spec.name, asked.consistency

        async def ask(candidate: Candidate, search: Search) -> Told[Found]:
            host = candidate.host
            waits = consistency.min_position is not None and search.is_worth_waiting
            terms = self._terms(asked, host, search.generation, followed=bool(search.later), waits=waits)
            with self._counted(host):
                answered = await self._at(host).answer(name, partition, question, consistency, terms)
            result = answered.result
            if result.says_absent:
                error = untrusted_miss(result.freshness, consistency)
                if error is not None:
                    raise error
            return Told(result, answered.worker_id, "local" if self._is_here(host) else "forwarded")

        return await self.search(asked, partition).run(ask)

    async def answer_keys(self, asked: Asked, parts: Sequence[Keys]) -> None:
        """Have keys of some partitions looked up, those with the same candidate by one question to it.

        A key that its worker did not get to is neither answered nor left to ask for.
        """
        left = [(keys, self.search(asked, keys.partition)) for keys in parts if keys.stored_keys]
        #: Those whose candidate is to be asked after a pause, which the others need not wait for.
        pausing: list[_Turn] = []
        while left or pausing:
            turns: list[_Turn] = []
            for keys, search in left:
                candidate = search.next()
                if candidate is None:
                    keys.fail(search.exhausted(), range(len(keys.stored_keys)))
                elif search.pause:
                    pausing.append(_Turn(keys, search, candidate))
                else:
                    turns.append(_Turn(keys, search, candidate))
            if not turns and pausing:
                await asyncio.sleep(max(turn.search.pause for turn in pausing))
                turns, pausing = pausing, []
            await self._ask_hosts(asked, turns)
            left = [(turn.keys, turn.search) for turn in turns if turn.keys.stored_keys]

    async def _ask_hosts(self, asked: Asked, turns: Sequence[_Turn]) -> None:
        """Ask each worker once for all the keys that it is the next candidate of."""
        hosts: dict[tuple[HostInfo, bool], list[_Turn]] = {}
        for turn in turns:
            hosts.setdefault((turn.candidate.host, turn.search.is_worth_waiting), []).append(turn)
        if len(hosts) == 1:
            [((host, waits), some)] = hosts.items()
            await self._ask_host(asked, host, some, waits=waits)
            return
        async with asyncio.TaskGroup() as tasks:
            for (host, waits), some in hosts.items():
                tasks.create_task(self._ask_host(asked, host, some, waits=waits))

    async def _ask_host(self, asked: Asked, host: HostInfo, turns: Sequence[_Turn], *, waits: bool) -> None:
        wanted = [Wanted(turn.keys.partition, turn.keys.stored_keys) for turn in turns]
        followed = any(turn.search.later for turn in turns)
        try:
            terms = self._terms(asked, host, turns[0].search.generation, followed=followed, waits=waits)
            with self._counted(host):
                answered = await self._at(host).answer_many(asked.routed.spec.name, wanted, asked.consistency, terms)
        except RequestError as error:
            for turn in turns:
                said = Slice(turn.keys.partition, len(turn.keys.stored_keys), error)
                _settle(turn, [said], host.worker_id)
            return
        for turn in turns:
            turn.search.answered(turn.candidate)
            said_of_it = [part for part in answered.result if part.partition == turn.keys.partition]
            _settle(turn, said_of_it, answered.worker_id)

    def ask_at_once(
        self,
        routed: RoutedTable,
        host: HostInfo,
        partition: int,
        question: Get,
        *,
        partitions: int,
        generation: int,
        consistency: Consistency,
        seconds: float,
        done: Callable[[ReadResult | None], None],
    ) -> Callable[[], None] | None:
        """Ask the active of a partition, on another worker, without a task; None when it is not to be asked now.

        `done` is called once with the result, or with None for a refusal, unless the function that is returned is
        called before. The search that follows a refusal begins from the start.
        """
        if self._quick is None or self._candidates.is_avoided(host):
            return None
        started = self._clock()
        timeout = hop_seconds(host, seconds, 0.0, followed=True)
        terms = Terms(0.0, timeout, routed.digest, partitions, generation, "", followed=True)

        def take(result: ReadResult | RequestError) -> None:
            refusal = result if isinstance(result, RequestError) else None
            self._metrics.forwards.labels("ok" if refusal is None else _outcome(refusal)).inc()
            self._metrics.forward_duration.observe(self._clock() - started)
            self._candidates.heard(host, refusal)
            done(None if isinstance(result, RequestError) else result)

        try:
            return self._quick.ask(host, routed.spec.name, partition, question, consistency, terms, take)
        except RequestError:
            return None

    def found_silent(self, host: HostInfo, error: RequestError) -> None:
        """Record that a worker was found to be unresponsive before it was asked."""
        self._candidates.heard(host, error)

    async def ask_active(
        self, routed: RoutedTable, partition: int, question: Question[Result], *, seconds: float, request_id: str
    ) -> Result | None:
        """Ask the active of a partition once, for some seconds; None when none is known.

        Raises what Answers.answer raises.
        """
        snapshot = self._view.current
        for host, _ in self._candidates.of(routed.spec.shard(partition), snapshot, ReadMode.ACTIVE):
            count = snapshot.partitions.get(routed.spec.shard_name, 0)
            timeout = seconds if self._is_here(host) else hop_seconds(host, seconds, 0.0, followed=False)
            terms = Terms(0.0, timeout, routed.digest, count, snapshot.generation, request_id)
            try:
                with self._counted(host):
                    answered = await self._at(host).answer(
                        routed.spec.name, partition, question, DEFAULT_CONSISTENCY, terms
                    )
            except RequestError as error:
                self._candidates.heard(host, error)
                raise
            self._candidates.heard(host)
            return answered.result
        return None

    def search(self, asked: Asked, partition: int, policy: Policy = READS) -> Search:
        """Begin a search for the workers that may answer for a partition."""
        return Search(asked, partition, self._view, self._candidates, self._clock, policy)

    def _terms(self, asked: Asked, host: HostInfo, generation: int, *, followed: bool, waits: bool) -> Terms:
        """Say on which terms a worker is asked; raises DeadlineExceeded when no time is left for a hop."""
        started = self._clock()
        wait = max(0.0, asked.waits_until - started) if waits else 0.0
        timeout = asked.deadline - started
        if not self._is_here(host):
            timeout = hop_seconds(host, timeout, wait, followed=followed)
        return Terms(wait, timeout, asked.routed.digest, asked.partitions, generation, asked.request_id, followed)

    def _at(self, host: HostInfo) -> Answers:
        return self._here if self._is_here(host) else self._peer.at(host)

    def _is_here(self, host: HostInfo) -> bool:
        return host.worker_id == self._worker_id

    def _counted(self, host: HostInfo) -> AbstractContextManager[None]:
        return _NOT_COUNTED if self._is_here(host) else counted_forward(self._metrics, self._clock)


_NOT_COUNTED = nullcontext()


def _settle(turn: _Turn, slices: Sequence[Slice], worker_id: str) -> None:
    """Take what a candidate said of keys, and leave those that another one has to be asked for.

    Keys that the candidate did not get to are not left either.
    """
    keys, search, candidate = turn
    kept: list[int] = []
    start, end = 0, len(keys.stored_keys)
    for _, count, said in slices:
        places = range(start, min(start + count, end))
        start += count
        refused = [Refused(said, places)] if isinstance(said, RequestError) else keys.take(said, worker_id, places)
        for error, some in refused:
            if not some:
                continue
            final = search.refused(candidate, error)
            if final is None:
                kept += some
            else:
                keys.fail(final, some)
    keys.keep(sorted(kept))


def untrusted_miss(freshness: Freshness, consistency: Consistency) -> RequestError | None:
    """Return why a caller does not take "no such key" from a copy with a label; None when it does.

    It is taken from an active, from a standby when the caller asked for standby reads, and from no other copy,
    whichever worker sent it.
    """
    role = freshness.role
    if role is Role.ACTIVE or (role is Role.STANDBY and consistency.takes_standby_misses):
        return None
    return PartitionRestoring(f"a {role.value} copy cannot say that a key does not exist")


def hop_seconds(host: HostInfo, left: float, wait: float, *, followed: bool) -> float:
    """Return the time-out of a hop, `wait` included, with so much time left; others may follow it.

    Raises DeadlineExceeded when none is left.
    """
    if left <= 0:
        raise DeadlineExceeded(f"no time was left to ask {host.worker_id}, which holds the partition")
    # The wait is the caller's and is not cut short for the candidates that follow, which hardly know more.
    return wait + (left - wait) * SHARE if followed else left


@contextmanager
def counted_forward(metrics: Metrics, clock: Callable[[], float]) -> Iterator[None]:
    """Count a hop to another worker by how it ends, and the time it takes."""
    started, outcome = clock(), "refused"
    try:
        yield
        outcome = "ok"
    except RequestError as error:
        outcome = _outcome(error)
        raise
    finally:
        metrics.forwards.labels(outcome).inc()
        metrics.forward_duration.observe(clock() - started)


def _outcome(error: RequestError) -> str:
    """Return the label of a hop that ended with an error."""
    if isinstance(error, NotOwner):
        return "not_owner"
    return "unreachable" if isinstance(error, OwnerUnreachable) else "refused"
