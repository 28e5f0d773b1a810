"""More workers than partitions."""

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, check_equal
from tests.support.kafka import create_topic, produce, unique
from tests.support.worker import MakeWorker, all_ready, tables


async def test_a_worker_without_partitions_is_ready_and_routes_every_key(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    bootstrap, group = kafka.bootstrap_servers, unique("three")
    table = Checked("few", unique("few"), 2, standbys=0)
    await create_topic(bootstrap, table.topic, table.partitions)
    await produce(bootstrap, table.topic, [(b"key-%d" % n, b'{"n":%d}' % n, None) for n in range(200)])
    await produce(bootstrap, table.topic, [(b"key-%d" % n, None, None) for n in range(0, 200, 5)])
    workers = [make_worker(bootstrap, tables(table.entry()), group=group) for _ in range(3)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    await check_equal(bootstrap, group, workers, [table], {"few": [b"nobody"]})
    assert sorted([len(await worker.tasks()) for worker in workers]) == [0, 1, 1]
    for worker in workers:
        _, cluster = await worker.document("/cluster")
        assert len(cluster["members"]) == 3
        assert {partition["state"] for partition in cluster["tables"]["few"]} == {"active"}
