"""Whatever wrote a topic, `tablehouse init` writes a definition that gives every row of it."""

import asyncio
import json
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession
from click.testing import CliRunner

from tablehouse.cli.main import main
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.producers import EXPECTED, Records, produce_by
from tests.support.worker import MakeWorker, WorkerProcess

PARTITIONS = 6
RECORDS = [(str(10_000 + number), json.dumps({"n": number})) for number in range(120)]
TEXTS = [(key, f"row é of {key}") for key, _ in RECORDS]


async def proposed(kafka: EmbeddedKafka, *topics: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the tables.yaml that init writes, and its sources."""
    words = ["init", *topics, "--bootstrap-servers", kafka.bootstrap_servers]
    found = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert found.exit_code == 0, found.output
    return found.stdout, [table["source"] for table in yaml.safe_load(found.stdout)["tables"]]


async def has_rows(worker: WorkerProcess, table: str, records: Records) -> None:
    """Check that a table has these rows, and no other under a key that is not among them."""
    async with ClientSession() as session:
        for key, value in records:
            async with session.get(f"{worker.url}/tables/{table}/{key}") as answer:
                assert (answer.status, await answer.text()) == (200, value), key
        async with session.get(f"{worker.url}/tables/{table}/7") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_topic_of_a_producer_s_defaults_becomes_a_table_with_every_row(
    kafka: EmbeddedKafka, make_worker: MakeWorker, name: str
) -> None:
    topics = {unique(f"{name}-{value}"): (value, records) for value, records in (("json", RECORDS), ("string", TEXTS))}
    for topic, (_, records) in topics.items():
        await create_topic(kafka.bootstrap_servers, topic, PARTITIONS, {"cleanup.policy": "compact"})
        await produce_by(name, kafka.bootstrap_servers, topic, records)
    definition, sources = await proposed(kafka, *topics)
    partitioner, key = EXPECTED[name]
    assert sources == [
        {"topic": topic, "key": key, "value": value, "partitioner": partitioner} for topic, (value, _) in topics.items()
    ]
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    worker.start()
    await worker.wait_ready()
    tables = [table["name"] for table in yaml.safe_load(definition)["tables"]]
    for table, (_, records) in zip(tables, topics.values(), strict=True):
        await has_rows(worker, table, records)
