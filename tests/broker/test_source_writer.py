"""Records of callers on a real broker: written, not written, or nobody knows, and it says which."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import OutOfOrderSequenceNumber

from tablehouse.errors import DeadlineExceeded, PayloadTooLarge, RequestError, SourceUnavailable
from tablehouse.kafka.client import Connection
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.model import ProducerRecord, TopicPartition
from tablehouse.tasks.log import BrokerClock
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import BROKERS_CLOCK, ShiftedClock, create_topic, unique
from tests.support.polling import until

_LIMIT = 1_000_000


@contextlib.asynccontextmanager
async def writing(
    kafka: EmbeddedKafka, topic: str, limit: int = _LIMIT, clock: BrokerClock = BROKERS_CLOCK
) -> AsyncIterator[KafkaSourceWriter]:
    writer = KafkaSourceWriter(
        Connection(kafka.bootstrap_servers, "test", request_timeout=5.0), {topic: limit}.__getitem__, clock
    )
    try:
        yield writer
    finally:
        await writer.stop()


async def records(kafka: EmbeddedKafka, topic: str, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
    """Read the keys and values of everything that a partition holds."""
    return [(record.key, record.value) for record in await whole_records(kafka, topic, partition)]


async def whole_records(kafka: EmbeddedKafka, topic: str, partition: int = 0) -> list[Any]:
    """Read everything that a partition holds."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    await consumer.start()
    try:
        place = KafkaPartition(topic, partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        found: list[Any] = []
        while await consumer.position(place) < end:
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                found += batch
        return found
    finally:
        await consumer.stop()


async def test_records_and_tombstones_are_appended_and_their_offsets_told(kafka: EmbeddedKafka) -> None:
    topic = unique("written")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    async with writing(kafka, topic) as writer:
        place = TopicPartition(topic, 1)
        offsets = [
            await writer.append(place, ProducerRecord(b"k%d" % n, None if n == 2 else b"v"), 10.0) for n in range(4)
        ]
        assert offsets == [0, 1, 2, 3]
        many = await asyncio.gather(*(writer.append(place, ProducerRecord(b"m%d" % n, b"v"), 10.0) for n in range(200)))
        assert sorted(many) == list(range(4, 204))
    found = await records(kafka, topic, 1)
    assert found[:4] == [(b"k0", b"v"), (b"k1", b"v"), (b"k2", None), (b"k3", b"v")]
    assert [found[offset][0] for offset in many] == [b"m%d" % n for n in range(200)]


async def test_many_records_are_appended_in_their_order_and_one_over_the_limit_is_left_out(
    kafka: EmbeddedKafka,
) -> None:
    topic, limit = unique("many"), 50_000
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": str(limit)})
    # Of all sizes, so that they go in many batches.
    given = [ProducerRecord(b"k%d" % (number % 3), b"%05d" % number * (number % 200 + 1)) for number in range(2_000)]
    given[700] = ProducerRecord(b"k1", b"x" * limit)
    given[701] = ProducerRecord(b"k2", None)
    async with writing(kafka, topic, limit) as writer:
        outcomes = await writer.append_many(TopicPartition(topic, 0), given, 20.0)
    assert isinstance(outcomes[700], PayloadTooLarge)
    written = [outcome for outcome in outcomes if not isinstance(outcome, RequestError)]
    assert written == list(range(1_999))
    assert await records(kafka, topic) == [(record.key, record.value) for record in given[:700] + given[701:]]


async def test_of_many_records_each_is_said_to_be_written_or_not_while_a_broker_is_paused(
    rough_kafka: EmbeddedKafka,
) -> None:
    topic = unique("many-paused")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    async with writing(rough_kafka, topic) as writer:
        place = TopicPartition(topic, 0)
        assert await writer.append(place, ProducerRecord(b"k", b"before"), 10.0) == 0
        rough_kafka.pause()
        given: list[ProducerRecord] = []
        outcomes: list[int | RequestError] = []

        async def unknown() -> bool:
            # A signal takes its time, so that the broker may still answer.
            more = [ProducerRecord(b"k", b"%04d" % (len(given) + number) * 2_000) for number in range(20)]
            given.extend(more)
            outcomes.extend(await writer.append_many(place, more, 0.5))
            return isinstance(outcomes[-1], SourceUnavailable)

        await until(unknown, "the broker does not answer any more")
        rough_kafka.resume()

        async def after() -> bool:
            [outcome] = await writer.append_many(place, [ProducerRecord(b"k", b"after")], 1.0)
            assert not isinstance(outcome, RequestError), outcome
            return True

        await until(after, "writes work again")
    values = [value for _, value in await records(rough_kafka, topic)]
    assert (values[0], values[-1]) == (b"before", b"after")
    kinds = {type(outcome) for outcome in outcomes}
    assert DeadlineExceeded in kinds
    assert kinds <= {int, DeadlineExceeded, SourceUnavailable}
    for (_, value, _), outcome in zip(given, outcomes, strict=True):
        if isinstance(outcome, SourceUnavailable):
            assert value not in values
        elif isinstance(outcome, int):
            assert values[outcome] == value
    in_topic = [value for value in values if value not in {b"before", b"after"}]
    assert in_topic == [value for _, value, _ in given if value in in_topic]


async def test_a_record_has_the_brokers_time_and_not_its_machine_s(kafka: EmbeddedKafka) -> None:
    topic, brokers = unique("written"), ShiftedClock(-3)
    await create_topic(kafka.bootstrap_servers, topic, 1)
    before = brokers.now_ms()
    async with writing(kafka, topic, clock=brokers) as writer:
        await writer.append(TopicPartition(topic, 0), ProducerRecord(b"k", b"v"), 10.0)
    [record] = await whole_records(kafka, topic)
    assert before <= record.timestamp <= brokers.now_ms()


async def test_a_record_over_the_topic_s_limit_is_refused_and_one_below_it_is_not(kafka: EmbeddedKafka) -> None:
    topic, limit = unique("limited"), 20_000
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": str(limit)})
    async with writing(kafka, topic, limit) as writer:
        place = TopicPartition(topic, 0)
        with pytest.raises(PayloadTooLarge, match=r"20000 .*max\.message\.bytes"):
            await writer.append(place, ProducerRecord(b"k", b"x" * limit), 10.0)
        assert await writer.append(place, ProducerRecord(b"k", b"x" * (limit - 200)), 10.0) == 0


async def test_what_the_broker_refuses_was_not_written_and_the_next_record_is(kafka: EmbeddedKafka) -> None:
    topic = unique("refused")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": "5000"})
    # The topic's limit was lowered after the writer had learnt of it.
    async with writing(kafka, topic) as writer:
        place = TopicPartition(topic, 0)
        assert await writer.append(place, ProducerRecord(b"k", b"1"), 10.0) == 0
        with pytest.raises(SourceUnavailable, match=r"nothing was written.*MessageSizeTooLarge"):
            await writer.append(place, ProducerRecord(b"k", b"x" * 20_000), 10.0)
        assert await writer.append(place, ProducerRecord(b"k", b"2"), 10.0) == 1


async def test_a_record_whose_time_the_broker_refuses_was_not_written(kafka: EmbeddedKafka) -> None:
    topic = unique("late")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    # Kafka 4 takes no record that is more than an hour ahead of its own clock.
    async with writing(kafka, topic, clock=ShiftedClock(2)) as writer:
        with pytest.raises(
            SourceUnavailable, match=r"nothing was written.*InvalidTimestampError.*timestamp\.after\.max"
        ):
            await writer.append(TopicPartition(topic, 0), ProducerRecord(b"k", b"v"), 10.0)


async def test_a_producer_that_the_broker_does_not_follow_any_more_is_replaced(kafka: EmbeddedKafka) -> None:
    topic = unique("sequence")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    async with writing(kafka, topic) as writer:
        place = TopicPartition(topic, 0)
        assert await writer.append(place, ProducerRecord(b"k", b"1"), 10.0) == 0
        producer = writer._producer  # noqa: SLF001 - what aiokafka leaves behind when a batch expires without a leader
        assert producer is not None
        producer._txn_manager.increment_sequence_number(KafkaPartition(topic, 0), 1)  # noqa: SLF001
        with pytest.raises(DeadlineExceeded, match=OutOfOrderSequenceNumber.__name__):
            await writer.append(place, ProducerRecord(b"k", b"2"), 10.0)
        assert await writer.append(place, ProducerRecord(b"k", b"3"), 10.0) == 1


async def test_while_a_broker_is_paused_nobody_knows_or_nothing_is_written(rough_kafka: EmbeddedKafka) -> None:
    topic = unique("paused")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    async with writing(rough_kafka, topic) as writer:
        place = TopicPartition(topic, 0)
        assert await writer.append(place, ProducerRecord(b"k", b"before"), 10.0) == 0
        rough_kafka.pause()
        sent: list[bytes] = []

        async def unknown() -> bool:
            # A signal takes its time, so that the broker may still answer.
            sent.append(b"sent %d" % len(sent))
            try:
                await writer.append(place, ProducerRecord(b"k", sent[-1]), 0.5)
            except DeadlineExceeded as error:
                return "may have happened, or may happen later" in error.detail
            return False

        await until(unknown, "the broker does not answer any more")
        # It waits behind the one that was sent, and is taken back.
        with pytest.raises(SourceUnavailable, match="nothing was written"):
            await writer.append(place, ProducerRecord(b"k", b"waited"), 0.5)
        rough_kafka.resume()

        async def after() -> bool:
            try:
                await writer.append(place, ProducerRecord(b"k", b"after"), 1.0)
            except RequestError as error:
                raise AssertionError(error.detail) from None
            return True

        await until(after, "writes work again")
    values = [value for _, value in await records(rough_kafka, topic)]
    assert b"waited" not in values
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert [value for value in values if value in sent] == sent


async def test_while_no_broker_is_there_nothing_is_written_and_afterwards_it_is(rough_kafka: EmbeddedKafka) -> None:
    topic = unique("away")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    async with writing(rough_kafka, topic) as writer:
        place = TopicPartition(topic, 0)
        assert await writer.append(place, ProducerRecord(b"k", b"before"), 10.0) == 0
        rough_kafka.kill()
        try:
            refused = 0

            async def not_reached() -> bool:
                nonlocal refused
                try:
                    await writer.append(place, ProducerRecord(b"k", b"meanwhile"), 3.0)
                except SourceUnavailable:
                    refused += 1
                except DeadlineExceeded:  # the connection was not known to be gone
                    refused = 0
                return refused == 2

            await until(not_reached, "writes are refused")
        finally:
            rough_kafka.restart()

        async def after() -> bool:
            try:
                await writer.append(place, ProducerRecord(b"k", b"after"), 2.0)
            except RequestError as error:
                raise AssertionError(error.detail) from None
            return True

        await until(after, "writes work again")
    values = [value for _, value in await records(rough_kafka, topic)]
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert values.count(b"meanwhile") <= 1


async def test_a_topic_that_is_gone_is_no_write(kafka: EmbeddedKafka) -> None:
    topic = unique("gone")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"min.insync.replicas": "1"})
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    async with writing(kafka, topic) as writer:
        with pytest.raises(SourceUnavailable, match="nothing was written"):
            await writer.append(TopicPartition(topic, 0), ProducerRecord(b"k", b"1"), 3.0)


async def test_a_writer_that_stops_takes_nothing_more(kafka: EmbeddedKafka) -> None:
    topic = unique("stopped")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    async with writing(kafka, topic) as writer:
        await writer.append(TopicPartition(topic, 0), ProducerRecord(b"k", b"1"), 10.0)
        await writer.stop()
        with pytest.raises(SourceUnavailable, match="stopping"):
            await writer.append(TopicPartition(topic, 0), ProducerRecord(b"k", b"2"), 10.0)
