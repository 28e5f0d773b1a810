"""The listeners of a worker, from bind to drain."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import ConfigError
from tablehouse.formats.variants import Known
from tablehouse.http.access_log import AccessLog
from tablehouse.http.batch import BatchRoutes
from tablehouse.http.batch_put import BatchPutRoutes
from tablehouse.http.connections import Connections
from tablehouse.http.cors import Cors
from tablehouse.http.dispatch import Dispatcher
from tablehouse.http.documentation import DocumentationRoutes
from tablehouse.http.health import HealthRoutes, Readiness, WorkerHealth
from tablehouse.http.held import HeldBytes
from tablehouse.http.hosts import Hosts
from tablehouse.http.internal import InternalRoutes
from tablehouse.http.listener import Listener
from tablehouse.http.observations import Observations
from tablehouse.http.overview import OverviewRoutes
from tablehouse.http.peer import HttpPeer
from tablehouse.http.plain import PlainReads
from tablehouse.http.probes import ProbeRoutes
from tablehouse.http.proofs import Callers, keys_of
from tablehouse.http.protocol import Server, check_parser
from tablehouse.http.public import PublicRoutes
from tablehouse.http.readiness_log import log_when_ready
from tablehouse.http.rows import RowRoutes
from tablehouse.http.writes import WriteRoutes
from tablehouse.model import HostInfo
from tablehouse.routing.asking import Asker
from tablehouse.routing.batch import Batches
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.conditional_writes import ConditionalWrites
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.here import Here
from tablehouse.routing.ports import LocalTables, OwnerSide
from tablehouse.routing.query import Query
from tablehouse.routing.survey import Survey, survey
from tablehouse.routing.tables import routed_tables
from tablehouse.routing.write_batch import WriteBatches
from tablehouse.routing.writes import SourceWriter, Writes
from tablehouse.telemetry import Metrics, measure_event_loop_lag
from tablehouse.turns import Turns

log = structlog.get_logger("http")

#: Seconds between the end of listening and the end of idle connections, in which requests on their way are answered.
LAST_CALL = 0.05

#: Seconds between two looks whether all connections are idle.
_LOOK = 0.01

#: Seconds that /cluster and /tables wait for the other workers at most.
SURVEY_SECONDS = 2.0

#: Seconds between two looks for clients that are too slow.
SLOW_CLIENTS_INTERVAL = 1.0

#: Connections of both listeners together, each of which takes some 6 KiB when it is idle.
MAX_CONNECTIONS = 16 * 1024

#: The part of the memory budget for what connections hold, and the least there has to be: some large rows.
HELD_SHARE = 10
MIN_HELD_BYTES = 16 << 20

#: The part of the connections that the internal listener may have.
INTERNAL_SHARE = 6

#: Connections of the listener for probes and metrics.
MAX_PROBE_CONNECTIONS = 256

#: Seconds between two samples of the event loop's lag.
LAG_INTERVAL = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to listen, and for how long.

    Port 0 takes a free one. request_timeout is in seconds, for one request with all its hops.
    probe_port is that of the listener for probes and metrics; None for no such listener.
    advertised_url is what peers reach the internal listener by; None stands for the address it is bound to.
    internal_secrets are those of which workers prove to each other that they have one in common; none for no proof.
    connections are those that both listeners accept together, held_bytes what they may hold of requests under way and
    of answers not taken yet. cors_origins are those whose pages browsers let read answers.
    """

    host: str
    port: int
    internal_port: int
    advertised_url: str | None
    request_timeout: float
    version: str
    group: str
    internal_secrets: Sequence[str] = field(repr=False)
    connections: int
    held_bytes: int
    probe_port: int | None = None
    cors_origins: Sequence[str] = ()


def max_connections(files: int) -> int:
    """Return how many connections both listeners may have in a process that may have `files` open files."""
    return min(MAX_CONNECTIONS, files * 3 // 4)


def held_bytes(memory_budget: int) -> int:
    """Return how many bytes of requests under way and of answers not taken yet connections may hold."""
    return max(MIN_HELD_BYTES, memory_budget // HELD_SHARE)


@dataclass(frozen=True, slots=True)
class Bound:
    """The URLs that the listeners are bound to, None for the one there is not; a wildcard address shows as loopback."""

    public_url: str
    internal_url: str
    probe_url: str | None


class HttpServer:
    """The public and the internal listener of one worker, and that for probes and metrics if there is to be one.

    clock is monotonic, in seconds; turns are those of everything long on the event loop. start and stop are called once
    each, in one event loop.
    """

    def __init__(
        self,
        options: ServerOptions,
        *,
        worker_id: str,
        incarnation: int,
        catalog: Catalog,
        view: ClusterView,
        local: LocalTables,
        source: SourceWriter,
        owner: OwnerSide,
        health: WorkerHealth,
        metrics: Metrics,
        turns: Turns,
        known: Known,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._known = known
        self._tables = routed_tables(catalog, options.group, known)
        self._view = view
        self._local = local
        self._source = source
        self._owner = owner
        self._readiness = Readiness(health, local.statuses, self._strangers)
        self._metrics = metrics
        self._turns = turns
        self._clock = clock
        self._peer: HttpPeer | None = None
        self._plain: PlainReads | None = None
        self._dispatchers: list[Dispatcher] = []
        self._listeners: list[Listener] = []
        self._bound: Bound | None = None
        self._held = HeldBytes(options.held_bytes, clock)
        self._connections: list[Connections] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def bound(self) -> Bound:
        """Where the listeners are; raises RuntimeError before start."""
        if self._bound is None:
            raise RuntimeError("the HTTP server has not been started")
        return self._bound

    @property
    def me(self) -> HostInfo:
        """This worker as its peers know it; raises RuntimeError before start."""
        return HostInfo(self._worker_id, self._incarnation, self._options.advertised_url or self.bound.internal_url)

    async def start(self) -> None:
        """Bind the listeners and serve; raises ConfigError, which names the setting, when that cannot be."""
        check_parser()
        keys = keys_of(self._options.internal_secrets)
        self._peer = HttpPeer(keys)
        callers = Callers(keys, lambda: self.me)
        observations = Observations(self._metrics, AccessLog(self._clock))
        here = Here(self._local, self._turns, self._clock, self._worker_id)
        asker = Asker(
            view=self._view,
            here=here,
            peer=self._peer,
            worker_id=self._worker_id,
            clock=self._clock,
            metrics=self._metrics,
        )
        query = Query(
            tables=self._tables,
            view=self._view,
            local=self._local,
            asker=asker,
            worker_id=self._worker_id,
            clock=self._clock,
            metrics=self._metrics,
        )
        batches = Batches(
            tables=self._tables,
            asker=asker,
            query=query,
            clock=self._clock,
            metrics=self._metrics,
            turns=self._turns,
        )
        decisions = Decisions(self._local, self._owner, self._clock)
        conditional = ConditionalWrites(
            view=self._view,
            asker=asker,
            decisions=decisions,
            peer=self._peer,
            worker_id=self._worker_id,
            clock=self._clock,
            metrics=self._metrics,
        )
        writes = Writes(
            tables=self._tables,
            view=self._view,
            source=self._source,
            query=query,
            asker=asker,
            known=self._known,
            clock=self._clock,
            metrics=self._metrics,
            turns=self._turns,
            conditional=conditional,
        )
        write_batches = WriteBatches(
            tables=self._tables,
            view=self._view,
            source=self._source,
            writes=writes,
            clock=self._clock,
            metrics=self._metrics,
            turns=self._turns,
        )
        health = HealthRoutes(self._readiness, self._metrics, self._options.version)
        public = PublicRoutes(
            RowRoutes(self._tables, query, self._clock, self._turns),
            BatchRoutes(self._tables, batches, self._turns),
            WriteRoutes(writes),
            BatchPutRoutes(self._tables, writes, write_batches, self._turns),
            OverviewRoutes(self._tables, self._survey, self._local.table_reason),
            health,
            DocumentationRoutes(self._tables, self._options.version),
        )
        hosts = Hosts.of_listener(self._options.host, self._options.advertised_url)
        cors = Cors(self._options.cors_origins)
        self._plain = PlainReads(query, observations, self._clock, self._held, hosts, cors)
        internal = InternalRoutes(
            self._tables,
            self._view,
            self._local,
            here,
            decisions,
            self._source.limit,
            self._worker_id,
            self._clock,
            callers,
        )
        timeout = self._options.request_timeout
        self._dispatchers += (
            Dispatcher(public, observations, self._clock, timeout, self._held, hosts, cors=cors, turns=self._turns),
            Dispatcher(internal, observations, self._clock, timeout, self._held, hosts, check_caller=callers.check),
            Dispatcher(ProbeRoutes(health), observations, self._clock, timeout, self._held, hosts, turns=self._turns),
        )
        internal_connections = self._options.connections // INTERNAL_SHARE
        public_connections = self._options.connections - internal_connections
        self._metrics.http_in_flight.set_function(self._in_flight)
        self._metrics.http_held_bytes.set_function(lambda: self._held.total)
        self._metrics.watch_tasks(self._local.statuses)
        try:
            self._bound = Bound(
                await self._listen(
                    self._dispatchers[0], self._options.port, "http_port", self._plain, public_connections
                ),
                await self._listen(
                    self._dispatchers[1], self._options.internal_port, "internal_port", None, internal_connections
                ),
                None
                if self._options.probe_port is None
                else await self._listen(
                    self._dispatchers[2], self._options.probe_port, "probe_port", None, MAX_PROBE_CONNECTIONS
                ),
            )
        except ConfigError:
            await self.stop(0)
            raise
        self._tasks += (
            asyncio.create_task(measure_event_loop_lag(self._metrics, LAG_INTERVAL), name="event-loop-lag"),
            asyncio.create_task(self._cut_slow_clients(), name="slow-clients"),
        )
        log.info("listening", url=self._bound.public_url, internal_url=self._bound.internal_url)

    async def log_when_ready(self) -> None:
        """Log that this worker is ready once it is, and until then what it waits for."""
        await log_when_ready(lambda: self._readiness.document(verbose=False), self._clock)

    async def drain(self, seconds: float) -> None:
        """Turn /readyz to 503 `draining`, then answer on, each time closing the connection.

        Returns once nothing is in flight, after `seconds` at the latest. Requests that still come are
        answered, because a load balancer takes a while to notice.
        """
        self._readiness.drain()
        self._close_with_each_answer()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for dispatcher in self._dispatchers:
                    await dispatcher.idle.wait()

    async def stop(self, seconds: float) -> None:
        """Stop listening, answer whoever has connected and asked, for `seconds` at most, and close every connection."""
        # Before the first await, in which requests may be answered.
        self._close_with_each_answer()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for listener in self._listeners:
            await listener.close()
        until = asyncio.get_running_loop().time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._last_call()
        for listener in self._listeners:
            listener.server.pre_shutdown()
        # aiohttp takes a timeout of 0 for none at all.
        left = max(until - asyncio.get_running_loop().time(), 0.01)
        await asyncio.gather(*(listener.server.shutdown(left) for listener in self._listeners))
        self._listeners.clear()
        if self._peer is not None:
            await self._peer.close()
            self._peer = None

    def _close_with_each_answer(self) -> None:
        if self._plain is not None:
            self._plain.close()
        for dispatcher in self._dispatchers:
            dispatcher.close()

    async def _last_call(self) -> None:
        """Wait until no connection has a request, or one on its way here, to be answered."""
        await asyncio.sleep(LAST_CALL)
        while not all(listener.server.is_idle for listener in self._listeners):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_LOOK)

    async def _cut_slow_clients(self) -> None:
        while True:
            await asyncio.sleep(SLOW_CLIENTS_INTERVAL)
            try:
                self._held.cut_stalled()
                for connections in self._connections:
                    connections.refuse_slow_heads()
            except Exception:
                log.exception("slow clients could not be cut off")

    def _in_flight(self) -> int:
        return sum(dispatcher.in_flight for dispatcher in self._dispatchers)

    async def _survey(self) -> Survey:
        if self._peer is None:
            raise RuntimeError("the HTTP server has stopped")
        return await survey(self._view.current, self.me, self._local, self._peer, seconds=SURVEY_SECONDS)

    def _strangers(self) -> Sequence[str]:
        return () if self._peer is None else self._peer.strangers(self._view.current.members)

    async def _listen(
        self, dispatcher: Dispatcher, port: int, setting: str, plain: PlainReads | None, most: int
    ) -> str:
        """Serve on one port, on at most `most` connections, and return its URL."""
        connections = Connections(most, self._clock)
        self._connections.append(connections)
        name = setting.removesuffix("_port")
        self._metrics.http_connections.labels(name).set_function(lambda: len(connections))
        server = Server(dispatcher, self._metrics, connections=connections, held=self._held, plain=plain)
        listener = await Listener.bind(server, self._options.host, port, setting)
        self._listeners.append(listener)
        return listener.url
