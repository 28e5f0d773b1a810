"""One read of one key: here when this worker is the one to ask, else by hops to those that are.

This and batch.py are the only places that forward. DESIGN.md beside it says why it is made this way.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from tablehouse.errors import (
    DeadlineExceeded,
    Draining,
    NotOwner,
    Overloaded,
    OwnerUnreachable,
    PartitionRestoring,
    PartitionUnassigned,
    PositionNotReached,
    RequestError,
    TooStale,
)
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, HostInfo, ReadMode, Role
from tablehouse.routing.candidates import Candidate, Candidates
from tablehouse.routing.cluster import ClusterSnapshot, ClusterView
from tablehouse.routing.ports import Hop, LocalTables, Peer, read_or_wait
from tablehouse.routing.refusals import Refusal, explained, last_answer, worth_asking_again
from tablehouse.routing.spread import newest_row
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.reads import ReadResult
from tablehouse.telemetry import Metrics

#: Seconds before a worker that says it does not hold a partition, and should, is asked again.
NOT_OWNER_PAUSE = 0.05

#: Of the time left, the share that a candidate gets while others follow.
SHARE = 0.5

#: Of the time left, the share for which a caller who does not say how long waits for a position.
WAITING_SHARE = 0.5

#: What another candidate may know better. Any other error would be the same everywhere, or is a fault to be seen.
ASK_THE_NEXT = (NotOwner, OwnerUnreachable, PartitionRestoring, TooStale, Draining, Overloaded, PositionNotReached)


@dataclass(frozen=True, slots=True)
class Answer:
    """A row, or the word of a copy that the caller trusts that there is none.

    served_by is the id of the worker that looked.
    """

    table: RoutedTable
    result: ReadResult
    served_by: str
    path: Literal["local", "forwarded"]

    def labelled(self, freshness: Freshness) -> "Answer":
        """Return the same answer with another freshness."""
        return replace(self, result=replace(self.result, freshness=freshness))


@dataclass(frozen=True, slots=True)
class Location:
    """Where one candidate partition of a key is held; active is None while nobody is known to hold it."""

    partition: int
    active: HostInfo | None
    standbys: tuple[HostInfo, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """One partition to ask; count is the partition count that the key was hashed with.

    deadline and waits_until, to which a wanted position is waited for, are points on the query's clock.
    """

    routed: RoutedTable
    stored_key: bytes
    partition: int
    count: int
    consistency: Consistency
    deadline: float
    waits_until: float
    request_id: str


class Query:
    """Reads by key over the whole cluster.

    clock is monotonic, in seconds, and deadlines are points on it.
    """

    def __init__(
        self,
        *,
        tables: Mapping[str, RoutedTable],
        view: ClusterView,
        local: LocalTables,
        peer: Peer,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._tables = tables
        self._view = view
        self._local = local
        self._peer = peer
        self._worker_id = worker_id
        self._clock = clock
        self._metrics = metrics
        #: Who was unresponsive lately is known once, whoever found out.
        self.candidates = Candidates(worker_id, clock)
        self._counted = {name: _TableMetrics(metrics, name) for name in tables}

    async def read(
        self,
        table: str,
        key_text: bytes,
        *,
        deadline: float,
        request_id: str,
        consistency: Consistency = DEFAULT_CONSISTENCY,
        wait: float | None = None,
    ) -> Answer:
        """Find the row of a key, given as percent-decoded text.

        wait is for how many seconds a position of `consistency` is waited for, within the deadline; None stands for
        half of the time that the request has.

        An answer without a row means that a caught-up active of every partition that can hold the key has looked, or,
        for a caller who asked for standby reads, a standby within the bounds. Everything else raises: TableNotFound,
        InvalidKey, UriTooLong for the question, and for the answer PartitionUnassigned, PartitionRestoring, TooStale,
        PositionNotReached, MisplacedKeys, OwnerUnreachable, Draining or DeadlineExceeded, with `table`, `partition`,
        `generation` and `tried` in their details, and with the freshness of a copy that refused where it is known.
        """
        routed = table_named(self._tables, table)
        counted = self._counted[table]
        started = self._clock()
        key = routed.parse(key_text)
        waits_until = started
        if consistency.min_positions:
            waits_until = min(deadline, started + ((deadline - started) * WAITING_SHARE if wait is None else wait))
        try:
            count = partition_count(routed, self._view.current)
            partitions = routed.partitions_of(key, count)

            async def ask(partition: int) -> Answer:
                return await self._ask(
                    _Question(routed, key.stored, partition, count, consistency, deadline, waits_until, request_id)
                )

            answer = await newest_row(ask, partitions, routed.other_partitions(key, partitions, count))
        except RequestError:
            counted.unavailable.inc()
            raise
        counted.observe(answer, self._clock() - started)
        return answer

    def read_here(self, table: str, key_text: bytes) -> Answer | None:
        """Find the row of a key where read() would look first, if that is here; None when only read() can tell.

        Raises RequestError where read() may raise another one. The answer is yet to be counted.
        """
        routed = table_named(self._tables, table)
        key, snapshot = routed.parse(key_text), self._view.current
        partitions = routed.partitions_of(key, partition_count(routed, snapshot))
        if len(partitions) != 1:
            return None
        partition = partitions[0]
        active = snapshot.actives.get(routed.spec.shard(partition))
        if active is None or active.worker_id != self._worker_id:
            return None
        result = self._local.read(table, partition, key.stored, DEFAULT_CONSISTENCY)
        if result.row is None:
            return None
        return Answer(routed, result, self._worker_id, "local")

    def count(self, answer: Answer, seconds: float) -> None:
        """Count an answer of read_here() that the caller gets, after `seconds`."""
        self._counted[answer.table.spec.name].observe(answer, seconds)

    async def require_applied(self, routed: RoutedTable, partition: int, *, seconds: float, request_id: str) -> None:
        """Return once the active of a partition says that it applies writes, within `seconds`, or when there is none.

        Raises what LocalTables.require_applied and Peer.require_applied raise.
        """
        snapshot = self._view.current
        for candidate in self.candidates.of(routed.spec.shard(partition), snapshot, ReadMode.ACTIVE):
            if candidate.host.worker_id == self._worker_id:
                self._local.require_applied(routed.spec.name, partition)
                continue
            hop = Hop(
                table=routed.spec.name,
                partition=partition,
                stored_key=b"",
                consistency=DEFAULT_CONSISTENCY,
                wait=0.0,
                table_digest=routed.digest,
                partitions=snapshot.partitions.get(routed.spec.shard_name, 0),
                generation=snapshot.generation,
                request_id=request_id,
                timeout=hop_seconds(candidate.host, seconds, 0.0, followed=False),
            )
            try:
                with counted_forward(self._metrics, self._clock):
                    await self._peer.require_applied(candidate.host, hop)
            except RequestError as error:
                self.candidates.heard(candidate.host, error)
                raise
            self.candidates.heard(candidate.host)

    def locate(self, table: str, key_text: bytes) -> tuple[int, tuple[Location, ...]]:
        """Say who holds a key: the generation, and each partition that can hold it, the likeliest first.

        Raises TableNotFound, InvalidKey, UriTooLong, and PartitionUnassigned before the first assignment.
        """
        routed = table_named(self._tables, table)
        key = routed.parse(key_text)
        snapshot = self._view.current
        count = partition_count(routed, snapshot)
        partitions = routed.partitions_of(key, count)
        every = (*partitions, *routed.other_partitions(key, partitions, count))
        shards = [routed.spec.shard(partition) for partition in every]
        return snapshot.generation, tuple(
            Location(shard.partition, snapshot.actives.get(shard), snapshot.standbys.get(shard, ())) for shard in shards
        )

    async def _ask(self, question: _Question) -> Answer:
        """Ask the candidates of one partition in turn, and once more those that a newer snapshot may help."""
        shard = question.routed.spec.shard(question.partition)
        place = (question.routed.spec.name, question.partition)
        refusals: list[Refusal] = []
        for again in (False, True):
            snapshot = self._view.current
            # Under another partition count the key was hashed wrongly, and a miss would be a false one.
            if snapshot.partitions.get(shard.name) != question.count:
                break
            candidates = self.candidates.of(shard, snapshot, question.consistency.mode)
            if again:
                candidates = await self._worth_asking_again(candidates, refusals, question.deadline)
            for number, candidate in enumerate(candidates, 1):
                if refusals and self._clock() >= question.deadline:
                    break
                try:
                    answer = await self._ask_host(candidate, question, snapshot.generation, later=candidates[number:])
                except ASK_THE_NEXT as error:
                    self.candidates.heard(candidate.host, error)
                    refusals.append(Refusal(candidate, error))
                except RequestError as error:
                    refusals.append(Refusal(candidate, error))
                    raise explained(error, refusals, *place, snapshot.generation) from None
                else:
                    self.candidates.heard(candidate.host)
                    return answer
        raise explained(last_answer(refusals, *place), refusals, *place, self._view.current.generation)

    async def _worth_asking_again(
        self, candidates: list[Candidate], refusals: list[Refusal], deadline: float
    ) -> list[Candidate]:
        """Keep those that may know better now, after a pause when all of them were asked before."""
        kept, at_once = worth_asking_again(candidates, refusals)
        if kept and not at_once:
            await asyncio.sleep(min(NOT_OWNER_PAUSE, max(0.0, deadline - self._clock())))
        return kept

    async def _ask_host(
        self, candidate: Candidate, question: _Question, generation: int, *, later: list[Candidate]
    ) -> Answer:
        host, routed, consistency = candidate.host, question.routed, question.consistency
        started = self._clock()
        wait = max(0.0, question.waits_until - started) if self.candidates.worth_waiting(later) else 0.0
        if host.worker_id == self._worker_id:
            result = await read_or_wait(
                self._local, routed.spec.name, question.partition, question.stored_key, consistency, wait
            )
            return Answer(routed, trusted(result, consistency), self._worker_id, "local")
        hop = Hop(
            table=routed.spec.name,
            partition=question.partition,
            stored_key=question.stored_key,
            consistency=consistency,
            wait=wait,
            table_digest=routed.digest,
            partitions=question.count,
            generation=generation,
            request_id=question.request_id,
            timeout=hop_seconds(host, question.deadline - started, wait, followed=bool(later)),
        )
        with counted_forward(self._metrics, self._clock):
            read = await self._peer.read(host, hop)
        return Answer(routed, trusted(read.result, consistency), read.worker_id, "forwarded")


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


class _TableMetrics:
    """The metrics of one table, looked up once instead of once a read."""

    def __init__(self, metrics: Metrics, table: str) -> None:
        self.hit = metrics.reads.labels(table, "hit")
        self.miss = metrics.reads.labels(table, "miss")
        self.stale = metrics.reads.labels(table, "stale")
        self.unavailable = metrics.reads.labels(table, "unavailable")
        self.duration = {path: metrics.read_duration.labels(table, path) for path in ("local", "forwarded", "standby")}

    def observe(self, answer: Answer, seconds: float) -> None:
        role = answer.result.freshness.role
        if role is not Role.ACTIVE:
            self.stale.inc()
        elif answer.result.row is None:
            self.miss.inc()
        else:
            self.hit.inc()
        self.duration["standby" if role is Role.STANDBY else answer.path].observe(seconds)


def partition_count(routed: RoutedTable, snapshot: ClusterSnapshot) -> int:
    """Return the count to hash keys with; raises PartitionUnassigned before the first assignment."""
    count = snapshot.partitions.get(routed.spec.shard_name)
    if not count:
        raise PartitionUnassigned(
            f"no assignment of topic {routed.spec.source.topic} has reached this worker yet",
            table=routed.spec.name,
            generation=snapshot.generation,
            tried=[],
        )
    return count


def missing_detail(table: str, freshness: Freshness) -> str:
    """Say that a table has no row for a key, whose word that is, and what else it may be for."""
    role, rejected = freshness.role, freshness.rejected_records
    whose = "" if role is Role.ACTIVE else f", as far as its {role.value} copy knows"
    why = f"; {rejected} records of its partition could not become rows, see GET /tables/{table}" if rejected else ""
    return f"table {table} has no row for this key{whose}{why}"


def trusted(result: ReadResult, consistency: Consistency) -> ReadResult:
    """Let a miss pass from an active, and from a standby when the caller takes its word; from nobody else."""
    role = result.freshness.role
    if (
        result.row is None
        and role is not Role.ACTIVE
        and not (role is Role.STANDBY and consistency.takes_standby_misses)
    ):
        raise PartitionRestoring(f"a {role.value} copy cannot say that a key does not exist")
    return result
