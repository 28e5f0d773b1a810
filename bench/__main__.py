"""The benchmark's command line: `python -m bench [NAME...]`."""

import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import click
import uvloop

from bench.figures import Figures
from bench.machine import busy_with_others, describe, divide_cores
from bench.measurements import (
    avro,
    batch,
    cache,
    cluster,
    failover,
    forwarded,
    growth,
    join,
    lag,
    memory,
    mixed,
    rolling,
    slow_peer,
    start,
    writes,
)
from bench.report import write
from bench.setting import Setting
from bench.side_by_side import side_by_side
from bench.source import Topics
from tablehouse.errors import SetupError
from tablehouse.testing.kafka import EmbeddedKafka

_PEERS = ("ingest", "reads", "restore")
_ALONE: Mapping[str, Callable[[Setting], Awaitable[None]]] = {
    "forwarded": forwarded.measure,
    "cluster": cluster.measure,
    "batch": batch.measure,
    "writes": writes.measure,
    "avro": avro.measure,
    "mixed": mixed.measure,
    "cache": cache.measure,
    "memory": memory.measure,
    "start": start.measure,
    "growth": growth.measure,
    "failover": failover.measure,
    "join": join.measure,
    "rolling": rolling.measure,
    "lag": lag.measure,
    "slow_peer": slow_peer.measure,
}
#: Measured when asked for by name alone: it starts a schema registry.
_APART = ("avro",)
#: What several workers do when one of them comes, goes or is slow: mostly waiting, so measured by itself.
_AVAILABILITY = ("failover", "join", "rolling", "lag", "slow_peer")
_NOTE = (
    "Workers run with `takeover_interval` at 1 s in place of its default of 60 s, with which the fourth worker that "
    "joins would own its part up to a minute later."
)
#: Cores that other programs may keep busy before a warning is due.
_QUIET = 0.1
_NAMES = (*_PEERS, *_ALONE)
_SPEED = tuple(name for name in _NAMES if name not in (*_AVAILABILITY, *_APART))
_SUITES: Mapping[str, Sequence[str]] = {"speed": _SPEED, "availability": _AVAILABILITY}


@click.command(help=f"Measure a suite, {' or '.join(_SUITES)}; or some of: {', '.join(_NAMES)}.")
@click.argument("names", nargs=-1, type=click.Choice((*_SUITES, *_NAMES)), metavar="[NAME]...", default=["speed"])
@click.option("--rounds", default=3, show_default=True, help="Rounds; the figures are medians.")
@click.option(
    "--records", default=2_000_000, show_default=True, help="Records of the main source; less for a quick try."
)
@click.option("--read-seconds", default=4.0, show_default=True, help="Seconds of one measurement of reads.")
@click.option("--results", default="bench/results", show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where data goes meanwhile, a temporary folder by default."
)
def main(
    names: Sequence[str], rounds: int, records: int, read_seconds: float, results: Path, folder: Path | None
) -> None:
    """Run, report, and leave nothing behind but the results: those of a suite under its name."""
    wanted = [part for name in names for part in _SUITES.get(name, [name])]
    title = names[0] if len(names) == 1 and names[0] in _SUITES else "part"
    # A producer that is early at a new partition warns, and tries again.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    try:
        cores = divide_cores()
        busy = busy_with_others()
        if busy > _QUIET:
            click.echo(f"Other programs keep {busy:.1f} cores busy: the figures will be theirs too.", err=True)
        machine = describe(cores) | {
            "rounds": str(rounds),
            "records": f"{records:,}",
            "cores busy with other programs before the run": f"{busy:.2f}",
        }
        with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as data:
            root = Path(data)
            figures = Figures()
            with EmbeddedKafka(root / "kafka") as kafka:
                setting = Setting(
                    bootstrap=kafka.bootstrap_servers,
                    folder=root,
                    cores=cores,
                    topics=Topics(kafka.bootstrap_servers),
                    figures=figures,
                    records=records,
                    rounds=rounds,
                    read_seconds=read_seconds,
                )
                uvloop.run(_measure(setting, wanted))
    except SetupError as error:
        sys.exit(str(error))
    notes = [_NOTE] if set(wanted) & set(_AVAILABILITY) else []
    click.echo(write(figures, machine, results, title, notes))
    if figures.failures:
        sys.exit(1)


async def _measure(setting: Setting, wanted: Sequence[str]) -> None:
    """Measure one after the other; one that fails is reported, and the others go on."""
    began = time.monotonic()
    steps: dict[str, Callable[[Setting], Awaitable[None]]] = {}
    if beside := [name for name in wanted if name in _PEERS]:
        steps[", ".join(beside)] = lambda setting: side_by_side(setting, beside)
    steps |= {name: measure for name, measure in _ALONE.items() if name in wanted}
    for name, measure in steps.items():
        click.echo(f"{name} (after {time.monotonic() - began:.0f} s)")
        try:
            await measure(setting)
        except Exception as error:  # noqa: BLE001 - whatever it is, the figures of the others count
            setting.figures.failures[name] = f"{type(error).__name__}: {error}"
            click.echo(f"  failed: {type(error).__name__}: {error}", err=True)


if __name__ == "__main__":
    main()
