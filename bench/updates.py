"""New values for the keys that are asked for, and a memory of all that a key ever had."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from bench.balancer import Request
from bench.load import row_request, shuffled
from bench.source import Source
from tablehouse.formats.partitioners import partition_of

_SEED = 11


class Updates:
    """Every so many keys of a source."""

    def __init__(self, source: Source, step: int) -> None:
        self._source = source
        self._keys = [source.key(number) for number in range(0, source.keys, step)]
        self._values: dict[bytes, list[bytes]] = {key: [] for key in self._keys}
        for key, value in source.contents():
            if key in self._values:
                self._values[key].append(value)

    def requests(self) -> list[Request]:
        """Return a request for each key, in a random order that is always the same."""
        return requests_for(self._keys)

    def is_false(self, key: bytes, status: int, body: bytes) -> bool:
        """Say whether an answer for one of the keys is wrong: no such key, or a value that it never had."""
        return status == 404 or (status == 200 and body not in self._values[key])  # noqa: PLR2004

    @asynccontextmanager
    async def produced(self, bootstrap: str, rate: float) -> AsyncIterator[None]:
        """Produce so many updates a second meanwhile, and raise what ended that too early."""
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        task = asyncio.create_task(self._keep_producing(producer, rate))
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await producer.stop()

    async def _keep_producing(self, producer: AIOKafkaProducer, rate: float) -> None:
        choose = random.Random(_SEED)  # noqa: S311  reproducible, not secret
        source, number, due = self._source, 0, time.monotonic()
        while True:
            key = choose.choice(self._keys)
            value = b'{"id":"%b","update":%d}' % (key, number)
            self._values[key].append(value)
            partition = partition_of("murmur2", key, source.partitions)
            await producer.send(source.topic, value, key, partition=partition)
            number, due = number + 1, due + 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def requests_for(keys: Sequence[bytes]) -> list[Request]:
    """Return a request for each key, in a random order that is always the same."""
    return [Request(key, row_request(key)) for key in shuffled(keys)]
