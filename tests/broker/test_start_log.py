"""What the log of a worker that starts says."""

import re

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

TABLES = 16
MAX_LINES = 20


async def said(worker: WorkerProcess, text: str) -> bool:
    """Return whether a worker's log has a text."""
    return text in worker.log_text()


async def test_the_log_of_a_start_is_a_screenful_and_says_where_and_when_it_is_ready(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topics = [unique("many") for _ in range(TABLES)]
    for topic in topics:
        await create_topic(kafka.bootstrap_servers, topic, 2)
    definition = tables(*(table(f"many{number}", topic) for number, topic in enumerate(topics)))
    worker = make_worker(kafka.bootstrap_servers, definition, group=unique("group"))
    worker.start()
    await worker.wait_ready()
    await until(lambda: said(worker, " ready "), "the worker says that it is ready")
    lines = worker.log_text().splitlines()
    assert len(lines) <= MAX_LINES, "\n".join(lines)
    text = "\n".join(lines)
    assert re.search(rf"listening .*{re.escape(worker.url)}\b", text)
    assert "[error" not in text
