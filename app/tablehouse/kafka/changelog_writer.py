"""Appends to changelog partitions with producer epochs chosen by Tablehouse, so that the broker fences old owners.

An idempotent Kafka producer gets its id and epoch from the broker. Here both are set by the client: the id is a
constant far above any that brokers allocate, and the epoch is that of the partition's claim. A broker rejects any
append whose epoch is lower than the highest it has seen for that producer id and partition, from any client: this is
the fence. See tasks/DESIGN.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager

from tablehouse.kafka.byte_gate import ByteGate
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import stop_producer
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.log import Fenced, OutcomeUnknown
from tablehouse.tasks.records import epoch_headers

log = structlog.get_logger(__name__)

#: Brokers allocate producer ids from 0 upwards in blocks of 1,000; no cluster comes near this number.
PRODUCER_ID = 0x7AB1_E000_0000_0000

#: Kafka's number for acks=all.
ALL_IN_SYNC = -1

#: Seconds after which the outcome of an append counts as unknown, from when it is handed to aiokafka. An append that is
#: still queued has certainly not happened, so time in the queue is not limited.
APPEND_TIMEOUT = 10.0

#: Maximum bytes of appends handed to aiokafka at once, and of one request. aiokafka would put a batch of every
#: partition that a broker leads into one request, and a broker closes the connection on a request longer than its
#: socket.request.max.bytes, 100 MiB by default. The limit is far below that, so that a request takes seconds even on a
#: slow network, and far above the few MiB beyond which larger requests are no faster.
BYTES_IN_FLIGHT = 32 * 1024 * 1024


class EpochTransactionManager(TransactionManager):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's store of producer id, epoch and sequence numbers, with a separate epoch for each partition.

    aiokafka stamps a batch by reading sequence_number(tp), then producer_id, then producer_epoch, without awaiting in
    between; so the last two refer to the partition of the first.
    """

    def __init__(self, producer_id: int) -> None:
        super().__init__(None, 2**31 - 1)
        self._base = producer_id
        self._epochs: dict[KafkaPartition, Epoch] = {}
        self._stamping = Epoch(0, 0)

    def begin(self, partition: KafkaPartition, epoch: Epoch, sequence: int = 0) -> None:
        """Stamp further batches of the partition with `epoch`, counting from `sequence`."""
        self._epochs[partition] = epoch
        self._sequence_numbers[partition] = sequence

    def sequence_number(self, tp: KafkaPartition) -> int:
        """Return the number of the next record on the partition, and remember which partition is being stamped."""
        self._stamping = self._epochs[tp]
        sequence: int = super().sequence_number(tp)
        return sequence

    @property
    def producer_id(self) -> int:
        """Return the producer id for the partition being stamped."""
        return self._base + self._stamping.id_index

    @property
    def producer_epoch(self) -> int:
        """Return the producer epoch for the partition being stamped."""
        return self._stamping.number

    def has_pid(self) -> bool:
        """Return True, so that aiokafka does not request a producer id from the broker."""
        return True


class _Encoded(NamedTuple):
    builder: BatchBuilder
    epoch: Epoch


class EpochProducer:
    """An aiokafka producer that uses Tablehouse's epochs."""

    def __init__(self, connection: Connection, producer_id: int, acks: int) -> None:
        self.epochs = EpochTransactionManager(producer_id)
        self.client = AIOKafkaProducer(**connection.arguments(), acks="all", enable_idempotence=True, linger_ms=0)
        rebootstrap(self.client.client, connection)
        self.client._txn_manager = self.epochs
        self.client._message_accumulator._txn_manager = self.epochs
        self.client._sender._txn_manager = self.epochs
        # aiokafka requires acks=all for an idempotent producer; brokers do not.
        self.client._sender._acks = acks
        _bound_requests(self.client._message_accumulator, BYTES_IN_FLIGHT)

    async def send(self, partition: TopicPartition, builder: BatchBuilder) -> asyncio.Future[Any]:
        """Hand a batch to aiokafka, and return a future of its outcome."""
        future: asyncio.Future[Any] = await self.client.send_batch(
            builder, partition.topic, partition=partition.partition
        )
        return future

    async def stop(self) -> None:
        """Stop without waiting for undeliverable batches: their outcome is unknown anyway."""
        await stop_producer(self.client)


def new_batch(limit: int) -> BatchBuilder:
    """Return an empty batch that takes one record of any size, and more of them up to `limit` bytes in all."""
    return BatchBuilder(limit, compression_type=0)


def _bound_requests(accumulator: MessageAccumulator, limit: int) -> None:
    """Limit what an accumulator drains per broker to `limit` bytes, and at least one batch.

    Batches whose outcome was reported as unknown stay in aiokafka, which keeps retrying them: when brokers return after
    an outage, there may be one per partition.
    """
    drain = accumulator.drain_by_nodes

    def drain_some(ignore_nodes: Any, muted_partitions: AbstractSet[KafkaPartition] = frozenset()) -> Any:
        room: dict[int, int] = defaultdict(lambda: limit)
        later: set[KafkaPartition] = set()
        # In order of arrival, so that a partition left out is first the next time.
        for partition, batches in accumulator._batches.items():
            leader = accumulator._cluster.leader_for_partition(partition)
            if leader in (None, -1) or leader in ignore_nodes or partition in muted_partitions:
                continue
            size = batches[0]._builder.size()
            if size > room[leader] and room[leader] < limit:
                later.add(partition)
            else:
                room[leader] -= size
        return drain(ignore_nodes, muted_partitions | later)

    accumulator.drain_by_nodes = drain_some


class KafkaChangelogWriter:
    """Implements ChangelogWriter.

    limit_of returns the maximum batch size of a topic in bytes. `acks` is the number of replicas that must acknowledge
    a batch: 1 or ALL_IN_SYNC.

    One producer serves all partitions. A batch whose outcome is unknown keeps its partition blocked in that producer,
    so the next claim uses a private producer, and the partition returns to the shared one when that batch is settled.

    Appends are queued when too much is in flight. Claims are not: they are small, and other work waits for them.
    """

    def __init__(
        self,
        connection: Connection,
        limit_of: Callable[[str], int],
        *,
        producer_id: int = PRODUCER_ID,
        acks: int = ALL_IN_SYNC,
    ) -> None:
        self._connection = connection
        self._limit_of = limit_of
        self._producer_id = producer_id
        self._acks = acks
        self._shared = self._new_producer()
        self._private: dict[TopicPartition, EpochProducer] = {}
        #: Batches of unknown outcome that the shared producer still holds, by partition.
        self._unsettled: dict[TopicPartition, asyncio.Future[Any]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._gate = ByteGate(BYTES_IN_FLIGHT)

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError if no broker is reachable."""
        await self._shared.client.start()

    async def stop(self) -> None:
        """Disconnect, within about STOP_TIMEOUT."""
        await asyncio.gather(
            *(producer.stop() for producer in (self._shared, *self._private.values())), *self._retiring
        )

    def encode(
        self, partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]
    ) -> _Encoded | None:
        """Return the records as one record batch for append(); None if they do not fit into one."""
        limit = self._limit_of(partition.topic)
        builder = new_batch(limit)
        append, headers = builder.append, epoch_headers(epoch)
        for key, value in records:
            # The broker overwrites this with its own time (message.timestamp.type).
            if append(timestamp=0, key=key, value=value, headers=headers) is None:
                return None
        builder.close()
        # aiokafka accepts a first record of any size.
        return None if builder.size() > limit else _Encoded(builder, epoch)

    async def append(self, partition: TopicPartition, epoch: Epoch, batch: Any) -> int:
        """Append a batch with the epoch begun by claim(); raises Fenced or OutcomeUnknown."""
        if batch.epoch != epoch:
            raise AssertionError(f"{partition}: a batch of epoch {batch.epoch} is appended under {epoch}")
        async with self._gate.inside(batch.builder.size()):
            producer = self._private.get(partition)
            if producer is None:
                return await self._send(self._shared, partition, batch.builder)
            if partition not in self._unsettled:
                await self._return_to_shared(partition, producer)
                producer = self._shared
            return await self._send(producer, partition, batch.builder)

    async def claim(self, partition: TopicPartition, epoch: Epoch, key: bytes, value: bytes) -> int:
        """Append one record as the first of a new epoch; raises Fenced or OutcomeUnknown."""
        encoded = self.encode(partition, epoch, [(key, value)])
        if encoded is None:
            raise AssertionError(f"a claim of {len(value)} bytes does not fit into a batch of {partition.topic}")
        private = self._private.pop(partition, None)
        if private is not None:
            # From now on the broker rejects everything it still holds.
            self._retire(private)
        producer = self._shared
        if partition in self._unsettled:
            producer = self._private[partition] = self._new_producer()
            try:
                await producer.client.start()
            except KafkaError as error:
                raise OutcomeUnknown(f"no broker reachable: {error}") from error
        producer.epochs.begin(KafkaPartition(*partition), epoch)
        return await self._send(producer, partition, encoded.builder)

    def _new_producer(self) -> EpochProducer:
        return EpochProducer(self._connection, self._producer_id, self._acks)

    async def _send(self, producer: EpochProducer, partition: TopicPartition, builder: BatchBuilder) -> int:
        future: asyncio.Future[Any] | None = None
        try:
            async with asyncio.timeout(APPEND_TIMEOUT):
                future = await producer.send(partition, builder)
                # Shielded, since the batch stays in flight whether or not the caller waits for it.
                metadata = await asyncio.shield(future)
        except TimeoutError:
            raise OutcomeUnknown(f"no acknowledgement from {partition} within {APPEND_TIMEOUT:.0f} s") from None
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced(f"{partition} has a newer epoch") from error
        except KafkaError as error:
            raise OutcomeUnknown(f"{partition}: {error!r}") from error
        finally:
            if producer is self._shared:
                self._watch(partition, future)
        if metadata.offset < 0:
            # The broker has it: it is a duplicate older than those whose offsets the broker keeps.
            raise OutcomeUnknown(f"{partition}: acknowledged without an offset")
        return int(metadata.offset)

    def _watch(self, partition: TopicPartition, future: asyncio.Future[Any] | None) -> None:
        """Track a batch of unknown outcome until it is settled."""
        if future is None or future.done():
            return
        self._unsettled[partition] = future

        def settled(done: asyncio.Future[Any]) -> None:
            if not done.cancelled():
                done.exception()  # it was reported as unknown, so the caller no longer waits for it
            if self._unsettled.get(partition) is done:
                del self._unsettled[partition]

        future.add_done_callback(settled)

    async def _return_to_shared(self, partition: TopicPartition, private: EpochProducer) -> None:
        kafka_partition = KafkaPartition(*partition)
        epoch = private.epochs._epochs[kafka_partition]
        self._shared.epochs.begin(kafka_partition, epoch, private.epochs._sequence_numbers[kafka_partition])
        del self._private[partition]
        self._retire(private)

    def _retire(self, producer: EpochProducer) -> None:
        retiring = asyncio.create_task(producer.stop())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
