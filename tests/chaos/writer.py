"""A client that writes rows by PUT through every worker, reads each back, and judges what it was told."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple, Self

import aiohttp

from tests.support.oracle import Expected

_JSON = {"Content-Type": "application/json"}

#: What a worker may answer that cannot write or read at the moment.
_UNAVAILABLE = {503, 504}

_KEYS = 4
_BETWEEN_WRITES = 0.05  # seconds
_TIMEOUT_SECONDS = 20.0  # seconds


class Written(NamedTuple):
    """A row that a worker acknowledged, and where it is."""

    key: bytes
    value: bytes
    partition: int
    offset: int


class ReadBack(NamedTuple):
    """An answer to whoever asks for the row it has just written, at its position."""

    written: Written
    url: str
    status: int
    position: str
    etag: str
    body: bytes


class Writer:
    """Writes a few keys that nobody else writes, on and on, each through any worker, and reads them through any."""

    def __init__(self, urls: Sequence[str], table: str, seed: int) -> None:
        self._urls = urls
        self._table = table
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self.written: list[Written] = []
        self.read: list[ReadBack] = []

    async def __aenter__(self) -> Self:
        """Begin to write."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))
        self._tasks = [asyncio.create_task(self._go_on(f"put-{number}")) for number in range(_KEYS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop writing; raises what went wrong meanwhile."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._http.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _go_on(self, key: str) -> None:
        for number in itertools.count():
            try:
                written = await self._write(key, b'{"n":%d,"of":"%b"}' % (number, key.encode()))
                if written is not None:
                    await self._read_back(written)
            except (aiohttp.ClientError, TimeoutError):
                # Of a worker that is being replaced. Whether connections may fail is the recorder's to judge.
                pass
            await asyncio.sleep(_BETWEEN_WRITES)

    async def _write(self, key: str, value: bytes) -> Written | None:
        url = f"{self._random.choice(self._urls)}/tables/{self._table}/{key}"
        async with self._http.put(url, data=value, headers=_JSON) as answer:
            assert answer.status in {200, *_UNAVAILABLE}, (url, answer.status, await answer.text())
            if answer.status != 200:
                return None
            said = await answer.json()
        written = Written(key.encode(), value, said["partition"], said["offset"])
        self.written.append(written)
        return written

    async def _read_back(self, written: Written) -> None:
        place = f"{written.partition}:{written.offset}"
        url = f"{self._random.choice(self._urls)}/tables/{self._table}/{written.key.decode()}"
        async with self._http.get(f"{url}?min_position={place}") as answer:
            position, etag = answer.headers.get("Tablehouse-Position", ""), answer.headers.get("ETag", "")
            self.read.append(ReadBack(written, url, answer.status, position, etag, await answer.read()))

    def judge(self, expected: Expected) -> None:
        """Check that what was acknowledged is in the topic, and that it was read back: itself, or a later write.

        A later one is one whose outcome this client was not told.
        """
        records = {(record.partition, record.offset): record for key in expected.history.values() for record in key}
        for written in self.written:
            record = records.get((written.partition, written.offset))
            assert record is not None, written
            assert (record.key, record.value) == (written.key, written.value), (written, record)
        found = [read for read in self.read if read.status not in _UNAVAILABLE]
        assert found, "nothing that was written was read back"
        for read in found:
            assert read.status == 200, read
            record = records[_place(read.etag)]
            assert (record.key, record.value) == (read.written.key, read.body), (read, record)
            assert record.offset >= read.written.offset, read
            assert read.position.partition(":")[0] == str(record.partition), read
            assert int(read.position.partition(":")[2]) >= read.written.offset, read


def _place(etag: str) -> tuple[int, int]:
    partition, offset = etag.strip('"').split("-")[-2:]
    return int(partition), int(offset)
