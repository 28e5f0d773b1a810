"""Three workers are restarted one after the other, each on its own disk, while they are read and updated."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from bench.balancer import Balanced, Servers
from bench.measurements.join import PARTITIONS
from bench.measurements.sharing import settled, until_shared
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.updates import Updates
from bench.usage import usage

ASKED = "rolling restart: GETs for existing keys"
FALSE = "rolling restart: false answers"
UNAVAILABLE = "rolling restart: GETs with a 503 or without an answer, %"
RETRIED = "rolling restart: GETs asked again elsewhere, connection refused or cut off"
P99 = "rolling restart: GETs, p99 ms"
BUSY = "2,000 GET/s on three workers, undisturbed, % of their core"
SECONDS = "rolling restart: s from one worker's SIGTERM until three share evenly again"

#: A second, of all workers together.
RATE = 2000
_UPDATE_RATE = 200
_ROWS = 200_000
#: Every so many keys are asked for.
_STEP = 10
#: Seconds of load before the first restart, in which all workers are up.
_UNDISTURBED = 5.0


async def measure(setting: Setting) -> None:
    """Once: it is three stops and starts, and a rebalance or two after each."""
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, PARTITIONS, updated_by="rolling"))
    updates = Updates(produced.source, _STEP)
    workers = setting.workers(produced.source.topic, 3, takeover_interval="1s")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(settled(workers, PARTITIONS))
        await stack.enter_async_context(updates.produced(setting.bootstrap, _UPDATE_RATE))
        servers = await stack.enter_async_context(Servers([worker.port for worker in workers]))
        async with Balanced(servers, updates.requests(), RATE, updates.is_false) as load:
            await _watch(setting, workers)
            for worker in workers:
                began = time.monotonic()
                await worker.stop()
                stopped = time.monotonic() - began
                worker.start()
                seconds = await until_shared(workers, PARTITIONS) - began
                setting.figures.add(SECONDS, seconds)
                setting.say(f"ended {stopped:.1f} s after SIGTERM, three share evenly again after {seconds:.1f} s")
    answers, figures = load.answers, setting.figures
    figures.add(ASKED, answers.asked)
    figures.add(FALSE, answers.false)
    figures.add(UNAVAILABLE, answers.share_of(503) + 100 * answers.unanswered / answers.asked)
    figures.add(RETRIED, answers.refused + answers.lost)
    figures.add(P99, answers.percentile(99))
    setting.say(str(answers))


async def _watch(setting: Setting, workers: Sequence[Tablehouse]) -> None:
    """See how much of the core, which all workers share, the load takes while nobody comes or goes."""
    before = [usage(worker.pid) for worker in workers]
    await asyncio.sleep(_UNDISTURBED)
    after = [usage(worker.pid) for worker in workers]
    busy = sum((then.cpu - now.cpu) / (then.at - now.at) for now, then in zip(before, after, strict=True))
    setting.figures.add(BUSY, 100 * busy)
    setting.say(f"{RATE} GET/s take {busy:.0%} of the workers' core")
