"""One read of one key: here when this worker is the one to ask, else by hops to those that are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from tablehouse.errors import RequestError
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, HostInfo, ReadMode, Role, ShardId
from tablehouse.routing.asking import Asker, untrusted_miss
from tablehouse.routing.cluster import ClusterSnapshot, ClusterView
from tablehouse.routing.ports import LocalTables
from tablehouse.routing.spread import newest_row
from tablehouse.routing.tables import RoutedTable, partition_count, table_named
from tablehouse.tasks.questions import Get
from tablehouse.tasks.reads import ReadResult
from tablehouse.telemetry import Metrics


class Answer(NamedTuple):
    """A row, or the word of a copy that the caller trusts that there is none.

    served_by is the id of the worker that looked.
    """

    table: RoutedTable
    result: ReadResult
    served_by: str
    path: Literal["local", "forwarded"]

    def labelled(self, freshness: Freshness) -> "Answer":
        """Return the same answer with another freshness."""
        return self._replace(result=msgspec.structs.replace(self.result, freshness=freshness))


class Elsewhere(NamedTuple):
    """Another worker that can be asked for a row: the active of the only partition that the key is known to be in.

    partitions is the count that the key was hashed with. may_miss says that the key can be in no other partition.
    consistency is what the caller accepts.
    """

    routed: RoutedTable
    host: HostInfo
    partition: int
    question: Get
    partitions: int
    generation: int
    may_miss: bool
    consistency: Consistency


@dataclass(frozen=True, slots=True)
class Location:
    """Where one candidate partition of a key is held; active is None while no owner is known."""

    partition: int
    active: HostInfo | None
    standbys: tuple[HostInfo, ...]


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
        asker: Asker,
        worker_id: str,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._tables = tables
        self._view = view
        self._local = local
        self._asker = asker
        self._worker_id = worker_id
        self._clock = clock
        self._counted = _MetricsByTable(metrics)
        for name in tables:
            # So that all are there from the start, without a count.
            self._counted[name]

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
        try:
            asked = self._asker.asked(
                routed, deadline=deadline, request_id=request_id, consistency=consistency, wait=wait
            )
            question = Get(key.stored)

            async def ask(partition: int) -> Answer:
                return Answer(routed, *await self._asker.answer(asked, partition, question))

            partitions = routed.partitions_of(key, asked.partitions)
            answer = await newest_row(ask, partitions, routed.other_partitions(key, partitions, asked.partitions))
        except RequestError:
            counted.unavailable.inc()
            raise
        counted.observe(answer, self._clock() - started)
        return answer

    def look(
        self, table: str, key_text: bytes, consistency: Consistency = DEFAULT_CONSISTENCY
    ) -> Answer | Elsewhere | None:
        """Find the row of a key, or that there is none, where read() would look first.

        Returns the answer if it is had here, or which other worker can be asked for it; None when only read() can tell.
        Raises RequestError where read() may raise another one. An answer is yet to be counted. A position is not waited
        for, so `consistency` has none.
        """
        routed = table_named(self._tables, table)
        key, snapshot = routed.parse(key_text), self._view.current
        count = partition_count(routed, snapshot)
        partitions = routed.partitions_of(key, count)
        if len(partitions) != 1:
            return None
        partition, question = partitions[0], Get(key.stored)
        shard = routed.spec.shard(partition)
        active = snapshot.actives.get(shard)
        if active is None:
            return None
        if active.worker_id != self._worker_id and not (
            consistency.mode is ReadMode.ANY and self._follows(shard, snapshot)
        ):
            return Elsewhere(
                routed, active, partition, question, count, snapshot.generation, key.enumerable, consistency
            )
        result = self._local.answer(table, partition, question, consistency)
        return _trusted(Answer(routed, result, self._worker_id, "local"), consistency, may_miss=key.enumerable)

    def ask_elsewhere(
        self, there: Elsewhere, seconds: float, done: Callable[[Answer | None], None]
    ) -> Callable[[], None] | None:
        """Ask the active of a partition for a row, without a task, with `seconds` left for the request.

        `done` is called once: with the answer, or with None when only read() can tell, unless the function that is
        returned is called before. None is returned when nobody can be asked like this. An answer is yet to be counted.
        """

        def take(result: ReadResult | None) -> None:
            if result is None:
                done(None)
                return
            answer = Answer(there.routed, result, there.host.worker_id, "forwarded")
            done(_trusted(answer, there.consistency, may_miss=there.may_miss))

        return self._asker.ask_at_once(
            there.routed,
            there.host,
            there.partition,
            there.question,
            partitions=there.partitions,
            generation=there.generation,
            consistency=there.consistency,
            seconds=seconds,
            done=take,
        )

    def _follows(self, shard: ShardId, snapshot: ClusterSnapshot) -> bool:
        """Return whether this worker has a standby of a shard."""
        return any(host.worker_id == self._worker_id for host in snapshot.standbys.get(shard, ()))

    def count(self, answer: Answer, seconds: float) -> None:
        """Count an answer of look() or ask_elsewhere() that the caller gets, after `seconds`."""
        self._counted[answer.table.spec.name].observe(answer, seconds)

    def locate(self, table: str, key_text: bytes) -> tuple[int, tuple[Location, ...]]:
        """Return the workers that hold a key: the generation, and each partition that can hold it, the likeliest first.

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


def _trusted(answer: Answer, consistency: Consistency, *, may_miss: bool) -> Answer | None:
    """Return an answer, unless it has no row and may not say that there is none."""
    result = answer.result
    if result.row is None and (not may_miss or untrusted_miss(result.freshness, consistency) is not None):
        return None
    return answer


class _MetricsByTable(dict[str, "_TableMetrics"]):
    """The metrics of each table that was asked for, now or once."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def __missing__(self, table: str) -> "_TableMetrics":
        made = self[table] = _TableMetrics(self._metrics, table)
        return made


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


def missing_detail(table: str, freshness: Freshness) -> str:
    """Say that a table has no row for a key, whose word that is, and what else it may be for."""
    role, rejected = freshness.role, freshness.rejected_records
    whose = "" if role is Role.ACTIVE else f", as far as its {role.value} copy knows"
    why = f"; {rejected} records of its partition could not become rows, see GET /tables/{table}" if rejected else ""
    return f"table {table} has no row for this key{whose}{why}"
