"""Clients by the thousand, slow ones and such as speak no HTTP, beside those that are answered all the time."""

import asyncio
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

from bench.usage import resident_bytes
from tablehouse.http.protocol import KEEPALIVE_SECONDS
from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.scene import KEYS, amount, scene
from tests.support.http_workers import connected, read_reply
from tests.support.worker import MakeWorker

#: Bytes of a worker's memory for each connection, in which its stores may grow, too. An idle connection takes 6 KiB.
_MAX_BYTES = 32 * 1024

#: What a slow client sends byte by byte, and never gets to the end of.
_SLOWLY = b"GET /tables/first/key-1 HTTP/1.1\r\nHost: slow\r\nX-Long: " + b"x" * 10_000

_NO_HTTP = {
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n": 400,
    b"nonsense\r\n\r\n": 400,
    b"GET /tables/first/key-1 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n": 400,
    b"GET /tables/first/key-1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"GET /tables/first/" + b"k" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 414,
    b"GET /tables/first/key-1 HTTP/2.0\r\nHost: a\r\n\r\n": 505,
}


async def test_thousands_of_connections_slow_clients_and_malformed_requests(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    connections, slow = amount(2_000, 10_000), amount(200, 1_000)
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allowed > connections + slow + 500, "the test needs more open files than this process may have (ulimit -n)"
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster, AsyncExitStack() as stack:
        asked = cluster.workers[0]
        before = resident_bytes(asked.pid)
        idle = [(*await stack.enter_async_context(connected(asked.url)), monotonic()) for _ in range(connections)]
        dribbling = [asyncio.create_task(_dribble(asked.url)) for _ in range(slow)]
        for _ in range(amount(5, 50)):
            for request, status in _NO_HTTP.items():
                async with connected(asked.url) as (reader, writer):
                    writer.write(request)
                    assert (await read_reply(reader)).status == status, request[:80]
                    assert await reader.read() == b"", "what follows cannot be framed"
        await cluster.served(asked)
        taken = resident_bytes(asked.pid) - before
        assert taken < _MAX_BYTES * (connections + slow), f"{taken >> 20} MiB for {connections + slow} connections"
        for reader, writer, opened in idle[:: connections // 100]:
            try:
                writer.write(b"GET /tables/first/%b HTTP/1.1\r\nHost: a\r\n\r\n" % cluster.random.choice(KEYS))
                assert (await read_reply(reader)).status == 200
            except (asyncio.IncompleteReadError, ConnectionError):
                assert monotonic() - opened > KEEPALIVE_SECONDS, "closed before it was idle for long"
        for task in dribbling:
            assert not task.done() or task.result().startswith(b"HTTP/1.0 408 "), task.result()
        for task in dribbling:
            task.cancel()
        await asyncio.wait(dribbling)


async def _dribble(url: str) -> bytes:
    """Send a request byte by byte, and return what it is answered before it is whole."""
    async with connected(url) as (reader, writer):
        answer = asyncio.ensure_future(reader.read())
        for byte in _SLOWLY:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        return await answer
