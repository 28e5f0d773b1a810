"""What producers have in common: which answers mean that a broker took nothing, and how they end in time."""

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaProducer, errors
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    ProducerClosed,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
from aiokafka.producer.message_accumulator import MessageAccumulator


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]  # aiokafka is not typed
    """The broker has looked at the record and refused it: one without a key for a compacted topic, for instance."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The record has failed the validation of the broker."


# aiokafka takes the errors of brokers that it does not know for an outcome that is not known.
errors.kafka_errors[InvalidRecordError.errno] = InvalidRecordError

#: Answers of a broker that has not taken the records, and would not take them if they were sent again.
REFUSALS = (
    ClusterAuthorizationFailedError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)

#: What an operator has to know of some of these.
_REMEDIES = {
    UnsupportedForMessageFormatError: "the topic is kept in a message format from before Apache Kafka 0.11 "
    "(message.format.version), which takes no records of idempotent producers",
    InvalidTimestampError: "the topic takes no record with the time of now (message.timestamp.before.max.ms and "
    "message.timestamp.after.max.ms)",
}


def refusal(error: KafkaError) -> str:
    """Return one of REFUSALS in words."""
    remedy = _REMEDIES.get(type(error))
    return f"the broker refused the record: {error!r}" + ("" if remedy is None else f"; {remedy}")


#: How long a producer that is not needed any more may take to stop, in seconds.
STOP_TIMEOUT = 2.0


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop without waiting for what cannot be delivered: its outcome is unknown anyway."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT)
    if not stopping.done():
        stopping.cancel()
        _fail_all(producer._message_accumulator)
        sender = producer._sender.sender_task
        # Told to end, aiokafka's sender waits for the answers in flight; each further cancellation ends one wait.
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError, KafkaError):
            await stopping
        await producer.client.close()


def _fail_all(accumulator: MessageAccumulator) -> None:
    """End whatever waits for a batch, and leave asyncio nothing to log, such as exceptions that nothing asks for."""
    queued = [batch for batches in accumulator._batches.values() for batch in batches]
    # A batch that was sent before takes itself out of these when it ends, and they lack it while it is queued again.
    accumulator._pending_batches.update(batch for batch in queued if batch.retry_count)
    left = {*queued, *accumulator._pending_batches}
    accumulator.fail_all(ProducerClosed())
    for batch in left:
        batch._drain_waiter.exception()
