"""What Tablehouse has to reach, what it aims at, and what a run has got."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import FAUST, OURS, STREAMS, Figures
from bench.measurements import (
    batch,
    cache,
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


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table. got and reached are None when the run has not measured it."""

    what: str
    must: str
    aim: str
    got: str | None
    reached: bool | None


def targets(figures: Figures) -> list[Target]:
    """Judge a run."""
    return [
        _ingest(figures),
        _line(
            "CPU a record, against Kafka Streams",
            "0.5x",
            "0.33x",
            figures.over(ingest.CPU, STREAMS),
            "{:.2f}x",
            lambda value: value <= 0.5,  # noqa: PLR2004 - as `must` says, here and below
        ),
        _line(
            "restore of an empty store, against Kafka Streams",
            "1.0x",
            "1.3x",
            figures.over(restore.RATE, STREAMS),
            "{:.2f}x",
            lambda value: value >= 1.0,
        ),
        _point_reads(figures),
        _line(
            "forwarded GET over a local one, idle, p50",
            "+0.5 ms",
            "+0.3 ms",
            _less(figures.median(forwarded.FORWARDED), figures.median(forwarded.LOCAL)),
            "+{:.2f} ms",
            lambda value: value <= 0.5,  # noqa: PLR2004
        ),
        _line(
            "batch-get of 1,000 keys, keys/s on one core",
            "150,000",
            "200,000",
            figures.median(batch.rate(1_000)),
            "{:,.0f}",
            lambda value: value >= 150_000,  # noqa: PLR2004
        ),
        _line(
            "PUT?wait=visible, idle, p50",
            "15 ms",
            "",
            figures.median(writes.VISIBLE),
            "{:.1f} ms",
            lambda value: value <= 15,  # noqa: PLR2004
        ),
        _mixed(figures),
        _line(
            "data 4x the block cache, GET/s against cached",
            "0.5x",
            "",
            _share(figures.median(cache.UNCACHED), figures.median(cache.CACHED)),
            "{:.2f}x",
            lambda value: value >= 0.5,  # noqa: PLR2004
        ),
        _line(
            "RSS with 64 partitions, 2 tables, 256 MiB budget, peak",
            f"{memory.BUDGET_MIB + 200} MiB",
            "",
            figures.median(memory.PEAK),
            "{:.0f} MiB",
            lambda value: value <= memory.BUDGET_MIB + 200,
        ),
        _line(
            "start with 1 M rows to the first 200, after a graceful stop",
            "2 s",
            "1 s",
            figures.median(start.AFTER_STOP),
            "{:.1f} s",
            lambda value: value <= 2,  # noqa: PLR2004
        ),
        _line(
            "the same after SIGKILL, from the assignment",
            "5 s",
            "3 s",
            figures.median(start.AFTER_KILL),
            "{:.1f} s",
            lambda value: value <= 5,  # noqa: PLR2004
        ),
        _line(
            "SIGKILL of an owner: first row from a standby",
            "1,000 ms",
            "",
            figures.median(failover.STANDBY),
            "{:.0f} ms",
            lambda value: value <= 1000,  # noqa: PLR2004
        ),
        _failover(figures),
        _replayed(figures),
        _line(
            "a fourth worker joins: GETs for existing keys without a row",
            "0 %",
            "0 %",
            figures.median(join.NO_ROW),
            "{:.3f} %",
            lambda value: value == 0,
        ),
        _line(
            "rolling restart at 2,000 GET/s: false answers",
            "0",
            "0",
            figures.median(rolling.FALSE),
            "{:.0f}",
            lambda value: value == 0,
        ),
        _line(
            "the same: GETs with a 503 or without an answer",
            "under 0.1 %",
            "0 %",
            figures.median(rolling.UNAVAILABLE),
            "{:.3f} %",
            lambda value: value < 0.1,  # noqa: PLR2004
        ),
        _line(
            "standby behind its active at half of the maximum ingest, p99",
            "1,000 ms",
            "250 ms",
            figures.median(lag.P99),
            "{:.0f} ms",
            lambda value: value <= 1000,  # noqa: PLR2004
        ),
        *_slow_peer(figures),
        *_growth(figures),
    ]


def _line(what: str, must: str, aim: str, value: float | None, text: str, reached: Callable[[float], bool]) -> Target:
    if value is None:
        return Target(what, must, aim, None, None)
    return Target(what, must, aim, text.format(value), reached(value))


def _ingest(figures: Figures) -> Target:
    streams, faust = figures.over(ingest.RATE, STREAMS), figures.over(ingest.RATE, FAUST)
    what, must, aim = "ingest, one worker", "2.0x Kafka Streams, 10x stock Faust", "3x, 20x"
    if streams is None or faust is None:
        return Target(what, must, aim, None, None)
    return Target(what, must, aim, f"{streams:.1f}x, {faust:.0f}x", streams >= 2 and faust >= 10)  # noqa: PLR2004


def _point_reads(figures: Figures) -> Target:
    rate, p99 = figures.over(reads.RATE, STREAMS), figures.over(reads.P99, STREAMS)
    what, must, aim = "point GET, 32 connections, against Kafka Streams", "1.0x, p99 at most 0.5x", "1.5x"
    if rate is None or p99 is None:
        return Target(what, must, aim, None, None)
    return Target(what, must, aim, f"{rate:.2f}x, p99 {p99:.2f}x", rate >= 1 and p99 <= 0.5)  # noqa: PLR2004


def _failover(figures: Figures) -> Target:
    owned, against = figures.median(failover.OWNED), figures.over(failover.OWNED, STREAMS)
    what = "SIGKILL of an owner: rows of all its keys from the next one, against Kafka Streams"
    must, aim = f"{failover.SESSION_SECONDS} s of time-out + 2 s, 1.0x", "+ 1 s, 0.5x"
    if owned is None or against is None:
        return Target(what, must, aim, None, None)
    return Target(
        what, must, aim, f"{owned:.1f} s, {against:.2f}x", owned <= failover.SESSION_SECONDS + 2 and against <= 1
    )


def _replayed(figures: Figures) -> Target:
    """Judge every round by itself."""
    replayed, lacked = (figures.all().get(name, {}).get(OURS, ()) for name in (failover.REPLAYED, failover.LACKED))
    what, must = "the same: changelog records replayed by the next one", "what its standbys lacked, at most"
    if not replayed:
        return Target(what, must, "", None, None)
    pairs = list(zip(replayed, lacked, strict=True))
    got = ", ".join(f"{few:.0f} of {most:.0f}" for few, most in pairs)
    return Target(what, must, "", got, all(few <= most for few, most in pairs))


def _mixed(figures: Figures) -> Target:
    p99, kept = figures.median(mixed.P99), _share(figures.median(mixed.KEPT), figures.median(mixed.ALONE))
    what, must, aim = "2,000 GET/s while ingest runs: p99, ingest kept", "10 ms, 70 %", "5 ms, 85 %"
    if p99 is None or kept is None:
        return Target(what, must, aim, None, None)
    return Target(what, must, aim, f"{p99:.1f} ms, {kept:.0%}", p99 <= 10 and kept >= 0.7)  # noqa: PLR2004


def _slow_peer(figures: Figures) -> list[Target]:
    """Judge the two kinds of reads that do not need the slow worker."""
    kinds = (
        ("a slow worker's keys are asked for as well: p99 of the asked one's own keys", slow_peer.LOCAL),
        ("the same: p99 of keys forwarded to a third one", slow_peer.FORWARDED),
    )
    return [
        _line(
            f"{what}, over that before",
            "below 2x",
            "",
            figures.median(names.ratio),
            "{:.2f}x",
            lambda value: value < 2,  # noqa: PLR2004
        )
        for what, names in kinds
    ]


def _growth(figures: Figures) -> list[Target]:
    """Compare each shape with the smallest: in rows a second or, where rows are bigger, in bytes, and in reads."""
    base, *others = growth.SHAPES
    lines = []
    for shape in others:
        rows, size, gets = (
            _share(figures.median(growth.figure(shape, what)), figures.median(growth.figure(base, what)))
            for what in (growth.INGEST, growth.BYTES, growth.READS)
        )
        what = f"growth: {shape.name}, rows/s (bytes/s), GET/s"
        if rows is None or size is None or gets is None:
            lines.append(Target(what, "0.7x", "", None, None))
            continue
        reached = max(rows, size) >= 0.7 and gets >= 0.7  # noqa: PLR2004
        lines.append(
            Target(
                what,
                "reported" if shape.reported_only else "0.7x",
                "",
                f"{rows:.2f}x ({size:.2f}x), {gets:.2f}x",
                None if shape.reported_only else reached,
            )
        )
    return lines


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _share(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def markdown(lines: Sequence[Target]) -> str:
    """Write the table."""
    rows = ["| | must | aim | got | |", "|---|---|---|---|---|"]
    word = {True: "reached", False: "**missed**", None: ""}
    rows += [f"| {line.what} | {line.must} | {line.aim} | {line.got or '-'} | {word[line.reached]} |" for line in lines]
    return "\n".join(rows) + "\n"
