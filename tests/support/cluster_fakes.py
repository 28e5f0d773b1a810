"""A small cluster without Kafka: tables in dictionaries, a clock that a test moves, a scripted peer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import NotOwner, PositionNotReached, RequestError, SourceUnavailable
from tablehouse.formats.row_form import RowForm
from tablehouse.model import Consistency, Freshness, HostInfo, ProducerRecord, Role, SourceEnd, TaskState, TaskStatus
from tablehouse.positions import Position
from tablehouse.routing.cluster import ClusterSnapshot, snapshot_of
from tablehouse.routing.cluster import Placed as PlacedMember
from tablehouse.routing.ports import Answered, Answers, ConditionalWrite, Slice, Terms, Wanted
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, ROW_PREFIX, Row, pack_head
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.digest import Digest, PartitionDigest
from tablehouse.tasks.filters import RowMatches, row_filter
from tablehouse.tasks.questions import Applied, Get, MultiGet, Question
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.reads import ReadResult, SliceResult
from tests.support.positions import at

PLANES = TableSpec(
    "planes", SourceSpec("planes-topic", KeySpec("string"), ValueSpec("json")), description="Aircraft", writable=True
)
NUMBERS = TableSpec("numbers", SourceSpec("numbers-topic", KeySpec("long"), ValueSpec("string")))
BLOBS = TableSpec("blobs", SourceSpec("blobs-topic", KeySpec("bytes"), ValueSpec("bytes")), writable=True)
CATALOG = Catalog({table.name: table for table in (PLANES, NUMBERS, BLOBS)})
PARTITIONS = {"planes-topic": 4, "numbers-topic": 4, "blobs-topic": 4}


@dataclass
class Placed:
    """A member of a distribution."""

    worker_id: str
    url: str
    actives: Mapping[str, Sequence[int]] = field(default_factory=dict)
    standbys: Mapping[str, Sequence[int]] = field(default_factory=dict)
    incarnation: int = 1


def everything() -> dict[str, list[int]]:
    return {topic: list(range(count)) for topic, count in PARTITIONS.items()}


def snapshot(*members: PlacedMember, generation: int = 7) -> ClusterSnapshot:
    return snapshot_of(generation, PARTITIONS, members)


@dataclass
class FakeTables:
    """Holds rows by (table, partition, stored key); `errors` take the place of an answer, by partition.

    Partitions are applied up to offset 99, unless `applied` or `advance` says something else, or `positions` those of a
    table of several topics. `waiting` is set as soon as somebody waits for a position. `forms` say how expressions read
    rows, by table.
    """

    rows: dict[tuple[str, int, bytes], Row] = field(default_factory=dict)
    held: set[int] = field(default_factory=lambda: set(range(4)))
    errors: dict[int, RequestError] = field(default_factory=dict)
    write_errors: dict[int, RequestError] = field(default_factory=dict)
    role: Role = Role.ACTIVE
    lag: int | None = 2
    staleness_ms: int | None = 15
    rejected: int = 3
    states: list[TaskStatus] = field(default_factory=list)
    table_reasons: dict[str, str] = field(default_factory=dict)
    applied: dict[int, int] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)
    asked: list[tuple[str, int, bytes]] = field(default_factory=list)
    asked_for: list[Consistency] = field(default_factory=list)
    waits: list[tuple[int, Position, float]] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    hit: RequestError | None = None
    miss: RequestError | None = None
    forms: Mapping[str, RowForm] = field(default_factory=dict)
    _advanced: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, table: str, partition: int, question: Question[Any], consistency: Consistency) -> Any:
        """Answer each kind of question as its method does."""
        match question:
            case Get(stored_key):
                return self.read(table, partition, stored_key, consistency)
            case MultiGet(stored_keys):
                return self.read_many(table, partition, stored_keys, consistency)
            case Range():
                return self.read_range(table, partition, question, consistency)
            case CountRange():
                return self.count_range(table, partition, question, consistency)
            case Digest():
                return self.digest(table, partition)
            case Applied():
                return self.require_applied(table, partition)
        raise NotImplementedError(question)

    def read(self, table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:
        """Answer from the rows, as a task in `role` would that minds no bound but the position."""
        self.asked.append((table, partition, stored_key))
        self.asked_for.append(consistency)
        if partition in self.errors:
            raise self.errors[partition]
        if partition not in self.held:
            raise NotOwner("this worker does not hold the partition")
        position, required = self.position(partition), consistency.min_position
        if required is not None and position.lacking(required) is not None:
            raise PositionNotReached(
                f"applied up to {position.text}",
                partition=partition,
                position=position.in_json(partition),
                role=self.role.value,
                lag_records=self.lag,
                staleness_ms=self.staleness_ms,
            )
        freshness = Freshness(partition, position, self.role, self.lag, self.staleness_ms, self.rejected)
        row = self.rows.get((table, partition, stored_key))
        if row is not None and row.deleted:
            return ReadResult(None, freshness, row.timestamp_ms)
        return ReadResult(row, freshness)

    def read_many(
        self, table: str, partition: int, stored_keys: Sequence[bytes], consistency: Consistency
    ) -> SliceResult:
        """Answer the first three keys as `read` does."""
        results = [self.read(table, partition, key, consistency) for key in stored_keys[:3]]
        payloads = [None if result.row is None else result.row.payload for result in results]
        return SliceResult(payloads, results[0].freshness, self.hit, self.miss)

    def read_range(self, table: str, partition: int, asked: Range, consistency: Consistency) -> RangeResult:
        """Answer with three rows at most, as `read` would for a key that is not there."""
        freshness = self.read(table, partition, b"\xff no such key", consistency).freshness
        if self.miss is not None:
            raise self.miss
        limit = 3 if asked.where is not None else min(3, asked.limit)
        found = sorted(self._rows_of(table, partition, asked), reverse=asked.reverse)
        return asked.result(
            found[:limit], freshness, self._filter(table, partition, asked.where), is_end=len(found) <= limit
        )

    def count_range(self, table: str, partition: int, asked: CountRange, consistency: Consistency) -> CountResult:
        """Count three rows at most, as read_range reads them."""
        freshness = self.read_range(table, partition, Range(asked.start, asked.end), consistency).freshness
        found = sorted(self._rows_of(table, partition, asked))
        matches = self._filter(table, partition, asked.where)
        return asked.result(found[:3], freshness, matches, is_end=len(found) <= 3, is_over=lambda: False)

    def _rows_of(self, table: str, partition: int, asked: Range | CountRange) -> Iterator[tuple[bytes, bytes]]:
        """Give the rows of a range as they are stored."""
        for (name, number, key), row in self.rows.items():
            if (name, number) == (table, partition) and asked.start <= key and (asked.end is None or key < asked.end):
                head = pack_head(LAYOUT_VERSION, DELETED * row.deleted, row.timestamp_ms, row.offset)
                yield ROW_PREFIX + key, head + row.payload

    def _filter(self, table: str, partition: int, where: str | None) -> RowMatches | None:
        return None if where is None else row_filter(where, self.forms[table], table, partition)

    def require_applied(self, table: str, partition: int) -> None:
        """Raise what `write_errors` say."""
        del table
        if partition in self.write_errors:
            raise self.write_errors[partition]

    def advance(self, partition: int, offset: int) -> None:
        """Apply up to an offset, and wake who waits for it."""
        self.applied[partition] = offset
        self.wake()

    def wake(self) -> None:
        """Wake who waits for a position."""
        self._advanced.set()
        self._advanced = asyncio.Event()

    def position(self, partition: int) -> Position:
        """Return the position of a partition."""
        return self.positions.get(partition) or at(partition, self.applied.get(partition, 99))

    async def wait_for_position(
        self,
        table: str,
        partition: int,
        required: Position,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        """Wait for `advance`, as the protocol says."""
        lacking = self.position(partition).lacking(required)
        if lacking is None:
            raise AssertionError(f"nothing is to be waited for in partition {partition}")
        self.waits.append((partition, lacking, timeout))
        self.waiting.set()
        if partition not in self.held:
            raise NotOwner(f"this worker does not hold partition {partition} of {table}")
        try:
            async with asyncio.timeout(timeout):
                while self.position(partition).lacking(required) is not None:
                    await self._advanced.wait()
        except TimeoutError:
            raise PositionNotReached(f"{lacking.text} was not reached in {timeout} s") from None

    def digest(self, table: str, partition: int) -> PartitionDigest:
        """Count the rows of a partition; the hash is a constant."""
        if partition in self.errors:
            raise self.errors[partition]
        if partition not in self.held:
            raise NotOwner("this worker does not hold the partition")
        return PartitionDigest(
            "active",
            sum(key[:2] == (table, partition) for key in self.rows),
            "c0ffee",
            at(partition, 99),
            at(partition, 99),
        )

    async def count_rows(self) -> None:
        """Nothing to count: states have what the test says."""

    def statuses(self) -> Sequence[TaskStatus]:
        """List what the test put into `states`."""
        return self.states

    def table_reason(self, table: str) -> str | None:
        """Return what the test put into `table_reasons`."""
        return self.table_reasons.get(table)


def status(
    table: str = "planes", partition: int = 0, state: TaskState = TaskState.ACTIVE, *, blocked: bool = False
) -> TaskStatus:
    return TaskStatus(
        table=table,
        partition=partition,
        state=state,
        position=99,
        lag_records=2,
        staleness_ms=1500,
        rejected_records=2,
        restore_remaining=None if state is TaskState.ACTIVE else 40,
        reason=None if state is TaskState.ACTIVE else "40 records to go",
        rows_estimate=10,
        blocked=blocked,
    )


@dataclass
class FakeSource:
    """Takes every record, at the next offset of its partition from 100 on.

    `error` takes the place of an offset, once `taken` records were taken.
    """

    records: list[tuple[str, int, bytes, bytes | None]] = field(default_factory=list)
    error: RequestError | None = None
    taken: int = 0
    bytes_of_a_record: int = 1_000
    on_append: Callable[[int, int], None] = lambda partition, offset: None  # noqa: ARG005
    _ends: dict[int, int] = field(default_factory=dict)

    def limit(self, table: str) -> int:
        """Return the same for every table."""
        del table
        return self.bytes_of_a_record

    async def append(self, table: str, partition: int, record: ProducerRecord, timeout: float) -> int:  # noqa: ASYNC109
        """Note the record."""
        assert timeout > 0
        if self.error is not None and len(self.records) >= self.taken:
            raise self.error
        self.records.append((table, partition, record.key, record.value))
        offset = self._ends[partition] = self._ends.get(partition, 99) + 1
        self.on_append(partition, offset)
        return offset

    async def append_many(
        self,
        table: str,
        partition: int,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        """Note the records, one after the other."""
        outcomes: list[int | RequestError] = []
        for record in records:
            try:
                outcomes.append(await self.append(table, partition, record, timeout))
            except RequestError as error:
                outcomes.append(error)
        return outcomes


@dataclass
class FakeOwner:
    """Owns what `local` holds: applies a record as soon as `source` has it.

    `catching_up` is awaited before the end is told, and `errors`, by partition, take the place of an append.
    """

    local: FakeTables
    source: FakeSource
    errors: dict[int, RequestError] = field(default_factory=dict)
    catching_up: Callable[[int], Awaitable[None]] | None = None
    ends: list[SourceEnd] = field(default_factory=list)

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        """Tell the end of a partition that is held here."""
        if partition not in self.local.held:
            raise NotOwner(f"this worker does not hold partition {partition} of {table}")
        if self.catching_up is not None:
            try:
                async with asyncio.timeout(timeout):
                    await self.catching_up(partition)
            except TimeoutError:
                raise SourceUnavailable("the end is not known") from None
        return SourceEnd(self.local.applied.get(partition, 99) + 1, asyncio.get_running_loop().time())

    async def append_as_owner(
        self,
        table: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        end: SourceEnd,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        """Note the record, and apply it; a key is stored as it is written."""
        self.ends.append(end)
        if partition in self.errors:
            raise self.errors[partition]
        offset = await self.source.append(table, partition, ProducerRecord(key, value), timeout)
        if value is None:
            self.local.rows.pop((table, partition, key), None)
        else:
            self.local.rows[table, partition, key] = Row(value, 0, offset)
        self.local.advance(partition, offset)
        return offset


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


@dataclass(frozen=True)
class Hop:
    """A key that another worker was asked for, and on which terms."""

    table: str
    partition: int
    stored_key: bytes
    consistency: Consistency
    wait: float
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    timeout: float


class ScriptedPeer:
    """Answers each hop with the next step of a script: a result, or an error to raise."""

    def __init__(self, *script: ReadResult | Exception | Callable[[], ReadResult]) -> None:
        self.script = list(script)
        self.hops: list[tuple[str, Hop]] = []

    def at(self, host: HostInfo) -> Answers:
        """Return what takes the next step of the script when it is asked for a key."""
        return _ScriptedHost(self, host)

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        """Nothing here asks a scripted peer for a write."""
        raise NotImplementedError(host, write, terms)

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """Take the next step of the script; a result becomes one status."""
        del timeout
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return [status(partition=len(host.worker_id))]


class _ScriptedHost:
    """One worker of a scripted peer."""

    def __init__(self, peer: ScriptedPeer, host: HostInfo) -> None:
        self._peer = peer
        self._host = host

    async def answer(
        self, table: str, partition: int, question: Question[Any], consistency: Consistency, terms: Terms
    ) -> Answered[Any]:
        """Note the hop and take the next step of the script."""
        if not isinstance(question, Get):
            raise NotImplementedError(question)
        hop = Hop(
            table,
            partition,
            question.stored_key,
            consistency,
            terms.wait,
            terms.table_digest,
            terms.partitions,
            terms.generation,
            terms.request_id,
            terms.timeout,
        )
        self._peer.hops.append((self._host.worker_id, hop))
        step = self._peer.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return Answered(step() if callable(step) else step, self._host.worker_id)

    async def answer_many(
        self, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Nothing here asks a scripted peer for a part of a batch."""
        raise NotImplementedError(table, wanted, consistency, terms)
