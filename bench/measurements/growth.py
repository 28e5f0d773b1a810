"""How figures change as partitions, tables, keys and values grow."""

import asyncio
import time
from dataclasses import dataclass

from bench.load import closed_loop
from bench.measurements.reads import asked
from bench.peers.peer import running
from bench.peers.tablehouse import Tablehouse
from bench.setting import CONNECTIONS, Setting
from bench.usage import Usage, resident_bytes, usage


@dataclass(frozen=True, slots=True)
class Shape:
    """One way of being big; reported_only means that nothing is promised of it.

    In the figures' names, rows are records times tables.
    """

    name: str
    records: int
    keys: int
    partitions: int = 4
    tables: int = 1
    value_bytes: int = 100
    reported_only: bool = False


SHAPES = (
    Shape("4 partitions, 1 table, 200 k keys, 100 B", 1_000_000, 200_000),
    Shape("64 partitions", 1_000_000, 200_000, partitions=64),
    Shape("2 tables", 1_000_000, 200_000, tables=2),
    Shape("10 tables", 400_000, 200_000, tables=10),
    Shape("5 M keys", 5_000_000, 5_000_000),
    Shape("10 KiB values", 100_000, 20_000, value_bytes=10_240),
    Shape("256 partitions, 10 tables", 200_000, 100_000, partitions=256, tables=10, reported_only=True),
)

INGEST, CPU, BYTES, READS, READY, RSS = (
    "rows/s",
    "CPU us a row",
    "MB/s",
    "GET/s",
    "s to claim everything",
    "RSS MiB",
)

_PATIENCE = 180.0


def figure(shape: Shape, what: str) -> str:
    """Return the name of one of a shape's figures."""
    return f"growth, {shape.name}: {what}"


async def measure(setting: Setting) -> None:
    """Ingest and read each shape, once."""
    for shape in SHAPES:
        await _measure(setting, shape)


async def _measure(setting: Setting, shape: Shape) -> None:
    source = setting.sized(shape.records, shape.keys, shape.partitions, shape.value_bytes)
    produced = await setting.topics.provide(source)
    async with running(setting.worker(source.topic, tables=shape.tables)) as worker:
        # Claims first, so that rows/s is about rows.
        tasks = shape.partitions * shape.tables
        assigned, first, last = await _watch(worker, source.records * shape.tables)
        rows = last[0] - first[0]
        rate = rows / (last[1].at - first[1].at)
        seen = await closed_loop(worker.port, asked(source), connections=CONNECTIONS, seconds=setting.read_seconds)
        rss = resident_bytes(worker.pid) / (1 << 20)
    add = setting.figures.add
    add(figure(shape, INGEST), rate)
    add(figure(shape, CPU), 1e6 * (last[1].cpu - first[1].cpu) / rows)
    add(figure(shape, BYTES), rate * produced.value_bytes / 1e6)
    add(figure(shape, READS), seen.rate)
    add(figure(shape, READY), first[1].at - assigned)
    add(figure(shape, RSS), rss)
    setting.say(
        f"{shape.name} ({tasks} tasks): {rate:,.0f} rows/s, {rate * produced.value_bytes / 1e6:.0f} MB/s, "
        f"{seen.rate:,.0f} GET/s, {rss:.0f} MiB"
    )


async def _watch(worker: Tablehouse, rows: int) -> tuple[float, tuple[int, Usage], tuple[int, Usage]]:
    """Return when it was assigned, and the first and the last look at the rows that it had applied."""
    deadline = time.monotonic() + _PATIENCE
    assigned: float | None = None
    first: tuple[int, Usage] | None = None
    while True:
        progress = await worker.progress()
        now = usage(worker.pid)
        if progress is not None and progress.assigned and assigned is None:
            assigned = now.at
        if progress is not None and progress.applied and first is None:
            first = progress.applied, now
        if progress is not None and first and assigned and progress.caught_up and progress.applied >= rows:
            return assigned, first, (progress.applied, now)
        if now.at > deadline:
            raise TimeoutError(f"not caught up within {_PATIENCE:.0f} s: {progress}")
        await asyncio.sleep(0.1)
