"""A PostgreSQL and a Debezium that captures its tables, for the tests of a file."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tablehouse.testing.debezium import Debezium, postgres_connector
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.postgres import Postgres
from tests.support.changes import COLUMNS, Pairs, Wide
from tests.support.kafka import create_topic, unique
from tests.support.postgres import require_postgres

PARTITIONS = 4
SEED = 20130131

_TABLES = f"""
    CREATE TYPE mood AS ENUM ('glad', 'sad', 'très content');
    CREATE TABLE customers ({COLUMNS});
    CREATE TABLE accounts ({COLUMNS});
    CREATE TABLE stock (warehouse int, article text, quantity int NOT NULL, PRIMARY KEY (warehouse, article));
    CREATE TABLE articles (id int PRIMARY KEY, title text, body text);
    CREATE TABLE outbox (
        id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb
    );
    CREATE TABLE amounts (amount numeric PRIMARY KEY, note text);
    CREATE TABLE fees (fee numeric(10, 2), zone text, note text, PRIMARY KEY (fee, zone));
    CREATE TABLE orders_1 (id int PRIMARY KEY, note text);
    CREATE TABLE orders_2 (id int PRIMARY KEY, note text);
"""


@dataclass(frozen=True)
class Captured:
    """A database, its tables of random rows, and the topics that hold what changes: those of a name begin with it.

    `plain` is JSON without schemas, and the tables of orders in one topic; `with_schemas` is keys and values with them,
    `flattened` values with them and without an envelope. `outbox` are the topics of the outbox event router, whose
    payloads are strings and, in the second, objects.
    """

    postgres: Postgres
    debezium: Debezium
    customers: Wide
    stock: Pairs
    accounts: Wide
    plain: str
    with_schemas: str
    flattened: str
    outbox: tuple[str, str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server, for tests that use tables of their own."""
    require_postgres()
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def captured(kafka: EmbeddedKafka, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """Tables with rows in them, whose snapshot and changes come into topics of 4 partitions."""
    plain, with_schemas, flattened, *outbox = (
        unique(name).replace("-", "_") for name in ("plain", "schemas", "flattened", "outbox", "expanded")
    )
    chance = random.Random(SEED)
    tables = Wide("customers", chance), Pairs("stock", chance), Wide("accounts", chance)
    postgres.run(_TABLES + SNAPSHOT + "\n".join(table.insert() for table in tables for _ in range(100)))
    topics = [f"{plain}.public.{table}" for table in ("customers", "stock", "articles", "orders")]
    topics += [f"{with_schemas}.public.{table}" for table in ("accounts", "amounts", "fees")]
    topics += [f"{flattened}.public.accounts"]
    for topic in [*topics, *(f"{name}.order" for name in outbox)]:
        asyncio.run(create_topic(kafka.bootstrap_servers, topic, PARTITIONS, {"cleanup.policy": "compact"}))
    connectors = [
        _plain(postgres, plain),
        postgres_connector(
            postgres,
            with_schemas,
            ["public.accounts", "public.amounts", "public.fees"],
            decimal_handling_mode="precise",
            key_converter_schemas_enable="true",
            value_converter_schemas_enable="true",
        ),
        postgres_connector(
            postgres,
            flattened,
            ["public.accounts"],
            decimal_handling_mode="precise",
            value_converter_schemas_enable="true",
            transforms="unwrap",
            transforms_unwrap_type="io.debezium.transforms.ExtractNewRecordState",
        ),
        *(_outbox(postgres, name, expand=name == outbox[1]) for name in outbox),
    ]
    with Debezium(tmp_path_factory.mktemp("connect"), kafka.bootstrap_servers, connectors) as debezium:
        yield Captured(postgres, debezium, *tables, plain, with_schemas, flattened, (outbox[0], outbox[1]))


def _plain(postgres: Postgres, name: str) -> dict[str, str]:
    router = {
        "type": "io.debezium.transforms.ByLogicalTableRouter",
        "topic.regex": "(.*orders)_[0-9]",
        "topic.replacement": "$1",
    }
    return postgres_connector(
        postgres,
        name,
        [f"public.{table}" for table in ("customers", "stock", "articles", "orders_1", "orders_2")],
        transforms="route",
        **{f"transforms.route.{setting}": value for setting, value in router.items()},
    )


def _outbox(postgres: Postgres, name: str, *, expand: bool) -> dict[str, str]:
    router = {
        "type": "io.debezium.transforms.outbox.EventRouter",
        "table.expand.json.payload": str(expand).lower(),
        "table.fields.additional.placement": "type:header:eventType",
        "route.topic.replacement": name + ".${routedByValue}",
        "route.tombstone.on.empty.payload": "true",
    }
    return postgres_connector(
        postgres,
        name,
        ["public.outbox"],
        key_converter="org.apache.kafka.connect.storage.StringConverter",
        transforms="outbox",
        **{f"transforms.outbox.{setting}": value for setting, value in router.items()},
    )


#: A row that is there before anything captures changes, so that it comes with the snapshot.
SNAPSHOT = """
    INSERT INTO articles VALUES (1, 'first', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i));
"""
