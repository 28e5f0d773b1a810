"""Records that rest on what an owner has read, on a real broker: in order, fenced, and none after an unknown one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tablehouse.errors import DeadlineExceeded, NotOwner, PayloadTooLarge, RequestError, SourceUnavailable
from tablehouse.kafka.client import Connection
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.model import Epoch, Ownership, ProducerRecord, SourceEnd, TopicPartition
from tablehouse.testing.kafka import EmbeddedKafka
from tests.broker.test_source_writer import whole_records
from tests.support.kafka import BROKERS_CLOCK, create_topic, unique
from tests.support.polling import until

_LIMIT = 1_000_000
FIRST, SECOND = (Ownership(Epoch(0, number), b"log") for number in (5, 6))


@contextlib.asynccontextmanager
async def writing(kafka: EmbeddedKafka, topic: str, limit: int = _LIMIT) -> AsyncIterator[KafkaOwnerWriter]:
    connection = Connection(kafka.bootstrap_servers, "test", request_timeout=5.0)
    writer = KafkaOwnerWriter(connection, {topic: limit}.__getitem__, BROKERS_CLOCK)
    try:
        yield writer
    finally:
        await writer.stop()


async def append(
    writer: KafkaOwnerWriter,
    place: TopicPartition,
    value: bytes | None,
    *,
    ownership: Ownership = FIRST,
    end: int = 0,
    table: str = "t",
    seconds: float = 10.0,
    listed_at: float | None = None,
) -> int:
    at = asyncio.get_running_loop().time() if listed_at is None else listed_at
    return await writer.append(
        table, place, b"k", value, owned=lambda: ownership, end=SourceEnd(end, at), timeout=seconds
    )


async def values(kafka: EmbeddedKafka, topic: str) -> list[Any]:
    return [record.value for record in await whole_records(kafka, topic)]


async def test_records_of_an_owner_are_appended_one_after_the_other_with_the_brokers_time(kafka: EmbeddedKafka) -> None:
    topic = unique("owned")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    place, before = TopicPartition(topic, 0), BROKERS_CLOCK.now_ms()
    async with writing(kafka, topic) as writer:
        assert [await append(writer, place, value) for value in (b"1", None, b"3")] == [0, 1, 2]
        together = await asyncio.gather(*(append(writer, place, b"%d" % number) for number in range(4, 24)))
        assert together == list(range(3, 23))
        # The same owner, after a rebalance.
        assert await append(writer, place, b"24", ownership=SECOND) == 23
    records = await whole_records(kafka, topic)
    assert [record.value for record in records] == [
        b"1",
        None,
        *(b"%d" % number for number in range(3, 25)),
    ]
    assert all(before <= record.timestamp <= BROKERS_CLOCK.now_ms() for record in records)
    assert all(not record.headers for record in records)


async def test_once_the_next_owner_has_written_the_one_before_it_writes_nothing_more(kafka: EmbeddedKafka) -> None:
    topic = unique("fenced")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    place = TopicPartition(topic, 0)
    async with writing(kafka, topic) as old, writing(kafka, topic) as new:
        assert await append(old, place, b"old") == 0
        # Nothing keeps an owner that does not know of its loss from writing before that.
        assert await append(old, place, b"still") == 1
        assert await append(new, place, b"new", ownership=SECOND) == 2
        for _ in range(2):
            with pytest.raises(NotOwner, match="nothing was written"):
                await append(old, place, b"late")
        assert await append(new, place, b"newer", ownership=SECOND) == 3
        # Other partitions, tables and logs have epochs of their own.
        assert await append(old, TopicPartition(topic, 1), b"elsewhere") == 0
        other = Ownership(FIRST.epoch, b"another log")
        assert await append(old, place, b"of another table", ownership=other, table="u") == 4
    assert await values(kafka, topic) == [b"old", b"still", b"new", b"newer", b"of another table"]


async def test_an_owner_that_has_lost_the_partition_meanwhile_sends_nothing(kafka: EmbeddedKafka) -> None:
    topic = unique("lost")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)

    def lost() -> Ownership:
        raise NotOwner("the lease is over")

    async with writing(kafka, topic) as writer:
        with pytest.raises(NotOwner, match="the lease is over"):
            await writer.append("t", place, b"k", b"1", owned=lost, end=SourceEnd(0, 0.0), timeout=10.0)
        assert await append(writer, place, b"2") == 0
    assert await values(kafka, topic) == [b"2"]


async def test_what_is_refused_was_not_written_and_the_next_record_is(kafka: EmbeddedKafka) -> None:
    topic = unique("limited")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": "5000"})
    place = TopicPartition(topic, 0)
    # The topic's limit was lowered after the writer had learnt of it.
    async with writing(kafka, topic, 50_000) as writer:
        assert await append(writer, place, b"1") == 0
        with pytest.raises(PayloadTooLarge):
            await append(writer, place, b"x" * 50_000)
        for _ in range(2):
            with pytest.raises(SourceUnavailable, match=r"nothing was written.*MessageSizeTooLarge"):
                await append(writer, place, b"x" * 20_000)
        assert await append(writer, place, b"2") == 1
    assert await values(kafka, topic) == [b"1", b"2"]


async def test_a_direct_producer_s_record_after_the_decision_stays_and_is_overwritten(kafka: EmbeddedKafka) -> None:
    topic = unique("direct")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)
    direct = KafkaSourceWriter(Connection(kafka.bootstrap_servers, "test"), {topic: _LIMIT}.__getitem__, BROKERS_CLOCK)
    async with writing(kafka, topic) as writer:
        end = SourceEnd(0, asyncio.get_running_loop().time())
        assert await direct.append(place, ProducerRecord(b"k", b"between"), 10.0) == 0
        assert await writer.append("t", place, b"k", b"decided", owned=lambda: FIRST, end=end, timeout=10.0) == 1
    await direct.stop()
    assert await values(kafka, topic) == [b"between", b"decided"]


async def test_after_an_unknown_outcome_nothing_is_decided_until_it_is_known(rough_kafka: EmbeddedKafka) -> None:
    topic = unique("paused")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)
    async with writing(rough_kafka, topic) as writer:
        assert await append(writer, place, b"before") == 0
        rough_kafka.pause()
        sent: list[bytes] = []

        async def unknown() -> bool:
            # A signal takes its time, so that the broker may still answer.
            sent.append(b"sent %d" % len(sent))
            try:
                await append(writer, place, sent[-1], seconds=0.5)
            except DeadlineExceeded:
                return True
            return False

        await until(unknown, "the broker does not answer any more")
        with pytest.raises(SourceUnavailable, match="an earlier conditional write is not known yet"):
            await writer.settle(place, 0.2)
        with pytest.raises(SourceUnavailable, match="nothing was written"):
            await append(writer, place, b"too early", seconds=0.5)
        rough_kafka.resume()
        await writer.settle(place, 20.0)
        assert await append(writer, place, b"after") == len(sent) + 1
    assert await values(rough_kafka, topic) == [b"before", *sent, b"after"]


async def test_a_rebalance_waits_for_what_is_under_way(rough_kafka: EmbeddedKafka) -> None:
    topic = unique("settling")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)
    async with writing(rough_kafka, topic) as writer:
        assert await append(writer, place, b"before") == 0
        await writer.settle_all(5.0)
        rough_kafka.pause()
        writes: list[asyncio.Task[int]] = []

        async def under_way() -> bool:
            writes.append(asyncio.create_task(append(writer, place, b"under way", seconds=30.0)))
            done, _ = await asyncio.wait({writes[-1]}, timeout=0.5)
            return not done

        await until(under_way, "the broker does not answer any more")
        await writer.settle_all(0.1)
        assert not writes[-1].done()
        settling = asyncio.create_task(writer.settle_all(30.0))
        rough_kafka.resume()
        await settling
        assert await asyncio.wait_for(writes[-1], 5) == len(writes)


async def test_a_record_that_failed_and_was_there_all_the_same_is_told_from_the_next_one(kafka: EmbeddedKafka) -> None:
    topic = unique("doubtful")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)
    async with writing(kafka, topic) as writer:
        assert await append(writer, place, b"there") == 0
        loop = asyncio.get_running_loop()
        sequence = writer._sequences["t", place]  # noqa: SLF001 - as after a failure that does not tell what it did
        sequence.acknowledged, sequence.failed_at = 0, loop.time()
        with pytest.raises(SourceUnavailable, match="failed after it was decided"):
            await append(writer, place, b"decided before", listed_at=sequence.failed_at - 1)

        async def later() -> bool:
            return loop.time() > sequence.failed_at

        await until(later, "the next decision is later")
        with pytest.raises(SourceUnavailable, match="reported as failed"):
            await append(writer, place, b"takes its number", end=1)
        assert await append(writer, place, b"next", end=1) == 1
    assert await values(kafka, topic) == [b"there", b"next"]


async def test_a_writer_that_stops_or_finds_no_broker_writes_nothing(kafka: EmbeddedKafka) -> None:
    topic = unique("stopped")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    place = TopicPartition(topic, 0)
    async with writing(kafka, topic) as writer:
        assert await append(writer, place, b"1") == 0
        await writer.stop()
        with pytest.raises(RequestError, match="nothing was written"):
            await append(writer, place, b"2")
    nowhere = KafkaOwnerWriter(
        Connection("127.0.0.1:9", "test", request_timeout=1.0), {topic: _LIMIT}.__getitem__, BROKERS_CLOCK
    )
    with pytest.raises(SourceUnavailable, match="nothing was written"):
        await append(nowhere, place, b"3", seconds=2.0)
    await nowhere.stop()
    assert await values(kafka, topic) == [b"1"]
