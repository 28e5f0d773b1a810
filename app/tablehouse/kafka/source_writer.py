"""Appends callers' records to source topics, with the outcome of each: written, not written, or unknown.

Its producer is idempotent and keeps the order of a partition: a record whose outcome was reported as unknown stays in
it, and later records wait behind it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tablehouse.errors import DeadlineExceeded, PayloadTooLarge, RequestError, SourceUnavailable
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import REFUSALS, refusal, stop_producer
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.model import ProducerRecord, TopicPartition
from tablehouse.tasks.log import BrokerClock

log = structlog.get_logger(__name__)

#: Seconds to wait for a connection to a partition's leader before a write is refused, and between attempts.
LEADER_TIMEOUT_SECONDS = 2.0
_RETRY = 0.1

#: What aiokafka is told to accept in one record, since the limit of each topic is checked before.
_UNLIMITED = 2**31 - 1


class NotSent(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """The record was withdrawn before it was sent."""


class KafkaSourceWriter:
    """Appends to topics; limit_of returns a topic's maximum record size in bytes.

    Records get the brokers' time. Kafka 4 rejects timestamps more than an hour ahead of it
    (message.timestamp.after.max.ms).
    """

    def __init__(self, connection: Connection, limit_of: Callable[[str], int], clock: BrokerClock) -> None:
        self._connection = connection
        self._limit_of = limit_of
        self._clock = clock
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError if no broker is reachable or none returns a producer id in time."""
        try:
            async with asyncio.timeout(self._connection.request_timeout):
                await self._started()
        except TimeoutError:
            raise KafkaConnectionError("no broker returned a producer id in time") from None

    async def stop(self) -> None:
        """Disconnect without waiting for pending records; unacknowledged ones have an unknown outcome."""
        self._stopped = True
        if self._producer is not None:
            self._retire(self._producer)
        await asyncio.gather(*self._retiring)

    def limit(self, topic: str) -> int:
        """Return the maximum record size of a topic in bytes."""
        return self._limit_of(topic)

    async def append(self, partition: TopicPartition, record: ProducerRecord, timeout: float) -> int:  # noqa: ASYNC109
        """Append a record and return its offset once all in-sync replicas have it.

        Raises PayloadTooLarge, SourceUnavailable if the record was not and will not be written, and DeadlineExceeded if
        it may have been written or may be later.
        """
        [outcome] = await self.append_many(partition, [record], timeout)
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    async def append_many(
        self,
        partition: TopicPartition,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        """Append records in order; return the offset of each, or the exception that append() would raise."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            producer = await self._reach(partition, deadline)
        except SourceUnavailable as error:
            return [error] * len(records)
        sent = await self._send(producer, partition, records, deadline)
        outcomes: list[int | RequestError] = []
        for future in sent:
            if isinstance(future, RequestError):
                outcomes.append(future)
                continue
            try:
                outcomes.append(await self._acknowledged(producer, future, partition, deadline))
            except RequestError as error:
                outcomes.append(error)
        return outcomes

    async def _reach(self, partition: TopicPartition, deadline: float) -> AIOKafkaProducer:
        """Return a producer that can reach the partition's leader; raises SourceUnavailable."""
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(LEADER_TIMEOUT_SECONDS):
                producer = await self._started()
                await reach_leader(producer, KafkaPartition(*partition))
        except TimeoutError:
            raise self._out_of_reach(partition) from None
        except KafkaError as error:
            raise not_written(partition, repr(error)) from None
        return producer

    async def _send(
        self,
        producer: AIOKafkaProducer,
        partition: TopicPartition,
        records: Sequence[ProducerRecord],
        deadline: float,
    ) -> Sequence[asyncio.Future[Any] | RequestError]:
        """Hand records to a producer in order, up to the first that it does not accept."""
        limit = self._limit_of(partition.topic)
        sent: list[asyncio.Future[Any] | RequestError] = []
        untaken: RequestError | None = None
        for key, value, headers in records:
            size = record_size(key, value, headers)
            if size > limit:
                sent.append(too_large(partition.topic, size, limit))
                continue
            if untaken is None:
                try:
                    async with asyncio.timeout_at(deadline):
                        future = await producer.send(
                            partition.topic,
                            value=value,
                            key=key,
                            headers=list(headers),
                            partition=partition.partition,
                            timestamp_ms=self._clock.now_ms(),
                        )
                except TimeoutError:
                    untaken = self._out_of_reach(partition)
                except KafkaError as error:
                    untaken = not_written(partition, repr(error))
                else:
                    # Retrieve its exception even if the caller no longer waits.
                    future.add_done_callback(lambda done: done.cancelled() or done.exception())
                    sent.append(future)
                    continue
            sent.append(untaken)
        return sent

    async def _acknowledged(
        self, producer: AIOKafkaProducer, future: asyncio.Future[Any], partition: TopicPartition, deadline: float
    ) -> int:
        """Return the offset of a record that was sent; raises SourceUnavailable and DeadlineExceeded."""
        try:
            async with asyncio.timeout_at(deadline):
                return int((await asyncio.shield(future)).offset)
        except TimeoutError:
            take_back(producer, KafkaPartition(*partition))
            if future.done() and isinstance(future.exception(), NotSent):
                raise not_written(partition, "it was still queued at the deadline") from None
            raise outcome_unknown(partition, "no acknowledgement in time") from None
        except NotSent:
            raise not_written(partition, "earlier records were not acknowledged in time") from None
        except KafkaError as error:
            # Its sequence number is used up, so the broker would reject this producer's next record.
            self._retire(producer)
            if isinstance(error, REFUSALS):
                raise not_written(partition, refusal(error)) from None
            raise outcome_unknown(partition, repr(error)) from None

    def _out_of_reach(self, partition: TopicPartition) -> SourceUnavailable:
        return not_written(partition, self._unreached(KafkaPartition(*partition)))

    def _unreached(self, partition: KafkaPartition) -> str:
        """Return why a partition is unavailable, with its leader's advertised address if known."""
        cluster = None if self._producer is None else self._producer.client.cluster
        leader = None if cluster is None else cluster.broker_metadata(cluster.leader_for_partition(partition))
        if leader is None:
            return "no broker named its leader in time (was the topic deleted?)"
        return (
            f"its leader, which advertises {leader.host}:{leader.port}, could not be reached in time or does not "
            "accept records"
        )

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._stopped:
                raise KafkaError("the worker is stopping")
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._connection.arguments(),
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    max_request_size=_UNLIMITED,
                )
                rebootstrap(producer.client, self._connection)
                try:
                    await producer.start()
                except BaseException:
                    self._retire(producer)
                    raise
                self._producer = producer
            return self._producer

    def _retire(self, producer: AIOKafkaProducer) -> None:
        """Stop a producer in the background; the next record gets a new one."""
        if self._producer is producer:
            self._producer = None
        retiring = asyncio.get_running_loop().create_task(stop_producer(producer))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)


def too_large(topic: str, size: int, limit: int) -> PayloadTooLarge:
    """Return the error for a record that exceeds its topic's limit."""
    return PayloadTooLarge(
        f"the record would have {size} bytes, topic {topic} accepts at most {limit} (max.message.bytes)",
        limit=limit,
    )


def record_size(key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()) -> int:
    """Return an upper bound of the size in bytes of a record batch with this one record."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, list(headers)))


async def reach_leader(producer: AIOKafkaProducer, partition: KafkaPartition) -> None:
    """Wait for a connection to the leader of a partition."""
    client = producer.client
    await producer.partitions_for(partition.topic)
    while True:
        leader = client.cluster.leader_for_partition(partition)
        if leader not in {None, -1} and await client.ready(leader):
            return
        await client.force_metadata_update()
        await asyncio.sleep(_RETRY)


def take_back(producer: AIOKafkaProducer, partition: KafkaPartition) -> bool:
    """Withdraw the records of a partition that are queued and were never sent, so that they never will be.

    Returns whether there were any.
    """
    batches = producer._message_accumulator._batches
    taken = [batch for batch in batches.get(partition, ()) if batch.retry_count == 0]
    for batch in taken:
        batches[partition].remove(batch)
        batch.failure(NotSent())
        batch._drain_waiter.exception()  # it has no waiter, or the waiter was notified
    if partition in batches and not batches[partition]:
        del batches[partition]
    return bool(taken)


def not_written(partition: TopicPartition, why: str) -> SourceUnavailable:
    """Return the error for a record that was not and will not be written."""
    return SourceUnavailable(
        f"nothing was written to partition {partition.partition} of topic {partition.topic}: {why}",
        partition=partition.partition,
    )


def outcome_unknown(partition: TopicPartition, why: str) -> DeadlineExceeded:
    """Return the error for a record that may have been written, or may be later."""
    return DeadlineExceeded(
        f"the write to partition {partition.partition} of topic {partition.topic} may have happened, or may happen "
        f"later: {why}",
        partition=partition.partition,
    )
