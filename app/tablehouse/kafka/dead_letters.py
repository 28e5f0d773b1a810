"""Writes dead letters with a separate producer, independent of the changelogs' epochs."""

import asyncio
from collections.abc import Iterator, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.producers import stop_producer
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.kafka.topics import DeadLetterTopic, check_again
from tablehouse.tasks.dead_letters import (
    Content,
    DeadLetter,
    LettersUndelivered,
    content_of,
    without_content,
    without_value,
)
from tablehouse.tasks.log import BrokerClock

log = structlog.get_logger(__name__)

#: Seconds that sending the letters of one batch of source records may take before it is retried.
SEND_TIMEOUT = 10.0

#: Maximum bytes of letters in one record batch, unless a single letter is larger.
BATCH_BYTES = 256 * 1024

#: The smallest usable batch limit: the size of an error without any content.
_MIN_LIMIT_BYTES = 4096


class KafkaDeadLetters:
    """Implements DeadLetters; the topic is None while no table sends letters, and can be changed by use().

    The letters of one source partition are in one partition of the topic, in order. A producer that failed or timed out
    is discarded with its pending batches; otherwise its retries would pile up while no broker is reachable. The next
    attempt checks the topic again and recreates it if it was deleted.
    """

    def __init__(
        self, connection: Connection, topic: DeadLetterTopic | None, group: str, worker: str, clock: BrokerClock
    ) -> None:
        self._connection = connection
        self._used = topic
        self._group = group
        self._worker = worker
        self._clock = clock
        self._limit = 0 if topic is None else topic.limit
        self._failed = False
        self._producer: AIOKafkaProducer | None = None
        self._turn = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    def use(self, topic: DeadLetterTopic) -> None:
        """Write letters to this topic from now on."""
        self._used, self._limit = topic, topic.limit

    @property
    def _topic(self) -> DeadLetterTopic:
        if self._used is None:
            raise AssertionError("a table sends dead letters, but no topic was prepared for them")
        return self._used

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError if no broker is reachable."""
        producer = AIOKafkaProducer(
            **self._connection.arguments(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=min(BATCH_BYTES, self._limit),
            linger_ms=0,
        )
        rebootstrap(producer.client, self._connection)
        try:
            await producer.start()
        except BaseException:
            await stop_producer(producer)
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Disconnect, within about STOP_TIMEOUT."""
        self._retire()
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters of one source partition; raises LettersUndelivered."""
        topic = self._topic
        done = False
        try:
            async with asyncio.timeout(SEND_TIMEOUT), self._turn:
                try:
                    while not await self._write(letters):
                        pass
                    done = True
                finally:
                    if not done:
                        self._failed = True
                        self._retire()
        except TimeoutError:
            raise LettersUndelivered(f"no acknowledgement from {topic.name} within {SEND_TIMEOUT:.0f} s") from None
        except TopicError as error:
            raise LettersUndelivered(str(error)) from error
        except KafkaError as error:
            raise LettersUndelivered(f"{topic.name}: {error!r}") from error

    async def _write(self, letters: Sequence[DeadLetter]) -> bool:
        """Write all letters; return False if one was too large for the broker because its limit was lowered."""
        if self._failed:
            self.use(await check_again(self._connection, self._topic))
            self._failed = False
        if self._producer is None:
            await self.start()
        producer = self._producer
        if producer is None:
            raise AssertionError("the producer is missing after its start")
        partition = letters[0].source.partition % self._topic.partitions
        try:
            sent = []
            for batch in self._batches(producer, letters):
                future = await producer.send_batch(batch, self._topic.name, partition=partition)
                # Retrieve the exception of a batch that is no longer awaited because another one failed first.
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
                sent.append(future)
            for future in sent:
                await future
        except MessageSizeTooLargeError:
            if self._limit <= _MIN_LIMIT_BYTES:
                raise
            self._limit = max(_MIN_LIMIT_BYTES, self._limit // 2)
            log.warning(
                "the size limit of the dead-letter topic was lowered",
                topic=self._topic.name,
                tried_bytes=self._limit,
            )
            self._retire()
            return False
        return True

    def _batches(self, producer: AIOKafkaProducer, letters: Sequence[DeadLetter]) -> Iterator[BatchBuilder]:
        batch: BatchBuilder | None = None
        now_ms = self._clock.now_ms()
        for letter in letters:
            content = self._fit(letter, now_ms)
            if batch is None or not _append(batch, content, now_ms):
                if batch is not None:
                    yield batch
                batch = producer.create_batch()
                _append(batch, content, now_ms)
        if batch is not None:
            batch.close()
            yield batch

    def _fit(self, letter: DeadLetter, now_ms: int) -> Content:
        """Return as much of a letter as fits into one batch."""
        for make in (content_of, without_value):
            content = make(letter, self._group, self._worker, now_ms)
            if _max_bytes(content) <= self._limit:
                return content
        return without_content(letter, self._group, self._worker, now_ms)

    def _retire(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            retiring = asyncio.create_task(stop_producer(producer))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)


def _append(batch: BatchBuilder, content: Content, now_ms: int) -> bool:
    """Append to a batch and return whether it fit; the first letter always does."""
    key, value, headers = content
    return batch.append(timestamp=now_ms, key=key, value=value, headers=list(headers)) is not None


def _max_bytes(content: Content) -> int:
    """Return an upper bound of the size of a batch with this record alone, including headers and lengths."""
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in content.headers)
    return len(content.key or b"") + len(content.value or b"") + headers + 128
