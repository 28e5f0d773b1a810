"""`make demo-cdc`: PostgreSQL, Debezium, Kafka and two workers: changes made with psql are visible with curl.

Settings, all from the environment: DEMO_HTTP_PORT, DEMO_INTERNAL_PORT (each the first of two in a row),
DEMO_BROKER_PORT and DEMO_POSTGRES_PORT choose other ports.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import click
import httpx
import msgspec

from tablehouse.demo.folder import demo_folder
from tablehouse.demo.load import ensure_topics
from tablehouse.demo.waiting import wait_ready
from tablehouse.demo.workers import DemoWorker, start_workers, stop_workers, watch_workers
from tablehouse.errors import SetupError
from tablehouse.testing.debezium import Debezium, postgres_connector
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.ports import Ports
from tablehouse.testing.postgres import Postgres, program
from tablehouse.testing.processes import keep_libraries_quiet, leave_by_ctrl_c

_FOLDER = Path(".demo")
_TABLES = Path(__file__).with_name("cdc_tables.yaml")
_TOPICS = ("shop.public.customers", "shop.public.stock")
_DEADLINE = 60.0  # seconds
_POLL = 0.02

_ROWS = """
    CREATE TABLE customers (
        id bigint PRIMARY KEY, name text NOT NULL, city text, credit numeric(16, 2), since timestamptz DEFAULT now()
    );
    INSERT INTO customers
        SELECT id, 'Customer ' || id, (ARRAY['Lima', 'Oslo', 'Kyiv', 'Lagos', 'Hanoi'])[id % 5 + 1], id * 100.10
        FROM generate_series(1, 1000) AS id;
    CREATE TABLE stock (warehouse int, article text, quantity int NOT NULL, PRIMARY KEY (warehouse, article));
    INSERT INTO stock
        SELECT warehouse, article, warehouse * 10
        FROM generate_series(1, 3) AS warehouse, unnest(ARRAY['bolt', 'nut', 'washer']) AS article;
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A statement, the path of its row, and the expected response: the members of the row, None for a 404."""

    about: str
    sql: str
    path: str
    row: Mapping[str, object] | None

    def shown_by(self, answer: httpx.Response) -> bool:
        """Return whether a response shows the change."""
        if self.row is None:
            return answer.status_code == HTTPStatus.NOT_FOUND
        if answer.status_code != HTTPStatus.OK:
            return False
        row = msgspec.json.decode(answer.content)
        return all(row.get(name) == value for name, value in self.row.items())


_BOLT = "/tables/stock/%7B%22warehouse%22:1,%22article%22:%22bolt%22%7D"
_CHANGES = (
    Change(
        "An update",
        "UPDATE customers SET city = 'Quito', credit = 12345678901.10 WHERE id = 7",
        "/tables/customers/7",
        {"city": "Quito", "credit": "12345678901.10"},
    ),
    Change("A delete", "DELETE FROM customers WHERE id = 8", "/tables/customers/8", None),
    Change(
        "A new row",
        "INSERT INTO customers VALUES (1001, 'Zoë', 'Lima', 1)",
        "/tables/customers/1001",
        {"name": "Zoë", "credit": "1.00"},
    ),
    Change(
        "A key of two columns",
        "UPDATE stock SET quantity = 99 WHERE warehouse = 1 AND article = 'bolt'",
        _BOLT,
        {"quantity": 99},
    ),
)


@click.command()
@click.option("--once", is_flag=True, help="Make each printed change once, read its row, and exit.")
def main(*, once: bool) -> None:
    """Run PostgreSQL, Debezium, Kafka and Tablehouse on this machine, until Ctrl-C.

    DEMO_HTTP_PORT, DEMO_INTERNAL_PORT (each the first of two in a row), DEMO_BROKER_PORT and DEMO_POSTGRES_PORT choose
    other ports.
    """
    keep_libraries_quiet()
    leave_by_ctrl_c()
    try:
        sys.exit(_run(os.environ, once=once))
    except SetupError as error:
        click.echo(f"demo-cdc: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _run(environment: Mapping[str, str], *, once: bool) -> int:
    program("initdb")  # checked before anything is downloaded or started
    ports = Ports.from_environment(environment)
    ports.require_free(own_broker=True, own_postgres=True)
    with ExitStack() as stack:
        folder = stack.enter_context(demo_folder(_FOLDER, wipe=True))
        click.echo("Starting PostgreSQL ...")
        postgres = stack.enter_context(Postgres(port=ports.postgres))
        postgres.run(_ROWS)
        click.echo("Starting Apache Kafka ...")
        broker = stack.enter_context(EmbeddedKafka(folder / "kafka", port=ports.broker))
        asyncio.run(ensure_topics(broker.bootstrap_servers, _TOPICS))
        click.echo("Starting Debezium on Kafka Connect ...")
        connector = postgres_connector(postgres, "shop", ["public.customers", "public.stock"])
        stack.enter_context(Debezium(folder / "connect", broker.bootstrap_servers, [connector]))
        workers = start_workers(folder, broker.bootstrap_servers, ports, _TABLES, "tablehouse-demo-cdc")
        stack.callback(_stop, workers)
        return asyncio.run(_demo(postgres, workers, once=once))


def _stop(workers: Sequence[DemoWorker]) -> None:
    click.echo("Stopping everything ...")
    stop_workers(workers)


async def _demo(postgres: Postgres, workers: Sequence[DemoWorker], *, once: bool) -> int:
    # Connect directly to 127.0.0.1, without any proxy of the environment.
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        await wait_ready(client, workers)
        asked = workers[0].url
        await _wait_shown(client, Change("The snapshot", "", "/tables/customers/1000", {"id": 1000}), asked)
        await _wait_shown(client, Change("The snapshot", "", _BOLT, {"quantity": 10}), asked)
        click.echo()
        for change in _CHANGES:
            psql = " ".join(postgres.command())
            click.echo(f'# {change.about}\n{psql} -c "{change.sql}"\ncurl -i {asked}{change.path}\n')
        if once:
            for change in _CHANGES:
                postgres.run(change.sql)
                seconds = await _wait_shown(client, change, asked)
                click.echo(f"ok ({seconds:.2f} s): {change.sql}")
            return 0
        click.echo("Each change is visible within a second. Ctrl-C stops everything.")
        await watch_workers(workers, lambda words: click.echo(f"\n{words}", err=True))
    click.echo("No worker is left.", err=True)
    return 1


async def _wait_shown(client: httpx.AsyncClient, change: Change, url: str) -> float:
    """Return the seconds until a row shows a change; raises SetupError at the deadline."""
    started = time.monotonic()
    while True:
        answer = await client.get(url + change.path)
        seconds = time.monotonic() - started
        if change.shown_by(answer):
            return seconds
        if seconds > _DEADLINE:
            raise SetupError(
                f"{change.about} was not visible in GET {change.path} within {_DEADLINE:.0f} s: {answer.status_code} "
                f"{answer.text[:2000]}"
            )
        await asyncio.sleep(_POLL)


if __name__ == "__main__":
    main(prog_name="python -m tablehouse.demo.cdc")
