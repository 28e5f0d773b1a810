"""How soon a worker with rows on its disk answers: after a crash, and after a graceful stop."""

import asyncio
import time

from bench.http_client import Client
from bench.peers.peer import running, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting

AFTER_STOP = "start after a graceful stop, s from start to first 200"
AFTER_KILL = "start after SIGKILL, s from assignment to first 200"
AFTER_KILL_TOTAL = "start after SIGKILL, s from start to first 200"

_ROWS = 1_000_000
_TIMEOUT_SECONDS = 120.0
_PAUSE = 0.01


async def measure(setting: Setting) -> None:
    """Kill a worker of a million rows right after the last record, so that the tail to replay is as long as it can be.

    Then stop and start it gracefully.
    """
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, 4))
    key = produced.source.key(0).decode()
    figures = setting.figures
    async with running(setting.worker(produced.source.topic)) as worker:
        await until_caught_up(worker, produced.source.records)
        worker.kill()
        worker.start()
        total, assigned = await _first_row(worker, key)
        figures.add(AFTER_KILL, assigned)
        figures.add(AFTER_KILL_TOTAL, total)
        setting.say(f"after SIGKILL: first 200 in {total:.1f} s, {assigned:.1f} s after the assignment")
        await until_caught_up(worker, produced.source.records)
        for _ in range(setting.rounds):
            await worker.stop()
            worker.start()
            total, _ = await _first_row(worker, key)
            figures.add(AFTER_STOP, total)
            setting.say(f"after a graceful stop: first 200 in {total:.1f} s")


async def _first_row(worker: Tablehouse, key: str) -> tuple[float, float]:
    """Return the seconds from now, and from the assignment, to the first answer that is a row."""
    started = time.monotonic()
    assigned: float | None = None
    async with Client(worker.port) as client:
        while time.monotonic() < started + _TIMEOUT_SECONDS:
            if assigned is None:
                progress = await worker.progress()
                if progress is not None and progress.assigned:
                    assigned = time.monotonic()
            status, _ = await client.get(f"/tables/table/{key}")
            now = time.monotonic()
            if status == 200:  # noqa: PLR2004
                return now - started, now - (assigned or now)
            _ = worker.pid  # fails when it has ended
            await asyncio.sleep(_PAUSE)
    raise TimeoutError(f"no row within {_TIMEOUT_SECONDS:.0f} s of the start")
