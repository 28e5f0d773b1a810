"""Appends to changelog partitions under producer epochs that are ours to choose, so that the broker fences old owners.

An idempotent Kafka producer gets its id and epoch from the broker. Here both are set: the id is a constant far above
any that brokers allot, and the epoch is that of the claim, for each partition. A broker refuses any append of a lower
epoch than the highest it has seen for a producer id on a partition, whoever sends it: that is the fence. See
tasks/DESIGN.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
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

#: Brokers allot producer ids from 0 upwards in blocks of 1,000; no cluster comes near this.
PRODUCER_ID = 0x7AB1_E000_0000_0000

#: Kafka's number for acks=all.
ALL_IN_SYNC = -1

#: How long an append may take before its outcome counts as unknown, in seconds, from when it is handed to aiokafka.
#: What still waits for its turn has not happened, whatever the broker does, so that takes as long as it takes.
APPEND_TIMEOUT = 10.0

#: The bytes of appends that are handed to aiokafka at once, and those that it puts into one request. It would put a
#: batch of every partition that a broker leads into one, and a broker closes the connection on a request that is longer
#: than its socket.request.max.bytes, 100 MiB by default. Far below that, so that a request takes seconds even on a slow
#: network, and far above the few MiB from which on bigger requests are no faster.
BYTES_IN_FLIGHT = 32 * 1024 * 1024


class EpochTransactionManager(TransactionManager):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's keeper of producer id, epoch and sequence numbers, with an epoch of its own for each partition.

    aiokafka stamps a batch by asking for sequence_number(tp), then producer_id, then producer_epoch, without a pause
    between; so the partition asked for last is the one that the other two are about.
    """

    def __init__(self, producer_id: int) -> None:
        super().__init__(None, 2**31 - 1)
        self._base = producer_id
        self._epochs: dict[KafkaPartition, Epoch] = {}
        self._stamping = Epoch(0, 0)

    def begin(self, partition: KafkaPartition, epoch: Epoch, sequence: int = 0) -> None:
        """Stamp what follows on the partition with `epoch`, counting from `sequence`."""
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
        """Say that there is no need to ask the broker for a producer id."""
        return True


class _Encoded(NamedTuple):
    builder: BatchBuilder
    epoch: Epoch


class EpochProducer:
    """An aiokafka producer on our epochs."""

    def __init__(self, connection: Connection, batch_size: int, producer_id: int, acks: int) -> None:
        self.epochs = EpochTransactionManager(producer_id)
        self._batch_size = batch_size
        self.client = AIOKafkaProducer(
            **connection.arguments(), acks="all", enable_idempotence=True, max_batch_size=batch_size, linger_ms=0
        )
        rebootstrap(self.client.client, connection)
        self.client._txn_manager = self.epochs
        self.client._message_accumulator._txn_manager = self.epochs
        self.client._sender._txn_manager = self.epochs
        # aiokafka insists on all of them for what is idempotent, which brokers do not.
        self.client._sender._acks = acks
        _bound_requests(self.client._message_accumulator, BYTES_IN_FLIGHT)

    async def send(self, partition: TopicPartition, builder: BatchBuilder) -> asyncio.Future[Any]:
        """Hand over a batch, and return what becomes of it."""
        future: asyncio.Future[Any] = await self.client.send_batch(
            builder, partition.topic, partition=partition.partition
        )
        return future

    async def stop(self) -> None:
        """Stop without waiting for what cannot be delivered: its outcome is unknown anyway."""
        await stop_producer(self.client)


def _bound_requests(accumulator: MessageAccumulator, limit: int) -> None:
    """Have an accumulator give out no more than `limit` bytes for a broker at once, and one batch at least.

    Batches whose outcome was given up as unknown stay with aiokafka, which sends them again and again: once brokers are
    back from an outage there may be one for every partition.
    """
    drain = accumulator.drain_by_nodes

    def drain_some(ignore_nodes: Any, muted_partitions: AbstractSet[KafkaPartition] = frozenset()) -> Any:
        room: dict[int, int] = defaultdict(lambda: limit)
        later: set[KafkaPartition] = set()
        # In the order in which partitions came, so that whoever is left out goes first the next time.
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

    batch_size is the limit of a batch in bytes, for topics that `limits` does not name. `acks` is how many replicas
    have to have a batch: 1, or ALL_IN_SYNC.

    One producer serves all partitions. A batch whose outcome is unknown keeps its partition blocked in that producer,
    so the next claim goes out on a private one, and the partition returns to the shared one when that batch is settled.

    Appends wait for their turn when too much is in flight. Claims do not: they are small, and others wait for them.
    """

    def __init__(
        self,
        connection: Connection,
        batch_size: int,
        *,
        limits: Mapping[str, int] | None = None,
        producer_id: int = PRODUCER_ID,
        acks: int = ALL_IN_SYNC,
    ) -> None:
        self._connection = connection
        self._batch_size = batch_size
        self._limits = limits or {}
        self._producer_id = producer_id
        self._acks = acks
        self._shared = self._new_producer()
        self._private: dict[TopicPartition, EpochProducer] = {}
        #: What the shared producer still has in hand for a partition, its outcome unknown.
        self._unsettled: dict[TopicPartition, asyncio.Future[Any]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._gate = ByteGate(BYTES_IN_FLIGHT)

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError when no broker is there."""
        await self._shared.client.start()

    async def stop(self) -> None:
        """Disconnect, within STOP_TIMEOUT or so."""
        await asyncio.gather(
            *(producer.stop() for producer in (self._shared, *self._private.values())), *self._retiring
        )

    def encode(
        self, partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]
    ) -> _Encoded | None:
        """Return the records as one record batch for append(); None when they do not fit in one."""
        builder = self._shared.client.create_batch()
        append, headers = builder.append, epoch_headers(epoch)
        for key, value in records:
            # The broker puts its own time in (message.timestamp.type).
            if append(timestamp=0, key=key, value=value, headers=headers) is None:
                return None
        builder.close()
        # aiokafka always takes a first record, however big it is.
        limit = self._limits.get(partition.topic, self._batch_size)
        return None if builder.size() > limit else _Encoded(builder, epoch)

    async def append(self, partition: TopicPartition, epoch: Epoch, batch: Any) -> int:
        """Append a batch under the epoch that claim() began; raises Fenced or OutcomeUnknown."""
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
            raise AssertionError(f"a claim of {len(value)} bytes does not fit into a batch of {self._batch_size}")
        private = self._private.pop(partition, None)
        if private is not None:
            # Whatever it has in hand is refused from now on.
            self._retire(private)
        producer = self._shared
        if partition in self._unsettled:
            producer = self._private[partition] = self._new_producer()
            try:
                await producer.client.start()
            except KafkaError as error:
                raise OutcomeUnknown(f"no broker could be reached: {error}") from error
        producer.epochs.begin(KafkaPartition(*partition), epoch)
        return await self._send(producer, partition, encoded.builder)

    def _new_producer(self) -> EpochProducer:
        return EpochProducer(self._connection, self._batch_size, self._producer_id, self._acks)

    async def _send(self, producer: EpochProducer, partition: TopicPartition, builder: BatchBuilder) -> int:
        future: asyncio.Future[Any] | None = None
        try:
            async with asyncio.timeout(APPEND_TIMEOUT):
                future = await producer.send(partition, builder)
                # Shielded, since the batch goes on whether or not someone waits for it.
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
            # The broker has it, as a duplicate older than those whose offsets it remembers.
            raise OutcomeUnknown(f"{partition}: acknowledged without an offset")
        return int(metadata.offset)

    def _watch(self, partition: TopicPartition, future: asyncio.Future[Any] | None) -> None:
        """Remember what is left undecided, until it is."""
        if future is None or future.done():
            return
        self._unsettled[partition] = future

        def settled(done: asyncio.Future[Any]) -> None:
            if not done.cancelled():
                done.exception()  # it was reported as unknown; now that it is known nobody waits for it
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
