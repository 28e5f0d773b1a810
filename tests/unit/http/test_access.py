import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest

from tablehouse.access.policy import Right
from tablehouse.errors import Unauthenticated
from tablehouse.http.access_log import AccessLog
from tablehouse.http.answers import Streamed
from tablehouse.http.connections import Connections
from tablehouse.http.dispatch import Call, Dispatcher, Operation, Route
from tablehouse.http.held import HeldBytes
from tablehouse.http.listener import Listener
from tablehouse.http.observations import Observations
from tablehouse.http.protocol import Server
from tablehouse.model import ANONYMOUS, Principal
from tablehouse.telemetry import Metrics
from tests.support.cluster_fakes import FakeClock
from tests.support.http_workers import public_routes, share, start_worker

_PUBLIC = {
    "GET /": None,
    "GET /tables": Right.READ,
    "GET /cluster": Right.ADMIN,
    "GET /livez": None,
    "GET /readyz": None,
    "GET /metrics": Right.ADMIN,
    "GET /version": None,
    "GET /openapi.json": None,
    "GET /docs": None,
    "GET /tables/{table}": Right.READ,
    "GET /tables/{table}/{key}": Right.READ,
    "PUT /tables/{table}/{key}": Right.WRITE,
    "DELETE /tables/{table}/{key}": Right.WRITE,
    "GET /tables/{table}:get": Right.READ,
    "PUT /tables/{table}:get": Right.WRITE,
    "DELETE /tables/{table}:get": Right.WRITE,
    "POST /tables/{table}:batch-put": Right.WRITE,
    "POST /tables/{table}:batch-get": Right.READ,
    "GET /tables/{table}:scan": Right.SCAN,
    "GET /tables/{table}:count": Right.SCAN,
    "GET /tables/{table}:locate": Right.READ,
}


class Asked:
    """Notes what it is asked, and forbids the rights it is told to."""

    def __init__(self, *forbidden: Right) -> None:
        self.forbidden = forbidden
        self.asked: list[tuple[str, Right, str]] = []
        self.shown: list[str | None] = []

    def identify(self, credentials: str | None) -> Principal:
        """Return the anonymous principal, or one with the credentials' name."""
        self.shown.append(credentials)
        return ANONYMOUS if credentials is None else Principal(credentials)

    def require(self, principal: Principal, right: Right, table: str) -> None:
        """Raise what a policy may raise."""
        self.asked.append((principal.name, right, table))
        if right in self.forbidden:
            raise Unauthenticated("not you")


def test_every_public_operation_says_what_right_it_needs_and_none_streams() -> None:
    operations = {
        f"{method} {route.template}": operation
        for route in public_routes().all()
        for method, operation in route.operations.items()
    }
    assert {name: operation.right for name, operation in operations.items()} == _PUBLIC
    assert not any(operation.streams for operation in operations.values())


@pytest.mark.parametrize("headers", [{}, {"X-Other": "1"}], ids=["fast path", "full handler"])
async def test_a_get_asks_the_policy_first_whichever_way_it_is_answered(headers: Mapping[str, str]) -> None:
    policy = Asked()
    worker = await start_worker("a", policy=policy)
    try:
        share([worker], {"a": range(4)})
        assert (await worker.get("/tables/planes/N1", headers)).status in {200, 404}
        assert set(policy.asked) == {("anonymous", Right.READ, "planes")}
        policy.forbidden = (Right.READ,)
        assert (await worker.get("/tables/planes/N1", headers)).json["code"] == "unauthenticated"
    finally:
        await worker.server.stop(1.0)


async def test_what_is_forbidden_is_refused_before_anything_is_looked_at() -> None:
    policy = Asked(Right.READ, Right.WRITE, Right.ADMIN)
    worker = await start_worker("a", policy=policy)
    try:
        for method, target in (
            ("GET", "/tables/nowhere/N1"),
            ("PUT", "/tables/nowhere/N1"),
            ("GET", "/tables?nonsense=1"),
            ("GET", "/cluster"),
            ("GET", "/metrics"),
        ):
            assert (await worker.get(target, {"Authorization": "ada"}, method)).json["code"] == "unauthenticated"
        assert {name for name, _, _ in policy.asked} == {"ada"}
        assert (await worker.get("/livez", {"Authorization": "ada"})).status == 200
    finally:
        await worker.server.stop(1.0)


class OneRoute:
    """Any path is a stream that goes on until it is told to end."""

    def __init__(self) -> None:
        self.began, self.ends = asyncio.Event(), asyncio.Event()
        self.calls: list[Call] = []
        self._route = Route("/feed", {"GET": Operation(self.feed, Right.CHANGES, streams=True)})

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route."""
        return self._route, {"table": raw_path[1:].encode()}

    async def feed(self, call: Call) -> Streamed:
        """Begin the answer."""
        self.calls.append(call)

        async def pieces() -> AsyncGenerator[bytes]:
            self.began.set()
            await self.ends.wait()
            yield b"end"

        return Streamed((b"begin",), pieces(), {})


async def test_a_drain_waits_for_no_stream_and_its_latency_ends_where_its_answer_begins() -> None:
    clock, routes, metrics = FakeClock(), OneRoute(), Metrics("0")
    held = HeldBytes(1 << 20, clock)
    dispatcher = Dispatcher(routes, Observations(metrics, AccessLog(clock)), clock, 5.0, held)
    server = Server(dispatcher, metrics, connections=Connections(10, clock), held=held, plain=None)
    listener = await Listener.bind(server, "127.0.0.1", 0, "http_port")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
    writer.write(b"GET /planes HTTP/1.1\r\nHost: test\r\n\r\n")
    await routes.began.wait()
    dispatcher.close()
    await dispatcher.idle.wait()
    assert dispatcher.in_flight == 0
    [call] = routes.calls
    assert (call.table, call.key, call.principal) == ("planes", None, ANONYMOUS)
    clock.now += 1000.0
    routes.ends.set()
    assert b"5\r\nbegin\r\n3\r\n" in await reader.readuntil(b"end\r\n0\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    await listener.close()
    server.pre_shutdown()
    await server.shutdown(1.0)
    took = metrics.registry.get_sample_value("tablehouse_http_request_duration_seconds_sum", {"route": "/feed"})
    assert took is not None
    assert took < 1000.0
