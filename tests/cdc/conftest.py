"""A PostgreSQL and a Debezium that captures its tables, for the tests of a file."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.demo.broker import EmbeddedKafka
from app.demo.debezium import Debezium, postgres_connector
from app.demo.postgres import Postgres
from tests.support.changes import COLUMNS
from tests.support.kafka import create_topic, unique
from tests.support.postgres import require_postgres

PARTITIONS = 4

_TABLES = f"""
    CREATE TYPE mood AS ENUM ('glad', 'sad', 'très content');
    CREATE TABLE customers ({COLUMNS});
    CREATE TABLE accounts ({COLUMNS});
    CREATE TABLE stock (warehouse int, article text, quantity int NOT NULL, PRIMARY KEY (warehouse, article));
    CREATE TABLE articles (id int PRIMARY KEY, title text, body text);
"""


@dataclass(frozen=True)
class Captured:
    """A database and the topics that hold its changes: JSON without schemas, and of table accounts with them."""

    postgres: Postgres
    plain: str
    with_schemas: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server, for tests that use tables of their own."""
    require_postgres()
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def captured(kafka: EmbeddedKafka, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """Tables with rows in them, whose snapshot and changes come into topics of 4 partitions."""
    database = Captured(postgres, unique("plain").replace("-", "_"), unique("schemas").replace("-", "_"))
    postgres.run(_TABLES + SNAPSHOT)
    topics = [f"{database.plain}.public.{table}" for table in ("customers", "stock", "articles")]
    for topic in [*topics, f"{database.with_schemas}.public.accounts"]:
        asyncio.run(create_topic(kafka.bootstrap_servers, topic, PARTITIONS, {"cleanup.policy": "compact"}))
    connectors = [
        postgres_connector(postgres, database.plain, ["public.customers", "public.stock", "public.articles"]),
        postgres_connector(
            postgres,
            database.with_schemas,
            ["public.accounts"],
            decimal_handling_mode="precise",
            value_converter_schemas_enable="true",
        ),
    ]
    with Debezium(tmp_path_factory.mktemp("connect"), kafka.bootstrap_servers, connectors):
        yield database


#: A row that is there before anything captures changes, so that it comes with the snapshot.
SNAPSHOT = """
    INSERT INTO articles VALUES (1, 'first', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i));
"""
