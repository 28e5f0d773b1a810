"""Three workers that share one core, asked for keys of all of them, over one worker that has the core and every key."""

import time
from collections.abc import Sequence

from bench.load import closed_loop, row_requests
from bench.measurements.batch import batch_requests, batches
from bench.measurements.sharing import settled
from bench.peers.peer import running, until_at_rest, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import CONNECTIONS, Setting
from bench.source import Source

WORKERS = 3
PARTITIONS = 6
BATCH = 1_000

ALONE = f"GET, one worker, {CONNECTIONS} connections, requests/s"
SHARED = f"GET, {WORKERS} workers on one core, {CONNECTIONS} connections, requests/s"
BATCH_ALONE = f"batch-get of {BATCH:,} keys, one worker, keys/s"
BATCH_SHARED = f"batch-get of {BATCH:,} keys over {WORKERS} workers on one core, keys/s"

_LOOPS = 3
_WARM_UP = 1.0


async def measure(setting: Setting) -> None:
    """One worker, then three, on the same topic: GETs of keys at random, then batches of such keys."""
    produced = await setting.topics.provide(setting.sized(200_000, 100_000, PARTITIONS))
    source, alone = produced.source, setting.worker(produced.source.topic)
    async with running(alone):
        await until_caught_up(alone, source.records)
        await until_at_rest(alone)
        await _read(setting, [alone], source, ALONE, BATCH_ALONE)
    workers = setting.workers(source.topic, WORKERS, takeover_interval="1s")
    async with settled(workers, PARTITIONS):
        await _read(setting, workers, source, SHARED, BATCH_SHARED)
    figures = setting.figures
    setting.say(f"one worker {figures.median(ALONE):,.0f} GET/s, {WORKERS} on one core {figures.median(SHARED):,.0f}")
    setting.say(f"batches: one worker {figures.median(BATCH_ALONE):,.0f} keys/s, {figures.median(BATCH_SHARED):,.0f}")


async def _read(setting: Setting, workers: Sequence[Tablehouse], source: Source, gets: str, keys: str) -> None:
    asked, *more = (worker.port for worker in workers)
    requests = row_requests([source.key(number) for number in range(source.keys)])
    for _ in range(_LOOPS):
        seen = await closed_loop(
            asked, requests, connections=CONNECTIONS, seconds=setting.read_seconds / 2, more_ports=more
        )
        setting.figures.add(gets, seen.rate)
    many = batch_requests(source, BATCH)
    await batches(asked, many, _WARM_UP)
    for _ in range(_LOOPS):
        began = time.monotonic()
        answered = await batches(asked, many, setting.read_seconds / 2)
        setting.figures.add(keys, answered * BATCH / (time.monotonic() - began))
