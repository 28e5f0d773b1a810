"""Load on an HTTP server: point reads on raw sockets, so that the generator is far from being the bottleneck.

A closed loop sends the next request of a connection when the last was answered, and shows what a server can do. An open
loop sends at fixed times whatever happens, and its latency counts from the time at which a request was due, so a server
that stalls is charged for every request that it kept waiting.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CLOSING = b"\r\nconnection: close"
_OK = 200
_STATUS = slice(9, 12)
_SEED = 7
#: Seconds between two looks at which requests of an open loop are due.
_TICK = 0.001
_TIMEOUT_SECONDS = 60.0
#: Seconds at the beginning of a closed loop that are not counted.
_WARM_UP = 1.0


class UnexpectedAnswer(Exception):
    """A server answered something else than a row."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Sorted seconds of every request that was counted, how many were answered in a second, and how many in all."""

    seconds: Sequence[float]
    rate: float
    answered: int

    def percentile(self, percent: float) -> float:
        """Return seconds."""
        return percentile(self.seconds, percent)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return what so many percent of values, which are in order, do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def shuffled(keys: Sequence[bytes]) -> list[bytes]:
    """Return keys in a random order that is always the same."""
    found = list(keys)
    random.Random(_SEED).shuffle(found)  # noqa: S311  reproducible, not secret
    return found


def row_request(key: bytes) -> bytes:
    """Return the request for a key."""
    return b"GET /tables/table/%b HTTP/1.1\r\nHost: bench\r\n\r\n" % key


def row_requests(keys: Sequence[bytes]) -> list[bytes]:
    """Return the request for each key, shuffled."""
    return [row_request(key) for key in shuffled(keys)]


class Connection(asyncio.Protocol):
    """One request at a time; on_answer is called with this connection after each, and with the error when it is lost.

    Of the last answer it has the status, the body, and whether the server closes the connection after it. An answer
    that is no row is UnexpectedAnswer, unless any answer will do.
    """

    def __init__(
        self, on_answer: Callable[["Connection", Exception | None], None], *, any_answer: bool = False
    ) -> None:
        self._on_answer = on_answer
        self._any_answer = any_answer
        self._transport: Any = None  # uvloop's transports are no asyncio.Transport
        self._data = b""
        self._missing = 0
        self.sent = 0.0
        self.status = 0
        self.body = b""
        self.closing = False

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at a time, which `sent` then is."""
        self.sent = due
        self._transport.write(request)

    def close(self) -> None:
        """Close it; on_answer is told."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Tell on_answer once an answer is whole."""
        if self._missing:
            self._missing -= len(data)
            self.body += data
        else:
            self._data += data
            head = self._data.find(_END_OF_HEAD)
            if head < 0:
                return
            self.status = int(self._data[_STATUS])
            if self.status != _OK and not self._any_answer:
                self._on_answer(self, UnexpectedAnswer(self._data[:300].decode("latin-1")))
                return
            lower = self._data[:head].lower()
            start = lower.find(_LENGTH) + len(_LENGTH)
            end = lower.find(b"\r", start)
            length = int(lower[start:end] if end >= 0 else lower[start:])
            self.closing = _CLOSING in lower
            self.body = self._data[head + len(_END_OF_HEAD) :]
            self._missing = length - len(self.body)
            self._data = b""
        if self._missing == 0:
            self._on_answer(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell on_answer."""
        self._on_answer(self, exc or ConnectionResetError("the server has closed the connection"))


async def closed_loop(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, more_ports: Sequence[int] = ()
) -> Latencies:
    """Read for some seconds after a warm-up; raises UnexpectedAnswer for an answer that is no row.

    With `more_ports`, the connections go to all ports in turn.
    """
    ports = (port, *more_ports)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    took: list[float] = []
    now = time.perf_counter
    turn = 0
    begin = now() + _WARM_UP
    end = begin + seconds

    def answered(connection: Connection, error: Exception | None) -> None:
        nonlocal turn
        at = now()
        if error is not None or at >= end:
            if not done.done():
                done.set_exception(error) if error is not None else done.set_result(None)
            return
        if connection.sent >= begin:
            took.append(at - connection.sent)
        turn += 1
        connection.send(requests[turn % len(requests)], at)

    with ExitStack() as stack:
        for each in [await _connect(ports[number % len(ports)], answered) for number in range(connections)]:
            stack.callback(each.close)
            answered(each, None)
        async with asyncio.timeout(_WARM_UP + 2 * seconds):
            await done
    return Latencies(sorted(took), len(took) / seconds, turn)


async def open_loop(
    port: int, requests: Sequence[bytes], *, connections: int, rate: float, seconds: float
) -> Latencies:
    """Send `rate` requests a second, however slowly they are answered, once every connection has had an answer.

    A busy server takes connections one by one; that is what connecting costs, and not what a request waits.

    Raises UnexpectedAnswer as closed_loop does, and for a server that is a minute behind at the end.
    """
    loop = _OpenLoop(requests, rate, int(rate * seconds), connections)
    with ExitStack() as stack:
        for _ in range(connections):
            connection = await _connect(port, loop.answered)
            stack.callback(connection.close)
            connection.send(requests[0], time.perf_counter())
        try:
            async with asyncio.timeout(seconds + _TIMEOUT_SECONDS):
                await loop.done
        except TimeoutError:
            raise UnexpectedAnswer(f"{loop.missing} requests at {rate:.0f} a second were not answered") from None
    return Latencies(sorted(loop.took), rate, len(loop.took))


class _OpenLoop:
    """The schedule of an open loop, and the connections that have nothing to do."""

    def __init__(self, requests: Sequence[bytes], rate: float, count: int, connections: int) -> None:
        self._connections = connections
        self._started = False
        self._requests = requests
        self._rate = rate
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._begin = 0.0
        self._next = 0
        self._late: deque[tuple[bytes, float]] = deque()
        self._free: list[Connection] = []
        self.took: list[float] = []
        self.done: asyncio.Future[None] = self._loop.create_future()

    @property
    def missing(self) -> int:
        return self._count - len(self.took)

    def _start(self) -> None:
        self._started = True
        self._begin = time.perf_counter()
        self._send_due()

    def _send_due(self) -> None:
        now = time.perf_counter()
        while self._next < self._count and (due := self._begin + self._next / self._rate) <= now:
            request = self._requests[self._next % len(self._requests)]
            self._next += 1
            if self._free:
                self._free.pop().send(request, due)
            else:
                self._late.append((request, due))
        if self._next < self._count and not self.done.done():
            self._loop.call_later(_TICK, self._send_due)

    def answered(self, connection: Connection, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
            return
        if not self._started:
            self._free.append(connection)
            if len(self._free) == self._connections:
                self._start()
            return
        self.took.append(time.perf_counter() - connection.sent)
        if not self.missing:
            self.done.set_result(None)
        elif self._late:
            connection.send(*self._late.popleft())
        else:
            self._free.append(connection)


async def _connect(port: int, on_answer: Callable[[Connection, Exception | None], None]) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(on_answer), "127.0.0.1", port)
    return connection
