"""Shared by all producers: errors that mean that a record is not written, and a stop with a time limit."""

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
    """The broker validated the record and rejected it, for example one without a key for a compacted topic."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The record has failed the validation of the broker."


# aiokafka reports broker errors that it does not know as an unknown outcome.
errors.kafka_errors[InvalidRecordError.errno] = InvalidRecordError

#: Errors of a broker that has not written the records and would reject them again.
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

#: Advice for operators on some of these.
_REMEDIES = {
    UnsupportedForMessageFormatError: "the topic is kept in a message format from before Apache Kafka 0.11 "
    "(message.format.version), which does not accept records of idempotent producers",
    InvalidTimestampError: "the topic does not accept the current time (message.timestamp.before.max.ms and "
    "message.timestamp.after.max.ms)",
}


def refusal(error: KafkaError) -> str:
    """Return a message for one of REFUSALS."""
    remedy = _REMEDIES.get(type(error))
    return f"the broker refused the record: {error!r}" + ("" if remedy is None else f"; {remedy}")


#: Seconds that a producer may take to stop.
STOP_TIMEOUT = 2.0


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop without waiting for undeliverable batches: their outcome is unknown anyway."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT)
    if not stopping.done():
        stopping.cancel()
        _fail_all(producer._message_accumulator)
        sender = producer._sender.sender_task
        # When cancelled, aiokafka's sender waits for the responses in flight; each further cancellation ends one wait.
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError, KafkaError):
            await stopping
        await producer.client.close()


def _fail_all(accumulator: MessageAccumulator) -> None:
    """End all waits for batches, and retrieve their exceptions so that asyncio does not log them."""
    queued = [batch for batches in accumulator._batches.values() for batch in batches]
    # A batch that was sent before removes itself when it ends, and is missing here while it is queued again.
    accumulator._pending_batches.update(batch for batch in queued if batch.retry_count)
    left = {*queued, *accumulator._pending_batches}
    accumulator.fail_all(ProducerClosed())
    for batch in left:
        batch._drain_waiter.exception()
