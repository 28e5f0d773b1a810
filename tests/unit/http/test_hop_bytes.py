"""The requests between workers, byte for byte: a rolling upgrade has workers of two versions ask each other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from tablehouse.errors import OwnerUnreachable
from tablehouse.http.peer import HttpPeer
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, HostInfo, ReadMode
from tablehouse.positions import Position
from tablehouse.routing.ports import Condition, ConditionalWrite, Terms, Wanted
from tablehouse.routing.strangers import Strangers
from tablehouse.tasks.questions import Applied, Get

CONSISTENCY = Consistency(ReadMode.ANY, 5, 6, Position.parse("2:7,3:9"))
TERMS = Terms(1.5, 4.0, "dig", 4, 7, "req")
AGREEMENT = (
    "Host: {host}|Tablehouse-Worker: m 3|Tablehouse-Internal-Version: 1|Tablehouse-Table-Digest: dig|"
    "Tablehouse-Partitions: 4|Tablehouse-Generation: 7|Tablehouse-Deadline-Ms: 3600|X-Request-Id: req|"
)
ASKED = (
    "Tablehouse-Read: any|Tablehouse-Max-Staleness-Ms: 5|Tablehouse-Max-Lag: 6|Tablehouse-Min-Position: 2:7,3:9|"
    "Tablehouse-Timeout-Ms: 1500|"
)
CONTENT = "Content-Type: application/vnd.msgpack|Content-Length: {length}|"

Ask = Callable[[HttpPeer, HostInfo], Awaitable[object]]

REQUESTS: list[tuple[Ask, str, bytes]] = [
    (
        lambda peer, host: peer.at(host).answer("planes", 2, Get(b"\x00k\xff/"), CONSISTENCY, TERMS),
        f"GET /internal/v1/tables/planes/2/AGv_Lw HTTP/1.1|{AGREEMENT}{ASKED}|",
        b"",
    ),
    (
        lambda peer, host: peer.at(host).answer("planes", 2, Applied(), DEFAULT_CONSISTENCY, TERMS._replace(wait=0.0)),
        f"GET /internal/v1/tables/planes/2:write-check HTTP/1.1|{AGREEMENT}|",
        b"",
    ),
    (
        lambda peer, host: peer.at(host).answer_many(
            "planes", [Wanted(2, [b"a", b"b"]), Wanted(1, [b""])], CONSISTENCY, TERMS
        ),
        f"POST /internal/v1/tables/planes:batch-get HTTP/1.1|{AGREEMENT}{ASKED}{CONTENT}|",
        b"\x92\x92\x02\x92\xc4\x01a\xc4\x01b\x92\x01\x91\xc4\x00",
    ),
    (
        lambda peer, host: peer.write(
            host, ConditionalWrite("planes", 2, b"s", b"k", b"v", Condition((1, 2), exists=True)), TERMS
        ),
        f"POST /internal/v1/tables/planes/2:write HTTP/1.1|{AGREEMENT.replace('3600', '3240')}{CONTENT}|",
        b"\x94\xc4\x01s\xc4\x01k\xc4\x01v\x92\x92\x01\x02\xc3",
    ),
]


@pytest.mark.parametrize(("ask", "head", "body"), REQUESTS, ids=["get", "applied", "multi-get", "write"])
async def test_a_request_to_another_worker_has_these_bytes(ask: Ask, head: str, body: bytes) -> None:
    received = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
        received.set_result((text, await reader.readexactly(len(body))))
        writer.write(b"HTTP/1.1 500 no worker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(record, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    peer = HttpPeer((), Strangers())
    try:
        with contextlib.suppress(OwnerUnreachable):
            await ask(peer, HostInfo("m", 3, f"http://{address}"))
        expected = head.format(host=address, length=len(body)).replace("|", "\r\n")
        assert await asyncio.wait_for(received, 5) == (expected, body)
    finally:
        await peer.close()
        server.close()
