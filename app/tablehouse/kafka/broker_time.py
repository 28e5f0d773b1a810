"""Measures a broker's clock by appending a record that the broker timestamps."""

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import stop_producer
from tablehouse.kafka.topics import AUTOMATIC, CLOCK_PROBE, Replication, create_probe
from tablehouse.tasks.clock import MeasuredClock
from tablehouse.tasks.log import Clock

#: Seconds an append may take. A slower one would leave the worker's estimate far ahead of the brokers' clock until the
#: next measurement.
_MAX_APPEND_SECONDS = 60.0

#: aiokafka's number for a timestamp set by the broker.
_LOG_APPEND_TIME = 1


async def prepare_probe(connection: Connection, group: str, replication: Replication = AUTOMATIC) -> None:
    """Create the topic that measure() appends to if it does not exist; raises TopicError and aiokafka's KafkaError."""
    await create_probe(connection, group, CLOCK_PROBE, replication)


async def measure(connection: Connection, group: str, clock: Clock, broker_clock: MeasuredClock) -> None:
    """Append a record to the probe topic and pass its timestamp to `broker_clock`.

    Raises TopicError, and aiokafka's KafkaError if the broker does not respond within a minute.
    """
    topic = f"{group}-{CLOCK_PROBE}"
    producer = AIOKafkaProducer(**connection.arguments(), acks=1)
    try:
        await producer.start()
        # Fetch the metadata first; otherwise that time would count as part of the append.
        await producer.partitions_for(topic)
        asked_at = clock.monotonic()
        appended = await producer.send_and_wait(topic, b"", partition=0)
    finally:
        await stop_producer(producer)
    if appended.timestamp_type != _LOG_APPEND_TIME:
        raise TopicError(f"topic {topic}: message.timestamp.type must be LogAppendTime; alter the topic's settings")
    if (seconds := clock.monotonic() - asked_at) > _MAX_APPEND_SECONDS:
        raise KafkaTimeoutError(f"an append to topic {topic} took {seconds:.0f} s")
    broker_clock.measured(appended.timestamp, asked_at)
