"""The records that every program reads: always the same ones, in topics made once a run."""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from tablehouse.formats.partitioners import partition_of

_SEED = 20_130_101
_BATCH_BYTES = 512 * 1024
#: JSON around the text that fills a record up to its size.
_FRAME = b'{"id":"%b","sequence":%d,"amount":%d.25,"active":true,"tags":["a","b"],"note":"%b"}'
_FRAME_BYTES = 95
_IN_FLIGHT = 16
#: Seconds that a topic may take to be made.
_TIMEOUT_SECONDS = 60.0
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Source:
    """A source topic; `value_bytes` is about what a value has.

    `updated_by` names the measurement that produces more into it, which then has to be the only one that reads it.
    """

    records: int
    keys: int
    partitions: int
    value_bytes: int = 150
    updated_by: str = ""

    @property
    def topic(self) -> str:
        """Its name, which says what is in it."""
        name = f"source-{self.records}-{self.keys}-{self.partitions}-{self.value_bytes}"
        return f"{name}-{self.updated_by}" if self.updated_by else name

    def key(self, number: int) -> bytes:
        """Return a key by its number, from 0 to keys - 1; it is safe in a URL."""
        return b"customer-%07d" % number

    def contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key and value in order: first each key once, then keys at random.

        The filling is random hexadecimal text, so that compression halves it and no more.
        """
        choose = random.Random(_SEED)  # noqa: S311  reproducible, not secret
        blob = choose.randbytes(1 << 20).hex().encode()
        filling = max(1, self.value_bytes - _FRAME_BYTES)
        last_start = len(blob) - filling
        first = list(range(self.keys))
        choose.shuffle(first)
        for sequence in range(self.records):
            number = first[sequence] if sequence < self.keys else int(choose.random() * self.keys)
            key = self.key(number)
            start = sequence * 977 % last_start
            yield key, _FRAME % (key, sequence, number, blob[start : start + filling])


@dataclass(frozen=True, slots=True)
class Produced:
    """What is in a topic: the key and the value of each partition's last record, and bytes of a value on average."""

    source: Source
    last: dict[int, tuple[bytes, bytes]]
    value_bytes: float


class Topics:
    """The source topics of a run, each made when it is first needed."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._made: dict[Source, Produced] = {}

    async def provide(self, source: Source) -> Produced:
        """Return the topic of a source, filled with its records."""
        if source not in self._made:
            await create_topic(self._bootstrap, source.topic, source.partitions)
            self._made[source] = await produce(self._bootstrap, source.topic, source)
        return self._made[source]


async def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Make a topic with one replica, and return when each of its partitions has a leader.

    Raises aiokafka's error for what the broker refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, partitions, 1)])
        for _, code, *message in answer.topic_errors:
            if code:
                raise for_code(code)(f"creating topic {name}: {message}")
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                if await _led(admin, name, partitions):
                    return
                await asyncio.sleep(_PAUSE)
    finally:
        await admin.close()


async def _led(admin: Any, name: str, partitions: int) -> bool:
    (found,) = await admin.describe_topics([name])
    led = [partition for partition in found["partitions"] if partition["error_code"] == 0 and partition["leader"] >= 0]
    return len(led) == partitions


async def produce(
    bootstrap: str, topic: str, source: Source, contents: Iterable[tuple[bytes, bytes]] | None = None
) -> Produced:
    """Add a source's records to a topic as a Java producer would: by murmur2 of the key, acknowledged, in batches.

    `contents` are other keys and values in their place.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=_BATCH_BYTES
    )
    await producer.start()
    try:
        return await _send_all(producer, topic, source, source.contents() if contents is None else contents)
    finally:
        await producer.stop()


async def _send_all(producer: Any, topic: str, source: Source, contents: Iterable[tuple[bytes, bytes]]) -> Produced:
    last: dict[int, tuple[bytes, bytes]] = {}
    total = 0
    now = time.time_ns() // 1_000_000
    builders: dict[int, Any] = {}
    room = asyncio.Semaphore(_IN_FLIGHT)
    sent: list[asyncio.Future[Any]] = []

    async def send(partition: int) -> None:
        await room.acquire()
        future = await producer.send_batch(builders.pop(partition), topic, partition=partition)
        future.add_done_callback(lambda _: room.release())
        sent.append(future)

    for key, value in contents:
        partition = partition_of("murmur2", key, source.partitions)
        total += len(value)
        last[partition] = (key, value)
        if partition not in builders:
            builders[partition] = producer.create_batch()
        if builders[partition].append(key=key, value=value, timestamp=now) is None:
            await send(partition)
            builders[partition] = producer.create_batch()
            builders[partition].append(key=key, value=value, timestamp=now)
    for partition in list(builders):
        await send(partition)
    await asyncio.gather(*sent)
    return Produced(source, last, total / source.records)
