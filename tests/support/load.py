"""Writers and readers that go on through a fault, and the judgement of every answer the readers got."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import aiohttp
from aiokafka import AIOKafkaProducer

from tests.support.cluster import Checked, Client, client
from tests.support.monotone import Said, regressions
from tests.support.oracle import Expected
from tests.support.polling import until

# What paces them, in seconds: enough records and answers to hit every moment, and the workers keep the CPU.
_BETWEEN_BATCHES = 0.02
_BETWEEN_READS = 0.03

# Readers of each worker: some of them wait for a worker that hangs while the others go on.
_READERS = 6

_BATCH = 20

#: The workers' setting, which is left as it is, in seconds.
_REQUEST_TIMEOUT = 5.0

#: What a worker may say when it cannot answer for a key that exists.
UNAVAILABLE = {"partition_restoring", "partition_unassigned", "owner_unreachable", "draining", "too_stale"}


#: The share of tombstones among what is written to keys that come and go.
_DELETES = 0.5


class Written(NamedTuple):
    """One record that was acknowledged: where it is, and the monotonic times between which it came there."""

    partition: int
    offset: int
    sent: float
    acknowledged: float


class Load:
    """Writes new values of the same keys on and on; each value is written once only.

    `keys` always have a row, `fleeting` ones are deleted and created again all the time. `written` is every record that
    was acknowledged, in this order; there may be more in the topic once it has ended.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        keys: Sequence[bytes],
        seed: int,
        *,
        fleeting: Sequence[bytes] = (),
        patience: float = 40.0,
    ) -> None:
        """Take how many seconds a record may take, which must be more than a broker will be away."""
        self._bootstrap = bootstrap
        self._topic = topic
        self._keys = keys
        self._fleeting = frozenset(fleeting)
        self._all = [*keys, *fleeting]
        self._patience = patience
        self._random = random.Random(seed)
        self._task: asyncio.Task[None] | None = None
        self._made = 0
        self.written: list[Written] = []

    @property
    def acknowledged(self) -> int:
        """How many records are written."""
        return len(self.written)

    async def __aenter__(self) -> Self:
        """Write every key once, and go on from there in the background."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            request_timeout_ms=int(self._patience * 1000),
        )
        await self._producer.start()
        await self._write([(key, self._value(key)) for key in self._all])
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop writing; raises what went wrong meanwhile."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._producer.stop()
        if not self._task.cancelled():
            self._task.result()

    async def more(self, count: int) -> None:
        """Wait until that many more records are acknowledged."""
        wanted = self.acknowledged + count

        async def written() -> bool:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            return self.acknowledged >= wanted

        await until(written, f"{count} more records are written", 60.0)

    def _value(self, key: bytes) -> bytes:
        self._made += 1
        return b'{"n":%d,"of":"%s"}' % (self._made, key)

    def _update(self, key: bytes) -> bytes | None:
        return None if key in self._fleeting and self._random.random() < _DELETES else self._value(key)

    async def _write(self, updates: Sequence[tuple[bytes, bytes | None]]) -> None:
        sent = time.monotonic()
        for future in [await self._producer.send(self._topic, key=key, value=value) for key, value in updates]:
            there = await future
            self.written.append(Written(there.partition, there.offset, sent, time.monotonic()))

    async def _go_on(self) -> None:
        while True:
            await self._write([(key, self._update(key)) for key in self._random.choices(self._all, k=_BATCH)])
            await asyncio.sleep(_BETWEEN_BATCHES)


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, and when it was asked for and there; status 0 stands for a connection that failed."""

    url: str
    key: bytes
    asked: float
    answered: float
    status: int
    code: str = ""
    retry_after: str = ""
    role: str = ""
    partition: int = -1
    position: int = -1
    body: bytes = b""


class Watch:
    """Reads keys that all exist, through every worker all the time, and keeps every answer."""

    def __init__(self, urls: Sequence[str], table: Checked, keys: Sequence[bytes], seed: int) -> None:
        self._urls = urls
        self._table = table
        self._keys = keys
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: list[Seen] = []

    async def __aenter__(self) -> Self:
        """Begin to read."""
        # Longer than a worker may be paused: what it answers late is what matters most.
        self._client = client(seconds=60.0)
        self._http = await self._client.__aenter__()
        for index, url in enumerate([*self._urls] * _READERS):
            self._tasks.append(asyncio.create_task(self._go_on(url, random.Random(self._seed + index))))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._client.__aexit__(None, None, None)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _go_on(self, url: str, chosen: random.Random) -> None:
        while True:
            self.seen.append(await self._read(self._http, url, chosen.choice(self._keys)))
            await asyncio.sleep(_BETWEEN_READS)

    async def _read(self, http: Client, url: str, key: bytes) -> Seen:
        asked = time.monotonic()
        try:
            answer = await http.get(url + self._table.path(key))
        except (aiohttp.ClientError, TimeoutError) as error:
            return Seen(url, key, asked, time.monotonic(), 0, code=repr(error))
        headers = answer.headers
        partition, _, position = headers.get("tablehouse-position", "-1:-1").partition(":")
        return Seen(
            url,
            key,
            asked,
            time.monotonic(),
            answer.status,
            answer.json.get("code", "") if answer.status >= 400 else "",
            headers.get("retry-after", ""),
            headers.get("tablehouse-role", ""),
            int(partition),
            int(position),
            answer.body,
        )

    def ask_once(self, url: str) -> None:
        """Ask a worker for every key now, beside what the readers ask."""

        async def ask(key: bytes) -> None:
            self.seen.append(await self._read(self._http, url, key))

        self._tasks += [asyncio.create_task(ask(key)) for key in self._keys]

    async def served(self, url: str, count: int = 20, seconds: float = 60.0) -> None:
        """Wait until a worker answers that many questions in a row with an active's row, from now on."""
        begin = len(self.seen)

        async def serves() -> bool:
            latest = [seen for seen in self.seen[begin:] if seen.url == url][-count:]
            return len(latest) == count and all(seen.status == 200 and seen.role == "active" for seen in latest)

        await until(serves, f"{url} serves: the last answers are {self.seen[-5:]}", seconds)

    def summary(self) -> str:
        """Count the answers by worker, status, code and role."""
        counted = Counter((seen.url, seen.status, seen.code[:40], seen.role) for seen in self.seen)
        return "\n".join(f"{number:6} {' '.join(map(str, what))}" for what, number in sorted(counted.items()))

    def judge(self, expected: Expected, may_fail: Collection[str] = (), paused: Collection[str] = ()) -> None:
        """Check every answer against the whole history.

        A value is never older than the position it came with. What an active said is never taken back: a question
        that was asked later, through whichever worker, gets no lower position and no older value from an active.
        The rest is 503 with a code and Retry-After, a connection that failed to one of `may_fail`, or 504 by one that
        was `paused` for so long that the time of what it had read before was over.
        """
        offsets = {
            (key, record.value): record.offset for key, records in expected.history.items() for record in records
        }
        actives: list[tuple[Seen, int]] = []
        for seen in self.seen:
            if seen.status == 0:
                assert seen.url in may_fail, seen
            elif seen.status == 503:
                assert seen.code in UNAVAILABLE, seen
                assert int(seen.retry_after) >= 1, seen
            elif seen.status == 504:
                assert seen.url in paused, seen
                assert seen.answered - seen.asked >= _REQUEST_TIMEOUT, seen
            else:
                assert seen.status == 200, seen
                offset = offsets[seen.key, seen.body]
                written = [record for record in expected.history[seen.key] if record.offset <= seen.position]
                assert written[-1].partition == seen.partition, seen
                assert offset >= written[-1].offset, (seen, written[-1])
                assert seen.role in {"active", "suspended", "standby"}, seen
                if seen.role == "active":
                    actives.append((seen, offset))
        _check_monotone(Said(seen.asked, seen.answered, seen.partition, seen.position, seen) for seen, _ in actives)
        _check_monotone(Said(seen.asked, seen.answered, seen.key, offset, seen) for seen, offset in actives)


def _check_monotone(said: Iterable[Said[Seen]]) -> None:
    back = next(regressions(said), None)
    assert back is None, back
