"""Asks a broker what time it is, by a record that it stamps."""

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import stop_producer
from tablehouse.kafka.topics import AUTOMATIC, CLOCK_PROBE, Replication, create_probe
from tablehouse.tasks.clock import MeasuredClock
from tablehouse.tasks.log import Clock

#: Seconds: what has taken longer would have a worker count far ahead of the brokers, until it measures again.
_SLOWEST = 60.0

#: aiokafka's word for a timestamp that the broker gave.
_LOG_APPEND_TIME = 1


async def prepare_probe(connection: Connection, group: str, replication: Replication = AUTOMATIC) -> None:
    """Make the topic that measure() appends to, unless it is there; raises TopicError and aiokafka's KafkaError."""
    await create_probe(connection, group, CLOCK_PROBE, replication)


async def measure(connection: Connection, group: str, clock: Clock, broker_clock: MeasuredClock) -> None:
    """Append a record to the topic made for that, and have `broker_clock` know when it was appended.

    Raises TopicError, and aiokafka's KafkaError when the broker does not answer, or only after a minute.
    """
    topic = f"{group}-{CLOCK_PROBE}"
    producer = AIOKafkaProducer(**connection.arguments(), acks=1)
    try:
        await producer.start()
        # What waits for the topic to be known would count as time that the append took.
        await producer.partitions_for(topic)
        asked_at = clock.monotonic()
        appended = await producer.send_and_wait(topic, b"", partition=0)
    finally:
        await stop_producer(producer)
    if appended.timestamp_type != _LOG_APPEND_TIME:
        raise TopicError(f"topic {topic}: message.timestamp.type must be LogAppendTime; alter the topic's settings")
    if (seconds := clock.monotonic() - asked_at) > _SLOWEST:
        raise KafkaTimeoutError(f"an append to topic {topic} took {seconds:.0f} s")
    broker_clock.measured(appended.timestamp, asked_at)
