"""The store protocol used by tasks, and its errors."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from tablehouse.stores.rows import ROW_PREFIX, ROWS_END


class StoreError(Exception):
    """A store operation failed (disk full, an I/O error); the content is intact."""


class StoreCorrupt(StoreError):
    """The store's content is not trustworthy: it must be deleted and rebuilt from the changelog."""


class StoreClosed(StoreError):
    """The store was used while closed or being rebuilt."""


class TaskStore(Protocol):
    """The rows of one task together with its checkpoint.

    The checkpoint (position, epoch, next changelog offset; opaque here) is stored with the rows, so that the writes
    that survive a crash are a consistent prefix. Rows cannot be written without one.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the row under the prefixed key; None if there is none."""

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the result of get() for each key, in order."""

    def scan(
        self, start: bytes = ROW_PREFIX, end: bytes = ROWS_END, *, reverse: bool = False, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return up to `limit` rows with prefixed keys from `start`, inclusive, to `end`, exclusive, in key order.

        With `reverse` they are the last rows of the range, the last one first. Only rows are returned, whatever the
        bounds, and records with other prefixes are not read. All rows are from one snapshot, which is not kept after
        the call: rows written between two calls may or may not be returned by the second.
        """

    def checkpoint(self) -> bytes | None:
        """Return the last written checkpoint; None for a store without one."""

    async def write(self, rows: Iterable[tuple[bytes, bytes | None]], checkpoint: bytes) -> None:
        """Write the rows (None deletes) in small chunks, and the checkpoint in the last of them.

        Yields to the event loop between chunks, so a read may see some of the rows before the checkpoint. If it raises
        or is cancelled, some of the rows may have been written, but not the checkpoint. Waits without a time limit
        while the store refuses writes because its memory is full, which is not a failure; `waits_for` has the reason.
        """

    @property
    def waits_for(self) -> str | None:
        """Return the reason why a write waits; None if none does."""

    async def wipe(self) -> None:
        """Delete rows and checkpoint."""

    def rows_estimate(self) -> int:
        """Return the number of rows: as found by count_rows() if they are few, otherwise an estimate."""

    def count_rows(self) -> bool:
        """Count the rows for rows_estimate() if they are few and have changed; takes at most a few milliseconds.

        Return whether they were counted.
        """


class ShardStore(Protocol):
    """The stores of all tasks of one shard, opened, flushed and closed together.

    All methods but task() block for up to seconds and raise StoreError; they must be called off the event loop.
    """

    def open(self, names: Iterable[str]) -> None:
        """Open or create the store with a task store for each name; raises StoreCorrupt if it must be destroyed first.

        It must not be open elsewhere; if this raises, the store stays closed.
        """

    def add(self, names: Iterable[str]) -> None:
        """Open or create task stores for further names while the store is open and in use."""

    def task(self, name: str) -> TaskStore:
        """Return the store of one task, which raises StoreClosed before it is opened or added, and after close()."""

    def flush(self) -> None:
        """Make all writes durable."""

    def size(self) -> int:
        """Return the size on disk in bytes."""

    def close(self) -> None:
        """Flush and close. It is also closed if this raises, but then unflushed data may be lost."""

    def destroy(self) -> None:
        """Close without flushing, and delete all files."""
