"""What a worker process takes of memory, with rows of 10 MiB and with many partitions."""

import os
from pathlib import Path

from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

BUDGET_MIB = 64
#: What a worker takes in addition to its memory budget: Python, Kafka's clients, and rows on their way.
BESIDE_BUDGET_MIB = 200
LARGE_ROW = 10 << 20
ROWS = 16
PARTITIONS = 8


def peak_mib(worker: WorkerProcess) -> int:
    """Return the most memory that the process has had at any time."""
    lines = Path(f"/proc/{worker.pid}/status").read_text("ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmHWM"].split()[0]) // 1024


async def test_rows_of_10_mib_are_ingested_within_memory_and_without_a_store_that_fails(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("large")
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS, {"max.message.bytes": str(12 << 20)})
    worker = make_worker(
        kafka.bootstrap_servers,
        tables(table("t", topic, value="bytes", standbys=0)),
        group=unique("group"),
        memory_budget=f"{BUDGET_MIB}MiB",
        session_timeout="15s",
    )
    worker.start()
    await worker.wait_active()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=12 << 20)
    await producer.start()
    try:
        value = os.urandom(LARGE_ROW)
        for number in range(ROWS):
            partition = number % PARTITIONS
            await producer.send_and_wait(topic, key=b"%d" % partition, value=value, partition=partition)
    finally:
        await producer.stop()

    async def applied() -> bool:
        return await worker.metric("tablehouse_applied_offset") == ROWS - PARTITIONS

    await until(applied, "every row is applied", 120)
    assert await worker.metric("tablehouse_write_stall_duration_seconds_count") > 0
    assert "a write waits until memtables are flushed" in worker.log_text()
    assert "store is opened" not in worker.log_text()
    assert {task["reason"] for task in await worker.owned()} == {None}
    assert peak_mib(worker) < BUDGET_MIB + BESIDE_BUDGET_MIB


async def test_a_budget_that_open_partitions_would_use_up_is_refused_at_the_start(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("many")
    await create_topic(kafka.bootstrap_servers, topic, 200)
    worker = make_worker(
        kafka.bootstrap_servers,
        tables(table("t", topic, standbys=0)),
        group=unique("group"),
        memory_budget=f"{BUDGET_MIB}MiB",
    )
    worker.start()
    assert await worker.wait_exit() == 2
    assert "memory_budget is 64MiB but must be at least 69MiB for these tables" in worker.log_text()
