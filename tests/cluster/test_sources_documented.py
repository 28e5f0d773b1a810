"""The worked examples of docs/sources.md, on a real worker: definition, records, and what curl prints."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
_RECORD = re.compile(r"^key: (.+)\n(?:headers: (.+)\n)?value: (.+)$", re.MULTILINE)
_CURL = re.compile(r"^curl -s (\S+)\n# (\d{3}) (.+)$", re.MULTILINE)


@pytest.mark.parametrize("title", ["Kafka Connect's JSON", "Change data capture with Debezium", "Outbox"])
async def test_the_example_of_a_section_gives_what_it_says(
    kafka: EmbeddedKafka, make_worker: MakeWorker, title: str
) -> None:
    section = PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    definition = section.split("```yaml\n", 1)[1].split("```", 1)[0]
    records, requests = _RECORD.findall(section), _CURL.findall(section)
    assert records
    assert requests
    found = re.search(r"topic: ([\w.]+)", definition)
    assert found is not None
    topic = unique(found[1])
    await create_topic(kafka.bootstrap_servers, topic, 4)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for key, headers, value in records:
            pairs = [tuple(header.split("=", 1)) for header in headers.split()]
            encoded = [(name, text.encode()) for name, text in pairs]
            await producer.send_and_wait(topic, key=key.encode(), value=value.encode(), headers=encoded)
    tables = definition.replace(found[1], topic)
    with make_worker(kafka.bootstrap_servers, tables, group=unique("sources")) as worker:
        await worker.wait_ready()
        for url, status, body in requests:

            async def answered(url: str = url, status: str = status, body: str = body) -> bool:
                reply = await worker.get(urlsplit(url).path)
                assert (reply.status, reply.body.decode()) == (int(status), body)
                return True

            await until(answered, url)
