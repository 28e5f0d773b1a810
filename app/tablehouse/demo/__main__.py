"""`make demo`: Kafka, two workers, all flights of a year in tables, and curl commands to try.

Settings, all from the environment: BOOTSTRAP=host:port uses a Kafka of your own instead of the embedded one;
DEMO_HTTP_PORT, DEMO_INTERNAL_PORT (each the first of two in a row) and DEMO_BROKER_PORT choose other ports.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tablehouse.demo import flights
from tablehouse.demo.folder import demo_folder
from tablehouse.demo.load import Last, Producer, ensure_topics
from tablehouse.demo.tour import Example, find_examples
from tablehouse.demo.trickle import trickle
from tablehouse.demo.waiting import wait_caught_up, wait_ready
from tablehouse.demo.workers import SESSION_TIMEOUT, DemoWorker, start_workers, stop_workers, watch_workers
from tablehouse.errors import SetupError
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.ports import WORKERS, Ports
from tablehouse.testing.processes import keep_libraries_quiet, leave_by_ctrl_c

_FOLDER = Path(".demo")
_EXAMPLE_KEYS = 64


@click.command()
@click.option("--once", is_flag=True, help="Load the data, make each printed request once, and exit.")
@click.option(
    "--flights",
    "limit",
    type=click.IntRange(1, flights.ROWS["flights"]),
    default=flights.ROWS["flights"],
    show_default=True,
    metavar="N",
    help="Number of flights to load.",
)
def main(*, once: bool, limit: int) -> None:
    """Run Tablehouse on this machine with real flights, until Ctrl-C.

    BOOTSTRAP=host:port uses a Kafka of your own; DEMO_HTTP_PORT, DEMO_INTERNAL_PORT (each the first of two in a
    row) and DEMO_BROKER_PORT choose other ports.
    """
    keep_libraries_quiet()
    leave_by_ctrl_c()
    try:
        sys.exit(_run(os.environ, once=once, limit=limit))
    except SetupError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _run(environment: Mapping[str, str], *, once: bool, limit: int) -> int:
    bootstrap = environment.get("BOOTSTRAP")
    ports = Ports.from_environment(environment)
    ports.require_free(own_broker=bootstrap is None)
    with ExitStack() as stack:
        folder = stack.enter_context(demo_folder(_FOLDER, wipe=bootstrap is None))
        if bootstrap is None:
            click.echo("Starting Apache Kafka ...")
            broker = EmbeddedKafka(folder / "kafka", port=ports.broker)
            stack.callback(broker.stop)
            broker.start()
            bootstrap = broker.bootstrap_servers
        asyncio.run(ensure_topics(bootstrap, flights.ROWS))
        click.echo(f"Kafka is at {bootstrap}.")
        workers = start_workers(folder, bootstrap, ports)
        stack.callback(_stop, workers)
        return asyncio.run(_demo(bootstrap, workers, once=once, limit=limit))


def _stop(workers: Sequence[DemoWorker]) -> None:
    click.echo("Stopping the workers ...")
    stop_workers(workers)


async def _demo(bootstrap: str, workers: Sequence[DemoWorker], *, once: bool, limit: int) -> int:
    for worker in workers:
        click.echo(f"Worker {worker.number} is process {worker.process.pid}, its log is {worker.log}.")
    # Connect directly to 127.0.0.1, without any proxy of the environment.
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client, Producer(bootstrap) as producer:
        await wait_ready(client, workers)
        started = time.monotonic()
        loaded = await _load(producer, limit)
        click.echo("Waiting until every table has applied everything ...")
        await wait_caught_up(client, workers, loaded)
        click.echo(f"Every table is caught up, {time.monotonic() - started:.1f} s after the first record was produced.")
        running = [worker for worker in workers if worker.runs]
        examples = await find_examples(client, running, _some_flights(limit))
        _show(examples)
        if once:
            return await _make_each(client, examples)
        click.echo(
            "Flights of today keep arriving, a few per second. Ctrl-C stops everything.\n"
            f"To see a worker fail: kill -9 {workers[-1].process.pid}\n"
            f"The other answers for all keys once the dead one's session has timed out ({SESSION_TIMEOUT}).\n"
        )
        return await _stay(producer, workers)


async def _load(producer: Producer, limit: int) -> Mapping[tuple[str, int], Last]:
    total = sum(flights.ROWS.values()) - flights.ROWS["flights"] + limit
    columns = (TextColumn("Loading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task("load", total=total)
        return await producer.load(_records(limit), lambda count: progress.update(task, advance=count))


def _records(limit: int) -> Iterator[flights.Record]:
    for topic in flights.ROWS:
        rows = itertools.islice(flights.rows(topic), limit if topic == "flights" else None)
        yield from (flights.record(topic, row) for row in rows)


def _some_flights(limit: int) -> Iterator[bytes]:
    for row in itertools.islice(flights.rows("flights"), min(limit, _EXAMPLE_KEYS)):
        yield flights.record("flights", row).key


def _show(examples: Iterable[Example]) -> None:
    click.echo()
    for example in examples:
        click.echo(f"# {example.about}\n{example.curl}\n")


async def _make_each(client: httpx.AsyncClient, examples: Sequence[Example]) -> int:
    """Make each request, print its result, and return the exit code."""
    failed = 0
    if len({example.served_by for example in examples} - {None}) < WORKERS:
        click.echo(
            "Found no pair of flights on different workers: no request is answered locally, or none is forwarded."
        )
        failed += 1
    for example in examples:
        difference = await example.differs(client)
        failed += difference is not None
        click.echo(f"{difference or f'ok ({example.status.value})'}: {example.curl}")
    return 1 if failed else 0


async def _stay(producer: Producer, workers: Sequence[DemoWorker]) -> int:
    """Produce flights until cancelled; return an exit code if no worker is left."""
    trickling = asyncio.create_task(trickle(producer, lambda words: click.echo(words, err=True)))
    watching = asyncio.create_task(watch_workers(workers, lambda words: click.echo(f"\n{words}", err=True)))
    try:
        ended, _ = await asyncio.wait((trickling, watching), return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # an error of the trickle is raised here
    finally:
        trickling.cancel()
        watching.cancel()
    click.echo("No worker is left.", err=True)
    return 1


if __name__ == "__main__":
    main(prog_name="python -m tablehouse.demo")
