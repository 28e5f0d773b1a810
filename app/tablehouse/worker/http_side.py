"""Builds the HTTP side of a worker: the planners of reads and writes, the routes, and the listeners."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from tablehouse.access.policy import OPEN, Policy
from tablehouse.catalog.view import CatalogView
from tablehouse.formats.variants import Known
from tablehouse.http.access_log import AccessLog
from tablehouse.http.batch import BatchRoutes
from tablehouse.http.batch_put import BatchPutRoutes
from tablehouse.http.cors import Cors
from tablehouse.http.dispatch import Dispatcher
from tablehouse.http.documentation import DocumentationRoutes
from tablehouse.http.health import HealthRoutes, Readiness, WorkerHealth
from tablehouse.http.held import HeldBytes
from tablehouse.http.hosts import Hosts
from tablehouse.http.identity import Identity
from tablehouse.http.internal import InternalRoutes
from tablehouse.http.observations import Observations
from tablehouse.http.overview import OverviewRoutes
from tablehouse.http.peer import HttpPeer
from tablehouse.http.plain import PlainReads
from tablehouse.http.probes import ProbeRoutes
from tablehouse.http.proofs import Callers, keys_of
from tablehouse.http.public import PublicRoutes
from tablehouse.http.rows import RowRoutes
from tablehouse.http.scan import ScanRoutes
from tablehouse.http.server import Entrance, HttpServer
from tablehouse.http.writes import WriteRoutes
from tablehouse.link.answering import Answering
from tablehouse.link.peer import LinkPeer
from tablehouse.link.server import LinkServer
from tablehouse.routing.agreement import Agreement
from tablehouse.routing.asking import Asker
from tablehouse.routing.batch import Batches
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.conditional_writes import ConditionalWrites
from tablehouse.routing.counting import RowCounts
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.here import Here
from tablehouse.routing.ports import LocalTables, OwnerSide
from tablehouse.routing.query import Query
from tablehouse.routing.ranges import Ranges
from tablehouse.routing.strangers import Strangers
from tablehouse.routing.survey import Survey, survey
from tablehouse.routing.tables import current_tables
from tablehouse.routing.write_batch import WriteBatches
from tablehouse.routing.writes import SourceWriter, Writes
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns

#: Maximum seconds that /cluster and /tables wait for the other workers.
SURVEY_SECONDS = 2.0

#: Maximum connections of both listeners together; an idle one takes about 6 KiB.
MAX_CONNECTIONS = 16 * 1024

#: Connections may hold one part in HELD_SHARE of the memory budget, and at least MIN_HELD_BYTES: some large rows.
HELD_SHARE = 10
MIN_HELD_BYTES = 16 << 20

#: The internal listener may have one in INTERNAL_SHARE of the connections.
INTERNAL_SHARE = 6

#: Maximum connections of the listener for probes and metrics.
MAX_PROBE_CONNECTIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of the listeners.

    Port 0 takes a free one. probe_port is the port of the listener for probes and metrics, None for no such listener.
    request_timeout is the seconds for one request with all its hops. advertised_url is the URL at which peers reach the
    internal listener; None means the address that it is bound to. Workers prove to each other that they share one of
    internal_secrets; without any, no proof is required. `connections` is the maximum of both listeners together, and
    held_bytes the maximum size of their pending requests and unsent answers. Browsers let pages from cors_origins read
    answers.
    """

    host: str
    port: int
    internal_port: int
    advertised_url: str | None
    request_timeout: float
    version: str
    group: str
    internal_secrets: Sequence[SecretStr]
    connections: int
    held_bytes: int
    probe_port: int | None = None
    cors_origins: Sequence[str] = field(default=())


def max_connections(files: int) -> int:
    """Return the maximum connections of both listeners in a process that may open `files` files."""
    return min(MAX_CONNECTIONS, files * 3 // 4)


def held_bytes(memory_budget: int) -> int:
    """Return the maximum bytes of pending requests and unsent answers of all connections."""
    return max(MIN_HELD_BYTES, memory_budget // HELD_SHARE)


def http_server(
    options: ServerOptions,
    *,
    worker_id: str,
    incarnation: int,
    catalog: CatalogView,
    view: ClusterView,
    local: LocalTables,
    source: SourceWriter,
    owner: OwnerSide,
    health: WorkerHealth,
    metrics: Metrics,
    turns: Turns,
    known: Known,
    policy: Policy = OPEN,
    clock: Callable[[], float] = time.monotonic,
) -> HttpServer:
    """Create the listeners of a worker and everything behind them.

    `clock` is monotonic, in seconds; `turns` is shared by all long work on the event loop. The internal listener has no
    policy: workers prove their identity instead.
    """
    tables = current_tables(catalog, options.group, known)
    keys = keys_of(options.internal_secrets)
    identity = Identity(worker_id, incarnation, options.advertised_url)
    strangers = Strangers()
    peer = LinkPeer(keys=keys, me=lambda: identity.host, http=HttpPeer(keys, strangers), strangers=strangers)

    # Planners
    here = Here(local, turns, clock, worker_id)
    asker = Asker(view=view, here=here, peer=peer, worker_id=worker_id, clock=clock, metrics=metrics, quick=peer)
    peer.on_silent = asker.found_silent
    query = Query(tables=tables, view=view, local=local, asker=asker, worker_id=worker_id, clock=clock, metrics=metrics)
    batches = Batches(tables=tables, asker=asker, query=query, clock=clock, metrics=metrics, turns=turns)
    ranges = Ranges(tables, asker, clock=clock, metrics=metrics, turns=turns)
    counts = RowCounts(tables, asker, ranges, clock=clock, metrics=metrics)
    decisions = Decisions(local, owner, clock)
    conditional = ConditionalWrites(
        view=view,
        asker=asker,
        decisions=decisions,
        peer=peer,
        worker_id=worker_id,
        clock=clock,
        metrics=metrics,
    )
    writes = Writes(
        tables=tables,
        view=view,
        source=source,
        query=query,
        asker=asker,
        known=known,
        clock=clock,
        metrics=metrics,
        turns=turns,
        conditional=conditional,
    )
    write_batches = WriteBatches(
        tables=tables, view=view, source=source, writes=writes, clock=clock, metrics=metrics, turns=turns
    )

    async def survey_all() -> Survey:
        return await survey(view.current, identity.host, local, peer, seconds=SURVEY_SECONDS)

    # Routes
    readiness = Readiness(health, local.statuses, lambda: strangers.among(view.current.members))
    health_routes = HealthRoutes(readiness, metrics, options.version)
    public = PublicRoutes(
        RowRoutes(tables, query, clock, turns),
        BatchRoutes(tables, batches, turns),
        WriteRoutes(writes),
        BatchPutRoutes(tables, writes, write_batches, turns),
        ScanRoutes(tables, ranges, counts, clock, turns),
        OverviewRoutes(tables, survey_all, local.table_reason),
        health_routes,
        DocumentationRoutes(tables, options.version),
    )
    callers = Callers(keys, lambda: identity.host)
    internal = InternalRoutes(tables, view, local, here, decisions, source.limit, worker_id, clock, callers)

    # Listeners
    observations = Observations(metrics, AccessLog(clock))
    held = HeldBytes(options.held_bytes, clock)
    hosts = Hosts.of_listener(options.host, options.advertised_url)
    cors = Cors(options.cors_origins)
    timeout = options.request_timeout
    internal_connections = options.connections // INTERNAL_SHARE
    links = LinkServer(
        Answering(Agreement(tables, view), local, here, decisions, keys, clock),
        lambda: identity.host,
        held_bytes=options.held_bytes,
        max_links=internal_connections,
    )
    metrics.links.labels("asking").set_function(lambda: peer.links)
    metrics.links.labels("answering").set_function(lambda: len(links))
    metrics.watch_tasks(local.statuses)
    return HttpServer(
        options.host,
        public=Entrance(
            name="http",
            port=options.port,
            dispatcher=Dispatcher(
                public, observations, clock, timeout, held, hosts, policy=policy, cors=cors, turns=turns
            ),
            connections=options.connections - internal_connections,
            plain=PlainReads(query, observations, clock, timeout, held, hosts, cors, policy),
        ),
        internal=Entrance(
            name="internal",
            port=options.internal_port,
            dispatcher=Dispatcher(internal, observations, clock, timeout, held, hosts, check_caller=callers.check),
            connections=internal_connections,
            links=links,
        ),
        probe=None
        if options.probe_port is None
        else Entrance(
            name="probe",
            port=options.probe_port,
            dispatcher=Dispatcher(
                ProbeRoutes(health_routes), observations, clock, timeout, held, hosts, policy=policy, turns=turns
            ),
            connections=MAX_PROBE_CONNECTIONS,
        ),
        identity=identity,
        readiness=readiness,
        held=held,
        peer=peer,
        metrics=metrics,
        clock=clock,
    )
