"""What a client may send, leave unread and keep open: each has a bound, and others are answered meanwhile."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.http import connections, held, protocol
from tablehouse.stores.rows import Row
from tablehouse.worker.http_side import INTERNAL_SHARE
from tests.support.http_workers import Reply, Worker, connected, one_worker, read_reply, share, start_worker
from tests.support.polling import until

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
ALIVE = b'{"status":"alive"}'
PUT = b"PUT /tables/planes/k HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BATCH = b"POST /tables/planes:batch-get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    b"GET /" + b"a" * 70_000: (414, "uri_too_long"),
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000: (431, "headers_too_large"),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200: (400, "invalid_parameter"),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 20_000) for n in range(9)): (
        431,
        "headers_too_large",
    ),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": (400, "invalid_parameter"),
    b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n": (505, "http_version_not_supported"),
    b"GET / HTTP/0.9\r\nHost: localhost\r\n\r\n": (505, "http_version_not_supported"),
    b"GET /\r\n\r\n": (505, "http_version_not_supported"),
    b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n": (400, "invalid_parameter"),
    PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n": (501, "unsupported_transfer_coding"),
    PUT + b"Transfer-Encoding: gzip\r\n\r\n": (400, "invalid_parameter"),
    PUT + CHUNKED + b"zz\r\n": (400, "invalid_parameter"),
    "GET /tables/planes/caf\u00e9 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(): (400, "invalid_parameter"),
    b"GET /tables/planes/a b HTTP/1.1\r\nHost: localhost\r\n\r\n": (400, "invalid_parameter"),
}


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


@contextlib.asynccontextmanager
async def limited(limit: int = 1_000, room: int = 16 << 20) -> AsyncIterator[Worker]:
    """Run a worker whose public listener has that many connections, and all of them that much memory."""
    running = await start_worker("a", connections=limit * INTERNAL_SHARE // (INTERNAL_SHARE - 1), held=room)
    share([running], {"a": range(4)})
    try:
        yield running
    finally:
        await running.server.stop(1.0)


def put(worker: Worker, key: bytes, value: bytes) -> None:
    worker.local.rows["planes", partition_of("murmur2", key, 4), key] = Row(value, 0, 1)


async def closed(worker: Worker, reason: str) -> float:
    """Return how many connections were closed for a reason."""
    found = worker.metrics.registry.get_sample_value("tablehouse_http_connections_closed_total", {"reason": reason})
    return found or 0.0


def closes(worker: Worker, reason: str) -> Callable[[], Awaitable[bool]]:
    """Ask whether a connection was closed for a reason."""

    async def ask() -> bool:
        return await closed(worker, reason) > 0

    return ask


@contextlib.asynccontextmanager
async def unread(url: str, request: bytes) -> AsyncIterator[socket.socket]:
    """Send a request on a connection with a small window, and read nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)  # noqa: FBT003 - the socket's own signature
        address, loop = urlsplit(url), asyncio.get_running_loop()
        await loop.sock_connect(client, (address.hostname, address.port))
        await loop.sock_sendall(client, request)
        yield client


@pytest.mark.parametrize(("request_bytes", "expected"), MALFORMED.items(), ids=lambda value: repr(value)[:50])
@pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])
async def test_what_is_no_valid_http_is_answered_once_and_the_connection_ends(
    worker: Worker, request_bytes: bytes, expected: tuple[int, str], *, internal: bool
) -> None:
    async with connected(worker.internal if internal else worker.url) as (reader, writer):
        writer.write(request_bytes)
        reply = await read_reply(reader)
        assert (reply.status, reply.json["code"]) == expected, reply.json
        assert await asyncio.wait_for(reader.read(), 10) == b"", "it was answered once"


async def test_a_url_with_bytes_that_are_not_encoded_is_told_what_to_do(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write("GET /tables/planes/caf\u00e9 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert "percent-encoded" in (await read_reply(reader)).json["detail"]


async def test_what_was_asked_before_a_malformed_request_is_answered_before_it(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(GET)
        assert (await read_reply(reader)).body == ALIVE
        writer.write(GET * 3)
        for _ in range(3):
            assert (await read_reply(reader)).body == ALIVE
        writer.write(b"nonsense\r\n\r\n")
        assert (await read_reply(reader)).status == 400
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_malformed_requests_leave_nothing_for_the_garbage_collector(worker: Worker) -> None:
    async def send(request: bytes) -> None:
        async with connected(worker.url) as (reader, writer):
            writer.write(request)
            await asyncio.wait_for(reader.read(), 10)

    async def idle() -> bool:
        return worker.metrics.registry.get_sample_value("tablehouse_http_connections", {"listener": "http"}) == 0

    for request in MALFORMED:
        await send(request)
    await until(idle, "the connections are closed")
    gc.collect()
    gc.disable()
    try:
        for request in MALFORMED:
            await send(request)
        await until(idle, "the connections are closed")
        kept = _bytes_of_garbage()
    finally:
        gc.enable()
    assert kept < 5_000


def _bytes_of_garbage() -> int:
    """Return the size of the largest bytes that only the garbage collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        # What an unreachable object refers to need not be one that the collector knows, as bytes are not.
        found = [
            other for one in gc.garbage for other in gc.get_referents(one) if isinstance(other, (bytes, bytearray))
        ]
        return max(map(len, found), default=0)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize(
    "pieces",
    [b"1;" + b"x" * 60_000, b"0\r\n" + b"X-Trailer: x\r\n" * 100 + b"X-Long: " + b"x" * 20_000],
    ids=["extension", "trailers"],
)
async def test_a_body_of_chunk_extensions_or_trailers_is_refused(worker: Worker, pieces: bytes) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(PUT + CHUNKED)
        # The handler is waiting for the body by the time that this is answered.
        await worker.get("/livez")
        writer.write(pieces)
        reply = await read_reply(reader)
        assert (reply.status, reply.json["code"]) == (400, "invalid_body"), reply.json
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_of_many_small_chunks_is_taken(worker: Worker) -> None:
    row = b'"%b"' % (b"x" * 900)
    async with connected(worker.url) as (reader, writer):
        writer.write(PUT + CHUNKED)
        for byte in row:
            writer.write(b"1;a=b\r\n%c\r\n" % byte)
        writer.write(b"0\r\nX-Trailer: x\r\n\r\n")
        assert (await read_reply(reader)).status == 200
    assert worker.source.records[-1][-1] == row


async def test_the_end_of_a_body_is_no_head_of_a_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.0)
    body = b'{"keys":[%s]}' % b",".join(b'"%0100d"' % number for number in range(9_000))
    async with limited(room=64 << 20) as worker, connected(worker.url) as (reader, writer):
        for _ in range(3):
            writer.write(BATCH + b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:300_000]))
            await writer.drain()
            # Large, and in a read of its own, as the last piece of a body often is.
            writer.write(body[300_000:])
            reply = await read_reply(reader)
            assert (reply.status, reply.headers.get("connection")) == (200, None), reply
        # Neither is taken for a head that is too long or too slow: the connection goes on.
        writer.write(GET)
        assert (await read_reply(reader)).status == 200
    assert await closed(worker, "slow_head") == 0


async def test_a_head_that_does_not_arrive_in_time_is_a_408(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.0)
    async with connected(worker.url) as (reader, writer):
        writer.write(GET[:-10])
        reply = await read_reply(reader)
        assert (reply.status, reply.json["code"]) == (408, "request_timeout")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert await closed(worker, "slow_head") == 1


@pytest.mark.parametrize("key", [b"small", b"large"])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "full"])
async def test_a_client_that_takes_nothing_is_cut_off(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, key: bytes, *, plain: bool
) -> None:
    monkeypatch.setattr(held, "STALL_SECONDS", 0.0)
    put(worker, b"large", b"x" * 9_000_000)
    put(worker, b"small", b"x" * 50_000)
    head = b"GET /tables/planes/%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (key, b"" if plain else b"X-Any: 1\r\n")
    async with unread(worker.url, head * (200 if key == b"small" else 1)):
        await until(closes(worker, "slow_reader"), "the client is cut off")
    assert (await worker.get("/livez")).status == 200


async def test_metrics_and_internal_answers_that_nobody_takes_are_cut_off_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "STALL_SECONDS", 0.0)
    status = b"GET /internal/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for url, request in ((worker.url, GET.replace(b"livez", b"metrics")), (worker.internal, status)):
        before = await closed(worker, "slow_reader")

        async def cut(before: float = before) -> bool:
            return await closed(worker, "slow_reader") > before

        async with unread(url, request * 20_000):
            await until(cut, "the client is cut off")


async def test_large_answers_that_nobody_takes_make_room_for_those_of_others() -> None:
    async with limited(room=10_000_000) as worker, AsyncExitStack() as stack:
        put(worker, b"large", b"x" * 9_000_000)
        request = b"GET /tables/planes/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await stack.enter_async_context(unread(worker.url, request * 3))
        statuses: list[int] = []

        async def taken() -> bool:
            reply = await worker.get("/tables/planes/large")
            statuses.append(reply.status)
            return reply.status == 200 or reply.json["code"] != "overloaded"

        await until(taken, "the row is read once the other client has stalled")
        assert statuses[-1] == 200
        assert set(statuses[:-1]) <= {503}
        assert await closed(worker, "memory") == 1


async def test_without_room_large_answers_are_refused_and_small_ones_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody makes room.
    monkeypatch.setattr(held, "STALLED_SECONDS", 1_000.0)
    async with limited(room=1_000_000) as worker, AsyncExitStack() as stack:
        put(worker, b"large", b"1" * 900_000)
        put(worker, b"small", b"1")
        _, writer = await stack.enter_async_context(connected(worker.url))
        writer.write(BATCH + b"Content-Length: 1000000\r\n\r\n" + b"x" * 300_000)

        async def refused() -> Reply | None:
            reply = await worker.get("/tables/planes/large")
            return reply if reply.status == 503 else None

        reply = await until(refused, "the body of the other client takes the room")
        assert (reply.json["code"], reply.headers["retry-after"]) == ("overloaded", "1")
        assert (await worker.get("/tables/planes/large?read=any")).json["code"] == "overloaded"
        assert (await batch(worker, ["small", "large"]))["code"] == "overloaded"
        assert (await worker.get("/tables/planes/small")).body == b"1"
        assert (await batch(worker, ["small"]))["rows"] == [{"key": "small", "value": 1}]


async def test_bodies_that_do_not_arrive_make_room_for_those_of_others() -> None:
    async with limited(room=512 * 1024) as worker, AsyncExitStack() as stack:
        body = msgspec.json.encode({"keys": ["x" * 1000] * 200})
        request = BATCH + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for _ in range(3):
            _, writer = await stack.enter_async_context(connected(worker.url))
            writer.write(request[:-1])

        async def answered() -> bool:
            async with connected(worker.url) as (reader, writer):
                writer.write(request)
                reply = await read_reply(reader)
            assert reply.status == 200, reply.json
            return True

        await until(answered, "a batch is answered once the others have stalled")


async def test_requests_behind_one_that_waits_are_bounded_and_all_answered(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[protocol.Protocol] = []
    original = protocol.Protocol.data_received

    def data_received(self: protocol.Protocol, data: bytes) -> None:
        original(self, data)
        seen[:] = [self]

    monkeypatch.setattr(protocol.Protocol, "data_received", data_received)
    one = GET.replace(b"\r\n\r\n", b"\r\nX-Fill: " + b"x" * 20_000 + b"\r\n\r\n")
    waits = b"GET /tables/planes/k?min_position=0:9,1:9,2:9,3:9&timeout_ms=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connected(worker.url) as (reader, writer):
        writer.write(waits)
        await worker.get("/livez")
        writer.write(one * 100)
        replies = [await read_reply(reader) for _ in range(101)]
    assert {reply.body for reply in replies[1:]} == {ALIVE}
    assert len(replies) == 101


async def test_at_the_limit_an_idle_connection_makes_room_for_a_new_one() -> None:
    async with limited(3) as worker, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(worker.url)) for _ in range(3)]
        for reader, writer in idle:
            writer.write(GET)
            await read_reply(reader)
        for _ in range(5):
            assert (await worker.get("/livez")).status == 200
        assert await asyncio.wait_for(idle[0][0].read(), 10) == b""
        assert await closed(worker, "limit") > 0


async def test_when_all_connections_are_busy_probes_are_answered_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "RESERVED", 4)
    async with limited(3) as worker, AsyncExitStack() as stack:
        for _ in range(3):
            _, writer = await stack.enter_async_context(connected(worker.url))
            writer.write(PUT + b"Content-Length: 10\r\n\r\n12345")
        silent = [await stack.enter_async_context(connected(worker.url)) for _ in range(10)]

        async def refused() -> Reply | None:
            reply = await worker.get("/tables/planes/k")
            return reply if reply.status == 503 else None

        reply = await until(refused, "a row is refused")
        assert (reply.json["code"], reply.headers["retry-after"]) == ("overloaded", "1")
        for target in ("/livez", "/readyz?verbose"):
            assert (await worker.get(target)).status == 200
        assert await asyncio.wait_for(silent[0][0].read(), 10) == b""


@pytest.mark.parametrize("full", [b"", b"X-Any: 1\r\n"], ids=["plain", "full"])
async def test_a_client_that_has_closed_its_side_gets_all_its_answers(worker: Worker, full: bytes) -> None:
    put(worker, b"k", b"1")
    row = b"GET /tables/planes/k HTTP/1.1\r\nHost: localhost\r\n" + full + b"\r\n"
    for request, count in ((GET, 1), (row, 1), (row * 5, 5), (PUT + b"Content-Length: 1\r\n\r\n2", 1)):
        async with connected(worker.url) as (reader, writer):
            writer.write(request)
            writer.write_eof()
            for _ in range(count):
                assert (await read_reply(reader)).status == 200
            assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_that_its_client_ends_early_is_a_400(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(PUT + b"Content-Length: 10\r\n\r\n12345")
        writer.write_eof()
        reply = await read_reply(reader)
        assert (reply.status, reply.json["code"]) == (400, "invalid_body")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert worker.source.records == []


async def test_a_key_that_a_batch_repeats_is_looked_up_once(worker: Worker) -> None:
    put(worker, b"k", b"1")
    reply = await batch(worker, ["k", "nobody", *["k", "nobody"] * 900])
    assert [row.get("value") for row in reply["rows"]] == [1, None] * 901
    assert [row["error"]["code"] for row in reply["rows"][1::2]] == ["key_not_found"] * 901
    assert len(worker.local.asked) == 2


async def batch(worker: Worker, keys: list[str]) -> Any:
    body = msgspec.json.encode({"keys": keys})
    async with connected(worker.url) as (reader, writer):
        writer.write(BATCH + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        return (await read_reply(reader)).json


async def test_every_answer_forbids_browsers_to_guess_its_type(worker: Worker) -> None:
    put(worker, b"k", b"1")
    for target in (
        "/tables/planes/k",
        "/tables/planes/k?read=any",
        "/tables/planes/nobody",
        "/livez",
        "/metrics",
        "/x",
    ):
        assert (await worker.get(target)).headers["x-content-type-options"] == "nosniff", target
    async with connected(worker.url) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        assert (await read_reply(reader)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "lines", ["gzip", "identity, gzip", "identity\r\nContent-Encoding: gzip", "gzip\r\nContent-Encoding:"]
)
async def test_every_content_encoding_counts(worker: Worker, lines: str) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(PUT + f"Content-Encoding: {lines}\r\nContent-Length: 1\r\n\r\n1".encode())
        assert (await read_reply(reader)).status in {400, 415}
    assert worker.source.records == []
