"""How much memory a worker with many partitions takes."""

from bench.peers.peer import looks, running
from bench.setting import Setting
from bench.usage import resident_bytes

PEAK = "RSS, 64 partitions, 2 tables, 256 MiB budget: peak MiB"
END = "RSS, 64 partitions, 2 tables, 256 MiB budget: MiB after ingest"

BUDGET_MIB = 256
_PARTITIONS, _TABLES = 64, 2
_PAUSE = 0.25
_TIMEOUT_SECONDS = 300.0


async def measure(setting: Setting) -> None:
    """Watch the resident memory while two tables take the main source, and after it."""
    source = setting.sized(2_000_000, 200_000, _PARTITIONS)
    await setting.topics.provide(source)
    worker = setting.worker(source.topic, tables=_TABLES, memory_budget=f"{BUDGET_MIB}MiB")
    peak = 0
    async with running(worker):
        async for progress, _ in looks(worker, _PAUSE, _TIMEOUT_SECONDS):
            now = resident_bytes(worker.pid)
            peak = max(peak, now)
            if progress.caught_up and progress.applied >= _TABLES * source.records:
                break
    setting.figures.add(PEAK, peak / (1 << 20))
    setting.figures.add(END, now / (1 << 20))
    setting.say(f"RSS {now / (1 << 20):.0f} MiB, peak {peak / (1 << 20):.0f} MiB, with a budget of {BUDGET_MIB} MiB")
