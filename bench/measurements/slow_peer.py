"""One of three workers is slow to answer the others: what reads of the others' keys take while it is asked as well."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from bench.http_client import Client
from bench.load import open_loop, percentile, row_requests
from bench.measurements.sharing import keys_by_owner, settled
from bench.proxy import Proxy, proxies
from bench.setting import CONNECTIONS, Setting


class Reads(NamedTuple):
    """The figures of one kind of reads."""

    before: str
    meanwhile: str
    ratio: str


def _reads(what: str) -> Reads:
    return Reads(
        f"{what}, p99 ms",
        f"{what}, while another worker is slow, p99 ms",
        f"{what}, while another worker is slow, p99 over that before",
    )


LOCAL = _reads("GETs of the asked worker's own keys")
FORWARDED = _reads("GETs forwarded to a second worker")
SLOW = "GETs of the slow worker's keys meanwhile, p50 ms"
IN_FLIGHT = "connections to the slow worker, at most"

_ROWS = 60_000
#: So that three workers can share them evenly.
_PARTITIONS = 6
#: Keys that are looked up, a third of which each worker owns.
_KEYS = 1_200
#: A second. Together with those of the slow worker they leave the workers' core mostly idle.
_LOCAL_RATE, _FORWARDED_RATE = 1_000, 400
#: Seconds by which what the slow worker says is late: less than what makes the others give up on it for a while.
_DELAY = 1.0
#: More than may wait for one worker at a time, each with one request at a time, and at most so often.
_CLIENTS, _EVERY = 96, 1.0
#: Connections that a worker opens to another one.
_CONNECTIONS_TO_ONE = 64
_TIMEOUT_SECONDS = 15.0
_PAUSE = 0.02


async def measure(setting: Setting) -> None:
    """Read before and while the slow worker is asked, in turns."""
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, _PARTITIONS))
    source = produced.source
    asked, second, slow = workers = setting.workers(source.topic, 3, takeover_interval="1s")
    async with proxies(slow.internal_port) as (line,):
        slow.internal_url = line.url
        async with settled(workers, _PARTITIONS):
            owned = await keys_by_owner(asked, map(source.key, range(min(_KEYS, source.keys))))
            requests = [row_requests(owned[worker.internal_url]) for worker in (asked, second)]
            for _ in range(setting.rounds):
                before = await _read(setting, asked.port, *requests)
                line.delay = _DELAY
                line.forget()
                async with _asking(asked.port, owned[slow.internal_url], line) as answers:
                    meanwhile = await _read(setting, asked.port, *requests)
                line.delay = 0.0
                _add(setting, before, meanwhile, answers, line)
    figures = setting.figures
    for reads in (LOCAL, FORWARDED):
        setting.say(
            f"{reads.before}: {figures.median(reads.before):.2f}, while another worker is slow "
            f"{figures.median(reads.meanwhile):.2f}, {figures.median(reads.ratio):.2f}x"
        )


async def _read(setting: Setting, port: int, local: Sequence[bytes], forwarded: Sequence[bytes]) -> Sequence[float]:
    """Read keys of both kinds at once; return the p99 of each in ms. Raises UnexpectedAnswer for one without a row."""
    seconds = setting.read_seconds / 2
    seen = await asyncio.gather(
        open_loop(port, local, connections=CONNECTIONS, rate=_LOCAL_RATE, seconds=seconds),
        open_loop(port, forwarded, connections=CONNECTIONS, rate=_FORWARDED_RATE, seconds=seconds),
    )
    return [1e3 * each.percentile(99) for each in seen]


@dataclass(slots=True)
class _Answers:
    """What the slow worker's keys were answered with, and after how many seconds each."""

    kinds: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)


@asynccontextmanager
async def _asking(port: int, keys: Sequence[bytes], line: Proxy) -> AsyncIterator[_Answers]:
    """Ask for keys all the time, once as much waits for the slow worker as may, until nothing waits at the end."""
    answers, ended = _Answers(), asyncio.Event()

    async def keep_asking(first: int) -> None:
        # Evenly spread, as what comes back from a line that is a second late then is.
        await asyncio.sleep(first * _EVERY / _CLIENTS)
        async with Client(port) as client:
            for number in count(first, _CLIENTS):
                began = time.perf_counter()
                answer = await client.ask(f"/tables/table/{keys[number % len(keys)].decode()}")
                answers.took.append(time.perf_counter() - began)
                answers.kinds[f"{answer.status} {answer.headers.get('tablehouse-role', '')}".rstrip()] += 1
                if ended.is_set():
                    return
                await asyncio.sleep(max(0.0, began + _EVERY - time.perf_counter()))

    tasks = [asyncio.create_task(keep_asking(first)) for first in range(_CLIENTS)]
    try:
        await _until_used(line)
        yield answers
        ended.set()
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_used(line: Proxy) -> None:
    """Wait until as much waits on the slow line as may."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        if line.connections >= _CONNECTIONS_TO_ONE:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{line.connections} connections to the slow worker after {_TIMEOUT_SECONDS:.0f} s")
        await asyncio.sleep(_PAUSE)


def _add(setting: Setting, before: Sequence[float], meanwhile: Sequence[float], answers: _Answers, line: Proxy) -> None:
    """Add a round's figures."""
    figures = setting.figures
    for reads, then, now in zip((LOCAL, FORWARDED), before, meanwhile, strict=True):
        figures.add(reads.before, then)
        figures.add(reads.meanwhile, now)
        figures.add(reads.ratio, now / then)
    figures.add(SLOW, 1e3 * percentile(sorted(answers.took), 50))
    figures.add(IN_FLIGHT, line.most_connections)
    kinds = ", ".join(f"{number} x {kind}" for kind, number in sorted(answers.kinds.items()))
    setting.say(f"the slow worker's keys: {kinds}; at most {line.most_connections} connections to it")
