"""The data directory: whose it is, which process has it, and where the shards are.

worker.json       the worker's id, and how many processes have used the directory
positions.json    how far each shard was when it was last flushed: a hint for placement, never for the tables
schemas.json      what a schema registry has told: it can be fetched again
LOCK              held while a process uses the directory
shards/           one RocksDB a shard

It holds rows, so it is for the worker's user alone: files are 0600 and folders 0700, those of a directory that was made
with other modes included. The process's umask does the same for what is made later, by RocksDB too.
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
    """A data directory that this process holds."""

    def __init__(self, path: Path, lock: IO[str], worker_id: str, incarnation: int) -> None:
        self.path = path
        self.worker_id = worker_id
        self.incarnation = incarnation
        self._lock = lock
        self._saving = threading.Lock()

    @classmethod
    def acquire(cls, path: Path) -> "DataDirectory":
        """Take the directory for this process, making it when it is new.

        The worker id is drawn once and stays with the directory; the incarnation goes up by one. Raises
        DataDirectoryError when another process has it or when it cannot be used.
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
        """Let go of the directory."""
        self._lock.close()

    def shard(self, shard: ShardId) -> Path:
        """Return the folder of a shard."""
        return self.path / _SHARDS / f"{shard.name}-{shard.partition}"

    @property
    def schemas_file(self) -> Path:
        """Return where the schemas that were fetched are kept."""
        return self.path / _SCHEMAS

    def free(self) -> int:
        """Return the bytes that are free where the directory is; raises OSError."""
        return shutil.disk_usage(self.path).free

    def measure(self, metrics: Metrics) -> None:
        """Set the metrics of the file system that the directory is on; raises OSError."""
        usage = shutil.disk_usage(self.path)
        metrics.disk_free.set(usage.free)
        metrics.disk_size.set(usage.total)

    def positions(self) -> dict[str, dict[int, int]]:
        """Return the positions last saved, by shard name and partition; empty when there are none that can be read."""
        try:
            return _read(self.path / _POSITIONS, dict[str, dict[int, int]]) or {}
        except DataDirectoryError:
            # Only a hint, and soon written again: not worth keeping a worker from its group.
            return {}

    def save_positions(self, positions: Mapping[str, Mapping[int, int]]) -> None:
        """Save how far each shard is; blocks, and may be called from any thread. Raises OSError."""
        content = msgspec.json.encode(positions)
        with self._saving:
            # Not synced: a hint is not worth the wait, and what a power failure makes of it is read as none.
            replace_file(self.path / _POSITIONS, content, synced=False)


def _enter(path: Path, lock: IO[str]) -> _Worker:
    """Lock the directory, leave this process's id in the lock and count the incarnation."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise DataDirectoryError(
            f"the data directory {path} is in use by process {holder}; give each worker a directory of its own"
        ) from None
    # Past Python's buffer, from which closing would write again what a full disk has refused.
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
    """Take what group and others may do from a data directory and from all that a worker has made in it.

    A data directory with the set-group-ID bit is a volume that Kubernetes has given to a group (fsGroup), or shared by
    choice, and one with the sticky bit is a place for everybody: these stay as they are, and what is in them is closed.
    If the root of a volume were closed, Kubernetes would change the modes of all files again at each start of a pod.
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
            # Somebody else's, or on a file system that has no modes.
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
    """Replace a file, so that a crash leaves either the old one or the new; blocks. Raises OSError."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
