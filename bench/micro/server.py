"""GETs and batches through the whole server, from the bytes of the request to those of the answer, without a socket."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.micro.store import filled
from bench.micro.timing import Timings
from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import RequestError
from tablehouse.formats.schemas import NoSchemas
from tablehouse.formats.variants import Known
from tablehouse.http.access_log import AccessLog
from tablehouse.http.batch import BatchRoutes
from tablehouse.http.batch_put import BatchPutRoutes
from tablehouse.http.connections import Connections
from tablehouse.http.dispatch import Dispatcher
from tablehouse.http.documentation import DocumentationRoutes
from tablehouse.http.health import HealthRoutes, Readiness
from tablehouse.http.held import HeldBytes
from tablehouse.http.observations import Observations
from tablehouse.http.overview import OverviewRoutes
from tablehouse.http.plain import PlainReads
from tablehouse.http.protocol import Server
from tablehouse.http.public import PublicRoutes
from tablehouse.http.rows import RowRoutes
from tablehouse.http.scan import ScanRoutes
from tablehouse.http.writes import WriteRoutes
from tablehouse.model import (
    Consistency,
    Freshness,
    HostInfo,
    ProducerRecord,
    Role,
    ShardId,
    SourceEnd,
    TaskStatus,
)
from tablehouse.positions import Position
from tablehouse.routing.asking import Asker
from tablehouse.routing.batch import Batches
from tablehouse.routing.cluster import ClusterSnapshot, ClusterView
from tablehouse.routing.conditional_writes import ConditionalWrites
from tablehouse.routing.counting import RowCounts
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.here import Here
from tablehouse.routing.ports import Answers, ConditionalWrite, Terms
from tablehouse.routing.query import Query
from tablehouse.routing.ranges import Ranges
from tablehouse.routing.survey import Survey
from tablehouse.routing.tables import routed_tables
from tablehouse.routing.write_batch import WriteBatches
from tablehouse.routing.writes import Writes
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard, RocksTaskStore
from tablehouse.stores.rows import ROW_PREFIX, payloads, unpack
from tablehouse.tasks.questions import Get, MultiGet, Question
from tablehouse.tasks.reads import ReadResult, SliceResult
from tablehouse.tasks.slice_sizes import ROWS_PER_SLICE
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

_GETS = 5_000
_BATCHES = (1_000, 10_000)
_PARTITIONS = 4
_POSITIONS = [Position((str(partition),), (1_000_000,)) for partition in range(_PARTITIONS)]
_ME = HostInfo("worker", 1, "http://127.0.0.1:9080")
_KNOWN = Known(NoSchemas())
_CATALOG = Catalog({"table": TableSpec("table", SourceSpec("source", KeySpec("string"), ValueSpec("json")))})
_BUDGET = 256 << 20


class _Tables:
    """One table on a real store, which is every partition's, always active."""

    def __init__(self, store: RocksTaskStore) -> None:
        self._store = store

    def answer(self, table: str, partition: int, question: Question[Any], consistency: Consistency) -> Any:  # noqa: ARG002
        freshness = Freshness(partition, _POSITIONS[partition], Role.ACTIVE, 0, 120)
        if isinstance(question, Get):
            data = self._store.get(ROW_PREFIX + question.stored_key)
            return ReadResult(None if data is None else unpack(data), freshness)
        if isinstance(question, MultiGet):
            rows = self._store.get_many([ROW_PREFIX + key for key in question.stored_keys[:ROWS_PER_SLICE]])
            return SliceResult(payloads(rows), freshness)
        raise NotImplementedError(f"nobody asks this here: {question}")

    async def wait_for_position(
        self,
        table: str,
        partition: int,
        required: Position,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        raise NotImplementedError(f"nobody waits for {table}[{partition}] to reach {required} within {timeout} s here")

    async def count_rows(self) -> None:
        pass

    def statuses(self) -> Sequence[TaskStatus]:
        return []

    def table_reason(self, table: str) -> str | None:
        raise NotImplementedError(f"nobody asks for a description of {table} here")


class _NoPeer:
    """This worker owns everything."""

    def at(self, host: HostInfo) -> Answers:
        raise NotImplementedError(f"nothing is asked of {host.worker_id}")

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        raise NotImplementedError(f"nothing is asked of {host.worker_id}: {write}, {terms}")

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109 - as Peer says
        raise NotImplementedError(f"nothing is asked of {host.worker_id} within {timeout} s")


class _NoSource:
    """Nothing is written."""

    def limit(self, table: str) -> int:
        raise NotImplementedError(f"nothing is written to {table}")

    async def append(self, table: str, partition: int, record: ProducerRecord, timeout: float) -> int:  # noqa: ASYNC109
        raise NotImplementedError(f"nothing is written to {table}[{partition}]: {record!r}, {timeout} s")

    async def append_many(
        self,
        table: str,
        partition: int,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        raise NotImplementedError(f"nothing is written to {table}[{partition}]: {records!r}, {timeout} s")


class _NoOwner:
    """Nothing is written if something is as it is wanted, either."""

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        raise NotImplementedError(f"nobody waits for the end of {table}[{partition}] within {timeout} s here")

    async def append_as_owner(
        self,
        table: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        end: SourceEnd,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        raise NotImplementedError(f"nothing is written to {table}[{partition}]: {key!r}, {value!r}, {end}, {timeout} s")


class _Health:
    """A worker that is always well."""

    def joined(self) -> bool:
        return True

    def broker_reachable(self) -> bool:
        return True

    def draining(self) -> bool:
        return False

    def generation(self) -> int:
        return 1

    def reasons(self) -> Sequence[str]:
        return []


class _Transport(asyncio.Transport):
    """Takes the answer, and calls back when it is whole: that is when a write ends with `ending`."""

    def __init__(self, ending: bytes = b"") -> None:
        super().__init__()
        self.answered = asyncio.Event()
        self.answer = bytearray()
        self._ending = ending

    def write(self, data: Any) -> None:
        self.answer += data
        if self.answer.endswith(self._ending):
            self.answered.set()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


def _server(local: _Tables) -> Server:
    view, metrics, clock = ClusterView(), Metrics("bench"), time.monotonic
    actives = {ShardId("source", number): _ME for number in range(_PARTITIONS)}
    view.swap(ClusterSnapshot(1, (_ME,), actives, {}, {"source": _PARTITIONS}))
    tables = routed_tables(_CATALOG, "bench", _KNOWN)
    turns = Turns()
    asker = Asker(
        view=view,
        here=Here(local, turns, clock, _ME.worker_id),
        peer=_NoPeer(),
        worker_id=_ME.worker_id,
        clock=clock,
        metrics=metrics,
    )
    query = Query(
        tables=tables, view=view, local=local, asker=asker, worker_id=_ME.worker_id, clock=clock, metrics=metrics
    )
    batches = Batches(
        tables=tables,
        asker=asker,
        query=query,
        clock=clock,
        metrics=metrics,
        turns=turns,
    )

    writes = Writes(
        tables=tables,
        view=view,
        source=_NoSource(),
        query=query,
        asker=asker,
        known=_KNOWN,
        clock=clock,
        metrics=metrics,
        turns=turns,
        conditional=ConditionalWrites(
            view=view,
            asker=asker,
            decisions=Decisions(local, _NoOwner(), clock),
            peer=_NoPeer(),
            worker_id=_ME.worker_id,
            clock=clock,
            metrics=metrics,
        ),
    )

    ranges = Ranges(tables, asker, clock=clock, metrics=metrics, turns=turns)

    async def survey() -> Survey:
        return Survey(view.current, ())

    routes = PublicRoutes(
        RowRoutes(tables, query, clock, turns),
        BatchRoutes(tables, batches, turns),
        WriteRoutes(writes),
        BatchPutRoutes(
            tables,
            writes,
            WriteBatches(
                tables=tables, view=view, source=_NoSource(), writes=writes, clock=clock, metrics=metrics, turns=turns
            ),
            turns,
        ),
        ScanRoutes(tables, ranges, RowCounts(tables, asker, ranges, clock=clock, metrics=metrics), clock, turns),
        OverviewRoutes(tables, survey, local.table_reason),
        HealthRoutes(Readiness(_Health(), local.statuses, tuple), metrics, "bench"),
        DocumentationRoutes(tables, "bench"),
    )
    observations = Observations(metrics, AccessLog(clock))
    held = HeldBytes(_BUDGET, clock)
    plain = PlainReads(query, observations, clock, 5.0, held, hosts=None)
    dispatcher = Dispatcher(routes, observations, clock, timeout=5.0, held=held, turns=turns)
    return Server(dispatcher, metrics, connections=Connections(100, clock), held=held, plain=plain)


async def measure(timings: Timings) -> None:
    """Time GETs of existing rows on one connection."""
    with tempfile.TemporaryDirectory(prefix="bench-micro-") as folder:
        shard = RocksShard(Path(folder) / "shard", StoreMemory(_BUDGET), Turns())
        store, rows = await filled(shard)
        server = _server(_Tables(store))

        async def get_all(headers: bytes) -> None:
            protocol, transport = server(), _Transport()
            protocol.connection_made(transport)
            await asyncio.sleep(0)
            for key, _ in rows[:_GETS]:
                transport.answered.clear()
                transport.answer.clear()
                protocol.data_received(b"GET /tables/table/%b HTTP/1.1\r\n%b\r\n" % (key[len(ROW_PREFIX) :], headers))
                await transport.answered.wait()
                if not transport.answer.startswith(b"HTTP/1.1 200"):
                    raise AssertionError(transport.answer[:300])
            protocol.connection_lost(None)

        async def get_batch(keys: int) -> None:
            body = msgspec.json.encode({"keys": [key[len(ROW_PREFIX) :].decode() for key, _ in rows[:keys]]})
            protocol, transport = server(), _Transport(b"0\r\n\r\n")
            protocol.connection_made(transport)
            await asyncio.sleep(0)
            head = b"Host: bench\r\nContent-Type: application/json\r\nContent-Length: %d" % len(body)
            protocol.data_received(b"POST /tables/table:batch-get HTTP/1.1\r\n%b\r\n\r\n%b" % (head, body))
            await transport.answered.wait()
            if b'"partitions":[{' not in transport.answer:
                raise AssertionError(transport.answer[:300])
            protocol.connection_lost(None)

        plain, other = b"Host: bench\r\n", b"Host: bench\r\nAccept: application/json\r\n"
        await timings.awaited("GET through the server, a plain request", _GETS, lambda: get_all(plain))
        await timings.awaited("GET through the server, with an Accept header", _GETS, lambda: get_all(other))
        for keys in _BATCHES:
            await timings.awaited(f"batch-get of {keys:,} through the server, a key", keys, partial(get_batch, keys))
        shard.close()
