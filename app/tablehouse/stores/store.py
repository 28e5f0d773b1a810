"""What a task needs of a store, and what can go wrong with one."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from tablehouse.stores.rows import ROW_PREFIX, ROWS_END


class StoreError(Exception):
    """The store could not do what was asked (disk full, an I/O error); its content is still good."""


class StoreCorrupt(StoreError):
    """The store's content cannot be trusted any more: throw it away and rebuild it from the changelog."""


class StoreClosed(StoreError):
    """The store was closed, or is being rebuilt, while it was asked for something."""


class TaskStore(Protocol):
    """The rows of one task together with its checkpoint.

    The checkpoint (position, epoch, next changelog offset; opaque here) lives beside the rows, so that whatever part
    of the writes survives a crash is a consistent prefix. There is no way to write rows without one.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the row under the prefixed key; None when there is none."""

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return what get() returns for each of the keys, in their order."""

    def scan(
        self, start: bytes = ROW_PREFIX, end: bytes = ROWS_END, *, reverse: bool = False, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return up to `limit` rows with prefixed keys from `start`, inclusive, to `end`, exclusive, in key order.

        With `reverse` they are the last rows of the bounds, the last one first. Only rows are returned, wherever the
        bounds are, and records of other prefixes are not gone through. The rows are those of one moment, and nothing is
        held of it once they are returned: of rows written between two calls, a later call may see some.
        """

    def checkpoint(self) -> bytes | None:
        """Return the checkpoint last written; None for a store that has none yet."""

    async def write(self, rows: Iterable[tuple[bytes, bytes | None]], checkpoint: bytes) -> None:
        """Write the rows (None deletes) in small chunks, and the checkpoint in the last of them.

        Gives the event loop a turn between chunks, so a reader may see some of the rows before the checkpoint. When it
        raises or is cancelled, some of the rows may have been written and the checkpoint has not. Waits for as long as
        the store takes no writes because its memory is full, which is no failure; `waits_for` says so meanwhile.
        """

    @property
    def waits_for(self) -> str | None:
        """Return what a write waits for; None when none does."""

    async def wipe(self) -> None:
        """Throw rows and checkpoint away."""

    def rows_estimate(self) -> int:
        """Return how many rows there are: as count_rows() found it while they are few, else roughly."""

    def count_rows(self) -> bool:
        """Count the rows for rows_estimate(), if they have changed since and are few; takes a few milliseconds at most.

        Return whether it took any time.
        """


class ShardStore(Protocol):
    """The stores of all tasks of one shard, which are opened, flushed and closed together.

    All but task() block, for up to seconds, and raise StoreError; they are to be called off the event loop.
    """

    def open(self, names: Iterable[str]) -> None:
        """Open or create the store with a place for each name; raises StoreCorrupt when it has to be destroyed first.

        Nobody else may have it open, and after it raised it is as if it had not been called.
        """

    def task(self, name: str) -> TaskStore:
        """Return the store of one task, which raises StoreClosed before open() and after close()."""

    def flush(self) -> None:
        """Make durable what was written."""

    def size(self) -> int:
        """Return the bytes on disk."""

    def close(self) -> None:
        """Flush and close. It is closed when this raises, too, and what was not flushed may be gone."""

    def destroy(self) -> None:
        """Close without flushing, and delete everything on disk."""
