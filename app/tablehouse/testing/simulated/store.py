"""In-memory stores of a shard and its tasks, with a simulated disk that outlives the process."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice

from tablehouse.stores.rows import ROW_PREFIX, ROWS_END, row_bounds
from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError

#: Rows per write.
ROWS_PER_CHUNK = 3

_CHECKPOINT = b"\x00checkpoint"

Writes = list[tuple[bytes, bytes | None]]


class Disk:
    """A task's data on disk, and its writes since the last flush, of which a crash keeps any prefix.

    A damaged disk must be rebuilt; an unreadable one need not, and may recover.
    """

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.unflushed: list[Writes] = []
        self.damaged = False
        self.unreadable = False

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
        """Delete everything, durably."""
        self.durable.clear()
        self.unflushed.clear()
        self.damaged = False


async def _no_hop(point: str) -> None:
    del point
    await asyncio.sleep(0)


class MemoryStore:
    """Implements TaskStore on a disk; `hop` is awaited wherever RocksDB's store would yield."""

    def __init__(self, disk: Disk, hop: Callable[[str], Awaitable[None]] = _no_hop, *, opened: bool = True) -> None:
        self.disk = disk
        self._hop = hop
        self._closed = True
        self._content: dict[bytes, bytes] = {}
        #: Whether writes fail until it is reopened, as RocksDB's do after a background error.
        self.stuck = False
        self.waits_for: str | None = None
        if opened:
            self.open()

    def open(self) -> None:
        """Read the data from disk."""
        self._closed = self.stuck = False
        self._content = dict(self.disk.durable)
        for writes in self.disk.unflushed:
            _apply(self._content, writes)

    @property
    def is_open(self) -> bool:
        """Return whether it was opened and not closed since."""
        return not self._closed

    def get(self, key: bytes) -> bytes | None:
        """See TaskStore."""
        self._check_open()
        if self.disk.damaged:
            raise StoreCorrupt("a checksum does not match")
        if self.disk.unreadable:
            raise StoreError("IO error: Input/output error")
        return self._content.get(key)

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """See TaskStore."""
        return [self.get(key) for key in keys]

    def scan(
        self, start: bytes = ROW_PREFIX, end: bytes = ROWS_END, *, reverse: bool = False, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """See TaskStore."""
        self._check_open()
        first, above = row_bounds(start, end)
        keys = sorted((key for key in self._content if first <= key < above), reverse=reverse)
        return [(key, self._content[key]) for key in keys[: max(0, limit)]]

    def checkpoint(self) -> bytes | None:
        """See TaskStore."""
        return self.get(_CHECKPOINT)

    async def write(self, rows: Iterable[tuple[bytes, bytes | None]], checkpoint: bytes) -> None:
        """See TaskStore."""
        rest = iter(rows)
        chunk = list(islice(rest, ROWS_PER_CHUNK))
        while following := list(islice(rest, ROWS_PER_CHUNK)):
            self._put(chunk)
            chunk = following
            await self._hop("store.chunk")
        await self._hop("store.checkpoint")
        self._put([*chunk, (_CHECKPOINT, checkpoint)])

    async def wipe(self) -> None:
        """See TaskStore."""
        await asyncio.to_thread(self._wipe)

    def _wipe(self) -> None:
        self._check_open()
        self._content.clear()
        self.disk.wipe()

    def rows_estimate(self) -> int:
        """See TaskStore."""
        return len(self.rows())

    def count_rows(self) -> bool:
        """See TaskStore."""
        return False

    def rows(self) -> Mapping[bytes, bytes]:
        """Return all rows by prefixed key."""
        return {key: value for key, value in self._content.items() if key.startswith(ROW_PREFIX)}

    def close(self) -> None:
        """Close without flushing."""
        self._closed = True

    def _put(self, writes: Writes) -> None:
        self._check_open()
        if self.stuck:
            raise StoreError("no space left on the device")
        self.disk.unflushed.append(writes)
        _apply(self._content, writes)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")


class Folder:
    """The folder of a shard: whether it is open, whether it can be opened, and how many of the next calls fail.

    Violations of invariants are passed to `broken`.
    """

    def __init__(self, broken: Callable[[Exception], None]) -> None:
        self.corrupt = False
        self.holder: MemoryShard | None = None
        self.refusals: Counter[str] = Counter()
        self._broken = broken

    def check_free(self, call: str) -> None:
        """Check that a store that is open elsewhere is not changed."""
        if self.holder is not None:
            self._broken(AssertionError(f"{call} of a store that is open"))


class MemoryShard:
    """Implements ShardStore; `fails` decides randomly whether a call fails."""

    def __init__(
        self,
        folder: Folder,
        disk_of: Callable[[str], Disk],
        hop: Callable[[str], Awaitable[None]],
        fails: Callable[[], bool] = lambda: False,
    ) -> None:
        self.stores: dict[str, MemoryStore] = {}
        self._folder = folder
        self._disk_of = disk_of
        self._hop = hop
        self._fails = fails

    def open(self, names: Iterable[str]) -> None:
        """See ShardStore."""
        folder = self._folder
        folder.check_free("opening")
        self._may_fail("open")
        if folder.corrupt:
            raise StoreCorrupt("a file is missing")
        folder.holder = self
        for name in names:
            self.task(name).open()

    def add(self, names: Iterable[str]) -> None:
        """See ShardStore."""
        if self._folder.holder is not self:
            raise StoreClosed("the store is closed")
        self._may_fail("add")
        for name in names:
            if not self.task(name).is_open:
                self.task(name).open()

    def task(self, name: str) -> MemoryStore:
        """See ShardStore."""
        if name not in self.stores:
            self.stores[name] = MemoryStore(self._disk_of(name), self._hop, opened=False)
        return self.stores[name]

    def flush(self) -> None:
        """See ShardStore."""
        if self._folder.holder is self:
            self._may_fail("flush")
            for store in self.stores.values():
                store.disk.flush()

    def size(self) -> int:
        """See ShardStore."""
        return sum(len(store.disk.durable) for store in self.stores.values())

    def close(self) -> None:
        """See ShardStore."""
        try:
            self.flush()
        finally:
            self._drop()

    def destroy(self) -> None:
        """See ShardStore."""
        self._drop()
        self._folder.check_free("destroying")
        self._may_fail("destroy")
        self._folder.corrupt = False
        for store in self.stores.values():
            store.disk.wipe()

    def _drop(self) -> None:
        if self._folder.holder is self:
            self._folder.holder = None
            for store in self.stores.values():
                store.close()
                # Without a write-ahead log, unflushed data is lost.
                store.disk.crash(0)

    def _may_fail(self, call: str) -> None:
        if self._folder.refusals[call] or self._fails():
            self._folder.refusals[call] = max(0, self._folder.refusals[call] - 1)
            raise StoreError("no space left on the device")


def _apply(content: dict[bytes, bytes], writes: Writes) -> None:
    for key, value in writes:
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value


def random_crash(disk: Disk, choose: random.Random) -> None:
    """Crash with any prefix of the writes."""
    disk.crash(choose.randint(0, len(disk.unflushed)))
