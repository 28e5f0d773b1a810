"""Checks at the start that the broker rejects old producer epochs."""

import secrets

from aiokafka.errors import UnsupportedForMessageFormatError

from tablehouse.errors import BrokerUnfit
from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.kafka.client import Connection
from tablehouse.kafka.topics import AUTOMATIC, EPOCH_PROBE, Replication, create_probe
from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.log import Fenced, OutcomeUnknown


async def probe_epochs(connection: Connection, group: str, replication: Replication = AUTOMATIC) -> None:
    """Append with epoch 2 and then with epoch 1, which must be rejected.

    Uses a new random producer id each time, below those of the changelogs. Raises BrokerUnfit, OutcomeUnknown if the
    broker did not answer, and aiokafka's KafkaError.
    """
    topic = await create_probe(connection, group, EPOCH_PROBE, replication)
    # One replica is enough, since nothing reads the topic; otherwise an unavailable replica would keep every worker
    # from starting.
    writer = KafkaChangelogWriter(
        connection, lambda _topic: 16 * 1024, producer_id=(1 << 61) + secrets.randbits(48), acks=1
    )
    await writer.start()
    try:
        partition = TopicPartition(topic, 0)
        try:
            await writer.claim(partition, Epoch(0, 2), b"probe", b"new")
        except OutcomeUnknown as error:
            if isinstance(error.__cause__, UnsupportedForMessageFormatError):
                raise BrokerUnfit(
                    f"the brokers keep topic {topic} in a message format from before Apache Kafka 0.11 "
                    "(log.message.format.version), which has no producer epochs"
                ) from error
            raise
        except Fenced as error:
            raise BrokerUnfit(f"the broker refused the first epoch of a new producer id on {topic}: {error}") from error
        try:
            await writer.claim(partition, Epoch(0, 1), b"probe", b"old")
        except Fenced:
            return
        raise BrokerUnfit(
            "the broker accepted a record of an older producer epoch, so it could not keep a replaced worker from "
            "corrupting a table; Apache Kafka 2.5 and newer reject it"
        )
    finally:
        await writer.stop()
