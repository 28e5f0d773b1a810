"""A real worker and clients that mean it harm, or are only slow: its memory stays bounded and others are answered."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from bench.usage import resident_bytes
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked
from tests.support.http_workers import connected, read_reply, send
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import WorkerProcess, tables

SECRET = "a-secret-that-no-caller-shows"  # noqa: S105 - of this test
LARGE = b'"%b"' % (b"x" * 5_000_000)
#: What a worker may grow by: far below what these clients would take without a bound, and above what it takes to read
#: large rows at all.
MAX_BYTES = 128 << 20
GET = b"GET /tables/rows/%b HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def worker(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    rows = Checked("rows", unique("hostile"), 1)
    made = WorkerProcess(
        tmp_path_factory.mktemp("hostile"),
        kafka.bootstrap_servers,
        tables(rows.entry() + "    writable: true\n"),
        group=unique("hostile"),
        internal_secrets=SECRET,
    )

    async def prepare() -> None:
        await create_topic(kafka.bootstrap_servers, rows.topic, 1, {"max.message.bytes": "6000000"})
        made.start()
        await made.wait_ready()
        for key, row in (("small", b"1"), ("large", LARGE)):
            head = (
                f"PUT /tables/rows/{key}?wait=visible HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            )
            reply = await send(made.url, head.encode() + b"Content-Length: %d\r\n\r\n" % len(row) + row)
            assert reply.status == 200, reply

    try:
        asyncio.run(prepare())
        yield made
    finally:
        made.close()
        made.print_log()


async def served(worker: WorkerProcess) -> None:
    """Check that a client that does nothing wrong is answered."""
    assert (await worker.get("/livez")).status == 200
    assert (await worker.get("/tables/rows/small")).body == b"1"


def pour(url: str, piece: bytes, most: int) -> int:
    """Send `GET /` and then a piece again and again, until the server ends it; return how many were sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), 10) as client:
        client.sendall(b"GET /")
        for sent in range(most):
            try:
                client.sendall(piece)
            except ConnectionError:
                return sent
    raise AssertionError(f"{most} pieces were taken")


@pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])
async def test_malformed_requests_without_end_take_no_memory(worker: WorkerProcess, *, internal: bool) -> None:
    before = resident_bytes(worker.pid)
    url = worker.internal_url if internal else worker.url
    for _ in range(60):
        await asyncio.to_thread(pour, url, b"a" * 65536, 100_000)
    taken = resident_bytes(worker.pid) - before
    assert taken < MAX_BYTES // 2, f"{taken >> 20} MiB"
    await served(worker)


async def test_readers_that_stop_reading_take_no_memory_from_others(worker: WorkerProcess) -> None:
    async def reads_large() -> bool:
        async with connected(worker.url) as (reader, writer):
            writer.write(GET % b"large")
            reply = await read_reply(reader)
        assert (reply.status, len(reply.body)) == (200, len(LARGE)), reply.headers
        return True

    # Once, so that what it takes to read such a row is not counted.
    await until(reads_large, "a large row is read")
    before = resident_bytes(worker.pid)
    plain, batch = GET % b"large", b'{"keys": [%b]}' % b", ".join([b'"large"'] * 10_000)
    head = b"POST /tables/rows:batch-get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    asked = (
        plain,
        plain.replace(b"Host", b"X-Any: 1\r\nHost"),
        head + b"Content-Length: %d\r\n\r\n%b" % (len(batch), batch),
    )
    async with AsyncExitStack() as stack:
        for number in range(99):
            client = socket.socket()
            stack.callback(client.close)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)  # noqa: FBT003
            loop, address = asyncio.get_running_loop(), urlsplit(worker.url)
            await loop.sock_connect(client, (address.hostname, address.port))
            await loop.sock_sendall(client, asked[number % 3])
        taken = resident_bytes(worker.pid) - before
        assert taken < MAX_BYTES, f"{taken >> 20} MiB"
        await served(worker)
        await until(reads_large, "a client that reads gets a large row meanwhile")
        taken = resident_bytes(worker.pid) - before
        assert taken < MAX_BYTES, f"{taken >> 20} MiB"
    closed = await worker.metric("tablehouse_http_connections_closed_total", reason="memory")
    assert closed, "some readers that stopped made room for others"


@pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])
async def test_requests_that_do_not_end_take_no_memory_from_others(worker: WorkerProcess, *, internal: bool) -> None:
    before = resident_bytes(worker.pid)
    fill = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 20_000) for number in range(6))
    head, body = GET[:-2] % b"small" + fill, b"PUT" + GET[3:-2] % b"small" + b"Content-Length: 1000000\r\n\r\n"
    async with AsyncExitStack() as stack:
        for number in range(600):
            _, writer = await stack.enter_async_context(connected(worker.internal_url if internal else worker.url))
            writer.write(body + b"x" * 500_000 if number % 3 == 0 else head)
        await served(worker)
        assert await worker.metric("tablehouse_http_held_bytes") <= 16 << 20
        taken = resident_bytes(worker.pid) - before
        assert taken < MAX_BYTES, f"{taken >> 20} MiB"
    await served(worker)
