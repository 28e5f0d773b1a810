"""Batches of keys: one worker on its core, and on another a load generator that sends one batch after the other."""

import asyncio
import time
from itertools import cycle
from typing import Any

import msgspec

from bench.load import UnexpectedAnswer, shuffled
from bench.peers.peer import running, until_caught_up
from bench.setting import Setting
from bench.source import Source
from bench.usage import usage

#: Keys of a batch.
SIZES = (100, 1_000, 10_000)

#: Connections, each with one batch at a time: while one answer is read there is another to be made.
_CONNECTIONS = 2
_WARM_UP = 1.0
#: Seconds that a worker may take to catch up.
TIMEOUT_SECONDS = 300.0
#: How answers end that are streamed, and those that are not.
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_END_OF_BATCH = b"}]}"
_OK = b"HTTP/1.1 200 "


def rate(size: int) -> str:
    """Return the name of a figure."""
    return f"batch-get of {size:,} keys, keys/s"


def cpu(size: int) -> str:
    """Return the name of a figure."""
    return f"batch-get of {size:,} keys, CPU us a key"


async def measure(setting: Setting) -> None:
    """Ask for keys of the main source at random."""
    produced = await setting.topics.provide(setting.source)
    source, worker = produced.source, setting.worker(produced.source.topic)
    async with running(worker):
        await until_caught_up(worker, source.records, TIMEOUT_SECONDS)
        for size in SIZES:
            requests = batch_requests(source, size)
            await batches(worker.port, requests, _WARM_UP)
            before = usage(worker.pid)
            answered = await batches(worker.port, requests, setting.read_seconds)
            after = usage(worker.pid)
            keys, seconds = answered * size, after.at - before.at
            setting.figures.add(rate(size), keys / seconds)
            setting.figures.add(cpu(size), 1e6 * (after.cpu - before.cpu) / keys)
            setting.say(
                f"batches of {size:,}: {keys / seconds:,.0f} keys/s, {1e6 * (after.cpu - before.cpu) / keys:.2f} us of "
                "CPU a key"
            )


def batch_requests(source: Source, size: int) -> list[bytes]:
    """Return requests for `size` keys each, at random."""
    keys = [key.decode() for key in shuffled([source.key(number) for number in range(source.keys)])]
    requests = []
    for start in range(0, min(len(keys), 10 * size) - size + 1, size):
        body = msgspec.json.encode({"keys": keys[start : start + size]})
        head = b"POST /tables/table:batch-get HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        requests.append(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    return requests


class _Batches(asyncio.Protocol):
    """One batch after the other, until it is told to stop."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = cycle(requests)
        self._transport: Any = None
        self._begun = False
        self._end = self._tail = b""
        self.answered = 0
        self.stopping = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        if not self._begun and not data.startswith(_OK):
            self.done.set_exception(UnexpectedAnswer(data[:300].decode("latin-1")))
            return
        if not self._begun:
            self._begun = True
            self._end = _END_OF_CHUNKS if b"\r\ntransfer-encoding: chunked" in data.lower() else _END_OF_BATCH
        self._tail = (self._tail + data)[-len(_END_OF_CHUNKS) :]
        if not self._tail.endswith(self._end):
            return
        self.answered += 1
        if not self.stopping:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server has closed the connection"))

    def _send(self) -> None:
        self._begun, self._tail = False, b""
        self._transport.write(next(self._requests))

    def close(self) -> None:
        self._transport.close()


async def batches(port: int, requests: list[bytes], seconds: float) -> int:
    """Ask for so many seconds and until the last answers are there; return how many there were."""
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Batches(requests), "127.0.0.1", port))[1] for _ in range(_CONNECTIONS)
    ]
    end = time.perf_counter() + seconds
    try:
        while time.perf_counter() < end:
            await asyncio.wait([each.done for each in connections], timeout=end - time.perf_counter())
            if any(each.done.done() for each in connections):
                break
        for each in connections:
            each.stopping = True
        await asyncio.gather(*(each.done for each in connections))
        return sum(each.answered for each in connections)
    finally:
        for each in connections:
            each.close()
