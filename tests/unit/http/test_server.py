import asyncio
import collections
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvloop

from tablehouse.catalog.spec import Catalog
from tablehouse.catalog.view import CatalogView
from tablehouse.errors import ConfigError
from tablehouse.http.server import HttpServer
from tablehouse.model import TaskState
from tablehouse.routing.cluster import NO_CLUSTER, ClusterView
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tablehouse.worker.http_side import ServerOptions, http_server
from tests.support.cluster_fakes import FakeOwner, FakeSource, FakeTables, Placed, snapshot, status
from tests.support.http_workers import FakeHealth, Worker, ask, one_worker
from tests.support.schemas import NO_REGISTRY


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


async def test_liveness_is_the_event_loop_only(worker: Worker) -> None:
    worker.health.is_joined = worker.health.reachable = False
    reply = await worker.get("/livez")
    assert (reply.status, reply.json) == (200, {"status": "alive"})


async def test_a_worker_that_has_not_joined_is_not_ready_and_says_why(worker: Worker) -> None:
    worker.health.is_joined = False
    worker.health.why = ["waiting for worker w9, which has the same URL, to leave the group"]
    reply = await worker.get("/readyz")
    assert (reply.status, reply.json["status"]) == (503, "not_ready")
    assert {layer["name"]: layer["ok"] for layer in reply.json["layers"]} == {
        "listeners": True,
        "broker": True,
        "group": False,
        "tasks": True,
    }
    assert reply.json["reasons"] == worker.health.why
    assert reply.headers["retry-after"] == "1"


async def test_a_worker_is_ready_once_every_task_has_caught_up_and_stays_so(worker: Worker) -> None:
    worker.local.states = [status(partition=0), status(partition=1, state=TaskState.RESTORING)]
    assert (await worker.get("/readyz")).status == 503
    worker.local.states = [status(partition=0), status(partition=1)]
    assert (await worker.get("/readyz")).json["status"] == "ready"
    worker.local.states = [status(partition=0, state=TaskState.RESTORING)]
    worker.health.reachable = worker.health.is_joined = False
    reply = await worker.get("/readyz")
    assert reply.status == 200
    assert [layer["ok"] for layer in reply.json["layers"]] == [True, False, False, False]


async def test_a_partition_that_no_restart_helps_keeps_no_worker_from_being_ready(worker: Worker) -> None:
    for state in (TaskState.RESTORING, TaskState.SUSPENDED, TaskState.OPENING):
        blocked = status(partition=1, state=state, blocked=True)
        worker.local.states = [status(partition=0, state=TaskState.RESTORING), blocked]
        reply = await worker.get("/readyz")
        assert reply.status == 503
        tasks = {"name": "tasks", "ok": False, "behind": 1, "blocked": 1}
        assert reply.json["layers"][-1] == tasks
    worker.local.states = [status(partition=0), blocked]
    reply = await worker.get("/readyz?verbose")
    assert (reply.status, reply.json["layers"][-1]) == (200, tasks | {"behind": 0})
    assert [task["blocked"] for task in reply.json["tasks"]] == [False, True]


async def test_verbose_readiness_shows_every_partition(worker: Worker) -> None:
    worker.local.states = [status(partition=1, state=TaskState.RESTORING)]
    assert "tasks" not in (await worker.get("/readyz")).json
    for target in ("/readyz?verbose", "/readyz?verbose=1"):
        [task] = (await worker.get(target)).json["tasks"]
        assert (task["table"], task["partition"], task["state"]) == ("planes", 1, "restoring")
        assert (task["restore_remaining"], task["reason"]) == (40, "40 records to go")


async def test_draining_turns_readiness_off_while_reads_go_on(worker: Worker) -> None:
    assert (await worker.get("/readyz")).status == 200
    await worker.server.drain(1.0)
    reply = await worker.get("/readyz")
    assert (reply.status, reply.json["status"]) == (503, "draining")
    row = await worker.get("/tables/planes/x")
    assert (row.status, row.headers["connection"]) == (404, "close")


async def test_a_worker_that_says_it_drains_is_not_ready(worker: Worker) -> None:
    worker.health.is_draining = True
    assert (await worker.get("/readyz")).json["status"] == "draining"


async def test_stop_answers_what_arrives_on_an_idle_connection_right_after_it() -> None:
    async with one_worker() as worker:
        port = urlsplit(worker.server.bound.public_url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
        writer.write(request)
        first = await reader.readuntil(b'{"status":"alive"}')
        assert b"connection: close" not in first.lower()
        await worker.server.drain(1.0)
        stopping = asyncio.create_task(worker.server.stop(1.0))
        for _ in range(5):
            await asyncio.sleep(0)
        writer.write(request)
        second = await reader.readuntil(b'{"status":"alive"}')
        assert b"connection: close" in second.lower()
        await stopping
        writer.close()


def _all_of(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as answer:
        return answer.read()


def _asked(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    return client


@pytest.mark.parametrize("drained", [True, False])
def test_stop_answers_everyone_who_had_connected_and_asked_while_the_loop_was_busy(*, drained: bool) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"

    async def stopped_under_load() -> None:
        async with one_worker() as worker:
            port = urlsplit(worker.server.bound.public_url).port
            if drained:
                await worker.server.drain(1.0)
            # Blocking calls, so that the loop has neither accepted a connection nor read a request when it stops.
            clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
            for client in clients[1:]:
                client.sendall(request)
            await worker.server.stop(5.0)
            for client in clients[1:]:
                answer = await asyncio.to_thread(_all_of, client)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                assert b"connection: close" in answer.lower()
            assert await asyncio.to_thread(_all_of, clients[0]) == b"", "nobody has asked on this connection"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)

    uvloop.run(stopped_under_load())


def _outcomes_until_refused(port: int) -> list[str]:
    """Ask on one connection after the other until a connection is refused, and return what came of each."""
    outcomes: list[str] = []
    while True:
        try:
            client = _asked(port)
        except ConnectionRefusedError:
            return outcomes
        try:
            outcomes.append(_all_of(client)[:12].decode())
        except ConnectionError as error:
            outcomes.append(repr(error))


def test_a_connection_that_comes_while_a_worker_stops_is_answered_or_refused() -> None:
    async def stopped_under_load() -> None:
        async with one_worker() as worker:
            port = urlsplit(worker.server.bound.public_url).port
            assert port is not None
            clients = [asyncio.create_task(asyncio.to_thread(_outcomes_until_refused, port)) for _ in range(8)]
            await asyncio.to_thread(_all_of, _asked(port))
            await worker.server.stop(5.0)
            for outcomes in await asyncio.gather(*clients):
                assert set(outcomes) <= {"HTTP/1.1 200"}, collections.Counter(outcomes)

    for _ in range(4):
        uvloop.run(stopped_under_load())


async def test_stop_waits_for_an_answer_no_longer_than_it_was_told() -> None:
    entered = asyncio.Event()

    async def silent_owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        entered.set()
        await reader.read()
        writer.close()

    owner = await asyncio.start_server(silent_owner, "127.0.0.1", 0)
    async with one_worker(timeout=60.0) as worker:
        port = owner.sockets[0].getsockname()[1]
        worker.view.swap(snapshot(Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)})))
        asked = asyncio.create_task(worker.get("/tables/planes/x"))
        await entered.wait()
        async with asyncio.timeout(10):
            await worker.server.stop(0.2)
            with pytest.raises(asyncio.IncompleteReadError):
                await asked
        owner.close()


async def test_stop_lets_a_request_in_flight_finish() -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def slow_owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        entered.set()
        await released.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    owner = await asyncio.start_server(slow_owner, "127.0.0.1", 0)
    async with one_worker() as worker:
        port = owner.sockets[0].getsockname()[1]
        worker.view.swap(NO_CLUSTER)  # it remembers no former owner
        worker.view.swap(snapshot(Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)})))
        asked = asyncio.create_task(worker.get("/tables/planes/x"))
        await entered.wait()
        draining = asyncio.create_task(worker.server.drain(5.0))
        await asyncio.sleep(0)
        assert not draining.done()
        released.set()
        await draining
        await worker.server.stop(5.0)
        assert (await asked).status == 503
        owner.close()


def server_on(port: int, internal_port: int) -> HttpServer:
    return http_server(
        ServerOptions(
            host="127.0.0.1",
            port=port,
            internal_port=internal_port,
            advertised_url="http://me.example:9080",
            request_timeout=1.0,
            version="0",
            group="g",
            internal_secrets=(),
            connections=100,
            held_bytes=16 << 20,
        ),
        worker_id="a",
        incarnation=4,
        catalog=CatalogView(Catalog({})),
        view=ClusterView(),
        local=FakeTables(),
        source=FakeSource(),
        owner=FakeOwner(FakeTables(), FakeSource()),
        health=FakeHealth(),
        metrics=Metrics("0"),
        turns=Turns(),
        known=NO_REGISTRY,
    )


@pytest.mark.parametrize(("busy", "setting"), [(0, "HTTP_PORT"), (1, "INTERNAL_PORT")])
async def test_a_busy_port_is_named_with_its_setting(busy: int, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = server_on(*((port, 0) if busy == 0 else (0, port)))
        with pytest.raises(ConfigError, match=rf"port {port} .*in use.*TABLEHOUSE_{setting}"):
            await server.start()


async def test_before_start_there_is_no_address_and_afterwards_the_advertised_one_counts() -> None:
    server = server_on(0, 0)
    with pytest.raises(RuntimeError):
        _ = server.bound
    await server.start()
    try:
        assert (server.me.worker_id, server.me.incarnation, server.me.url) == ("a", 4, "http://me.example:9080")
        assert server.bound.public_url != server.bound.internal_url
    finally:
        await server.stop(0)


async def test_metrics_count_requests_by_route_and_show_the_tasks(worker: Worker) -> None:
    worker.local.states = [status(partition=3, state=TaskState.RESTORING)]
    await worker.get("/tables/planes/x")
    await worker.get("/nope/secret")
    await worker.get("/livez", method="BREW")
    reply = await worker.get("/metrics")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain")
    assert 'tablehouse_http_requests_total{code="404",method="GET",route="/tables/{table}/{key}"} 1.0' in text
    assert 'tablehouse_http_requests_total{code="404",method="GET",route="unmatched"} 1.0' in text
    assert "secret" not in text
    assert "BREW" not in text
    assert 'tablehouse_read_total{result="miss",table="planes"} 1.0' in text
    assert 'tablehouse_partition_state{partition="3",state="restoring",table="planes"} 1.0' in text
    assert 'tablehouse_applied_offset{partition="3",table="planes"} 99.0' in text
    assert 'tablehouse_staleness_seconds{partition="3",table="planes"} 1.5' in text
    assert 'tablehouse_restore_remaining_records{partition="3",table="planes"} 40.0' in text
    assert "tablehouse_http_in_flight_requests 1.0" in text
    assert 'version="1.2.3"' in text


async def test_version_says_what_runs(worker: Worker) -> None:
    assert (await worker.get("/version")).json["version"] == "1.2.3"


async def test_the_port_for_probes_answers_these_and_nothing_else() -> None:
    async with one_worker(probe_port=0) as worker:
        probe_url = worker.server.bound.probe_url
        assert probe_url is not None
        for path in ("/livez", "/readyz", "/readyz?verbose", "/metrics"):
            there, public = await ask(probe_url, path), await worker.get(path)
            assert (there.status, there.headers["content-type"]) == (public.status, public.headers["content-type"])
        for path in ("/tables", "/cluster", "/tables/planes/N10156", "/version"):
            refused = await ask(probe_url, path)
            assert (refused.status, refused.json["code"]) == (404, "route_not_found")
        await worker.server.drain(1)
        assert (await ask(probe_url, "/readyz")).json["status"] == "draining"


async def test_without_its_setting_there_is_no_port_for_probes(worker: Worker) -> None:
    assert worker.server.bound.probe_url is None
