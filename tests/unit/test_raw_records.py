import gc
import weakref
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from app.kafka.raw_records import raw


def fetched(*batches: int, offset: int = 0) -> Any:
    """Return what a fetch from an offset brings that finds batches of so many records."""
    data = b""
    for size in batches:
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
        for number in range(size):
            builder.append(number, timestamp=number, key=b"key", value=b"value", headers=[])
        batch = bytearray(builder.build())
        batch[:8] = (sum(batches[: batches.index(size)]) if data else 0).to_bytes(8, "big")
        data += batch
    partition = TopicPartition("topic", 0)
    arguments: tuple[Any, ...] = (partition, MemoryRecords(data), [], offset)
    return fetcher.PartitionRecords(
        *arguments, key_deserializer=raw, value_deserializer=None, check_crcs=True, isolation_level=READ_COMMITTED
    )


def test_records_are_taken_across_batches_as_many_as_are_wanted() -> None:
    records = fetched(3, 5)
    assert [record.offset for record in records.take(2)] == [0, 1]
    assert records.next_fetch_offset == 2
    assert [record.offset for record in records.take(4)] == [2, 3, 4, 5]
    assert [record.offset for record in records.take(10)] == [6, 7]
    assert (records.take(10), records.next_fetch_offset) == ([], 8)


def test_records_before_the_offset_that_was_asked_for_are_passed_over() -> None:
    assert [record.offset for record in fetched(6, offset=4).take(10)] == [4, 5]


def test_what_was_fetched_is_freed_without_waiting_for_the_garbage_collector() -> None:
    gc.disable()
    try:
        records = fetched(3)
        records.take(2)
        gone = weakref.ref(records)
        del records
        assert gone() is None
    finally:
        gc.enable()
