"""How much memory a worker with many partitions takes."""

import asyncio

from bench.peers.peer import running
from bench.setting import Setting
from bench.usage import resident_bytes

PEAK = "RSS, 64 partitions, 2 tables, 256 MiB budget: peak MiB"
END = "RSS, 64 partitions, 2 tables, 256 MiB budget: MiB after ingest"

BUDGET_MIB = 256
_PARTITIONS, _TABLES = 64, 2


async def measure(setting: Setting) -> None:
    """Watch the resident memory while two tables take the main source, and after it."""
    source = setting.sized(2_000_000, 200_000, _PARTITIONS)
    await setting.topics.provide(source)
    worker = setting.worker(source.topic, tables=_TABLES, memory_budget=f"{BUDGET_MIB}MiB")
    peak = 0
    async with running(worker):
        while True:
            progress = await worker.progress()
            now = resident_bytes(worker.pid)
            peak = max(peak, now)
            if progress is not None and progress.caught_up and progress.applied >= _TABLES * source.records:
                break
            await asyncio.sleep(0.25)
    setting.figures.add(PEAK, peak / (1 << 20))
    setting.figures.add(END, now / (1 << 20))
    setting.say(f"RSS {now / (1 << 20):.0f} MiB, peak {peak / (1 << 20):.0f} MiB, with a budget of {BUDGET_MIB} MiB")
