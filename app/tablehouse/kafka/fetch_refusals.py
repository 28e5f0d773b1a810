"""Handles offsets that a broker cannot read, and so cannot send: a corrupt batch header, an unknown codec.

aiokafka logs such a response and retries at once, indefinitely, without telling its caller.
"""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import CorruptRecordException, UnknownError, for_code
from aiokafka.protocol.fetch import FetchRequest

from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.model import TopicPartition

#: UNSUPPORTED_COMPRESSION_TYPE, for which aiokafka has no error class.
_UNKNOWN_CODEC = 76

_REFUSALS = frozenset({CorruptRecordException.errno, UnknownError.errno, _UNKNOWN_CODEC})


def raise_refusals(consumer: AIOKafkaConsumer) -> None:
    """Make a consumer raise UnreadableBatch for an offset that a broker cannot send."""
    send = consumer._client.send

    async def send_and_check(node_id: int, request: Any, **options: Any) -> Any:
        answer = await send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            _check(consumer, request, answer)
        return answer

    consumer._client.send = send_and_check


def _check(consumer: AIOKafkaConsumer, request: FetchRequest, answer: Any) -> None:
    for topic, partitions in answer.topics:
        for partition, code, *_ in partitions:
            if code in _REFUSALS:
                _refuse(consumer, KafkaPartition(topic, partition), _requested_offset(request, topic, partition), code)


def _requested_offset(request: FetchRequest, topic: str, partition: int) -> int:
    """Return the offset that a request fetches."""
    asked: dict[tuple[str, int], int] = {
        (name, number): offset for name, partitions in request.topics for number, offset, _ in partitions
    }
    return asked[topic, partition]


def _refuse(consumer: AIOKafkaConsumer, partition: KafkaPartition, offset: int, code: int) -> None:
    assignment, fetcher = consumer._subscription.subscription.assignment, consumer._fetcher
    state = None if assignment is None else assignment.state_value(partition)
    # As aiokafka does with records fetched before a seek.
    if state is None or not state.has_valid_position or state.position != offset or partition in fetcher._records:
        return
    error = for_code(code)("the broker cannot read it")
    fetcher._set_error(partition, UnreadableBatch(TopicPartition(*partition), offset, offset, error, is_refused=True))
