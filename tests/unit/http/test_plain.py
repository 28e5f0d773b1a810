"""Plain reads, answered while their bytes are received: no client can tell them from those that go the long way."""

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import requires, version

import pytest
import pytest_asyncio
from aiohttp import web_protocol

from tablehouse.formats.partitioners import partition_of
from tablehouse.http.content_coding import MIN_BYTES
from tablehouse.http.plain import Later, PlainReads, Waiting
from tablehouse.http.protocol import KEEPALIVE_SECONDS, Protocol
from tablehouse.http.transforms import PIECE_BYTES
from tablehouse.model import Consistency, Role
from tablehouse.stores.rows import Row
from tablehouse.tasks.reads import ReadResult
from tests.support.http_workers import Reply, Worker, connected, one_worker, read_reply, share, two_workers

AIOHTTP = "3.14.5"
#: What tablehouse.http.protocol rests on: what aiohttp does between two requests, how it notices idleness, how it ends.
READ = {
    "data_received": "1ee57ebe052e6c80",
    "start": "2e565fd40c8e04fb",
    "_process_keepalive": "b472e0fb8445ce42",
    "_resume_reading_if_drained": "27f2a6fbbb3a790e",
    "close": "84518f965e198ee3",
    "connection_lost": "df2fe6e95fd04c7c",
    "eof_received": "5652627579a02369",
    "finish_response": "b7eb53db8f4b30ca",
    "force_close": "38d0e1e798e4d3b7",
}

PLAIN = (
    "Host: test\r\nUser-Agent: some/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as one:
        yield one


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of each request that was looked at whether it was answered in the short way."""
    noted: list[bool] = []
    original = PlainReads.answer

    def answer(self: PlainReads, data: bytes, later: Later) -> Sequence[bytes] | Waiting | None:
        found = original(self, data, later)
        noted.append(found is not None)
        return found

    monkeypatch.setattr(PlainReads, "answer", answer)
    return noted


def put(worker: Worker, key: bytes, value: bytes, table: str = "planes", timestamp_ms: int = 1_700_000_000_999) -> None:
    worker.local.rows[table, partition_of("murmur2", key, 4), key] = Row(value, timestamp_ms, 41)


def get(target: str, headers: str = PLAIN, version: str = "HTTP/1.1") -> bytes:
    return f"GET {target} {version}\r\n{headers}\r\n".encode("utf-8", "surrogateescape")


class Connection:
    """A connection to the public listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Reply:
        """Send these bytes and read one answer."""
        self.writer.write(request)
        return await read_reply(self.reader)


@pytest_asyncio.fixture
async def connection(worker: Worker) -> AsyncIterator[Connection]:
    async with connected(worker.url) as (reader, writer):
        yield Connection(reader, writer)


def compared(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    names = set(reply.headers) - {"date", "x-request-id"}
    return reply.status, {name: reply.headers[name] for name in names}, reply.body


TARGETS = {
    "/tables/planes/k1": True,
    "/tables/planes/a%2Fb": True,
    "/tables/planes/%00": True,
    "/tables/planes/a+b~!$&'()*,;=:@": True,
    "/tables/planes/empty": True,
    "/tables/planes/old": True,
    "/tables/planes/.": True,
    "/tables/planes/%2E%2E": True,
    "/tables/numbers/7": True,
    "/tables/blobs/_w": True,
    "/tables/planes/absent": True,
    "/tables/planes/%zz": False,
    "/tables/planes/%": False,
    "/tables/planes/k%C3%28": False,
    "/tables/numbers/seven": False,
    "/tables/nothing/k1": False,
    "/tables/planes/a/b": False,
    "/tables/planes/k1?": False,
    "/tables/planes/k1?a=1": False,
    "/tables/planes/k1?read=active": True,
    "/tables/planes/k1?read=prefer-active": True,
    "/tables/planes/k1?read=any": True,
    "/tables/planes/absent?read=any": True,
    "/tables/planes/k1?read=all": False,
    "/tables/planes/k1?read=": False,
    "/tables/planes/k1?read=any&pretty": False,
    "/tables/planes/k1?read=any&max_lag=0": False,
    "/tables/planes/k1#a": False,
    "/tables/planes:get?key=k1": False,
    "/tables/planes": False,
    "http://test/tables/planes/k1": False,
    "/tables/planes/" + "k" * 9_000: False,
}


def fill(worker: Worker) -> None:
    for key in (b"k1", b"a/b", b"\x00", b"a+b~!$&'()*,;=:@", b".", b".."):
        put(worker, key, b'{"key":"%s"}' % key.hex().encode())
    put(worker, b"empty", b"")
    put(worker, b"old", b"1", timestamp_ms=-5)
    for table, stored in (("numbers", b"\x80\x00\x00\x00\x00\x00\x00\x07"), ("blobs", b"\xff")):
        for partition in range(4):
            worker.local.rows[table, partition, stored] = Row(b"bytes \x00\xff", 1_700_000_000_999, 12)


@pytest.mark.parametrize(("target", "plain"), TARGETS.items(), ids=lambda value: repr(value)[:40])
async def test_a_request_gets_the_same_answer_either_way(
    worker: Worker, connection: Connection, answered: list[bool], target: str, *, plain: bool
) -> None:
    fill(worker)
    short = await connection.ask(get(target))
    assert answered == [plain]
    long = await connection.ask(get(target, PLAIN + "X-Anything: 1\r\n"))
    assert answered == [plain, False]
    assert compared(short) == compared(long)
    assert short.headers["x-request-id"] != long.headers["x-request-id"]


@pytest.mark.parametrize(
    ("size", "encoding", "plain", "compressed"),
    [
        (MIN_BYTES, "gzip", True, False),
        (MIN_BYTES + 1, "gzip", True, True),
        (PIECE_BYTES, "gzip, deflate, br", True, True),
        (PIECE_BYTES + 1, "gzip", False, True),
        (PIECE_BYTES + 1, "br", True, False),
        (PIECE_BYTES + 1, "gzip;q=0", True, False),
        (100_000, "identity", True, False),
    ],
)
async def test_rows_are_compressed_on_either_way_and_large_ones_on_the_long_one(
    worker: Worker,
    connection: Connection,
    answered: list[bool],
    size: int,
    encoding: str,
    *,
    plain: bool,
    compressed: bool,
) -> None:
    put(worker, b"k1", b'"%b"' % (b"x" * (size - 2)))
    headers = PLAIN.replace("gzip, deflate", encoding)
    short = await connection.ask(get("/tables/planes/k1", headers))
    assert (answered, short.status) == ([plain], 200)
    assert (short.headers.get("content-encoding") == "gzip") is compressed
    long = await connection.ask(get("/tables/planes/k1", headers + "X-Anything: 1\r\n"))
    assert compared(short) == compared(long)
    value = worker.metrics.registry.get_sample_value
    # A row that was looked at on the short way and answered on the long one was read once.
    assert value("tablehouse_read_total", {"table": "planes", "result": "hit"}) == 2


@pytest.mark.parametrize(
    "headers",
    [
        PLAIN.replace("*/*", "text/plain"),
        PLAIN.replace("keep-alive", "close"),
        PLAIN.replace("Host: test\r\n", ""),
        PLAIN + "Host: other\r\n",
        PLAIN + "If-None-Match: *\r\n",
        PLAIN + "X-Request-Id: mine\r\n",
        PLAIN + "Origin: https://app.example.com\r\n",
        PLAIN + "Tablehouse-Read: active\r\n",
        PLAIN + "Tablehouse-Max-Staleness-Ms: 1000\r\n",
        PLAIN + "Tablehouse-Max-Lag: 0\r\n",
        PLAIN + "Tablehouse-Min-Position: 0:7\r\n",
        PLAIN + "tablehouse-timeout-ms: 7\r\n",
        PLAIN + "Content-Length: 0\r\n",
        PLAIN + "Transfer-Encoding: chunked\r\n",
        PLAIN + "Expect: 100-continue\r\n",
        PLAIN + " folded\r\n",
        PLAIN + "User-Agent : blank\r\n",
        PLAIN + "User-Agent: \x01\r\n",
        PLAIN + "Accept-Language: " + "x" * 5_000 + "\r\n",
    ],
)
async def test_headers_that_could_change_the_answer_go_the_long_way(
    worker: Worker, connection: Connection, answered: list[bool], headers: str
) -> None:
    fill(worker)
    connection.writer.write(get("/tables/planes/k1", headers))
    # Some of these have no end before the connection's.
    connection.writer.write_eof()
    await asyncio.wait_for(connection.reader.read(), 5)
    assert answered[:1] == [False]


async def test_the_same_headers_are_judged_once_and_others_anew(
    worker: Worker, connection: Connection, answered: list[bool]
) -> None:
    fill(worker)
    for headers in (PLAIN, PLAIN, "host: b\r\n", PLAIN + "If-None-Match: *\r\n", PLAIN):
        await connection.ask(get("/tables/planes/k1", headers))
    assert answered == [True, True, True, False, True]


async def test_requests_sent_at_once_are_answered_in_order(
    worker: Worker, connection: Connection, answered: list[bool]
) -> None:
    fill(worker)
    connection.writer.write(get("/tables/planes/k1") + get("/tables/planes/a%2Fb") + get("/tables/planes/absent"))
    replies = [await read_reply(connection.reader) for _ in range(3)]
    assert [reply.body for reply in replies[:2]] == [b'{"key":"6b31"}', b'{"key":"612f62"}']
    assert [reply.status for reply in replies] == [200, 200, 404]
    assert not any(answered)


async def test_a_request_in_pieces_is_put_together_and_what_follows_is_never_read_apart_from_it(
    worker: Worker, connection: Connection, answered: list[bool]
) -> None:
    fill(worker)
    whole = get("/tables/planes/k1")
    connection.writer.write(whole[:20])
    # The server has read the first piece by the time that it answers this.
    await worker.get("/livez")
    assert (await connection.ask(whole[20:])).status == 200
    assert (await connection.ask(whole)).status == 200
    assert not any(answered)


async def test_a_body_that_looks_like_a_request_is_a_body(
    worker: Worker, connection: Connection, answered: list[bool]
) -> None:
    fill(worker)
    body = get("/tables/planes/k1")
    head = get("/tables/planes/absent", PLAIN + f"Content-Length: {len(body)}\r\n")
    assert (await connection.ask(head)).status == 404
    assert (await connection.ask(body + get("/livez"))).body == b'{"status":"alive"}'
    assert not any(answered)


async def test_a_read_that_fails_as_nobody_foresaw_is_a_500_and_no_broken_connection(
    worker: Worker, connection: Connection, answered: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:
        raise RuntimeError(f"{table}[{partition}] {stored_key!r} {consistency}")

    monkeypatch.setattr(worker.local, "read", fail)
    reply = await connection.ask(get("/tables/planes/k1"))
    assert (reply.status, reply.json["code"]) == (500, "internal")
    assert answered == [False]


async def test_a_header_of_blanks_is_judged_at_once(connection: Connection, answered: list[bool]) -> None:
    # Each more blank would double the time of an expression that tries every split of them.
    request = get("/tables/planes/k1", "Host: test\r\nAccept:" + " " * 4_000 + "\x7f\r\n")
    connection.writer.write(request)
    assert (await read_reply(connection.reader)).status in {400, 404}
    assert answered == [False]


async def test_another_worker_is_asked_without_a_request_object(answered: list[bool]) -> None:
    async with two_workers() as (near, far):
        key = next(key for key in (b"k%d" % n for n in range(99)) if partition_of("murmur2", key, 4) == 2)
        absent = next(key for key in (f"no{n}" for n in range(99)) if partition_of("murmur2", key.encode(), 4) == 2)
        put(far, key, b"1")
        async with connected(near.url) as (reader, writer):

            async def plainly(key: str, headers: str = "") -> Reply:
                writer.write(get(f"/tables/planes/{key}", PLAIN + headers))
                return await read_reply(reader)

            for target, status in ((key.decode(), 200), (key.decode(), 200), (absent, 404)):
                short = await plainly(target)
                assert (short.status, short.headers["tablehouse-served-by"]) == (status, "b")
                assert answered.pop()
                long = await plainly(target, "X-Anything: 1\r\n")
                assert not answered.pop()
                assert compared(short) == compared(long)


async def test_a_standby_here_answers_who_takes_any_copy_at_once(answered: list[bool]) -> None:
    async with two_workers() as (near, far):
        share((near, far), {"b": [0, 1, 2, 3]}, standbys={"a": [0, 1, 2, 3]})
        near.local.role = Role.STANDBY
        put(near, b"k1", b"standby")
        put(far, b"k1", b"active")
        async with connected(near.url) as (reader, writer):

            async def asked(target: str, headers: str = "") -> Reply:
                writer.write(get(f"/tables/planes/{target}", PLAIN + headers))
                return await read_reply(reader)

            expected = {
                "k1?read=any": (200, b"standby", "standby"),
                "k1?read=prefer-active": (200, b"active", "active"),
                "k1?read=active": (200, b"active", "active"),
                "k1": (200, b"active", "active"),
            }
            for target, said in expected.items():
                short = await asked(target)
                assert answered.pop()
                long = await asked(target, "X-Anything: 1\r\n")
                assert not answered.pop()
                assert compared(short) == compared(long)
                assert (short.status, short.body, short.headers["tablehouse-role"]) == said
            missing = await asked("absent?read=any")
            assert answered.pop()
            assert (missing.status, missing.headers["tablehouse-role"]) == (404, "standby")


async def test_both_ways_count_alike(worker: Worker, connection: Connection, answered: list[bool]) -> None:
    fill(worker)
    await connection.ask(get("/tables/planes/k1"))
    await connection.ask(get("/tables/planes/k1", PLAIN + "X-Anything: 1\r\n"))
    assert answered == [True, False]
    labels = {"method": "GET", "route": "/tables/{table}/{key}", "code": "200"}
    value = worker.metrics.registry.get_sample_value
    assert value("tablehouse_http_requests_total", labels) == 2
    assert value("tablehouse_http_request_duration_seconds_count", {"route": labels["route"]}) == 2
    assert value("tablehouse_read_total", {"table": "planes", "result": "hit"}) == 2
    assert value("tablehouse_read_duration_seconds_count", {"table": "planes", "path": "local"}) == 2


async def test_a_draining_server_closes_the_connection_with_the_next_answer(
    worker: Worker, connection: Connection, answered: list[bool]
) -> None:
    fill(worker)
    await connection.ask(get("/tables/planes/k1"))
    await worker.server.drain(1.0)
    reply = await connection.ask(get("/tables/planes/k1"))
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await asyncio.wait_for(connection.reader.read(), 5) == b""
    assert answered == [True, False]


async def test_a_plain_read_keeps_an_idle_connection_alive(
    worker: Worker, connection: Connection, answered: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(worker)
    protocols: list[Protocol] = []
    original = Protocol.data_received

    def data_received(self: Protocol, data: bytes) -> None:
        protocols.append(self)
        self._next_keepalive_close_time = 0.0
        original(self, data)

    monkeypatch.setattr(Protocol, "data_received", data_received)
    before = asyncio.get_running_loop().time()
    await connection.ask(get("/tables/planes/k1"))
    assert answered == [True]
    assert protocols[0]._next_keepalive_close_time >= before + KEEPALIVE_SECONDS  # noqa: SLF001


def test_aiohttp_is_the_version_that_was_read() -> None:
    assert version("aiohttp") == AIOHTTP
    assert f"aiohttp=={AIOHTTP}" in (requires("tablehouse") or [])


@pytest.mark.parametrize("name", READ)
def test_what_the_short_way_rests_on_is_what_was_read(name: str) -> None:
    source = inspect.getsource(getattr(web_protocol.RequestHandler, name))
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == READ[name], (
        f"aiohttp's {name} has changed: read again what happens between two requests, then pin it"
    )
