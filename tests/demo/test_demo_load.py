import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tablehouse.demo.flights import Record
from tablehouse.demo.load import PARTITIONS, Producer, ensure_topics
from tablehouse.errors import SetupError, TopicError
from tablehouse.formats.partitioners import partition_of
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.processes import free_port
from tests.support.kafka import create_topic, unique


async def test_what_is_loaded_lies_in_its_partition_up_to_the_offset_that_is_reported(
    kafka: EmbeddedKafka,
) -> None:
    topic = unique("loaded")
    await ensure_topics(kafka.bootstrap_servers, [topic])
    # More than a batch each, so that the offsets are not those of a first batch.
    records = [Record(topic, f"key-{number}".encode(), b"x" * 1000) for number in range(3000)]
    told: list[int] = []

    async with Producer(kafka.bootstrap_servers) as producer:
        loaded = await producer.load(records, told.append)

    assert sum(told) == len(records)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        for partition in range(PARTITIONS):
            source = TopicPartition(topic, partition)
            expected = [one.key for one in records if partition_of("murmur2", one.key, PARTITIONS) == partition]
            last = loaded[topic, partition]
            assert last.offset == len(expected) - 1
            assert last.key in expected
            consumer.assign([source])
            found = [await consumer.getone() for _ in expected]
            assert [one.key for one in found] == expected
            assert (await consumer.end_offsets([source]))[source] == last.offset + 1
    finally:
        await consumer.stop()


async def test_topics_that_exist_as_needed_are_used(kafka: EmbeddedKafka) -> None:
    topics = [unique("used"), unique("used")]
    await ensure_topics(kafka.bootstrap_servers, topics[:1])

    await ensure_topics(kafka.bootstrap_servers, topics)


async def test_a_topic_with_another_partition_count_is_refused_with_both_numbers(kafka: EmbeddedKafka) -> None:
    topic = unique("wide")
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS + 2)

    with pytest.raises(TopicError, match=f"topic {topic} has 6 partitions, and the demo needs 4"):
        await ensure_topics(kafka.bootstrap_servers, [topic])


async def test_a_kafka_that_is_not_there_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(SetupError, match=f"no Kafka answers at {address}"):
        await ensure_topics(address, ["flights"])
