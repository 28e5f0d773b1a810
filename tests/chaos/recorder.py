"""A client in a process of its own: asks every worker all the time and writes down each answer.

    python -m tests.chaos.recorder PLAN

It asks at a fixed rate, whether or not earlier questions are answered: one that waited for the answer of a worker that
hangs would ask it nothing while it does. SIGTERM ends it, once what it has asked is answered or given up.
"""

import asyncio
import itertools
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import aiohttp
import msgspec

from tests.chaos.history import Answer
from tests.support.cluster import Checked, Client, client

#: Questions to one worker that may wait at the same time: as many as are asked of it in a long pause.
_MAX_WAITING = 500


class Way(msgspec.Struct, frozen=True):
    """A way to ask: a query beyond the key and, with `own`, the highest positions this client has seen.

    weight is how often it is asked this way, beside the weights of the others.
    """

    query: str = ""
    own: bool = False
    weight: int = 1


#: How long a position is waited for.
_WAITING = "timeout_ms=200"

WAYS = [
    Way(weight=6),
    Way("read=any", weight=2),
    Way("read=active"),
    Way(own=True),
    Way("read=any", own=True, weight=2),
    Way("max_staleness_ms=1200"),
    Way("read=any&max_staleness_ms=1200"),
    Way("max_lag=20"),
    Way("read=any&max_lag=20"),
]


class Plan(msgspec.Struct, frozen=True):
    """What to ask, and where to write what was answered.

    rate is how many questions a second each worker gets, patience how many seconds an answer may take.
    """

    urls: list[str]
    tables: list[str]
    keys: list[str]
    history: str
    seed: int
    rate: float = 60.0
    patience: float = 20.0
    ways: list[Way] = msgspec.field(default_factory=lambda: list(WAYS))


@dataclass(slots=True)
class Connection:
    """How a question went out: when a connection of its own was begun, and when it was sent; 0 for never.

    cut is what Answer says, of a connection after which aiohttp has tried another one, as it does once.
    """

    begun: float = 0.0
    sent: float = 0.0
    cut: float = -1.0

    def over(self) -> None:
        """Take note that this connection has brought no answer."""
        if self.begun and self.sent:
            self.cut = self.sent - self.begun
        self.begun = self.sent = 0.0


def tracing() -> aiohttp.TraceConfig:
    """Note in the Connection that a request has as its context how it goes out."""

    async def begin(_session: object, context: SimpleNamespace, _what: Any) -> None:
        context.trace_request_ctx.over()
        context.trace_request_ctx.begun = time.monotonic()

    async def reuse(_session: object, context: SimpleNamespace, _what: Any) -> None:
        context.trace_request_ctx.over()

    async def sent(_session: object, context: SimpleNamespace, _what: Any) -> None:
        context.trace_request_ctx.sent = time.monotonic()

    traces = aiohttp.TraceConfig()
    traces.on_connection_create_start.append(begin)
    traces.on_connection_reuseconn.append(reuse)
    traces.on_request_headers_sent.append(sent)
    return traces


class Recorder:
    """One client of all workers."""

    def __init__(self, plan: Plan, http: Client, out: IO[bytes]) -> None:
        self._plan = plan
        self._http = http
        self._out = out
        self._random = random.Random(plan.seed)
        self._tables = {name: Checked(name, topic="", partitions=0) for name in plan.tables}
        #: The highest position seen of each partition of the topic, whichever table said so.
        self._highest: dict[int, int] = {}
        self._weights = [way.weight for way in plan.ways]
        self._waiting: dict[str, set[asyncio.Task[None]]] = {url: set() for url in plan.urls}

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop, and wait for what is out."""
        pause = 1 / (self._plan.rate * len(self._plan.urls))
        for url in itertools.cycle(self._plan.urls):
            if len(self._waiting[url]) < _MAX_WAITING:
                asking = asyncio.create_task(self._ask(url))
                self._waiting[url].add(asking)
                asking.add_done_callback(self._waiting[url].discard)
            try:
                await asyncio.wait_for(stopping.wait(), pause)
            except TimeoutError:
                continue
            break
        out = set().union(*self._waiting.values())
        if out:
            await asyncio.wait(out)

    async def _ask(self, url: str) -> None:
        table, key = self._random.choice(self._plan.tables), self._random.choice(self._plan.keys)
        (way,) = self._random.choices(self._plan.ways, self._weights)
        # Those of all partitions: the worker passes over the others than the key's.
        token = ",".join(f"{partition}:{seen}" for partition, seen in self._highest.items()) if way.own else ""
        query = "&".join(part for part in (way.query, token and f"min_position={token}&{_WAITING}") if part)
        target = f"{url}{self._tables[table].path(key.encode())}{'?' if query else ''}{query}"
        connection, asked = Connection(), time.monotonic()
        try:
            answer = await self._http.get(target, connection)
        except (aiohttp.ClientError, TimeoutError) as error:
            connection.over()
            refused = isinstance(error, aiohttp.ClientConnectorError)
            seen = Answer(
                asked, time.monotonic(), url, table, key, 0, query, token, repr(error), refused, connection.cut
            )
        else:
            answered, headers = time.monotonic(), answer.headers
            said = headers.get("tablehouse-position", "-2:-2")
            partition, _, position = said.partition(":")
            problem = headers.get("content-type") == "application/problem+json"
            seen = Answer(
                asked,
                answered,
                url,
                table,
                key,
                answer.status,
                query,
                token,
                cut=connection.cut,
                code=answer.json.get("code", "") if problem else "",
                retry_after=headers.get("retry-after", ""),
                role=headers.get("tablehouse-role", ""),
                partition=int(partition),
                position=int(position),
                lag=headers.get("tablehouse-lag-records", ""),
                staleness_ms=headers.get("tablehouse-staleness-ms", ""),
                served_by=headers.get("tablehouse-served-by", ""),
                etag=headers.get("etag", ""),
                body=answer.body.decode(),
            )
            if answer.status in {200, 404} and seen.role:
                self._highest[seen.partition] = max(seen.position, self._highest.get(seen.partition, -1))
        # At once and whole, since somebody reads along.
        self._out.write(msgspec.json.encode(seen) + b"\n")
        self._out.flush()


async def main(plan: Plan) -> None:
    """Record until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    with Path(plan.history).open("ab") as out:  # noqa: ASYNC230 - appending a line to a local file is what it is for
        async with client(plan.patience, [tracing()]) as http:
            await Recorder(plan, http, out).run(stopping)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))
