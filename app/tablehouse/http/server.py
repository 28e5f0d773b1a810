"""The listeners of a worker, from bind to drain."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from tablehouse.errors import ConfigError
from tablehouse.http.connections import Connections
from tablehouse.http.dispatch import Dispatcher
from tablehouse.http.health import Readiness
from tablehouse.http.held import HeldBytes
from tablehouse.http.identity import Identity
from tablehouse.http.listener import Listener
from tablehouse.http.plain import PlainReads
from tablehouse.http.protocol import Links, Server, check_parser
from tablehouse.http.readiness_log import log_when_ready
from tablehouse.model import HostInfo
from tablehouse.telemetry import Metrics, measure_event_loop_lag

log = structlog.get_logger("http")

#: Seconds between the end of listening and the end of idle connections, in which requests on their way are answered.
LAST_CALL = 0.05

#: Seconds between two checks whether all connections are idle.
_IDLE_CHECK_INTERVAL = 0.01

#: Seconds between two checks for clients that are too slow.
SLOW_CLIENTS_INTERVAL = 1.0

#: Seconds between two samples of the event loop's lag.
LAG_INTERVAL = 0.25


class Closable(Protocol):
    """The way to other workers."""

    async def close(self) -> None:
        """Close every connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """One listener to be: its port, 0 for a free one, what answers there, and the most connections that it accepts.

    name is that of the setting of its port, without _port. plain answers simple GETs before the dispatcher sees them;
    None where there are none. links takes over connections of other workers, None where it does not.
    """

    name: str
    port: int
    dispatcher: Dispatcher
    connections: int
    plain: PlainReads | None = None
    links: Links | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The URLs that the listeners are bound to, None for the one there is not; a wildcard address shows as loopback."""

    public_url: str
    internal_url: str
    probe_url: str | None


class HttpServer:
    """The public and the internal listener of one worker, and that for probes and metrics if there is to be one.

    held counts the bytes of all of their connections; peer is closed with them. clock is monotonic, in seconds. start
    and stop are called once each, in one event loop.
    """

    def __init__(
        self,
        host: str,
        *,
        public: Entrance,
        internal: Entrance,
        probe: Entrance | None,
        identity: Identity,
        readiness: Readiness,
        held: HeldBytes,
        peer: Closable,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._public = public
        self._internal = internal
        self._probe = probe
        self._identity = identity
        self._readiness = readiness
        self._held = held
        self._peer = peer
        self._metrics = metrics
        self._clock = clock
        self._entrances = [entrance for entrance in (public, internal, probe) if entrance is not None]
        self._listeners: list[Listener] = []
        self._bound: Bound | None = None
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
        return self._identity.host

    async def start(self) -> None:
        """Bind the listeners and serve; raises ConfigError, which names the setting, when that cannot be."""
        check_parser()
        self._metrics.http_in_flight.set_function(self._in_flight)
        self._metrics.http_held_bytes.set_function(lambda: self._held.total)
        try:
            public_url, internal_url = await self._listen(self._public), await self._listen(self._internal)
            self._identity.bound_to(internal_url)
            probe_url = None if self._probe is None else await self._listen(self._probe)
        except ConfigError:
            await self.stop(0)
            raise
        self._bound = Bound(public_url, internal_url, probe_url)
        self._tasks += (
            asyncio.create_task(measure_event_loop_lag(self._metrics, LAG_INTERVAL), name="event-loop-lag"),
            asyncio.create_task(self._cut_slow_clients(), name="slow-clients"),
        )
        log.info("listening", url=public_url, internal_url=internal_url)

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
                for entrance in self._entrances:
                    if entrance.plain is not None:
                        await entrance.plain.idle.wait()
                    await entrance.dispatcher.idle.wait()

    async def stop(self, seconds: float) -> None:
        """Stop listening, answer what clients have asked, for `seconds` at most, and close every connection."""
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
        for entrance in self._entrances:
            if entrance.links is not None:
                entrance.links.close()
        await self._peer.close()

    def _close_with_each_answer(self) -> None:
        for entrance in self._entrances:
            if entrance.plain is not None:
                entrance.plain.close()
            entrance.dispatcher.close()

    async def _last_call(self) -> None:
        """Wait until no connection has a request, or one on its way here, to be answered."""
        await asyncio.sleep(LAST_CALL)
        links = [entrance.links for entrance in self._entrances if entrance.links is not None]
        while not (  # noqa: ASYNC110 - there is no event for it
            all(listener.server.is_idle for listener in self._listeners) and all(one.is_idle for one in links)
        ):
            await asyncio.sleep(_IDLE_CHECK_INTERVAL)

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
        return sum(entrance.dispatcher.in_flight for entrance in self._entrances)

    async def _listen(self, entrance: Entrance) -> str:
        """Serve on one port, and return its URL."""
        connections = Connections(entrance.connections, self._clock)
        self._connections.append(connections)
        self._metrics.http_connections.labels(entrance.name).set_function(lambda: len(connections))
        server = Server(
            entrance.dispatcher,
            self._metrics,
            connections=connections,
            held=self._held,
            plain=entrance.plain,
            links=entrance.links,
        )
        listener = await Listener.bind(server, self._host, entrance.port, f"{entrance.name}_port")
        self._listeners.append(listener)
        return listener.url
