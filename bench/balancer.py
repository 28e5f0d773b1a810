"""Load on several workers as a load balancer spreads it: at fixed times, in turn to those that say they are ready."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from bench.http_client import Client
from bench.load import Connection, percentile

#: Seconds between two looks whether a worker is ready.
_CHECK = 0.5
#: Seconds between two looks at which requests are due.
_TICK = 0.001
#: Seconds until a request that nobody has taken is tried again.
_AGAIN = 0.05
#: Connections to a worker, as a load balancer has a pool. More are no help: a busy worker takes them one by one.
_CONNECTIONS = 64
#: Seconds that requests in flight are waited for at the end.
_TIMEOUT_SECONDS = 15.0


class Request(NamedTuple):
    """A key that is asked for, and the request's bytes."""

    key: bytes
    sent: bytes


class _Due(NamedTuple):
    request: Request
    at: float


@dataclass(slots=True)
class Answers:
    """What became of the requests.

    false counts answers that were wrong. refused and lost count connections that could not be made, or ended before the
    answer; their requests went to another worker, and are in statuses with what that one said. took is in seconds, from
    the time at which a request was due.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    false: int = 0
    refused: int = 0
    lost: int = 0
    unanswered: int = 0
    took: list[float] = field(default_factory=list)

    @property
    def asked(self) -> int:
        """All requests."""
        return self.statuses.total() + self.unanswered

    def share_without(self, status: int) -> float:
        """Return the percentage of requests that got another status, or no answer."""
        return 100 * (1 - self.statuses[status] / self.asked)

    def share_of(self, status: int) -> float:
        """Return the percentage of requests that got a status."""
        return 100 * self.statuses[status] / self.asked

    def percentile(self, percent: float) -> float:
        """Return milliseconds."""
        return 1e3 * percentile(sorted(self.took), percent)

    def __str__(self) -> str:
        """Say all of it in a line."""
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.asked:,} asked: {statuses}; {self.false} false, {self.unanswered} unanswered, "
            f"{self.refused} refused and {self.lost} cut off and asked elsewhere; p50 {self.percentile(50):.1f} ms, "
            f"p99 {self.percentile(99):.1f} ms, longest {self.percentile(100):.0f} ms"
        )


class Servers:
    """The ports of workers, and which of them are to be asked; looks at them as an async context."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ready = dict.fromkeys(ports, False)
        self._turn = 0
        self._checks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Look at each worker once, and go on looking."""
        for port in self._ready:
            async with Client(port) as client:
                await self._look(port, client)
        self._checks = [asyncio.create_task(self._keep_looking(port)) for port in self._ready]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    def next(self) -> int | None:
        """Return the port of the worker whose turn it is; None when nobody is ready."""
        ready = [port for port, is_ready in self._ready.items() if is_ready]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None

    def leave_out(self, port: int) -> None:
        """Do not ask a worker until it says again that it is ready."""
        self._ready[port] = False

    async def _keep_looking(self, port: int) -> None:
        async with Client(port) as client:
            while True:
                await asyncio.sleep(_CHECK)
                await self._look(port, client)

    async def _look(self, port: int, client: Client) -> None:
        self._ready[port] = (await client.get("/readyz"))[0] == 200  # noqa: PLR2004


class Balanced:
    """An open loop over servers while the context lasts; is_false judges a key's status and body."""

    def __init__(
        self,
        servers: Servers,
        requests: Sequence[Request],
        rate: float,
        is_false: Callable[[bytes, int, bytes], bool],
    ) -> None:
        self.answers = Answers()
        self._servers = servers
        self._requests = requests
        self._rate = rate
        self._is_false = is_false
        self._in_flight = 0
        self._ending = False
        self._all_answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[Connection, _Due] = {}
        self._free: dict[int, list[Connection]] = {}
        self._connections: Counter[int] = Counter()
        self._late: deque[_Due] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._schedule: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._schedule = asyncio.create_task(self._keep_sending())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send no more; what is not answered some seconds later is counted as unanswered."""
        if self._schedule is not None:
            self._schedule.cancel()
        self._ending = True
        if self._in_flight:
            await asyncio.wait({self._all_answered}, timeout=_TIMEOUT_SECONDS)
        self.answers.unanswered = self._in_flight
        for task in self._connecting:
            task.cancel()
        self._late.clear()
        asked, self._asked = self._asked, {}
        for connection in [*asked, *(one for free in self._free.values() for one in free)]:
            connection.close()

    async def _keep_sending(self) -> None:
        begin, number = time.perf_counter(), 0
        while True:
            while (due := begin + number / self._rate) <= time.perf_counter():
                self._in_flight += 1
                self._send(_Due(self._requests[number % len(self._requests)], due))
                number += 1
            await asyncio.sleep(_TICK)

    def _send(self, due: _Due) -> None:
        port = self._servers.next()
        if port is None:
            asyncio.get_running_loop().call_later(_AGAIN, self._send, due)
        elif free := self._free.get(port):
            self._send_on(free.pop(), due)
        elif self._connections[port] < _CONNECTIONS:
            self._connections[port] += 1
            task = asyncio.create_task(self._connect_and_send(port, due))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        else:
            self._late.append(due)

    def _send_late(self) -> None:
        if self._late:
            self._send(self._late.popleft())

    async def _connect_and_send(self, port: int, due: _Due) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(partial(self._answered, port), any_answer=True), "127.0.0.1", port
            )
        except OSError:
            self.answers.refused += 1
            self._connections[port] -= 1
            self._servers.leave_out(port)
            self._send(due)
            self._send_late()
        else:
            self._send_on(connection, due)

    def _send_on(self, connection: Connection, due: _Due) -> None:
        self._asked[connection] = due
        connection.send(due.request.sent, due.at)

    def _answered(self, port: int, connection: Connection, error: Exception | None) -> None:
        due = self._asked.pop(connection, None)
        if error is not None:
            self._connections[port] -= 1
            if connection in self._free.get(port, ()):
                self._free[port].remove(connection)
            if due is not None:
                self.answers.lost += 1
                self._send(due)
            self._send_late()
            return
        if due is None:
            raise AssertionError("an answer that nobody has asked for")
        self._in_flight -= 1
        self.answers.took.append(time.perf_counter() - due.at)
        self.answers.statuses[connection.status] += 1
        self.answers.false += self._is_false(due.request.key, connection.status, connection.body)
        if self._ending and not self._in_flight:
            self._all_answered.set_result(None)
        if connection.closing:
            connection.close()
        else:
            self._free.setdefault(port, []).append(connection)
            self._send_late()
