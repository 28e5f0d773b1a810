"""Reads at a fixed rate while a backlog is ingested: what a reader waits, and what ingest loses."""

import asyncio
import os
import signal

from bench.load import open_loop
from bench.measurements.reads import asked
from bench.peers.peer import running, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import create_topic, produce
from bench.usage import usage

P50 = "2,000 GET/s during ingest, p50 ms"
P99 = "2,000 GET/s during ingest, p99 ms"
ALONE = "ingest of a backlog alone, records/s"
KEPT = "ingest of a backlog during reads, records/s"

_RATE = 2000
#: So many that a request hardly ever waits for a free one: what is queued is then queued in the server.
_CONNECTIONS = 256
#: Seconds that any part of the backlog may take.
_TIMEOUT_SECONDS = 120.0
_PAUSE = 0.05
_TOPIC = "source-with-a-backlog"


async def measure(setting: Setting) -> None:
    """Half of the backlog goes without reads, and of the other half as much as the reads last.

    The worker is stopped (SIGSTOP) while the backlog is produced: it keeps its partitions, its tasks stay ACTIVE and
    answer from the first moment on, and no producer takes CPU while it is measured.
    """
    await create_topic(setting.bootstrap, _TOPIC, 4)
    first = setting.sized(200_000, 200_000, 4)
    await produce(setting.bootstrap, _TOPIC, first)
    async with running(setting.worker(_TOPIC, session_timeout="5m")) as worker:
        await until_caught_up(worker, first.records)
        for _ in range(setting.rounds):
            await _round(setting, worker, asked(first))


async def _round(setting: Setting, worker: Tablehouse, requests: list[bytes]) -> None:
    backlog = setting.sized(1_200_000, 200_000, 4)
    before = (await _applied(worker))[0]
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        await produce(setting.bootstrap, _TOPIC, backlog)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    total = before + backlog.records
    # The fetches that were under way when it was stopped are over once something was applied.
    begin = await _reaches(worker, before + 1)
    half = await _reaches(worker, before + backlog.records // 2)
    alone = (half[0] - begin[0]) / (half[1] - begin[1])
    # As long as the rest lasts at two thirds of the speed, with a margin: reads must not outlast the backlog.
    seconds = max(1.0, 0.6 * (total - half[0]) / alone)
    reads = await open_loop(worker.port, requests, connections=_CONNECTIONS, rate=_RATE, seconds=seconds)
    end = await _applied(worker)
    if end[0] >= total:
        raise RuntimeError("the backlog was gone before the reads were: measure with more --records")
    kept = (end[0] - half[0]) / (end[1] - half[1])
    await until_caught_up(worker, total)
    figures = setting.figures
    figures.add(ALONE, alone)
    figures.add(KEPT, kept)
    figures.add(P50, 1e3 * reads.percentile(50))
    figures.add(P99, 1e3 * reads.percentile(99))
    setting.say(
        f"{_RATE} GET/s during ingest: p50 {1e3 * reads.percentile(50):.1f} ms, "
        f"p99 {1e3 * reads.percentile(99):.1f} ms; ingest {kept:,.0f} of {alone:,.0f} records/s"
    )


async def _applied(worker: Tablehouse) -> tuple[int, float]:
    progress = await worker.progress()
    if progress is None:
        raise RuntimeError("the worker does not answer")
    return progress.applied, usage(worker.pid).at


async def _reaches(worker: Tablehouse, count: int) -> tuple[int, float]:
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        while True:
            seen = await _applied(worker)
            if seen[0] >= count:
                return seen
            await asyncio.sleep(_PAUSE)
