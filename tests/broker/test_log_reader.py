# ruff: noqa: SLF001 - aiokafka is made to fall silent where it would
import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

import tablehouse.kafka.log_reader as module
from tablehouse.kafka.log_reader import RECORDS_PER_SLICE, KafkaLogReader
from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.log import (
    Bounds,
    Cursor,
    LogRecord,
    LogUnavailable,
    OffsetOutOfRange,
    PartitionMissing,
    StoodStill,
)
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.changelog import changelog_writer, content, log_reader, new_log, read_to
from tests.support.kafka import create_topic, delete_topic, produce, produce_with_codec, unique
from tests.support.outages import paused
from tests.support.polling import until


async def fill(bootstrap: str, log: TopicPartition, values: Sequence[bytes]) -> None:
    await produce(bootstrap, log.topic, [(value, value, log.partition) for value in values])


def numbers(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


@contextlib.asynccontextmanager
async def transactional(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=unique("transaction"))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, log: TopicPartition, values: Sequence[bytes]) -> None:
    sent = [await producer.send(log.topic, key=value, value=value, partition=log.partition) for value in values]
    for future in sent:
        await future


async def test_bounds_are_the_first_offset_and_the_one_after_the_last(kafka: EmbeddedKafka) -> None:
    logs = await new_log(kafka.bootstrap_servers, 2)
    await fill(kafka.bootstrap_servers, logs[0], numbers(0, 5))
    async with log_reader(kafka.bootstrap_servers) as reader:
        assert await reader.bounds(logs) == {logs[0]: Bounds(0, 5), logs[1]: Bounds(0, 0)}
        await delete_before(kafka.bootstrap_servers, logs[0], 3)
        assert await reader.bounds(logs[:1]) == {logs[0]: Bounds(3, 5)}


async def test_bounds_end_before_an_open_transaction_and_so_does_what_is_read(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 2))
    async with log_reader(kafka.bootstrap_servers) as reader, transactional(kafka.bootstrap_servers) as producer:
        await producer.begin_transaction()
        await send(producer, log, [b"in the transaction"])
        # What it holds back is looked at from the second time on, since most transactions are over by then.
        assert await reader.bounds([log]) == {log: Bounds(0, 2, held=1, settled=True)}
        assert await reader.bounds([log]) == {log: Bounds(0, 2, held=1, settled=False)}
        await fill(kafka.bootstrap_servers, log, [b"after it"])

        assert await reader.bounds([log]) == {log: Bounds(0, 2, held=2, settled=True)}
        async with reader.read(log, 2) as cursor:
            waiting = asyncio.create_task(cursor.next())
            await producer.commit_transaction()
            values = [record.value for record in (await waiting).records]
        assert values[0] == b"in the transaction"
        # The two records, and the marker that ends the transaction.
        assert await reader.bounds([log]) == {log: Bounds(0, 5)}


async def test_aborted_transactions_give_no_records_and_yet_the_cursor_advances(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with log_reader(kafka.bootstrap_servers) as reader, transactional(kafka.bootstrap_servers) as producer:
        await producer.begin_transaction()
        await send(producer, log, numbers(0, 10))
        await producer.abort_transaction()

        async with reader.read(log, 0) as cursor:
            reached = 0
            records: list[LogRecord] = []
            while reached < 11:
                piece = await cursor.next()
                assert piece.next_offset > reached
                records += piece.records
                reached = piece.next_offset
        assert (reached, records) == (11, [])


async def test_reading_starts_at_any_offset(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 50))
    async with log_reader(kafka.bootstrap_servers) as reader:
        for start in (0, 1, 17, 49):
            records = await read_to(reader, log, start, 50)
            assert [record.value for record in records] == numbers(start, 50)


async def test_a_slice_is_bounded_and_says_the_offset_that_follows(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 2 * RECORDS_PER_SLICE + 1))
    async with log_reader(kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        expected = 0
        while expected < 2 * RECORDS_PER_SLICE + 1:
            piece = await cursor.next()
            assert 0 < len(piece.records) <= RECORDS_PER_SLICE
            assert piece.records[0].offset == expected
            expected = piece.next_offset
            assert piece.records[-1].offset == expected - 1


async def test_at_the_end_a_cursor_waits_for_what_comes(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with log_reader(kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        waiting = asyncio.create_task(cursor.next())
        await fill(kafka.bootstrap_servers, log, [b"at last"])
        assert [record.value for record in (await waiting).records] == [b"at last"]


async def test_many_cursors_read_at_once_each_its_own_partition(kafka: EmbeddedKafka) -> None:
    logs = await new_log(kafka.bootstrap_servers, 6)
    for log in logs:
        await fill(kafka.bootstrap_servers, log, numbers(100 * log.partition, 100 * log.partition + 1500))
    async with log_reader(kafka.bootstrap_servers) as reader:
        found = await asyncio.gather(*(read_to(reader, log, log.partition, 1500) for log in logs))

    for log, records in zip(logs, found, strict=True):
        first = 101 * log.partition
        assert [record.value for record in records] == numbers(first, 100 * log.partition + 1500)


async def test_opening_and_closing_cursors_moves_no_other(kafka: EmbeddedKafka) -> None:
    steady, *others = await new_log(kafka.bootstrap_servers, 4)
    for log in (steady, *others):
        await fill(kafka.bootstrap_servers, log, numbers(0, 5000))
    async with log_reader(kafka.bootstrap_servers) as reader:
        reading = asyncio.create_task(read_to(reader, steady, 0, 5000))
        while not reading.done():
            for log in others:
                async with reader.read(log, 4990) as cursor:
                    assert (await cursor.next()).records[0].offset == 4990
        assert [record.value for record in await reading] == numbers(0, 5000)


async def test_the_same_partition_is_read_twice_at_once(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 3000))
    async with log_reader(kafka.bootstrap_servers) as reader:
        one, two = await asyncio.gather(read_to(reader, log, 0, 3000), read_to(reader, log, 1000, 3000))
    assert [record.value for record in one] == numbers(0, 3000)
    assert [record.value for record in two] == numbers(1000, 3000)


async def test_a_cursor_that_is_cancelled_again_and_again_loses_and_repeats_nothing(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    async with log_reader(kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        filling = asyncio.create_task(fill_slowly(kafka.bootstrap_servers, log, 1200))
        found: list[bytes | None] = []
        reached = cancelled = 0
        while reached < 1200:
            # A wait of a few turns of the event loop, so that it ends at every point of a fetch.
            reading = asyncio.create_task(cursor.next())
            for _ in range(cancelled % 7 + 1):
                await asyncio.sleep(0)
            if not reading.done():
                await asyncio.wait({reading}, timeout=0.002 * (cancelled % 5))
            cancelled += reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                piece = await reading
                found += [record.value for record in piece.records]
                reached = piece.next_offset
        await filling
    assert cancelled > 0
    assert found == numbers(0, 1200)


async def fill_slowly(bootstrap: str, log: TopicPartition, count: int) -> None:
    for start in range(0, count, 100):
        await fill(bootstrap, log, numbers(start, start + 100))


async def test_offsets_that_were_deleted_or_never_were_are_out_of_range(kafka: EmbeddedKafka) -> None:
    deleted, short = await new_log(kafka.bootstrap_servers, 2)
    await fill(kafka.bootstrap_servers, deleted, numbers(0, 10))
    await fill(kafka.bootstrap_servers, short, numbers(0, 10))
    await delete_before(kafka.bootstrap_servers, deleted, 5)
    async with log_reader(kafka.bootstrap_servers) as reader:
        with pytest.raises(OffsetOutOfRange, match=r"log-.*\[0\] at offset 4"):
            await read_to(reader, deleted, 4, 10)
        with pytest.raises(OffsetOutOfRange, match=r"log-.*\[1\] at offset 11"):
            await read_to(reader, short, 11, 12)
        # The reader is as good as before.
        assert len(await read_to(reader, deleted, 5, 10)) == 5
        assert len(await read_to(reader, short, 0, 10)) == 10


async def test_a_cursor_whose_next_offset_is_deleted_says_so_and_the_others_read_on(kafka: EmbeddedKafka) -> None:
    deleted, kept = await new_log(kafka.bootstrap_servers, 2)
    async with (
        log_reader(kafka.bootstrap_servers) as reader,
        reader.read(kept, 0) as other,
        reader.read(deleted, 0) as cursor,
    ):
        await fill(kafka.bootstrap_servers, deleted, numbers(0, 10))
        await delete_before(kafka.bootstrap_servers, deleted, 10)

        waiting = asyncio.create_task(other.next())
        with pytest.raises(OffsetOutOfRange):
            await read_on(cursor)
        await fill(kafka.bootstrap_servers, kept, [b"there"])
        assert [record.value for record in (await waiting).records] == [b"there"]


async def read_on(cursor: Cursor) -> None:
    """Read what was fetched before the deletion, and then what is no more."""
    while True:
        await cursor.next()


async def test_compaction_leaves_holes_that_a_cursor_steps_over(kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(
        kafka.bootstrap_servers,
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="0",
    )
    first = Epoch(0, 1)
    async with changelog_writer(kafka.bootstrap_servers) as writer, log_reader(kafka.bootstrap_servers) as reader:
        await writer.claim(log, first, b"claim", b"claim")
        for value in (b"old", b"new", None):
            batch = writer.encode(log, first, [(b"%d" % key, value) for key in range(100)])
            end = await writer.append(log, first, batch) + 100
        assert end == 301

        async def compacted() -> bool:
            # Each append opens a segment, and only segments that are closed are cleaned.
            await writer.append(log, first, writer.encode(log, first, [(b"filler", b"filler")]))
            return len(await read_to(reader, log, 0, end)) <= 1 + 1

        await until(compacted, "nothing is left of the deleted rows")

        # From any offset in the hole, up to its very end.
        for start in (0, 1, 150, 299, 300):
            async with asyncio.timeout(10):
                await read_to(reader, log, start, end)
        assert (await content(reader, log))[0] == (0, b"claim")


async def test_reading_goes_on_after_a_restart_of_the_broker(rough_kafka: EmbeddedKafka) -> None:
    (log,) = await new_log(rough_kafka.bootstrap_servers)
    await fill(rough_kafka.bootstrap_servers, log, numbers(0, 3000))
    async with log_reader(rough_kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        piece = await cursor.next()
        found = [record.value for record in piece.records]
        await asyncio.to_thread(rough_kafka.restart)
        await fill(rough_kafka.bootstrap_servers, log, numbers(3000, 3010))
        while len(found) < 3010:
            found += [record.value for record in (await cursor.next()).records]
        assert found == numbers(0, 3010)
        assert await until(lambda: bounds_or_none(reader, log), "bounds are there again") == Bounds(0, 3010)


async def bounds_or_none(reader: KafkaLogReader, log: TopicPartition) -> Bounds | None:
    try:
        return (await reader.bounds([log]))[log]
    except LogUnavailable:
        return None


async def test_a_broker_that_does_not_answer_makes_bounds_unavailable_after_a_deadline(
    rough_kafka: EmbeddedKafka,
) -> None:
    (log,) = await new_log(rough_kafka.bootstrap_servers)
    async with log_reader(rough_kafka.bootstrap_servers, request_timeout=1) as reader:
        await reader.bounds([log])
        with paused(rough_kafka), pytest.raises(LogUnavailable, match="listing offsets"):
            await reader.bounds([log])
        assert await until(lambda: bounds_or_none(reader, log), "bounds are there again") == Bounds(0, 0)


async def test_a_topic_that_is_gone_holds_up_nobody_elses_bounds(kafka: EmbeddedKafka) -> None:
    kept, deleted = (await new_log(kafka.bootstrap_servers))[0], (await new_log(kafka.bootstrap_servers))[0]
    never = TopicPartition(unique("never"), 0)
    await fill(kafka.bootstrap_servers, kept, numbers(0, 3))
    async with log_reader(kafka.bootstrap_servers) as reader:
        assert len(await reader.bounds([kept, deleted])) == 2
        await delete_topic(kafka.bootstrap_servers, deleted.topic)

        # Far below the 10 s for which aiokafka's own listing would ask again.
        async with asyncio.timeout(3):
            first, second = await asyncio.gather(
                reader.bounds([deleted, kept, never]), reader.bounds([never]), return_exceptions=True
            )
        assert first == {kept: Bounds(0, 3)}
        assert isinstance(second, PartitionMissing)
        with pytest.raises(PartitionMissing, match=f"^the brokers do not know topic {deleted.topic} "):
            await reader.bounds([deleted])
        beyond = kept._replace(partition=1)
        with pytest.raises(PartitionMissing, match=f"^topic {kept.topic} has no partition 1, "):
            await reader.bounds([beyond])


async def test_bounds_of_a_topic_that_did_not_exist_are_there_once_it_does(kafka: EmbeddedKafka) -> None:
    topic = unique("later")
    async with log_reader(kafka.bootstrap_servers) as reader:
        with pytest.raises(LogUnavailable):
            await reader.bounds([TopicPartition(topic, 1)])
        await create_topic(kafka.bootstrap_servers, topic, 2)
        assert await reader.bounds([TopicPartition(topic, 1)]) == {TopicPartition(topic, 1): Bounds(0, 0)}


async def test_a_cursor_over_a_topic_that_was_deleted_does_not_wait_for_ever(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    kept, deleted = (await new_log(kafka.bootstrap_servers))[0], (await new_log(kafka.bootstrap_servers))[0]
    await fill(kafka.bootstrap_servers, deleted, numbers(0, 3))
    async with (
        log_reader(kafka.bootstrap_servers) as reader,
        reader.read(kept, 0) as other,
        reader.read(deleted, 0) as cursor,
    ):
        waiting = asyncio.create_task(other.next())
        await cursor.next()
        await delete_topic(kafka.bootstrap_servers, deleted.topic)

        with pytest.raises(LogUnavailable, match=rf"reading {deleted.topic}\[0\] at offset 3: no records for \d+ s; "):
            await cursor.next()
        # The other one is at the end of its log, where waiting is right.
        assert not waiting.done()
        await fill(kafka.bootstrap_servers, kept, [b"there"])
        assert [record.value for record in (await waiting).records] == [b"there"]


async def test_a_cursor_that_gets_nothing_of_what_the_log_holds_says_so(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 3))
    async with log_reader(kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        await cursor.next()
        # As when aiokafka has lost the leader and does not look for another.
        reader._slices.readers[0].consumer.pause(KafkaPartition(*log))
        await fill(kafka.bootstrap_servers, log, numbers(3, 6))

        with pytest.raises(LogUnavailable, match=r"at offset 3: no records for \d+ s, although the log has more"):
            await cursor.next()
    assert [record.value for record in await reopened(kafka, log)] == numbers(3, 6)


async def reopened(kafka: EmbeddedKafka, log: TopicPartition) -> Sequence[LogRecord]:
    async with log_reader(kafka.bootstrap_servers) as reader:
        return await read_to(reader, log, 3, 6)


async def test_a_cursor_over_a_broker_that_stands_still_does_not_wait_for_ever(
    rough_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    (log,) = await new_log(rough_kafka.bootstrap_servers)
    await fill(rough_kafka.bootstrap_servers, log, numbers(0, 3))
    async with log_reader(rough_kafka.bootstrap_servers) as reader:
        async with reader.read(log, 0) as cursor:
            await cursor.next()
            with (
                paused(rough_kafka),
                pytest.raises(LogUnavailable, match=r"at offset 3: no records for \d+ s; the brokers"),
            ):
                await cursor.next()
        assert len(await read_to(reader, log, 0, 3)) == 3


async def test_a_cursor_that_was_not_looked_at_for_half_a_day_says_so_and_reads_nothing_more(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = 0.0
    monkeypatch.setattr(module, "_elapsed", lambda: hours * 3600)
    (log,) = await new_log(kafka.bootstrap_servers)
    await fill(kafka.bootstrap_servers, log, numbers(0, 2))
    async with log_reader(kafka.bootstrap_servers) as reader, reader.read(log, 0) as cursor:
        assert (await cursor.next()).next_offset == 2
        hours += 11
        await fill(kafka.bootstrap_servers, log, numbers(2, 3))
        assert (await cursor.next()).next_offset == 3
        hours += 13
        await fill(kafka.bootstrap_servers, log, numbers(3, 4))
        with pytest.raises(StoodStill, match=re.escape(f"{log.topic}[0] at offset 3 was idle for 13 h")):
            await cursor.next()


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_compressed_records_are_read(kafka: EmbeddedKafka, codec: str) -> None:
    (log,) = await new_log(kafka.bootstrap_servers)
    await produce_with_codec(kafka.bootstrap_servers, *log, codec, numbers(0, 1500))
    async with log_reader(kafka.bootstrap_servers) as reader:
        assert [record.value for record in await read_to(reader, log, 0, 1500)] == numbers(0, 1500)
        assert [record.value for record in await read_to(reader, log, 700, 1500)] == numbers(700, 1500)
        peeked = await reader.peek(log, 1234)
    assert peeked is not None
    assert peeked.value == b"1234"


async def delete_before(bootstrap: str, log: TopicPartition, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({KafkaPartition(*log): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


@pytest.mark.parametrize("turns", [1, 20, 60])
async def test_a_reader_that_stops_while_it_connects_leaves_no_connection(kafka: EmbeddedKafka, turns: int) -> None:
    [log] = await new_log(kafka.bootstrap_servers)
    before = asyncio.all_tasks()
    async with log_reader(kafka.bootstrap_servers) as reader:
        # The first peek has a consumer of its own started.
        peek = asyncio.ensure_future(reader.peek(log, 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        peek.cancel()
    await asyncio.wait({peek})

    consumers = [one.consumer for pool in (reader._slices, reader._peeks) for one in pool.readers]
    assert asyncio.all_tasks() == before
    assert not [left for consumer in consumers for left in consumer._client._conns.values() if left.connected()]


async def test_offsets_that_are_listed_while_the_reader_stops_are_unavailable(kafka: EmbeddedKafka) -> None:
    [log] = await new_log(kafka.bootstrap_servers)
    before = asyncio.all_tasks()
    async with log_reader(kafka.bootstrap_servers) as reader:
        listing = asyncio.ensure_future(reader.bounds([log]))
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable, match="has stopped"):
        await listing
    assert asyncio.all_tasks() == before
