"""A real Kafka shared by the whole test session, and what tests do with it."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

import tablehouse.kafka.metadata_requests  # noqa: F401 - the tests' own clients create no topic by looking for it
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.polling import until

_DEADLINE = 120.0  # seconds


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One broker for the whole session: use names of your own, and leave it running.

    A test that kills, pauses or restarts a broker starts an EmbeddedKafka of its own.
    """
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


class ShiftedClock:
    """Implements BrokerClock for brokers whose clock is that many hours ahead of the machine's."""

    def __init__(self, hours: int = 0) -> None:
        self._ahead_ms = hours * 3_600_000

    def now_ms(self) -> int:
        """See BrokerClock."""
        return time.time_ns() // 1_000_000 + self._ahead_ms


BROKERS_CLOCK = ShiftedClock()


def unique(prefix: str) -> str:
    """Return a name for a topic, a group or a table that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


async def create_topic(
    bootstrap: str,
    name: str,
    partitions: int,
    config: Mapping[str, str] | None = None,
    replication_factor: int = 1,
) -> None:
    """Create a topic and return when each of its partitions has a leader."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topic = NewTopic(name, partitions, replication_factor, topic_configs=dict(config or {}))
        answer = await admin.create_topics([topic])
        assert [error[1] for error in answer.topic_errors] == [0], answer.topic_errors
        deadline = time.monotonic() + _DEADLINE
        while True:
            (found,) = await admin.describe_topics([name])
            led = [part for part in found["partitions"] if part["error_code"] == 0 and part["leader"] >= 0]
            if len(led) == partitions:
                return
            assert time.monotonic() < deadline, f"topic {name} has leaders for {len(led)} of {partitions}"
            await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def add_partitions(bootstrap: str, topic: str, count: int) -> None:
    """Have a topic grow to that many partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(count)})
    finally:
        await admin.close()


async def recreate_topic(bootstrap: str, topic: str, partitions: int = 1) -> None:
    """Delete a topic and create it again, as soon as the brokers let it be."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])

        async def gone() -> bool:
            [found] = await admin.describe_topics([topic])
            return bool(found["error_code"])

        await until(gone, f"topic {topic} is gone")
    finally:
        await admin.close()

    async def created() -> bool:
        await create_topic(bootstrap, topic, partitions)
        return True

    await until(created, f"topic {topic} is there again")


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic; brokers take a moment to be done with it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def produce(
    bootstrap: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None, int | None]]
) -> list[tuple[int, int]]:
    """Produce (key, value, partition) in order; return each one's (partition, offset), acknowledged.

    Without a partition, murmur2 of the key decides, as in Java.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=2)
    await producer.start()
    try:
        sent = [
            await producer.send(topic, key=key, value=value, partition=partition) for key, value, partition in records
        ]
        acknowledged = [await future for future in sent]
        return [(one.partition, one.offset) for one in acknowledged]
    finally:
        await producer.stop()


async def produce_with_codec(bootstrap: str, topic: str, partition: int, codec: str, values: Iterable[bytes]) -> None:
    """Produce each value, under itself as its key, in batches compressed by a codec of Kafka's."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=2)
    await producer.start()
    try:
        sent = [await producer.send(topic, key=value, value=value, partition=partition) for value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
