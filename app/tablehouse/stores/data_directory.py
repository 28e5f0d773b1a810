"""The data directory: its worker id, the lock of the process using it, and the folders of the shards.

worker.json       the worker's id, and how many processes have used the directory
positions.json    the position of each shard at its last flush: a hint for placement, never for the tables
schemas.json      cached schemas of the schema registry, which can be fetched again
LOCK              held while a process uses the directory
shards/           one RocksDB per shard

It holds rows, so only the worker's user has access: files are 0600 and folders 0700; other modes in an existing
directory are corrected. The process's umask does the same for later files, including RocksDB's.
"""

import fcntl
import os
import secrets
import shutil
import socket
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TypeVar

import msgspec
import structlog

from tablehouse.errors import DataDirectoryError
from tablehouse.model import ShardId
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

#: The umask of a process that uses a data directory.
UMASK = 0o077

_LOCK, _WORKER, _POSITIONS, _SCHEMAS, _SHARDS = "LOCK", "worker.json", "positions.json", "schemas.json", "shards"


class _Worker(msgspec.Struct):
    worker_id: str
    incarnation: int


_T = TypeVar("_T")


class DataDirectory:
    """A data directory locked by this process."""

    def __init__(self, path: Path, lock: IO[str], worker_id: str, incarnation: int) -> None:
        self.path = path
        self.worker_id = worker_id
        self.incarnation = incarnation
        self._lock = lock
        self._saving = threading.Lock()

    @classmethod
    def acquire(cls, path: Path) -> "DataDirectory":
        """Lock the directory for this process; create it if it does not exist.

        The worker id is generated once and stays with the directory; the incarnation is incremented. Raises
        DataDirectoryError if another process has locked the directory or if it cannot be used.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (path / _LOCK).open("a+")
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            worker = _enter(path, lock)
            _close_to_others(path)
        except OSError as error:
            lock.close()
            raise _unusable(path, error) from error
        except DataDirectoryError:
            lock.close()
            raise
        return cls(path, lock, worker.worker_id, worker.incarnation)

    def release(self) -> None:
        """Release the lock."""
        self._lock.close()

    def shard(self, shard: ShardId) -> Path:
        """Return the folder of a shard."""
        return self.path / _SHARDS / f"{shard.name}-{shard.partition}"

    @property
    def schemas_file(self) -> Path:
        """Return the path of the file of cached schemas."""
        return self.path / _SCHEMAS

    def free(self) -> int:
        """Return the free bytes of the file system of the directory; raises OSError."""
        return shutil.disk_usage(self.path).free

    def measure(self, metrics: Metrics) -> None:
        """Set the metrics of the file system of the directory; raises OSError."""
        usage = shutil.disk_usage(self.path)
        metrics.disk_free.set(usage.free)
        metrics.disk_size.set(usage.total)

    def positions(self) -> dict[str, dict[int, int]]:
        """Return the last saved positions by shard name and partition; empty if there are no readable ones."""
        try:
            return _read(self.path / _POSITIONS, dict[str, dict[int, int]]) or {}
        except DataDirectoryError:
            # Only a hint, and soon written again: not worth keeping a worker from its group.
            return {}

    def save_positions(self, positions: Mapping[str, Mapping[int, int]]) -> None:
        """Save the position of each shard; blocks, and may be called from any thread. Raises OSError."""
        content = msgspec.json.encode(positions)
        with self._saving:
            # Not synced: a hint is not worth the wait, and a file damaged by a power failure is ignored.
            replace_file(self.path / _POSITIONS, content, synced=False)


def _enter(path: Path, lock: IO[str]) -> _Worker:
    """Lock the directory, write this process's id into the lock file and increment the incarnation."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise DataDirectoryError(
            f"the data directory {path} is in use by process {holder}; use a separate directory for each worker"
        ) from None
    # Unbuffered: otherwise, closing the file would retry a write that failed because of a full disk.
    os.ftruncate(lock.fileno(), 0)
    os.write(lock.fileno(), str(os.getpid()).encode())
    known = _read(path / _WORKER, _Worker)
    worker = _Worker(
        worker_id=f"{socket.gethostname()}-{secrets.token_hex(4)}" if known is None else known.worker_id,
        incarnation=1 if known is None else known.incarnation + 1,
    )
    replace_file(path / _WORKER, msgspec.json.encode(worker), synced=True)
    return worker


def _close_to_others(path: Path) -> None:
    """Remove the permissions of group and others from a data directory and from everything that a worker created in it.

    A data directory with the set-group-ID bit is a volume that Kubernetes assigned to a group (fsGroup) or that is
    shared on purpose, and one with the sticky bit is open to all users: the modes of these directories are kept, and
    only their contents are restricted. If the root of a volume were restricted, Kubernetes would change the modes of
    all files again at each start of a pod.
    """
    mine = [path / name for name in (_LOCK, _WORKER, _POSITIONS, _SCHEMAS)]
    mine += [Path(folder) / name for folder, _, names in os.walk(path / _SHARDS) for name in ("", *names)]
    if not path.stat().st_mode & (stat.S_ISGID | stat.S_ISVTX):
        mine.append(path)
    refused: list[Path] = []
    for one in mine:
        try:
            found = one.lstat()
            if found.st_mode & UMASK and not stat.S_ISLNK(found.st_mode):
                one.chmod(stat.S_IMODE(found.st_mode) & ~UMASK)
        except FileNotFoundError:
            continue
        except OSError:
            # Owned by another user, or on a file system without modes.
            refused.append(one)
    if refused:
        log.warning("other users may read the data directory", first=str(refused[0]), files=len(refused))


def _unusable(path: Path, error: OSError) -> DataDirectoryError:
    return DataDirectoryError(f"the data directory {path} cannot be used: {error.strerror}")


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataDirectoryError(f"{path} cannot be read: {error}; restore it or empty the data directory") from error


def replace_file(path: Path, content: bytes, *, synced: bool) -> None:
    """Replace a file atomically: after a crash it is either the old or the new one; blocks. Raises OSError."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
