"""The store on disk: one RocksDB per shard, with one column family per task.

There is no write-ahead log, since the changelog is the log: a crash leaves a consistent prefix of each column family,
and the tail is replayed. Opening, closing and flushing block for up to seconds and must be called off the event loop;
gets and writes are fast and hold the GIL, so they stay on it.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from rocksdict import ColumnFamily, Rdict, ReadOptions, WriteBatch, WriteOptions

from tablehouse.stores.failures import to_store_error
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.row_count import RowCount
from tablehouse.stores.rows import ROW_PREFIX, ROWS_END, row_bounds
from tablehouse.stores.store import StoreClosed, StoreError
from tablehouse.turns import Turns

#: Maximum rows per RocksDB write. rocksdict holds the GIL during a write, about 1 us per row, so this bounds how long a
#: read waits. A slice of a replayed changelog has no more rows, and is written in one call.
ROWS_PER_CHUNK = 500

#: Seconds between attempts of a write that RocksDB refused because of a stall: initial and maximum.
_STALL_PAUSE = 0.01
_MAX_STALL_PAUSE = 0.1

#: RocksDB's error for a write that would stall, with no_slowdown; see RocksTaskStore.
_STALL = "Result incomplete: Write stall"

#: Stored next to the rows of each column family. Row keys begin with 0x01.
_CHECKPOINT_KEY = b"\x00checkpoint"

_KEY: Callable[[tuple[bytes, bytes | None]], bytes] = itemgetter(0)


class RocksTaskStore:
    """One column family; implements TaskStore."""

    def __init__(self, shard: "RocksShard", name: str) -> None:
        self._shard = shard
        self._name = name
        self._options = WriteOptions()
        self._options.disable_wal = True  # type: ignore[method-assign,assignment]  # a method in the type stub
        # A write that would stall raises instead of blocking heartbeats and reads; write() waits and retries.
        self._options.no_slowdown = True
        self._dirty = False
        self._rows = RowCount()
        self._waits_for: str | None = None

    @property
    def waits_for(self) -> str | None:
        """Return the reason why a write waits; None if none does."""
        return self._waits_for

    def get(self, key: bytes) -> bytes | None:
        """Return the row under the prefixed key."""
        family = self._shard.families.get(self._name)
        if family is None:
            raise StoreClosed(f"{self._shard.path}: the store is closed")
        try:
            value: bytes | None = family.get(key)
        except Exception as error:
            raise self._failure("reading", error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the rows under the prefixed keys, in one RocksDB call."""
        family = self._shard.families.get(self._name)
        if family is None:
            raise StoreClosed(f"{self._shard.path}: the store is closed")
        try:
            values: Any = family.get(list(keys))
        except Exception as error:
            raise self._failure("reading", error) from error
        rows: list[bytes | None] = values
        return rows

    def scan(
        self, start: bytes = ROW_PREFIX, end: bytes = ROWS_END, *, reverse: bool = False, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return the rows between two prefixed keys.

        The iterator does not outlive the call: it would keep a snapshot, and the database open past close().
        """
        family = self._shard.families.get(self._name)
        if family is None:
            raise StoreClosed(f"{self._shard.path}: the store is closed")
        first, above = row_bounds(start, end)
        if first >= above or limit < 1:
            return []
        options = ReadOptions()
        # RocksDB stops at this bound. There is no lower bound, because rocksdict's set_iterate_lower_bound also sets
        # the upper one.
        options.set_iterate_upper_bound(above)
        try:
            found: Iterable[tuple[Any, Any]] = family.items(
                backwards=reverse, from_key=above if reverse else first, read_opt=options
            )
            rows = list(islice(takewhile(lambda row: row[0] >= first, found) if reverse else found, limit))
        except Exception as error:
            raise self._failure("scanning", error) from error
        return rows

    def checkpoint(self) -> bytes | None:
        """Return the last written checkpoint."""
        return self.get(_CHECKPOINT_KEY)

    async def write(self, rows: Iterable[tuple[bytes, bytes | None]], checkpoint: bytes) -> None:
        """Write the rows in chunks and the checkpoint in the last one.

        Rows are written in key order, since a memtable inserts a key faster after its predecessor.
        """
        rest = iter(sorted(rows, key=_KEY))
        chunk = list(islice(rest, ROWS_PER_CHUNK))
        while True:
            following = list(islice(rest, ROWS_PER_CHUNK))
            if not following:
                break
            await self._write_chunk(chunk, None)
            chunk = following
            await self._shard.turns.wait()
        await self._write_chunk(chunk, checkpoint)
        self._dirty = True

    async def _write_chunk(self, rows: Sequence[tuple[bytes, bytes | None]], checkpoint: bytes | None) -> None:
        error = self._put(rows, checkpoint)
        if error is not None and str(error).startswith(_STALL):
            error = await self._write_after_stall(rows, checkpoint)
        if error is not None:
            raise self._failure("writing", error) from error

    async def _write_after_stall(
        self, rows: Sequence[tuple[bytes, bytes | None]], checkpoint: bytes | None
    ) -> Exception | None:
        """Retry a stalled write until RocksDB accepts it, without a time limit; return any other error.

        A stall ends with a flush or a compaction. If those fail, RocksDB reports that error instead.
        """
        memory, pause = self._shard.memory, _STALL_PAUSE
        try:
            with memory.stalled(self._shard.path, self._name):
                while True:
                    if memory.is_full:
                        self._waits_for = "waits for a flush: the memtables of all shards are full"
                        memory.make_room()
                    else:
                        self._waits_for = "waits for a flush or a compaction of this store"
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _MAX_STALL_PAUSE)
                    # A chunk may be large, and each attempt copies it.
                    if memory.is_full and not memory.flush_fails:
                        continue
                    error = self._put(rows, checkpoint)
                    if error is None or not str(error).startswith(_STALL):
                        return error
        finally:
            self._waits_for = None

    def _put(self, rows: Sequence[tuple[bytes, bytes | None]], checkpoint: bytes | None) -> Exception | None:
        """Write a chunk in one call, and return RocksDB's error, if any.

        The error has no traceback, which would keep the handle and thus the database open as long as the error is kept.
        """
        shard = self._shard
        database, handle = shard.database, shard.handles.get(self._name)
        if database is None or handle is None:
            raise StoreClosed(f"{shard.path}: the store is closed")
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(handle)
        put, delete = batch.put, batch.delete
        if checkpoint is not None:
            # First, as in key order. After a large row it would double the memory of the batch.
            put(_CHECKPOINT_KEY, checkpoint)
        for key, value in rows:
            if value is None:
                delete(key)
            else:
                put(key, value)
        self._rows.changed()
        try:
            database.write(batch, self._options)
        except Exception as error:  # noqa: BLE001 - rocksdict has no narrower one
            return error.with_traceback(None)
        return None

    async def wipe(self) -> None:
        """Delete rows and checkpoint by dropping the column family."""
        await asyncio.to_thread(self._shard.recreate, self._name)
        self._dirty = False
        self._rows = RowCount()

    def flush(self) -> None:
        """Write unflushed data to disk, if there is any; blocks."""
        family = self._shard.families.get(self._name)
        if self._dirty and family is not None:
            self._dirty = False
            try:
                family.flush(True)
            except Exception as error:
                self._dirty = True
                raise self._failure("flushing", error) from error

    def rows_estimate(self) -> int:
        """Return the number of rows found by count_rows(), or RocksDB's estimate."""
        family = self._shard.families.get(self._name)
        return 0 if family is None else self._rows.estimate(family)

    def count_rows(self) -> bool:
        """Count the rows for rows_estimate() if they are few and have changed; return whether they were counted."""
        family = self._shard.families.get(self._name)
        return family is not None and self._rows.count(family)

    def _failure(self, doing: str, error: Exception) -> StoreError:
        return to_store_error(error, f"{doing} {self._name} in {self._shard.path}", self._shard.path)


def _delete(folder: Path) -> None:
    """Delete a folder. An OSError names the undeletable file; that of shutil.rmtree on 3.13 only names the folder."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            _delete(entry)
        else:
            entry.unlink()
    folder.rmdir()


def _family(name: str, number: int) -> str:
    return f"{name}~{number}" if number else name


class RocksShard:
    """One RocksDB in its own folder, with a column family for each task.

    A recreated family gets the next number as a suffix, "table", "table~1", "table~2"; the highest number is used. A
    drop or a creation that fails half-way, as on a full disk, leaves a family that RocksDB still has but that rocksdict
    cannot access before the database is reopened: the next attempt must not need its name.
    """

    def __init__(self, path: Path, memory: StoreMemory, turns: Turns) -> None:
        self.path = path
        self.turns = turns
        self.database: Rdict | None = None
        self.families: dict[str, Rdict] = {}
        self.handles: dict[str, ColumnFamily] = {}
        self.memory = memory
        self._numbers: dict[str, int] = {}
        self._tasks: dict[str, RocksTaskStore] = {}

    def open(self, names: Iterable[str]) -> None:
        """Open or create the database and the named column families; blocks.

        Raises StoreCorrupt if the content cannot be read, StoreError for any other failure; it is then closed.
        """
        options = self.memory.options
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            known = Rdict.list_cf(str(self.path), options()) if (self.path / "CURRENT").exists() else []
            present = set(known) - {"default"}
            self._numbers = dict.fromkeys(names, 0)
            for family in present:
                name, _, number = family.partition("~")
                self._numbers[name] = max(self._numbers.get(name, 0), int(number or 0))
            current = {_family(name, number) for name, number in self._numbers.items()}
            families = {family: options() for family in present | current}
            self.database = database = Rdict(str(self.path), options(), column_families=families)
            for name in self._numbers:
                self._attach(database, name)
            for family in present - current:
                self._drop(database, family)
            self.memory.add(self)
        except Exception as error:
            self._let_go()
            raise to_store_error(error, f"opening {self.path}", self.path) from error

    def add(self, names: Iterable[str]) -> None:
        """Create the column families of further tasks, unless they exist; blocks. Raises StoreError."""
        database = self.database
        if database is None:
            raise StoreClosed(f"{self.path}: the store is closed")
        for name in names:
            if name not in self.families:
                self._numbers[name] = self._numbers.get(name, -1) + 1
                self._create(database, name, "creating")

    def task(self, name: str) -> RocksTaskStore:
        """Return the store of one task; its column family was named in open() or add()."""
        return self._tasks.setdefault(name, RocksTaskStore(self, name))

    def recreate(self, name: str) -> None:
        """Give a task an empty column family and drop its previous one; blocks.

        If it raises, the task has no column family and reads raise StoreClosed until a later call succeeds.
        """
        database = self.database
        if database is None:
            raise StoreClosed(f"{self.path}: the store is closed")
        replaced = self.families.pop(name, None)
        self.handles.pop(name, None)
        # Drop first, since that may free the space needed by the creation.
        self._drop(database, _family(name, self._numbers[name]))
        if replaced is not None:
            # Any remaining reference, even in a traceback, would keep the database open.
            with suppress(Exception):
                replaced.close()
        self._numbers[name] += 1
        self._create(database, name, "recreating")

    def flush(self) -> None:
        """Flush every task with writes since its last flush; blocks."""
        for task in list(self._tasks.values()):
            task.flush()

    def size(self) -> int:
        """Return the size of the files on disk in bytes; blocks."""
        size = 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    # RocksDB deletes compacted files concurrently.
                    with suppress(FileNotFoundError):
                        size += entry.stat().st_size if entry.is_file() else 0
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise to_store_error(error, f"measuring {self.path}", self.path) from error
        return size

    def close(self) -> None:
        """Flush and close; blocks. It is also closed if it raises StoreError, but then unflushed data is lost."""
        error = self._let_go()
        if error is not None:
            raise to_store_error(error, f"closing {self.path}", self.path) from error

    def destroy(self) -> None:
        """Close and delete the folder; blocks. Raises StoreError if a file cannot be deleted."""
        self._let_go()
        try:
            _delete(self.path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or self.path.exists():
                raise to_store_error(error, f"deleting {self.path}", self.path) from error

    def _create(self, database: Rdict, name: str, doing: str) -> None:
        try:
            database.create_column_family(_family(name, self._numbers[name]), self.memory.options())
            self._attach(database, name)
        except Exception as error:
            raise to_store_error(error, f"{doing} {name} in {self.path}", self.path) from error

    def _attach(self, database: Rdict, name: str) -> None:
        family = _family(name, self._numbers[name])
        self.families[name] = database.get_column_family(family)
        self.handles[name] = database.get_column_family_handle(family)

    def _drop(self, database: Rdict, family: str) -> None:
        # A family that cannot be dropped now takes space until the database is next opened.
        with suppress(Exception):
            database.drop_column_family(family)

    def _let_go(self) -> Exception | None:
        """Close all handles and return the first error; rocksdict flushes a family when closing it.

        RocksDB itself only closes with its last handle, so none may remain, not even in a traceback.
        """
        self.memory.remove(self)
        opened = [*self.families.values(), *([] if self.database is None else [self.database])]
        self.handles.clear()
        self.families.clear()
        self.database = None
        first: Exception | None = None
        for handle in opened:
            try:
                handle.close()
            except Exception as error:  # noqa: BLE001 - rocksdict has no narrower one
                first = first or error.with_traceback(None)
        return first
