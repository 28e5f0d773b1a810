"""Whatever wrote a topic, `tablehouse init` writes a definition that gives every row of it."""

import asyncio
import json
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession
from click.testing import CliRunner

from app.cli import main
from app.demo.broker import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.producers import EXPECTED, produce_by
from tests.support.worker import MakeWorker

PARTITIONS = 6
RECORDS = [(str(10_000 + number), json.dumps({"n": number})) for number in range(120)]


async def proposed(kafka: EmbeddedKafka, *topics: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the tables.yaml that init writes, and its sources."""
    words = ["init", *topics, "--bootstrap-servers", kafka.bootstrap_servers]
    found = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert found.exit_code == 0, found.output
    return found.stdout, [table["source"] for table in yaml.safe_load(found.stdout)["tables"]]


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_topic_of_a_producer_s_defaults_becomes_a_table_with_every_row(
    kafka: EmbeddedKafka, make_worker: MakeWorker, name: str
) -> None:
    topic = unique(name)
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS, {"cleanup.policy": "compact"})
    await produce_by(name, kafka.bootstrap_servers, topic, RECORDS)
    definition, [source] = await proposed(kafka, topic)
    partitioner, key = EXPECTED[name]
    assert source == {"topic": topic, "key": key, "value": "json", "partitioner": partitioner}
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    worker.start()
    await worker.wait_ready()
    table = yaml.safe_load(definition)["tables"][0]["name"]
    async with ClientSession() as session:
        for number, value in RECORDS:
            async with session.get(f"{worker.url}/tables/{table}/{number}") as answer:
                assert (answer.status, await answer.text()) == (200, value), number
        async with session.get(f"{worker.url}/tables/{table}/7") as answer:
            assert answer.status == 404
