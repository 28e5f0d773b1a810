"""Creates topics, and produces records as a Java client would: with murmur2, acknowledged by all replicas."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tablehouse.demo.flights import Record
from tablehouse.errors import SetupError, TopicError
from tablehouse.formats.partitioners import partition_of
from tablehouse.kafka.client import Connection
from tablehouse.kafka.login import check_login
from tablehouse.kafka.outages import explain_outage
from tablehouse.kafka.topic_admin import TopicAdmin
from tablehouse.kafka.topic_plan import Wanted
from tablehouse.kafka.topics import AUTOMATIC

#: Partitions of each topic of the demo.
PARTITIONS = 4

#: Compacted, as a table's source should be: the newest record of a key is never deleted by age.
_SETTINGS = {"cleanup.policy": "compact"}

_BATCH_BYTES = 256 * 1024
_STOP_SECONDS = 10
_REQUEST_SECONDS = 40


def _connection(bootstrap: str) -> Connection:
    return Connection(bootstrap, "tablehouse-demo", request_timeout=_REQUEST_SECONDS)


async def ensure_topics(bootstrap: str, names: Iterable[str]) -> None:
    """Create the topics that do not exist yet.

    Raises TopicError for one that exists with a different partition count or cannot be created, and SetupError if no
    broker answers.
    """
    connection = _connection(bootstrap)
    try:
        await _ensure_topics(connection, list(names))
    except (KafkaError, TimeoutError) as error:
        why = await explain_outage(connection, str(error) or repr(error))
        raise SetupError(f"no Kafka answers at {bootstrap}: is BOOTSTRAP the host:port of a broker? {why}") from error


async def _ensure_topics(connection: Connection, names: list[str]) -> None:
    await check_login(connection)
    async with TopicAdmin(connection) as admin:
        existing = await admin.describe(names)
        for name, found in existing.items():
            if found.partitions != PARTITIONS:
                raise TopicError(
                    f"topic {name} has {found.partitions} partitions, and the demo needs {PARTITIONS}: "
                    "delete it, or use another Kafka"
                )
        missing = [name for name in names if name not in existing]
        if missing:
            replicas = AUTOMATIC.of(await admin.cluster())
            await admin.create(Wanted("topic", name, PARTITIONS, replicas, (), (_SETTINGS,)) for name in missing)


@dataclass(frozen=True, slots=True)
class Last:
    """The offset of a partition's last record, and the key of one of its records."""

    key: bytes
    offset: int


class Producer:
    """Produces records; an asynchronous context manager that flushes on exit."""

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
        # With a time limit: without a broker it would wait for acknowledgements forever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._producer.stop(), _STOP_SECONDS)

    async def send(self, record: Record) -> None:
        """Produce one record and wait for its acknowledgement; raises aiokafka's KafkaError."""
        await self._producer.send_and_wait(record.topic, key=record.key, value=record.value)

    async def load(self, records: Iterable[Record], advance: Callable[[int], Any]) -> Mapping[tuple[str, int], Last]:
        """Produce many records, one batch per partition at a time; `advance` is called with the number of records sent.

        Returns every (topic, partition) that got records, once all are acknowledged.
        """
        now = time.time_ns() // 1_000_000
        batches: dict[tuple[str, int], Any] = {}
        keys: dict[tuple[str, int], bytes] = {}
        sent: list[tuple[tuple[str, int], int, Any]] = []

        async def send(where: tuple[str, int]) -> None:
            batch = batches.pop(where)
            topic, partition = where
            # Waits while the partition's previous batch is in flight, so memory stays bounded.
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
        # An acknowledgement has the offset of its batch's first record.
        return {where: Last(keys[where], (await first).offset + count - 1) for where, count, first in sent}
