"""How many rows `/tables` says a table has."""

from typing import Any

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, table, tables

AIRLINES = 16


async def test_the_rows_of_a_small_table_are_counted_over_all_partitions_and_workers(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("airlines"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 4)
    definition = tables(table("airlines", topic))
    workers = [make_worker(kafka.bootstrap_servers, definition, group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    keys = [b"airline-%d" % number for number in range(AIRLINES)]
    gone = [b"gone-%d" % number for number in range(10)]

    async def applied(count: int) -> None:
        async def check() -> bool:
            positions = [task["position"] + 1 for worker in workers for task in await worker.owned()]
            return len(positions) == 4 and sum(positions) == count

        await until(check, f"{count} records are applied", 60)

    await produce(kafka.bootstrap_servers, topic, [(key, b'{"n":1}', None) for key in keys + gone] * 3)
    await applied(3 * (AIRLINES + 10))
    await produce(kafka.bootstrap_servers, topic, [(key, None, None) for key in gone])
    await applied(3 * (AIRLINES + 10) + 10)
    for worker in workers:
        assert await rows(worker) == AIRLINES
    await produce(kafka.bootstrap_servers, topic, [(b"another", b'{"n":1}', None)])
    await applied(3 * (AIRLINES + 10) + 11)
    for worker in workers:
        assert await rows(worker) == AIRLINES + 1


async def rows(worker: WorkerProcess) -> Any:
    status, document = await worker.document("/tables/airlines")
    assert (status, document["complete"]) == (200, True)
    details = [partition["rows_estimate"] for partition in document["partition_details"]]
    assert document["rows_estimate"] == sum(details)
    return document["rows_estimate"]
