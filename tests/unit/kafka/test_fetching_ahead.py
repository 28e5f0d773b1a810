# ruff: noqa: SLF001 - what a consumer fetches is not to be seen from outside
"""What may be fetched ahead follows the topics that there are."""

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.kafka.client import Connection
from tablehouse.kafka.consumer import LANE_FETCH_BYTES
from tablehouse.kafka.log_reader import SLICE_FETCH_BYTES
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.tasks.clock import MeasuredClock, SystemClock
from tablehouse.tasks.partition_counts import settle
from tablehouse.worker.kafka_clients import kafka_clients, lane_fetch_bytes

BUDGET = 300 << 20


def topics(partitions: int, *names: str) -> Topics:
    source = SourceSpec("t", KeySpec("string"), ValueSpec("json"))
    catalog = Catalog({name: TableSpec(name, source) for name in names})
    counts = settle(catalog, "g", dict.fromkeys(catalog.topics, partitions), {})
    return Topics(catalog, counts, dict.fromkeys(counts.built, 1000), {"t": 900}, None, {})


async def test_readers_fetch_less_ahead_of_each_partition_when_there_are_more_and_as_much_again_later() -> None:
    few, many = topics(1, "a"), topics(100, "a", "b")
    clients = kafka_clients(
        Connection("127.0.0.1:9", "test"), "g", TopicsView(few), BUDGET, MeasuredClock(SystemClock())
    )
    consumers = [reader._slices.readers[0].consumer for reader in (clients.changelog, clients.sources)]
    for given, size in ((many, BUDGET // 5 // 3 // 200), (few, SLICE_FETCH_BYTES), (many, BUDGET // 5 // 3 // 200)):
        clients.fetch_ahead(BUDGET, given)
        assert [consumer._max_partition_fetch_bytes for consumer in consumers] == [size, size]
    # Without a table there is nothing to fetch, and no share to count.
    assert lane_fetch_bytes(BUDGET, topics(1)) == LANE_FETCH_BYTES
    await clients.stop(clients.needed)
