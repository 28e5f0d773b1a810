"""Appends conditional writes to source partitions, with the epoch of the owner that decided them.

An owner decides a conditional write and then appends it. In between it may have lost the partition without knowing: it
was paused, or its record is still in a socket. So the record carries a producer id derived from the table's changelog
and the number of the ownership as producer epoch, as changelog batches do (changelog_writer.py): once the next owner
has appended a record, the broker rejects records of the previous one.

Only one record per partition is in flight. A record whose outcome was reported as unknown stays in aiokafka, which
keeps retrying it; no further write is decided until its outcome is known. If it finally fails, it may or may not be in
the log. Its sequence number is then reused for the next record, and the broker accepts whichever of the two arrives
first. Writes that were decided before the failure are not appended.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from typing import Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from tablehouse.errors import NotOwner
from tablehouse.kafka.changelog_writer import ALL_IN_SYNC, EpochProducer, new_batch
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import REFUSALS, refusal
from tablehouse.kafka.source_writer import (
    LEADER_TIMEOUT_SECONDS,
    NotSent,
    not_written,
    outcome_unknown,
    reach_leader,
    record_size,
    take_back,
    too_large,
)
from tablehouse.model import Epoch, Ownership, SourceEnd, TopicPartition
from tablehouse.tasks.log import BrokerClock

#: Base of the producer ids of owners, plus 40 bits of the log's id and 8 bits of the epoch's id index. Brokers never
#: allocate ids this high, and the ids of changelogs are higher.
_PRODUCER_ID = 0x7AB0_0000_0000_0000
_INDEX_BITS = 8


#: Failures of records that are not in the log and never will be.
_CERTAIN = (*REFUSALS, InvalidProducerEpoch, NotSent, OutOfOrderSequenceNumber, ProducerFenced)


@dataclass(slots=True)
class _Sequence:
    """The number of acknowledged records of an ownership, which is the sequence number of the next one.

    failed_at is the time of the last failure with an unknown outcome, on the event loop's clock.
    """

    ownership: Ownership
    acknowledged: int = 0
    failed_at: float = -inf


class KafkaOwnerWriter:
    """Appends to topics; limit_of returns a topic's maximum record size in bytes. Connects with the first record."""

    def __init__(self, connection: Connection, limit_of: Callable[[str], int], clock: BrokerClock) -> None:
        self._connection = connection
        self._limit_of = limit_of
        self._clock = clock
        self._producer: EpochProducer | None = None
        self._starting = asyncio.Lock()
        self._turns: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)
        #: By table and partition, since each table has its own changelog.
        self._sequences: dict[tuple[str, TopicPartition], _Sequence] = {}
        #: Records in flight, by partition.
        self._pending: dict[TopicPartition, asyncio.Future[Any]] = {}
        self._stopped = False

    async def stop(self) -> None:
        """Disconnect; unacknowledged records have an unknown outcome."""
        self._stopped = True
        if self._producer is not None:
            await self._producer.stop()

    async def settle_all(self, seconds: float) -> None:
        """Wait until the outcome of all records in flight is known, for at most `seconds`."""
        if self._pending:
            await asyncio.wait(set(self._pending.values()), timeout=seconds)

    async def settle(self, partition: TopicPartition, timeout: float) -> None:  # noqa: ASYNC109
        """Return once the outcome of every earlier record of a partition is known; raises SourceUnavailable."""
        pending = self._pending.get(partition)
        if pending is not None:
            await asyncio.wait({pending}, timeout=timeout)
            if not pending.done():
                raise not_written(partition, "the outcome of an earlier conditional write is not known yet")

    async def append(
        self,
        table: str,
        partition: TopicPartition,
        key: bytes,
        value: bytes | None,
        *,
        owned: Callable[[], Ownership],
        end: SourceEnd,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        """Append a record and return its offset once all in-sync replicas have it.

        `owned` returns the current ownership of the partition or raises NotOwner; it is called immediately before the
        record is sent. `end` is the end of the partition that its owner had read when it decided.

        Raises NotOwner, PayloadTooLarge and SourceUnavailable if the record was not and will not be written, and
        DeadlineExceeded if it may have been written or may be later.
        """
        limit, size = self._limit_of(partition.topic), record_size(key, value)
        if size > limit:
            raise too_large(partition.topic, size, limit)
        deadline = asyncio.get_running_loop().time() + timeout
        turn = self._turns[partition]
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise not_written(partition, "the deadline passed while waiting for other conditional writes") from None
        try:
            producer = await self._reach(partition, deadline)
            builder = new_batch(limit)
            builder.append(timestamp=self._clock.now_ms(), key=key, value=value, headers=[])
            builder.close()
            sequence = self._sequence(table, partition, owned())
            if end.listed_at <= sequence.failed_at:
                raise not_written(partition, "an earlier conditional write failed after it was decided")
            future = await self._send(producer, partition, builder, sequence, deadline)
            offset = await self._acknowledged(producer, partition, future, deadline)
        finally:
            turn.release()
        if offset < end.offset:
            # The broker treated it as a duplicate of the failed record, which was in the log after all.
            raise not_written(partition, "an earlier conditional write, reported as failed, is in the log")
        return offset

    async def _reach(self, partition: TopicPartition, deadline: float) -> EpochProducer:
        """Return a producer that is connected to a partition's leader and idle there; raises SourceUnavailable."""
        await self.settle(partition, max(0.0, deadline - asyncio.get_running_loop().time()))
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(LEADER_TIMEOUT_SECONDS):
                producer = await self._started()
                await reach_leader(producer.client, KafkaPartition(*partition))
        except TimeoutError:
            raise not_written(partition, "its leader could not be reached in time") from None
        except KafkaError as error:
            raise not_written(partition, repr(error)) from None
        return producer

    async def _started(self) -> EpochProducer:
        async with self._starting:
            if self._stopped:
                raise KafkaConnectionError("the worker is stopping")
            if self._producer is None:
                producer = EpochProducer(self._connection, 0, ALL_IN_SYNC)
                try:
                    await producer.client.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _sequence(self, table: str, partition: TopicPartition, ownership: Ownership) -> _Sequence:
        """Return the sequence of an ownership's records; each ownership begins a new one."""
        known = self._sequences.get((table, partition))
        if known is None or known.ownership != ownership:
            known = self._sequences[table, partition] = _Sequence(ownership)
        return known

    async def _send(
        self,
        producer: EpochProducer,
        partition: TopicPartition,
        builder: BatchBuilder,
        sequence: _Sequence,
        deadline: float,
    ) -> asyncio.Future[Any]:
        """Hand a record to the producer with the next sequence number; raises SourceUnavailable."""
        producer.epochs.begin(KafkaPartition(*partition), _epoch(sequence.ownership), sequence.acknowledged)
        try:
            async with asyncio.timeout_at(deadline):
                future = await producer.send(partition, builder)
        except TimeoutError:
            raise not_written(partition, "no time was left to send it") from None
        except KafkaError as error:
            raise not_written(partition, repr(error)) from None
        self._pending[partition] = future

        def done(_: asyncio.Future[Any]) -> None:
            del self._pending[partition]
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or (isinstance(error, KafkaError) and not isinstance(error, _CERTAIN)):
                sequence.failed_at = asyncio.get_running_loop().time()
            elif error is None:
                sequence.acknowledged += 1

        future.add_done_callback(done)
        return future

    async def _acknowledged(
        self, producer: EpochProducer, partition: TopicPartition, future: asyncio.Future[Any], deadline: float
    ) -> int:
        try:
            async with asyncio.timeout_at(deadline):
                return int((await asyncio.shield(future)).offset)
        except TimeoutError:
            if take_back(producer.client, KafkaPartition(*partition)):
                raise not_written(partition, "it was still queued at the deadline") from None
            raise outcome_unknown(partition, "no acknowledgement in time") from None
        except (ProducerFenced, InvalidProducerEpoch):
            raise NotOwner(
                f"nothing was written to partition {partition.partition} of topic {partition.topic}, which another "
                "worker owns now"
            ) from None
        except _CERTAIN as error:
            raise not_written(partition, refusal(error)) from None
        except KafkaError as error:
            raise outcome_unknown(partition, repr(error)) from None


def _epoch(ownership: Ownership) -> Epoch:
    """Return the producer id and epoch of an ownership; a recreated log gets different ids."""
    log = int.from_bytes(blake2b(ownership.log_id, digest_size=5).digest(), "big")
    return Epoch(_PRODUCER_ID + (log << _INDEX_BITS) + ownership.epoch.id_index, ownership.epoch.number)
