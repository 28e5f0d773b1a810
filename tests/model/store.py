"""A task's store in memory, with a disk that outlives the process."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice

from app.stores.store import StoreClosed

#: Rows that are written at once.
ROWS_A_CHUNK = 3

_CHECKPOINT = b"\x00checkpoint"

Writes = list[tuple[bytes, bytes | None]]


class Disk:
    """What is on disk, and what was written since the last flush: a crash keeps any prefix of that."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.unflushed: list[Writes] = []

    def flush(self) -> None:
        """Make everything durable."""
        for writes in self.unflushed:
            _apply(self.durable, writes)
        self.unflushed.clear()

    def crash(self, kept: int) -> None:
        """Lose all but the first `kept` writes since the last flush."""
        del self.unflushed[kept:]
        self.flush()

    def wipe(self) -> None:
        """Throw everything away, durably."""
        self.durable.clear()
        self.unflushed.clear()


async def _no_hop(point: str) -> None:
    del point
    await asyncio.sleep(0)


class MemoryStore:
    """Implements TaskStore on a disk; `hop` is awaited wherever RocksDB would give others a turn."""

    def __init__(self, disk: Disk, hop: Callable[[str], Awaitable[None]] = _no_hop) -> None:
        self.disk = disk
        self._hop = hop
        self._closed = False
        self._content = dict(disk.durable)
        for writes in disk.unflushed:
            _apply(self._content, writes)

    def get(self, key: bytes) -> bytes | None:
        """See TaskStore."""
        self._check_open()
        return self._content.get(key)

    def scan(self, after: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """See TaskStore."""
        self._check_open()
        keys = sorted(key for key in self._content if key > after and key != _CHECKPOINT)
        return [(key, self._content[key]) for key in islice(keys, limit)]

    def checkpoint(self) -> bytes | None:
        """See TaskStore."""
        return self.get(_CHECKPOINT)

    async def write(self, rows: Iterable[tuple[bytes, bytes | None]], checkpoint: bytes) -> None:
        """See TaskStore."""
        rest = iter(rows)
        chunk = list(islice(rest, ROWS_A_CHUNK))
        while following := list(islice(rest, ROWS_A_CHUNK)):
            self._put(chunk)
            chunk = following
            await self._hop("store.chunk")
        await self._hop("store.checkpoint")
        self._put([*chunk, (_CHECKPOINT, checkpoint)])

    async def wipe(self) -> None:
        """See TaskStore. Like a thread, it goes on when nobody waits for it any more."""
        wiping = asyncio.get_running_loop().create_task(self._wipe())
        await asyncio.shield(wiping)

    async def _wipe(self) -> None:
        await self._hop("store.wipe")
        self._content.clear()
        self.disk.wipe()
        await self._hop("store.wiped")

    def rows_estimate(self) -> int:
        """See TaskStore."""
        return len(self._content)

    def rows(self) -> Mapping[bytes, bytes]:
        """Return all rows by prefixed key."""
        return {key: value for key, value in self._content.items() if key != _CHECKPOINT}

    def close(self) -> None:
        """Close without flushing."""
        self._closed = True

    def _put(self, writes: Writes) -> None:
        self._check_open()
        self.disk.unflushed.append(writes)
        _apply(self._content, writes)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")


def _apply(content: dict[bytes, bytes], writes: Writes) -> None:
    for key, value in writes:
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value


def random_crash(disk: Disk, choose: random.Random) -> None:
    """Crash with any prefix of the writes."""
    disk.crash(choose.randint(0, len(disk.unflushed)))
