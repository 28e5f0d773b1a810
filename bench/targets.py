"""What Tablehouse has to reach, what it aims at, and what a run has got."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import FAUST, OURS, STREAMS, Figures
from bench.measurements import (
    batch,
    cache,
    cluster,
    failover,
    forwarded,
    growth,
    ingest,
    join,
    lag,
    memory,
    mixed,
    reads,
    restore,
    rolling,
    slow_peer,
    start,
    writes,
)

_MEMORY_MIB = memory.BUDGET_MIB + 200
_FAILOVER_SECONDS = failover.SESSION_SECONDS + 2
_GROWTH = 0.7

_Reading = Callable[[Figures], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table. got and reached are None when the run has not measured it."""

    what: str
    must: str
    aim: str
    got: str | None
    reached: bool | None


@dataclass(frozen=True, slots=True)
class _Limit:
    """A figure that a target has, how it is written, and what must be true of it and the bound."""

    reading: _Reading
    text: str
    compare: Callable[[float, float], bool]
    bound: float


@dataclass(frozen=True, slots=True)
class _Goal:
    """A target before the run: reached when every figure keeps its limit."""

    what: str
    must: str
    aim: str
    limits: tuple[_Limit, ...]

    def judge(self, figures: Figures) -> Target:
        """Return the target with what a run has got."""
        got, kept = [], []
        for limit in self.limits:
            value = limit.reading(figures)
            if value is None:
                return Target(self.what, self.must, self.aim, None, None)
            got.append(limit.text.format(value))
            kept.append(limit.compare(value, limit.bound))
        return Target(self.what, self.must, self.aim, ", ".join(got), all(kept))


def _median(name: str) -> _Reading:
    return lambda figures: figures.median(name)


def _over(name: str, peer: str) -> _Reading:
    return lambda figures: figures.over(name, peer)


def _less(name: str, other: str) -> _Reading:
    def reading(figures: Figures) -> float | None:
        value, subtracted = figures.median(name), figures.median(other)
        return None if value is None or subtracted is None else value - subtracted

    return reading


def _share(name: str, of: str) -> _Reading:
    def reading(figures: Figures) -> float | None:
        value, whole = figures.median(name), figures.median(of)
        return None if value is None or not whole else value / whole

    return reading


def _goal(
    what: str, must: str, aim: str, *limits: tuple[_Reading, str, Callable[[float, float], bool], float]
) -> _Goal:
    return _Goal(what, must, aim, tuple(_Limit(*limit) for limit in limits))


_UNTIL_FAILOVER = (
    _goal(
        "ingest, one worker",
        "2.0x Kafka Streams, 10x stock Faust",
        "3x, 20x",
        (_over(ingest.RATE, STREAMS), "{:.1f}x", operator.ge, 2),
        (_over(ingest.RATE, FAUST), "{:.0f}x", operator.ge, 10),
    ),
    _goal(
        "CPU a record, against Kafka Streams",
        "0.5x",
        "0.33x",
        (_over(ingest.CPU, STREAMS), "{:.2f}x", operator.le, 0.5),
    ),
    _goal(
        "restore of an empty store, against Kafka Streams",
        "1.0x",
        "1.3x",
        (_over(restore.RATE, STREAMS), "{:.2f}x", operator.ge, 1.0),
    ),
    _goal(
        "point GET, 32 connections, against Kafka Streams",
        "1.6x, p99 at most 0.4x",
        "2x",
        (_over(reads.RATE, STREAMS), "{:.2f}x", operator.ge, 1.6),
        (_over(reads.P99, STREAMS), "p99 {:.2f}x", operator.le, 0.4),
    ),
    _goal(
        "forwarded GET over a local one, idle, p50",
        "+0.15 ms",
        "+0.10 ms",
        (_less(forwarded.FORWARDED, forwarded.LOCAL), "+{:.2f} ms", operator.le, 0.15),
    ),
    _goal(
        "CPU of both workers for a forwarded GET over that of a local one, 32 connections",
        "1.8x",
        "1.5x",
        (_share(forwarded.FORWARDED_CPU, forwarded.LOCAL_CPU), "{:.2f}x", operator.le, 1.8),
    ),
    _goal(
        "forwarded GET/s, both workers on one core, against Kafka Streams that forwards",
        "3x",
        "5x",
        (_over(forwarded.FORWARDED_RATE, STREAMS), "{:.1f}x", operator.ge, 3),
    ),
    _goal(
        "three workers on one core, keys at random: GET/s over one worker alone",
        "0.5x",
        "0.65x",
        (_share(cluster.SHARED, cluster.ALONE), "{:.2f}x", operator.ge, 0.5),
    ),
    _goal(
        "the same: batch-get of 1,000 keys, keys/s over one worker alone",
        "0.6x",
        "0.8x",
        (_share(cluster.BATCH_SHARED, cluster.BATCH_ALONE), "{:.2f}x", operator.ge, 0.6),
    ),
    _goal(
        "batch-get of 1,000 keys, keys/s on one core",
        "150,000",
        "200,000",
        (_median(batch.rate(1_000)), "{:,.0f}", operator.ge, 150_000),
    ),
    _goal(
        "PUT?wait=visible, idle, p50",
        "15 ms",
        "",
        (_median(writes.VISIBLE), "{:.1f} ms", operator.le, 15),
    ),
    _goal(
        "2,000 GET/s while ingest runs: p99, ingest kept",
        "6 ms, 70 %",
        "4 ms, 85 %",
        (_median(mixed.P99), "{:.1f} ms", operator.le, 6),
        (_share(mixed.KEPT, mixed.ALONE), "{:.0%}", operator.ge, 0.7),
    ),
    _goal(
        "data 4x the block cache, GET/s against cached",
        "0.5x",
        "",
        (_share(cache.UNCACHED, cache.CACHED), "{:.2f}x", operator.ge, 0.5),
    ),
    _goal(
        "RSS with 64 partitions, 2 tables, 256 MiB budget, peak",
        f"{_MEMORY_MIB} MiB",
        "",
        (_median(memory.PEAK), "{:.0f} MiB", operator.le, _MEMORY_MIB),
    ),
    _goal(
        "start with 1 M rows to the first 200, after a graceful stop",
        "2 s",
        "1 s",
        (_median(start.AFTER_STOP), "{:.1f} s", operator.le, 2),
    ),
    _goal(
        "the same after SIGKILL, from the assignment",
        "5 s",
        "3 s",
        (_median(start.AFTER_KILL), "{:.1f} s", operator.le, 5),
    ),
    _goal(
        "SIGKILL of an owner: first row from a standby",
        "1,000 ms",
        "",
        (_median(failover.STANDBY), "{:.0f} ms", operator.le, 1000),
    ),
    _goal(
        "SIGKILL of an owner: rows of all its keys from the next one, against Kafka Streams",
        f"{failover.SESSION_SECONDS} s of time-out + 2 s, 1.0x",
        "+ 1 s, 0.5x",
        (_median(failover.OWNED), "{:.1f} s", operator.le, _FAILOVER_SECONDS),
        (_over(failover.OWNED, STREAMS), "{:.2f}x", operator.le, 1),
    ),
)

_AFTER_FAILOVER = (
    _goal(
        "a fourth worker joins: GETs for existing keys without a row",
        "0 %",
        "0 %",
        (_median(join.NO_ROW), "{:.3f} %", operator.eq, 0),
    ),
    _goal(
        "rolling restart at 2,000 GET/s: false answers",
        "0",
        "0",
        (_median(rolling.FALSE), "{:.0f}", operator.eq, 0),
    ),
    _goal(
        "the same: GETs with a 503 or without an answer",
        "under 0.1 %",
        "0 %",
        (_median(rolling.UNAVAILABLE), "{:.3f} %", operator.lt, 0.1),
    ),
    _goal(
        "the same: p99",
        "50 ms",
        "20 ms",
        (_median(rolling.P99), "{:.0f} ms", operator.le, 50),
    ),
    _goal(
        "standby behind its active at half of the maximum ingest, p99",
        "1,000 ms",
        "250 ms",
        (_median(lag.P99), "{:.0f} ms", operator.le, 1000),
    ),
    _goal(
        "a slow worker's keys are asked for as well: p99 of the asked one's own keys, over that before",
        "below 2x",
        "",
        (_median(slow_peer.LOCAL.ratio), "{:.2f}x", operator.lt, 2),
    ),
    _goal(
        "the same: p99 of keys forwarded to a third one, over that before",
        "below 2x",
        "",
        (_median(slow_peer.FORWARDED.ratio), "{:.2f}x", operator.lt, 2),
    ),
)


def targets(figures: Figures) -> list[Target]:
    """Judge a run."""
    return [
        *(goal.judge(figures) for goal in _UNTIL_FAILOVER),
        _replayed(figures),
        *(goal.judge(figures) for goal in _AFTER_FAILOVER),
        *(_growth(figures, shape) for shape in growth.SHAPES[1:]),
    ]


def _replayed(figures: Figures) -> Target:
    """Judge every round by itself."""
    replayed, lacked = (figures.all().get(name, {}).get(OURS, ()) for name in (failover.REPLAYED, failover.LACKED))
    what, must = "the same: changelog records replayed by the next one", "what its standbys lacked, at most"
    if not replayed:
        return Target(what, must, "", None, None)
    pairs = list(zip(replayed, lacked, strict=True))
    got = ", ".join(f"{few:.0f} of {most:.0f}" for few, most in pairs)
    return Target(what, must, "", got, all(few <= most for few, most in pairs))


def _growth(figures: Figures, shape: growth.Shape) -> Target:
    """Compare a shape with the smallest: in rows a second or, where rows are bigger, in bytes, and in reads."""
    base, must = growth.SHAPES[0], f"{_GROWTH}x"
    rows, size, gets = (
        _share(growth.figure(shape, name), growth.figure(base, name))(figures)
        for name in (growth.INGEST, growth.BYTES, growth.READS)
    )
    what = f"growth: {shape.name}, rows/s (bytes/s), GET/s"
    if rows is None or size is None or gets is None:
        return Target(what, must, "", None, None)
    got = f"{rows:.2f}x ({size:.2f}x), {gets:.2f}x"
    if shape.reported_only:
        return Target(what, "reported", "", got, None)
    return Target(what, must, "", got, max(rows, size) >= _GROWTH and gets >= _GROWTH)


def markdown(lines: Sequence[Target]) -> str:
    """Write the table."""
    rows = ["| | must | aim | got | |", "|---|---|---|---|---|"]
    word = {True: "reached", False: "**missed**", None: ""}
    rows += [f"| {line.what} | {line.must} | {line.aim} | {line.got or '-'} | {word[line.reached]} |" for line in lines]
    return "\n".join(rows) + "\n"
