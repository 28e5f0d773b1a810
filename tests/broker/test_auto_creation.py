"""No request of this project creates a topic, on brokers that create what they are asked about.

Every broker that tests start is one, since auto.create.topics.enable is on unless it is set.
"""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.api import Request
from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataRequest_v5
from click.testing import CliRunner

from tablehouse.cli.main import main
from tablehouse.errors import SourceUnavailable
from tablehouse.kafka.client import Connection
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.kafka.topics import partition_count
from tablehouse.model import ProducerRecord, TopicPartition
from tablehouse.tasks.log import LogUnavailable
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.changelog import log_reader
from tests.support.engine import new_source, running_engine
from tests.support.kafka import BROKERS_CLOCK, create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.topics import GROUP_TOPICS, topics_of
from tests.support.worker import MakeWorker, table, tables


class _Asking(Request[MetadataRequest_v5 | MetadataRequest_v4]):  # type: ignore[misc]  # aiokafka is not typed
    """A Metadata request as other clients make it, which may create what it asks about."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(
        self, request_struct_class: type[MetadataRequest_v5 | MetadataRequest_v4]
    ) -> MetadataRequest_v5 | MetadataRequest_v4:
        """Return the request."""
        return request_struct_class([self._topic], True)  # noqa: FBT003 - it takes no names


async def test_the_broker_creates_what_other_clients_ask_about(kafka: EmbeddedKafka) -> None:
    topic = unique("asked-about")
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap_servers)
    await client.bootstrap()
    try:
        await client.send(client.get_random_node(), _Asking(topic))
    finally:
        await client.close()

    async def there() -> bool:
        return topic in await topics_of(kafka)

    await until(there, "the topic is created")


async def test_a_worker_starts_and_makes_its_topics_itself(kafka: EmbeddedKafka, make_worker: MakeWorker) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 3)
    await produce(kafka.bootstrap_servers, topic, [(b"N14228", b'{"seats":149}', None)])

    worker = make_worker(kafka.bootstrap_servers, tables(table("planes", topic)), group=group)
    worker.start()

    await worker.wait_ready()
    assert (await worker.get("/tables/planes/N14228")).body == b'{"seats":149}'
    made = {name for name in await topics_of(kafka) if name.startswith(group)}
    assert made == {f"{group}-{name}" for name in ("planes-changelog", *GROUP_TOPICS)}


async def test_a_misspelt_source_is_refused_at_every_start_and_not_created(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("misspelt"), unique("group")
    worker = make_worker(kafka.bootstrap_servers, tables(table("planes", topic)), group=group)
    for _ in range(2):
        worker.start()
        assert await worker.wait_exit() == 2
        assert f"there is no topic {topic}, which planes would read" in worker.log_text()
        worker.log_file.unlink()
    assert topic not in await topics_of(kafka)


async def test_a_deleted_source_does_not_come_back_while_a_worker_runs(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka, 2)
    other, _, _ = await new_source(kafka)
    both = definition + table("u", other)
    async with running_engine(kafka, tmp_path, both, group) as worker:
        await worker.wait_active(3)
        asked = worker.consumer.client._client.cluster  # noqa: SLF001 - when it was last asked shows nowhere else
        await delete_topic(kafka.bootstrap_servers, topic)

        async def gone() -> bool:
            return topic not in await topics_of(kafka)

        await until(gone, "the topic is deleted")
        # The consumer, the listing of source ends and the reader of a restore ask about it again and again.
        for _ in range(3):
            since = asked._last_successful_refresh_ms  # noqa: SLF001

            async def asked_again(since: float = since) -> bool:
                return bool(asked._last_successful_refresh_ms > since)  # noqa: SLF001

            await until(asked_again, "the consumer has asked about its topics again")
            assert topic not in await topics_of(kafka)


async def test_no_client_of_the_project_creates_what_it_asks_about(kafka: EmbeddedKafka) -> None:
    bootstrap, topic = kafka.bootstrap_servers, unique("nowhere")
    impatient, partition = Connection(bootstrap, "test", request_timeout=1.0), TopicPartition(topic, 0)
    async with log_reader(bootstrap) as reader:
        with pytest.raises(LogUnavailable):
            await reader.bounds([partition])
    assert await partition_count(impatient, topic) is None
    writer = KafkaSourceWriter(impatient, {topic: 1_000_000}.__getitem__, BROKERS_CLOCK)
    await writer.start()
    with pytest.raises(SourceUnavailable):
        await writer.append(partition, ProducerRecord(b"k", b"v"), 2.0)
    await writer.stop()
    producer, consumer = AIOKafkaProducer(**impatient.arguments()), AIOKafkaConsumer(topic, **impatient.arguments())
    try:
        await producer.start()
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.partitions_for(topic)
        with pytest.raises(UnknownTopicOrPartitionError):
            await consumer.start()
    finally:
        await producer.stop()
        await consumer.stop()
    listed = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["dead-letters", "list", "--bootstrap-servers", bootstrap, "--dead-letter-topic", topic],
    )
    assert f"there is no topic {topic}" in listed.stderr
    assert topic not in await topics_of(kafka)
