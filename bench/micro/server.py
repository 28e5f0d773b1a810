"""One GET through the whole server, from the bytes of the request to the bytes of the answer, without a socket."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from app.formats.schemas import NoSchemas
from app.formats.variants import Known
from app.http.access_log import AccessLog
from app.http.dispatch import Dispatcher
from app.http.health import HealthRoutes, Readiness
from app.http.observations import Observations
from app.http.overview import OverviewRoutes
from app.http.plain import PlainReads
from app.http.protocol import Server
from app.http.public import PublicRoutes
from app.http.rows import RowRoutes
from app.model import Consistency, Freshness, HostInfo, Role, TaskStatus, TopicPartition
from app.routing.cluster import ClusterSnapshot, ClusterView
from app.routing.ports import Hop, PeerRead
from app.routing.query import Query
from app.routing.survey import Survey
from app.routing.tables import routed_tables
from app.stores.rocksdb import RocksShard, RocksTaskStore, StoreMemory
from app.stores.rows import ROW_PREFIX, unpack
from app.tasks.digest import PartitionDigest
from app.tasks.reads import ReadResult
from app.telemetry import Metrics
from app.turns import Turns
from bench.micro.store import filled
from bench.micro.timing import Timings

_GETS = 5_000
_ME = HostInfo("worker", 1, "http://127.0.0.1:9080")
_CATALOG = Catalog({"table": TableSpec("table", SourceSpec("source", KeySpec("string"), ValueSpec("json")))})
_BUDGET = 256 << 20


class _Tables:
    """One partition of one table on a real store, always active."""

    def __init__(self, store: RocksTaskStore) -> None:
        self._store = store

    def read(self, table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:  # noqa: ARG002
        data = self._store.get(ROW_PREFIX + stored_key)
        return ReadResult(None if data is None else unpack(data), Freshness(partition, 1_000_000, Role.ACTIVE, 0, 120))

    async def wait_for_position(self, table: str, partition: int, offset: int, timeout: float) -> None:  # noqa: ASYNC109
        raise NotImplementedError(f"nobody waits for {table}[{partition}] to reach {offset} within {timeout} s here")

    async def digest(self, table: str, partition: int) -> PartitionDigest:
        raise NotImplementedError(f"nobody asks for the digest of {table}[{partition}] here")

    def statuses(self) -> Sequence[TaskStatus]:
        return []


class _NoPeer:
    """This worker owns everything."""

    async def read(self, host: HostInfo, hop: Hop) -> PeerRead:
        raise NotImplementedError(f"nothing is asked of {host.worker_id}: {hop.table}")

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109 - as Peer says
        raise NotImplementedError(f"nothing is asked of {host.worker_id} within {timeout} s")


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
    """Takes the answer, and calls back when it is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()
        self.answer = b""

    def write(self, data: Any) -> None:
        self.answer = bytes(data)
        self.answered.set()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


def _server(local: _Tables) -> Server:
    view, metrics, clock = ClusterView(), Metrics("bench"), time.monotonic
    shard = TopicPartition("source", 0)
    view.swap(ClusterSnapshot(1, (_ME,), {shard: _ME}, {}, {"source": 1}))
    tables = routed_tables(_CATALOG, "bench", Known(NoSchemas()))
    query = Query(
        tables=tables, view=view, local=local, peer=_NoPeer(), worker_id=_ME.worker_id, clock=clock, metrics=metrics
    )

    async def survey() -> Survey:
        return Survey(view.current, ())

    routes = PublicRoutes(
        RowRoutes(tables, query),
        OverviewRoutes(tables, survey),
        HealthRoutes(Readiness(_Health(), local.statuses), metrics, "bench"),
    )
    observations = Observations(metrics, AccessLog(clock))
    plain = PlainReads(query, observations, clock)
    return Server(Dispatcher(routes, observations, clock, timeout=5.0), metrics, plain)


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
                protocol.data_received(b"GET /tables/table/%b HTTP/1.1\r\n%b\r\n" % (key[len(ROW_PREFIX) :], headers))
                await transport.answered.wait()
                if not transport.answer.startswith(b"HTTP/1.1 200"):
                    raise AssertionError(transport.answer[:300])
            protocol.connection_lost(None)

        plain, other = b"Host: bench\r\n", b"Host: bench\r\nAccept: application/json\r\n"
        await timings.awaited("GET through the server, a plain request", _GETS, lambda: get_all(plain))
        await timings.awaited("GET through the server, with an Accept header", _GETS, lambda: get_all(other))
        shard.close()
