"""Questions to workers: for how long each is asked, and which of their answers the caller may have.

A planner (query.py, batch.py, ranges.py) turns a request into questions about partitions, has them answered here, and
makes one answer of the results. search.py has the loop over the workers.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from tablehouse.errors import DeadlineExceeded, NotOwner, OwnerUnreachable, PartitionRestoring, RequestError
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, HostInfo, ReadMode, Role, TopicPartition
from tablehouse.routing.candidates import Candidates
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.ports import Answered, Answers, Peer, Terms, Wanted
from tablehouse.routing.search import READS, Asked, Asking, Outcome, Part, PartT, Policy, Refused, Search, Send
from tablehouse.routing.tables import RoutedTable, partition_count
from tablehouse.tasks.questions import Question
from tablehouse.tasks.reads import SliceResult
from tablehouse.telemetry import Metrics

#: Of the time left, the share that a candidate gets while others follow.
SHARE = 0.5

#: Of the time left, the share for which a caller who does not say how long waits for a position.
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


class _Whole(Part, Generic[Found]):
    """A question whose result is given or refused as a whole."""

    def __init__(self, partition: int, question: Question[Found], consistency: Consistency) -> None:
        super().__init__(partition)
        self.question = question
        self.told: Told[Found] | None = None
        self.error: RequestError | None = None
        self._consistency = consistency

    @property
    def places(self) -> int:
        """One, as long as there is neither a result nor an error."""
        return int(self.told is None and self.error is None)

    def take(self, answered: Answered[Found], path: Literal["local", "forwarded"], places: range) -> Sequence[Refused]:
        """Take a result, unless it says "no such key" and the caller does not take that from its role."""
        result = answered.result
        if result.says_absent:
            error = untrusted_miss(result.freshness, self._consistency)
            if error is not None:
                return [Refused(error, places)]
        self.told = Told(result, answered.worker_id, path)
        return ()

    def fail(self, error: RequestError, places: Sequence[int]) -> None:
        """End the search."""
        del places
        self.error = error

    def keep(self, places: Sequence[int]) -> None:
        """There is no smaller question."""


class Keys(Part):
    """Keys of one partition, in order, each of which is a place."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.stored_keys: list[bytes] = []

    @property
    def places(self) -> int:
        """The number of keys that are left to ask for."""
        return len(self.stored_keys)

    @abstractmethod
    def take(self, outcome: SliceResult, worker_id: str, places: range) -> Sequence[Refused]:
        """Take what a worker has for some of the keys."""

    def keep(self, places: Sequence[int]) -> None:
        """Leave only some keys to ask for."""
        keys = self.stored_keys
        self.stored_keys = [keys[place] for place in places]


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
    ) -> None:
        self._view = view
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
        if consistency.min_positions:
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
        part = _Whole(partition, question, asked.consistency)
        await self.search(asked, partial(self._send_whole, asked)).run([part])
        if part.told is None:
            raise part.error or AssertionError("a search ends with a result or an error")
        return part.told

    async def answer_keys(self, asked: Asked, parts: Sequence[Keys]) -> None:
        """Have keys of some partitions looked up, those with the same candidate by one question to it.

        A key that its worker did not get to is neither answered nor left to ask for.
        """
        await self.search(asked, partial(self._send_keys, asked)).run(parts)

    async def ask_active(
        self, routed: RoutedTable, partition: int, question: Question[Result], *, seconds: float, request_id: str
    ) -> Result | None:
        """Ask the active of a partition once, for some seconds; None when none is known.

        Raises what Answers.answer raises.
        """
        snapshot, topic = self._view.current, routed.spec.source.topic
        for host, _ in self._candidates.of(TopicPartition(topic, partition), snapshot, ReadMode.ACTIVE):
            count = snapshot.partitions.get(topic, 0)
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

    def search(self, asked: Asked, send: Send[PartT], policy: Policy = READS) -> Search[PartT]:
        """Prepare to ask workers in another way, with what every request knows of them."""
        return Search(asked, send, view=self._view, candidates=self._candidates, clock=self._clock, policy=policy)

    async def _send_whole(self, asked: Asked, asking: Asking[_Whole[Found]]) -> Sequence[Sequence[Outcome]]:
        [part] = asking.parts
        host = asking.host
        answers, terms = self._at(host), self._terms(asked, asking)
        with self._counted(host):
            answered = await answers.answer(
                asked.routed.spec.name, part.partition, part.question, asked.consistency, terms
            )
        return [[Outcome(1, partial(part.take, answered, "local" if self._is_here(host) else "forwarded"))]]

    async def _send_keys(self, asked: Asked, asking: Asking[Keys]) -> Sequence[Sequence[Outcome]]:
        host = asking.host
        wanted = [Wanted(part.partition, part.stored_keys) for part in asking.parts]
        answers, terms = self._at(host), self._terms(asked, asking)
        with self._counted(host):
            answered = await answers.answer_many(asked.routed.spec.name, wanted, asked.consistency, terms)
        return [
            [
                Outcome(
                    keys,
                    said if isinstance(said, RequestError) else partial(part.take, said, answered.worker_id),
                )
                for partition, keys, said in answered.result
                if partition == part.partition
            ]
            for part in asking.parts
        ]

    def _terms(self, asked: Asked, asking: Asking[PartT]) -> Terms:
        """Say on which terms a worker is asked; raises DeadlineExceeded when no time is left for a hop."""
        started = self._clock()
        wait = max(0.0, asked.waits_until - started) if asking.waits else 0.0
        timeout = left = asked.deadline - started
        if not self._is_here(asking.host):
            timeout = hop_seconds(asking.host, left, wait, followed=asking.is_followed)
        return Terms(wait, timeout, asked.routed.digest, asked.count, asking.generation, asked.request_id)

    def _at(self, host: HostInfo) -> Answers:
        return self._here if self._is_here(host) else self._peer.at(host)

    def _is_here(self, host: HostInfo) -> bool:
        return host.worker_id == self._worker_id

    def _counted(self, host: HostInfo) -> AbstractContextManager[None]:
        return _NOT_COUNTED if self._is_here(host) else counted_forward(self._metrics, self._clock)


_NOT_COUNTED = nullcontext()


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
    # The wait is the caller's and is not cut short for those that follow, who hardly know more.
    return wait + (left - wait) * SHARE if followed else left


@contextmanager
def counted_forward(metrics: Metrics, clock: Callable[[], float]) -> Iterator[None]:
    """Count a hop to another worker by how it ends, and the time it takes."""
    started, outcome = clock(), "refused"
    try:
        yield
        outcome = "ok"
    except NotOwner:
        outcome = "not_owner"
        raise
    except OwnerUnreachable:
        outcome = "unreachable"
        raise
    finally:
        metrics.forwards.labels(outcome).inc()
        metrics.forward_duration.observe(clock() - started)
