"""Thousands of questions to a worker that has stopped reading: they are bounded, end in time, and go to no one else."""

import asyncio
import os
import signal
from itertools import chain
from pathlib import Path

import msgspec

from tablehouse.formats.partitioners import partition_of
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked
from tests.support.http_workers import connected, read_reply
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

PARTITIONS = 4
KEYS = [f"key-{number}".encode() for number in range(500)]
CONNECTIONS, REQUESTS = 1_500, 3


def resident(worker: WorkerProcess) -> int:
    """Return the bytes of memory that a worker has."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_paused_owner_with_thousands_of_questions_open(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    bootstrap, topic, group = kafka.bootstrap_servers, unique("links"), unique("links")
    await create_topic(bootstrap, topic, PARTITIONS)
    rows = {key: msgspec.json.encode({"key": key.decode()}) for key in KEYS}
    await produce(bootstrap, topic, [(key, row, None) for key, row in rows.items()])
    definition = tables(Checked("rows", topic, PARTITIONS, standbys=1).entry())
    asked, owner = workers = [
        make_worker(bootstrap, definition, group=group, request_timeout="4s", session_timeout="20s") for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def shared() -> bool:
        return all([await worker.owned() for worker in workers])

    await until(shared, "both workers own partitions")
    far = {task["partition"] for task in await owner.owned()}
    keys = [key for key in KEYS if partition_of("murmur2", key, PARTITIONS) in far]

    async def client(number: int) -> list[int]:
        """Send one request after the other, and check every answer."""
        statuses = []
        chosen = [keys[(number * 7 + index) % len(keys)] for index in range(REQUESTS)]
        async with connected(asked.url) as (reader, writer):
            for key in chosen:
                writer.write(b"GET /tables/rows/%b HTTP/1.1\r\nHost: test\r\n\r\n" % key)
                reply = await read_reply(reader)
                statuses.append(reply.status)
                assert reply.status in {200, 503, 504}, reply
                assert reply.status != 200 or reply.body == rows[key]
        return statuses

    assert set(chain(*await asyncio.gather(*map(client, range(CONNECTIONS))))) == {200}
    before = resident(asked)
    os.kill(owner.pid, signal.SIGSTOP)
    try:
        paused = list(chain(*await asyncio.gather(*map(client, range(CONNECTIONS)))))
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    # The standby is here, and has every row.
    assert paused.count(200) == len(paused)
    assert resident(asked) - before < 64 << 20

    async def answers_again() -> bool:
        return set(await client(0)) == {200} and await owner.metric("tablehouse_links", side="answering") >= 1

    await until(answers_again, "the owner is asked over links again")
