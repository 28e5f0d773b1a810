"""What a client sees while the owner of a key is killed: `python -m bench.timeline` draws docs/failover*.svg.

Three workers with standbys, updates and reads at a steady rate, and the reads are of keys that the killed one owns,
asked of another worker. What was seen is kept beside the other results, so that the picture can be checked.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import click
import msgspec
import uvloop

from bench.figures import Figures, Point
from bench.http_client import Client
from bench.machine import describe, divide_cores
from bench.measurements.sharing import keys_by_owner, settled
from bench.plot import Axis, plot
from bench.setting import Setting
from bench.source import Topics
from bench.updates import Updates
from tablehouse.testing.kafka import EmbeddedKafka

_PARTITIONS = 6
_ROWS = 60_000
_STEP = 100
_UPDATES_PER_SECOND = 100
_CLIENTS = 4
_READS_PER_SECOND = 400
_SESSION_SECONDS = 6
_BEFORE, _AFTER = 3.0, 12.0
_BIN = 0.1
_KINDS = ("row of the active", "row of a standby", "row, suspended", "404", "503", "no answer")
_ROWS_OF = dict(zip(("active", "standby", "suspended"), _KINDS, strict=False))


class Seen(msgspec.Struct, frozen=True):
    """A request by when it was due, in seconds since the kill: one of _KINDS, and the staleness a row came with."""

    at: float
    kind: str
    staleness_ms: int | None


class Timeline(msgspec.Struct, frozen=True):
    """A run: every answer, and on what machine."""

    machine: dict[str, str]
    session_seconds: int
    seen: list[Seen]


async def _run(setting: Setting) -> list[Seen]:
    produced = await setting.topics.provide(setting.sized(_ROWS, _ROWS, _PARTITIONS, updated_by="timeline"))
    updates = Updates(produced.source, _STEP)
    session = f"{_SESSION_SECONDS}s"
    workers = setting.workers(produced.source.topic, 3, session_timeout=session, takeover_interval="1s")
    asked, _, killed = workers
    async with settled(workers, _PARTITIONS), updates.produced(setting.bootstrap, _UPDATES_PER_SECOND):
        updated = map(produced.source.key, range(0, produced.source.keys, _STEP))
        owned = await keys_by_owner(asked, updated)
        paths = [f"/tables/table/{key.decode()}" for key in owned[killed.internal_url]]
        began = time.monotonic()
        clients = [
            asyncio.create_task(_ask(asked.port, paths[number::_CLIENTS], began + _BEFORE))
            for number in range(_CLIENTS)
        ]
        await asyncio.sleep(_BEFORE)
        # Before the signal, since it takes a moment until the process is gone.
        late = time.monotonic() - began - _BEFORE
        killed.kill()
        seen = [one for each in await asyncio.gather(*clients) for one in each]
    return sorted((Seen(one.at - late, one.kind, one.staleness_ms) for one in seen), key=lambda one: one.at)


async def _ask(port: int, paths: Sequence[str], zero: float) -> list[Seen]:
    """Ask for keys in turn at a client's share of the rate, until the time is over."""
    seen, number, pause = [], 0, _CLIENTS / _READS_PER_SECOND
    async with Client(port) as client:
        due = time.monotonic()
        while due < zero + _AFTER:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answer = await client.ask(paths[number % len(paths)])
            staleness = answer.headers.get("tablehouse-staleness-ms")
            if answer.status == HTTPStatus.OK:
                known = None if staleness is None else int(staleness)
                seen.append(Seen(due - zero, _ROWS_OF[answer.headers["tablehouse-role"]], known))
            else:
                seen.append(Seen(due - zero, str(answer.status) if answer.status else "no answer", None))
            number, due = number + 1, due + pause
    return seen


def answers(timeline: Timeline) -> str:
    """Draw how many answers of each kind there were in each tenth of a second."""
    counts = Counter((int(one.at // _BIN), one.kind) for one in timeline.seen)
    curves = {
        kind: [Point(place * _BIN, counts[place, kind] / _BIN) for place in _bins()]
        for kind in _KINDS
        if any(counted == kind for _, counted in counts)
    }
    return _plot(timeline, "Whose rows they were", Axis("answers a second"), curves)


def staleness(timeline: Timeline) -> str:
    """Draw what the stalest answer of each tenth of a second said of its staleness."""
    stalest: dict[int, int] = {}
    for one in timeline.seen:
        if one.staleness_ms is not None:
            place = int(one.at // _BIN)
            stalest[place] = max(stalest.get(place, 0), one.staleness_ms)
    curve = [Point(place * _BIN, stalest[place]) for place in _bins() if place in stalest]
    return _plot(timeline, "How stale they said they were", Axis("ms, the stalest"), {"staleness": curve})


def _bins() -> range:
    return range(round(-_BEFORE / _BIN), round(_AFTER / _BIN))


def _plot(timeline: Timeline, title: str, up: Axis, curves: Mapping[str, Sequence[Point]]) -> str:
    owned = max((one.at for one in timeline.seen if one.kind != _KINDS[0]), default=0.0)
    standby = min((one.at for one in timeline.seen if one.at > 0 and one.kind == _KINDS[1]), default=0.0)
    marks = {"SIGKILL": 0.0, f"first row of a standby, after {1000 * standby:.0f} ms": standby}
    title = f"{title}: an owner is killed, session time-out {timeline.session_seconds} s"
    return plot(
        title, Axis("seconds since the kill"), up, curves, marks | {"last answer that was not the active's": owned}
    )


@click.command(help="Kill the owner of the keys that are read, and draw what the reader sees.")
@click.option("--folder", type=click.Path(path_type=Path), default="docs", help="Where the pictures go.")
@click.option("--data", type=click.Path(path_type=Path), default="bench/results/failover-timeline.json")
def main(folder: Path, data: Path) -> None:
    """Run, and write pictures and data."""
    cores = divide_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as own, EmbeddedKafka(Path(own) / "kafka") as kafka:
        bootstrap = kafka.bootstrap_servers
        setting = Setting(bootstrap, Path(own), cores, Topics(bootstrap), Figures(), _ROWS, 1, 1.0)
        seen = uvloop.run(_run(setting))
    timeline = Timeline(describe(cores), _SESSION_SECONDS, seen)
    data.write_bytes(msgspec.json.encode(timeline) + b"\n")
    (folder / "failover.svg").write_text(answers(timeline), encoding="utf-8")
    (folder / "failover-staleness.svg").write_text(staleness(timeline), encoding="utf-8")
    kinds = Counter(one.kind for one in seen if one.at > 0)
    click.echo(f"after the kill: {', '.join(f'{number} {kind}' for kind, number in kinds.items())}")


if __name__ == "__main__":
    main()
