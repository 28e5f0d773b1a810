"""Batches that are hundreds of times as large when they are decompressed, in every codec, on a real worker."""

import json

import pytest

from tablehouse.kafka.decompression import MAX_BATCH_BYTES
from tablehouse.testing.kafka import EmbeddedKafka
from tests.broker.test_unreadable import skip
from tests.broker.test_worker_memory import BESIDE_BUDGET_MIB, BUDGET_MIB, peak_mib
from tests.support.batches import append_batch, batch_of
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables

BOMB_BYTES = 2 * MAX_BATCH_BYTES

#: What a worker takes at most while it finds out: what it takes anyway, and the batch up to where it stops.
MAX_MIB = BUDGET_MIB + BESIDE_BUDGET_MIB + MAX_BATCH_BYTES // (1 << 20)


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
async def test_a_batch_that_is_too_large_keeps_its_partition_and_takes_no_worker_s_memory(
    kafka: EmbeddedKafka, make_worker: MakeWorker, codec: int
) -> None:
    topic, group = unique("bombs"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": str(32 << 20)})
    worker = make_worker(
        kafka.bootstrap_servers,
        tables(table("t", topic, standbys=0)),
        group=group,
        memory_budget=f"{BUDGET_MIB}MiB",
        session_timeout="15s",
    )
    worker.start()
    await worker.wait_ready()
    await produce(kafka.bootstrap_servers, topic, [(b"before", b"1", 0)])
    bomb = batch_of((0, b"bomb", bytes(BOMB_BYTES), ()), codec=codec)
    await append_batch(kafka.bootstrap_servers, topic, bomb)
    await produce(kafka.bootstrap_servers, topic, [(b"after", b"3", 0)])

    async def blocked() -> bool:
        found: list[str] = json.loads((await worker.get("/readyz")).body)["reasons"]
        assert len(found) == 1, found
        assert found[0].startswith("partition 0 of table t is blocked: ")
        assert (
            f"offset 1 of {topic}[0] cannot be read: DecompressedTooLarge: decompressed, it exceeds the limit of"
            in found[0]
        )
        return True

    await until(blocked, "the partition says what is wrong", 60)
    assert await worker.metric("tablehouse_partition_blocked") == 1
    assert (await worker.get("/tables/t/before")).body == b"1"
    assert peak_mib(worker) < MAX_MIB

    skipped = await skip(kafka, group, topic, 1, 1)
    assert skipped.exit_code == 0, skipped.output
    await until(lambda: has_gone_on(worker), "what follows is applied", 60)
    assert peak_mib(worker) < MAX_MIB


async def has_gone_on(worker: WorkerProcess) -> bool:
    assert (await worker.get("/tables/t/after")).body == b"3"
    assert (await worker.get("/tables/t/bomb")).status == 404
    assert await worker.metric("tablehouse_partition_blocked") == 0
    return True
