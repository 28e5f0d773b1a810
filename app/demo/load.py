"""Topics made, and records produced as a Java client would: by murmur2, acknowledged by all replicas."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from app.demo.flights import Record
from app.errors import SetupError, TopicError
from app.formats.partitioners import partition_of
from app.kafka.client import Connection
from app.kafka.login import check_login, explained

#: Partitions of each of the demonstration's topics.
PARTITIONS = 4

_MOST_REPLICAS = 3
_BATCH_BYTES = 256 * 1024
_STOP_SECONDS = 10
_REQUEST_SECONDS = 40
_NO_ERROR = 0


def _connection(bootstrap: str) -> Connection:
    return Connection(bootstrap, "tablehouse-demo", request_timeout=_REQUEST_SECONDS)


async def ensure_topics(bootstrap: str, names: Iterable[str]) -> None:
    """Create the topics that do not exist yet.

    Raises TopicError for one that exists with another partition count, or cannot be created, and SetupError
    when no broker answers.
    """
    connection = _connection(bootstrap)
    try:
        await _ensure_topics(connection, list(names))
    except (KafkaError, TimeoutError) as error:
        why = str(await explained(connection, error)) or repr(error)
        raise SetupError(f"no Kafka answers at {bootstrap}: is BOOTSTRAP the host:port of a broker? {why}") from error


async def _ensure_topics(connection: Connection, wanted: list[str]) -> None:
    await check_login(connection)
    admin = AIOKafkaAdminClient(**connection.arguments())
    try:
        await admin.start()
        described = await admin.describe_topics(wanted)
        existing = {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == _NO_ERROR}
        for name, partitions in existing.items():
            if partitions != PARTITIONS:
                raise TopicError(
                    f"topic {name} has {partitions} partitions, and the demo needs {PARTITIONS}: "
                    "delete it, or use another Kafka"
                )
        brokers = (await admin.describe_cluster())["brokers"]
        await _create(admin, [name for name in wanted if name not in existing], len(brokers))
    finally:
        await admin.close()


async def _create(admin: Any, names: Iterable[str], brokers: int) -> None:
    replicas = min(brokers, _MOST_REPLICAS)
    # Compacted, as a topic behind a table should be: the newest record of a key is never deleted by age.
    topics = [NewTopic(name, PARTITIONS, replicas, topic_configs={"cleanup.policy": "compact"}) for name in names]
    if not topics:
        return
    answer = await admin.create_topics(topics)
    for name, code, *message in answer.topic_errors:
        if code not in {_NO_ERROR, TopicAlreadyExistsError.errno}:
            reason = " ".join([for_code(code).__name__, *filter(None, message)])
            raise TopicError(f"topic {name} could not be created: {reason}")


@dataclass(frozen=True, slots=True)
class Last:
    """The last record that a partition got, by its offset, and the key of one of its records."""

    key: bytes
    offset: int


class Producer:
    """Produces records; an asynchronous context manager, which flushes when it is left."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = AIOKafkaProducer(
            **_connection(bootstrap).arguments(), acks="all", enable_idempotence=True, max_batch_size=_BATCH_BYTES
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Bounded: without a broker it would wait for acknowledgements for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._producer.stop(), _STOP_SECONDS)

    async def send(self, record: Record) -> None:
        """Produce one record and wait for its acknowledgement; raises aiokafka's KafkaError."""
        await self._producer.send_and_wait(record.topic, key=record.key, value=record.value)

    async def load(self, records: Iterable[Record], advance: Callable[[int], Any]) -> Mapping[tuple[str, int], Last]:
        """Produce many, a batch a partition at a time; `advance` is told how many records went out.

        Returns every (topic, partition) that got any, when all are acknowledged.
        """
        now = time.time_ns() // 1_000_000
        batches: dict[tuple[str, int], Any] = {}
        keys: dict[tuple[str, int], bytes] = {}
        sent: list[tuple[tuple[str, int], int, Any]] = []

        async def send(where: tuple[str, int]) -> None:
            batch = batches.pop(where)
            topic, partition = where
            # Waits while the partition's batch before this one is still on its way, so memory stays bounded.
            acknowledgement = await self._producer.send_batch(batch, topic, partition=partition)
            sent.append((where, batch.record_count(), acknowledgement))
            advance(batch.record_count())

        for record in records:
            where = record.topic, partition_of("murmur2", record.key, PARTITIONS)
            keys[where] = record.key
            if where not in batches:
                batches[where] = self._producer.create_batch()
            if batches[where].append(key=record.key, value=record.value, timestamp=now) is None:  # full
                await send(where)
                batches[where] = self._producer.create_batch()
                batches[where].append(key=record.key, value=record.value, timestamp=now)
        for where in list(batches):
            await send(where)
        await self._producer.flush()
        # An acknowledgement carries the offset of its batch's first record.
        return {where: Last(keys[where], (await first).offset + count - 1) for where, count, first in sent}
