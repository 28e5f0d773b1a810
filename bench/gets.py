"""A load of GETs over keep-alive connections, cheap enough that the server and not the client is measured."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_EXPECTED = (b"HTTP/1.1 200", b"HTTP/1.1 404")
_PATIENCE = 30.0  # seconds for the last answers


@dataclass(frozen=True, slots=True)
class Answered:
    """How many GETs were answered in `seconds`, and how long each took, in seconds."""

    count: int
    seconds: float
    connections: int
    latencies: Sequence[float]


def get_rows(port: int, table: str, keys: Sequence[bytes], connections: int, seconds: float) -> Answered:
    """Ask for the keys in turn, each connection one after the other, for `seconds`.

    To be called in a process of its own. An answer that is neither 200 nor 404 is an OSError, and so are a connection
    that the server closes and answers that do not come.
    """
    requests = [
        f"GET /tables/{table}/{quote(key, safe='')} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for key in keys
    ]
    return uvloop.run(_load(port, requests, connections, seconds))


async def _load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answered:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    asked = itertools.cycle(requests)
    started = time.perf_counter()
    opened = [
        await loop.create_connection(
            lambda: _Connection(asked, latencies, loop.create_future(), started + seconds), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + _PATIENCE):
        await asyncio.gather(*(connection.done for _, connection in opened))
    return Answered(len(latencies), time.perf_counter() - started, connections, latencies)


class _Connection(asyncio.Protocol):
    """One request after the other until the deadline."""

    def __init__(
        self, requests: Iterator[bytes], latencies: list[float], done: asyncio.Future[None], deadline: float
    ) -> None:
        self.done = done
        self._requests = requests
        self._latencies = latencies
        self._deadline = deadline
        self._received = b""
        self._asked = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # as a TCP connection's is
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_HEAD_END)
        if not end or len(body) < _content_length(head):
            return
        now = time.perf_counter()
        self._latencies.append(now - self._asked)
        if not head.startswith(_EXPECTED):
            self._end(OSError(f"an unexpected answer: {self._received[:500]!r}"))
        elif now > self._deadline:
            self._end(None)
        else:
            self._received = b""
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server closed the connection"))

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(next(self._requests))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(_LENGTH)
    return int(rest.partition(b"\r\n")[0])
