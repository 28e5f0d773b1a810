"""One read of one key: here when this worker is the active, else by one hop to the worker that is.

This is the only place that forwards. DESIGN.md beside it says why it is made this way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.errors import (
    DeadlineExceeded,
    NotOwner,
    OwnerUnreachable,
    PartitionRestoring,
    PartitionUnassigned,
    RequestError,
)
from app.model import HostInfo, Role, TaskStatus, TopicPartition
from app.routing.cluster import ClusterSnapshot, ClusterView
from app.routing.tables import RoutedTable, table_named
from app.tasks.digest import PartitionDigest
from app.tasks.reads import ReadResult
from app.telemetry import Metrics

#: Seconds before a worker that says it does not hold a partition, and should, is asked again.
NOT_OWNER_PAUSE = 0.05


class LocalTables(Protocol):
    """The tasks of this worker."""

    def read(self, table: str, partition: int, stored_key: bytes) -> ReadResult:
        """Read a key here and now; never waits.

        Raises NotOwner when this worker does not hold the partition, and PartitionRestoring, TooStale,
        MisplacedKeys or Draining when it does and cannot answer.
        """

    async def digest(self, table: str, partition: int) -> PartitionDigest:
        """Count and hash the rows of a partition held here.

        Raises NotOwner when this worker does not hold it, PartitionRestoring while they are in no consistent state.
        """

    def statuses(self) -> Sequence[TaskStatus]:
        """Every task of this worker."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What one worker asks of another. timeout is in seconds; the rest says what both must agree on."""

    table: str
    partition: int
    stored_key: bytes
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class PeerRead:
    """What a peer answered, and the worker id under which it did."""

    result: ReadResult
    worker_id: str


class Peer(Protocol):
    """The way to other workers."""

    async def read(self, host: HostInfo, hop: Hop) -> PeerRead:
        """Ask `host` to read a key of its own.

        Raises what its LocalTables.read raises, and OwnerUnreachable (detail: why, in words) when there was
        no answer within the hop's timeout, or none that can be understood.
        """

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """List the tasks of `host`; raises OwnerUnreachable."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A row, or the proof that there is none; served_by is the id of the worker that looked."""

    table: RoutedTable
    result: ReadResult
    served_by: str
    path: Literal["local", "forwarded"]


@dataclass(frozen=True, slots=True)
class Location:
    """Where one candidate partition of a key is held; active is None while nobody is known to hold it."""

    partition: int
    active: HostInfo | None
    standbys: tuple[HostInfo, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """One partition to ask; count is the partition count that the key was hashed with."""

    routed: RoutedTable
    stored_key: bytes
    partition: int
    count: int
    deadline: float
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
        self._counted = {name: _TableMetrics(metrics, name) for name in tables}

    async def read(self, table: str, key_text: bytes, *, deadline: float, request_id: str) -> Answer:
        """Find the row of a key, given as percent-decoded text.

        An answer without a row means that a caught-up active of every partition that can hold the key has
        looked. Everything else raises: TableNotFound, InvalidKey, UriTooLong for the question, and for the
        answer PartitionUnassigned, PartitionRestoring, TooStale, MisplacedKeys, OwnerUnreachable, Draining or
        DeadlineExceeded, with `table`, `partition`, `generation` and `tried` in their details.
        """
        routed = table_named(self._tables, table)
        counted = self._counted[table]
        started = self._clock()
        key = routed.parse(key_text)
        miss: Answer | None = None
        try:
            count = _partition_count(routed, self._view.current)
            for partition in routed.partitions_of(key, count):
                answer = await self._ask(_Question(routed, key.stored, partition, count, deadline, request_id))
                if answer.result.row is not None:
                    return counted.observed(answer, self._clock() - started)
                miss = miss or answer
        except RequestError:
            counted.unavailable.inc()
            raise
        if miss is None:
            raise AssertionError("a key has at least one wire form")
        return counted.observed(miss, self._clock() - started)

    def read_here(self, table: str, key_text: bytes) -> Answer | None:
        """Find the row of a key where read() would look first, if that is here; None when only read() can tell.

        Raises RequestError where read() may raise another one, and counts nothing then.
        """
        routed = table_named(self._tables, table)
        started = self._clock()
        key, snapshot = routed.parse(key_text), self._view.current
        partition = routed.partitions_of(key, _partition_count(routed, snapshot))[0]
        active = snapshot.actives.get(TopicPartition(routed.spec.source.topic, partition))
        if active is None or active.worker_id != self._worker_id:
            return None
        result = self._local.read(table, partition, key.stored)
        if result.row is None:
            return None
        return self._counted[table].observed(Answer(routed, result, self._worker_id, "local"), self._clock() - started)

    def locate(self, table: str, key_text: bytes) -> tuple[int, tuple[Location, ...]]:
        """Say who holds a key: the generation, and each partition that can hold it, the likeliest first.

        Raises TableNotFound, InvalidKey, UriTooLong, and PartitionUnassigned before the first assignment.
        """
        routed = table_named(self._tables, table)
        key = routed.parse(key_text)
        snapshot = self._view.current
        shards = [
            TopicPartition(routed.spec.source.topic, partition)
            for partition in routed.partitions_of(key, _partition_count(routed, snapshot))
        ]
        return snapshot.generation, tuple(
            Location(shard.partition, snapshot.actives.get(shard), snapshot.standbys.get(shard, ())) for shard in shards
        )

    async def _ask(self, question: _Question) -> Answer:
        """Ask the active of one partition, and once more when it turns out to be somewhere else."""
        topic = question.routed.spec.source.topic
        shard = TopicPartition(topic, question.partition)
        tried: list[dict[str, str]] = []
        asked: HostInfo | None = None
        last: NotOwner | OwnerUnreachable | None = None
        while len(tried) < 2:  # noqa: PLR2004 - the second try is on a snapshot that may be newer
            snapshot = self._view.current
            host = snapshot.actives.get(shard)
            # Under another partition count the key was hashed wrongly, and a miss would be a false one.
            if host is None or snapshot.partitions.get(topic) != question.count:
                break
            if host == asked:
                if isinstance(last, OwnerUnreachable):
                    break
                # It has not heard of its assignment yet, as happens for some milliseconds in a rebalance.
                await asyncio.sleep(min(NOT_OWNER_PAUSE, max(0.0, question.deadline - self._clock())))
            try:
                return await self._ask_host(host, question, snapshot.generation)
            except (NotOwner, OwnerUnreachable) as error:
                tried.append({"host": host.worker_id, "reason": error.detail})
                asked, last = host, error
            except RequestError as error:
                raise _placed(error, question, snapshot.generation, tried) from None
        raise _placed(_no_owner(question, asked, last), question, self._view.current.generation, tried)

    async def _ask_host(self, host: HostInfo, question: _Question, generation: int) -> Answer:
        routed, deadline = question.routed, question.deadline
        if host.worker_id == self._worker_id:
            result = self._local.read(routed.spec.name, question.partition, question.stored_key)
            return Answer(routed, _proven(result), self._worker_id, "local")
        started = self._clock()
        if started >= deadline:
            raise DeadlineExceeded(f"no time was left to ask {host.worker_id}, which holds the partition")
        hop = Hop(
            table=routed.spec.name,
            partition=question.partition,
            stored_key=question.stored_key,
            table_digest=routed.digest,
            partitions=question.count,
            generation=generation,
            request_id=question.request_id,
            timeout=deadline - started,
        )
        outcome = "refused"
        try:
            read = await self._peer.read(host, hop)
            outcome = "ok"
        except NotOwner:
            outcome = "not_owner"
            raise
        except OwnerUnreachable:
            outcome = "unreachable"
            raise
        finally:
            self._metrics.forwards.labels(outcome).inc()
            self._metrics.forward_duration.observe(self._clock() - started)
        return Answer(routed, _proven(read.result), read.worker_id, "forwarded")


class _TableMetrics:
    """The metrics of one table, looked up once instead of once a read."""

    def __init__(self, metrics: Metrics, table: str) -> None:
        self.hit = metrics.reads.labels(table, "hit")
        self.miss = metrics.reads.labels(table, "miss")
        self.stale = metrics.reads.labels(table, "stale")
        self.unavailable = metrics.reads.labels(table, "unavailable")
        self.duration = {path: metrics.read_duration.labels(table, path) for path in ("local", "forwarded")}

    def observed(self, answer: Answer, seconds: float) -> Answer:
        if answer.result.row is None:
            self.miss.inc()
        elif answer.result.freshness.role is Role.ACTIVE:
            self.hit.inc()
        else:
            self.stale.inc()
        self.duration[answer.path].observe(seconds)
        return answer


def _partition_count(routed: RoutedTable, snapshot: ClusterSnapshot) -> int:
    count = snapshot.partitions.get(routed.spec.source.topic)
    if not count:
        raise PartitionUnassigned(
            f"no assignment of topic {routed.spec.source.topic} has reached this worker yet",
            table=routed.spec.name,
            generation=snapshot.generation,
            tried=[],
        )
    return count


def _proven(result: ReadResult) -> ReadResult:
    """Let a miss pass only when an active says it; whoever answers, no other may make a 404."""
    if result.row is None and result.freshness.role is not Role.ACTIVE:
        raise PartitionRestoring(f"a {result.freshness.role.value} copy cannot say that a key does not exist")
    return result


def _no_owner(question: _Question, asked: HostInfo | None, last: NotOwner | OwnerUnreachable | None) -> RequestError:
    where = f"partition {question.partition} of table {question.routed.spec.name}"
    if asked is not None and isinstance(last, OwnerUnreachable):
        return OwnerUnreachable(f"{asked.worker_id}, which holds {where}, could not be asked: {last.detail}")
    if asked is not None:
        return PartitionUnassigned(f"{asked.worker_id} does not hold {where} any more; its next owner is not known yet")
    return PartitionUnassigned(f"no worker is known to hold {where}")


def _placed(error: RequestError, question: _Question, generation: int, tried: list[dict[str, str]]) -> RequestError:
    """Say in an error's details which partition it is about; what the error itself said of them wins."""
    where: dict[str, Any] = {
        "table": question.routed.spec.name,
        "partition": question.partition,
        "generation": generation,
        "tried": tried,
    }
    return type(error)(error.detail, retry_after=error.retry_after, **(where | dict(error.details)))
