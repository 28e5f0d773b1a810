"""How figures change as partitions, tables, keys and values grow."""

from dataclasses import dataclass

from bench.load import closed_loop
from bench.measurements.reads import asked
from bench.peers.peer import Look, looks, running, until_at_rest
from bench.peers.tablehouse import Tablehouse
from bench.setting import CONNECTIONS, Setting
from bench.usage import resident_bytes


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
    Shape("256 partitions, 10 tables", 100_000, 100_000, partitions=256, tables=10, reported_only=True),
)

INGEST, CPU, BYTES, READS, READY, RSS = (
    "rows/s",
    "CPU us a row",
    "MB/s",
    "GET/s",
    "s from the assignment to caught up",
    "RSS MiB",
)

_PAUSE = 0.1
_TIMEOUT_SECONDS = 120.0


def figure(shape: Shape, what: str) -> str:
    """Return the name of one of a shape's figures."""
    return f"growth, {shape.name}: {what}"


async def measure(setting: Setting) -> None:
    """Ingest and read each shape, once; one that fails is reported, and the others go on."""
    for shape in SHAPES:
        try:
            await _measure(setting, shape)
        except TimeoutError as error:
            setting.figures.failures[f"growth, {shape.name}"] = str(error)
            setting.say(f"{shape.name}: failed: {error}")


async def _measure(setting: Setting, shape: Shape) -> None:
    source = setting.sized(shape.records, shape.keys, shape.partitions, shape.value_bytes)
    produced = await setting.topics.provide(source)
    async with running(setting.worker(source.topic, tables=shape.tables)) as worker:
        assigned, first, last = await _watch(worker, source.records * shape.tables)
        await until_at_rest(worker)
        seen = await closed_loop(worker.port, asked(source), connections=CONNECTIONS, seconds=setting.read_seconds)
        rss = resident_bytes(worker.pid) / (1 << 20)
    rows = last.progress.applied - first.progress.applied
    if rows == 0:
        raise TimeoutError("everything was there at the first look: measure with more --records")
    rate = rows / (last.usage.at - first.usage.at)
    add = setting.figures.add
    add(figure(shape, INGEST), rate)
    add(figure(shape, CPU), 1e6 * (last.usage.cpu - first.usage.cpu) / rows)
    add(figure(shape, BYTES), rate * produced.value_bytes / 1e6)
    add(figure(shape, READS), seen.rate)
    add(figure(shape, READY), last.usage.at - assigned.usage.at)
    add(figure(shape, RSS), rss)
    setting.say(
        f"{shape.name} ({shape.partitions * shape.tables} tasks): {rate:,.0f} rows/s, "
        f"{rate * produced.value_bytes / 1e6:.0f} MB/s, {seen.rate:,.0f} GET/s, {rss:.0f} MiB, "
        f"{last.usage.at - assigned.usage.at:.1f} s from the assignment to caught up"
    )


async def _watch(worker: Tablehouse, rows: int) -> tuple[Look, Look, Look]:
    """Return the looks that first saw an assignment and rows, and the one that saw all of them served."""
    assigned: Look | None = None
    first: Look | None = None
    async for look in looks(worker, _PAUSE, _TIMEOUT_SECONDS):
        if look.progress.assigned:
            assigned = assigned or look
        if look.progress.applied:
            first = first or look
        if assigned and first and look.progress.caught_up and look.progress.applied >= rows:
            return assigned, first, look
    raise AssertionError("looks() ends with an error only")
