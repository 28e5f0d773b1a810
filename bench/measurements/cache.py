"""Reads of four times as much data as the block cache holds, against the same data in a cache that holds it all."""

from bench.load import closed_loop
from bench.measurements.reads import asked
from bench.peers.peer import running, until_caught_up
from bench.setting import CONNECTIONS, Setting

CACHED = "GET/s, data in the block cache"
UNCACHED = "GET/s, data 4x the block cache"

#: Three quarters of the budget are block cache: 48 MiB of 64.
_SMALL, _LARGE = "64MiB", "1GiB"
_ROWS = 200_000
_VALUE_BYTES = 1_000


async def measure(setting: Setting) -> None:
    """Read the same data under a large and a small budget.

    The files stay in the system's page cache: measured is what a miss of the block cache costs, not the disk.
    """
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, 4, _VALUE_BYTES))
    requests = asked(produced.source)
    for name, budget in ((CACHED, _LARGE), (UNCACHED, _SMALL)):
        async with running(setting.worker(produced.source.topic, memory_budget=budget)) as worker:
            await until_caught_up(worker, produced.source.records)
            # A restart, so that rows come from files and not from memtables.
            await worker.stop()
            worker.start()
            await until_caught_up(worker, produced.source.records)
            for _ in range(2):  # the first fills the cache
                seen = await closed_loop(worker.port, requests, connections=CONNECTIONS, seconds=setting.read_seconds)
        setting.figures.add(name, seen.rate)
        setting.say(f"{name}: {seen.rate:,.0f}")
