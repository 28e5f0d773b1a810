"""Two figures of one worker on this machine: source records a second into a table, and GETs a second out of it.

Broker, worker and load share the machine, so the figures say what one worker does here with all of them running.
The CPU time is the worker process's own, from /proc: this runs on Linux only.
"""

import asyncio
import itertools
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import msgspec
import uvloop

from bench.load import Latencies, closed_loop, row_requests
from tablehouse.demo.flights import Record
from tablehouse.demo.load import PARTITIONS, Producer, ensure_topics
from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka

_TOPIC = "accounts"
_TABLES = f"tables: [{{name: table, source: {{topic: {_TOPIC}, key: string, value: json, partitioner: murmur2}}}}]\n"
_SEED = 20_130_101
_DEADLINE = 600.0  # seconds
_POLL = 0.05
_STOP_GRACE = 30.0
_APPLIED = re.compile(r"^tablehouse_ingest_records_total\{[^}]*\} (\S+)$", re.MULTILINE)
_ASSIGNED = re.compile(r"^tablehouse_partition_state\{", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Ingest:
    """`seconds` from the assignment to caught up, `cpu_seconds` of the worker meanwhile.

    `applying_seconds` leaves out what comes before the first record: opening the stores and claiming the changelog.
    """

    seconds: float
    applying_seconds: float
    cpu_seconds: float


@click.command()
@click.option("--records", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--keys", type=click.IntRange(min=1), default=200_000, show_default=True)
@click.option("--connections", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="How long to GET.")
def main(*, records: int, keys: int, connections: int, seconds: float) -> None:
    """Measure one worker over a topic of JSON records of about 150 bytes."""
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tablehouse-bench-") as name, EmbeddedKafka(Path(name) / "kafka") as kafka:
        folder = Path(name)
        asyncio.run(_preload(kafka.bootstrap_servers, records, keys))
        port = processes.free_port()
        log = folder / "worker.log"
        worker = processes.spawn(
            [sys.executable, "-m", "tablehouse", "worker"],
            log=log,
            env=os.environ | _settings(folder, kafka.bootstrap_servers, port),
        )
        try:
            ingest = _measure_ingest(worker.pid, port, records, log)
            before = _cpu_seconds(worker.pid)
            # Another process, so that the load's interpreter does not wait for this one's.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seen = pool.submit(_read, port, _some_keys(records, keys), connections, seconds).result()
            cpu_a_get = (_cpu_seconds(worker.pid) - before) / seen.answered
        finally:
            processes.end([worker], grace=_STOP_GRACE)
    _report(records, keys, ingest, seen, cpu_a_get)
    click.echo(f"          over {connections} connections")
    click.echo(f"machine   {os.cpu_count()} cores, load average {load_before:.1f} before the run")


def _report(records: int, keys: int, ingest: _Ingest, seen: Latencies, cpu_a_get: float) -> None:
    click.echo(
        f"ingest    {records / ingest.seconds:,.0f} records/s from the assignment to caught up "
        f"({ingest.seconds:.1f} s), {records / ingest.applying_seconds:,.0f} from the first record on; "
        f"{ingest.cpu_seconds / records * 1e6:.1f} us of the worker's CPU a record\n"
        f"          {records:,} JSON records, {keys:,} keys, {PARTITIONS} partitions"
    )
    click.echo(
        f"reads     {seen.rate:,.0f} GET/s, "
        f"p50 {seen.percentile(50) * 1000:.2f} ms, p99 {seen.percentile(99) * 1000:.2f} ms; "
        f"{cpu_a_get * 1e6:.0f} us of the worker's CPU a GET"
    )


async def _preload(bootstrap: str, records: int, keys: int) -> None:
    await ensure_topics(bootstrap, [_TOPIC])
    async with Producer(bootstrap) as producer:
        with click.progressbar(length=records, label="Filling the topic", file=sys.stderr) as bar:
            await producer.load(_records(records, keys), bar.update)


def _records(records: int, keys: int) -> Iterator[Record]:
    chance = random.Random(_SEED)  # noqa: S311  the same load in every run
    for number in range(records):
        key = chance.randrange(keys)
        row = {
            "account": key,
            "owner": f"owner-{key % 9973:05}",
            "balance": chance.randrange(10_000_000) / 100,
            "currency": ("EUR", "USD", "GBP")[key % 3],
            "transactions": number,
            "active": key % 11 != 0,
            "branch": f"branch-{key % 211:03}",
        }
        yield Record(_TOPIC, _key(key), msgspec.json.encode(row))


def _key(number: int) -> bytes:
    return f"account-{number:07}".encode()


def _some_keys(records: int, keys: int) -> Sequence[bytes]:
    """Return keys that have got a record."""
    return list(dict.fromkeys(record.key for record in itertools.islice(_records(records, keys), 50_000)))


def _read(port: int, keys: Sequence[bytes], connections: int, seconds: float) -> Latencies:
    return uvloop.run(closed_loop(port, row_requests(keys), connections=connections, seconds=seconds))


def _settings(folder: Path, bootstrap: str, port: int) -> dict[str, str]:
    tables = folder / "tables.yaml"
    tables.write_text(_TABLES, "utf-8")
    internal = processes.free_port()
    return {
        "TABLEHOUSE_BOOTSTRAP_SERVERS": bootstrap,
        "TABLEHOUSE_TABLES": str(tables),
        "TABLEHOUSE_GROUP": "bench",
        "TABLEHOUSE_DATA_DIR": str(folder / "worker"),
        "TABLEHOUSE_HTTP_HOST": "127.0.0.1",
        "TABLEHOUSE_HTTP_PORT": str(port),
        "TABLEHOUSE_INTERNAL_PORT": str(internal),
        "TABLEHOUSE_ADVERTISED_URL": f"http://127.0.0.1:{internal}",
    }


def _measure_ingest(pid: int, port: int, records: int, log: Path) -> _Ingest:
    deadline = time.monotonic() + _DEADLINE
    assigned = first = cpu = 0.0
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        while True:
            text = _metrics(client)
            now = time.monotonic()
            if not assigned and _ASSIGNED.search(text):
                assigned, cpu = now, _cpu_seconds(pid)
            applied = sum(float(value) for value in _APPLIED.findall(text))
            if not first and applied:
                first = now
            if applied >= records:
                return _Ingest(now - assigned, max(_POLL, now - first), _cpu_seconds(pid) - cpu)
            if now > deadline:
                raise click.ClickException(
                    f"{applied:,.0f} of {records:,} records were applied after {_DEADLINE:.0f} s; "
                    f"the last lines of the worker's log:\n{processes.last_lines(log)}"
                )
            time.sleep(_POLL)


def _metrics(client: httpx.Client) -> str:
    try:
        return client.get("/metrics").raise_for_status().text
    except httpx.TransportError:  # it does not listen yet
        return ""


def _cpu_seconds(pid: int) -> float:
    # What comes after the command's name, which is in parentheses and may hold blanks: fields 3 and up of proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(prog_name="python -m bench.quick")
