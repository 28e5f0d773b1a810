"""The digest of a partition's rows, to compare replicas with each other and tables with their sources."""

import hashlib
import struct
from dataclasses import dataclass, field

from tablehouse.errors import PartitionRestoring
from tablehouse.model import Consistency
from tablehouse.positions import Position
from tablehouse.stores.rows import ROW_PREFIX
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.task import Task

#: Rows read and hashed in one slice of work, at about 1 us each; readers wait that long.
ROWS_PER_TURN = 400

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PartitionDigest:
    """The number of rows of one partition, and a hash over all of them.

    rows_hash is BLAKE2b of 16 bytes, in hexadecimal, over every row in the order of the stored keys: length of the
    stored key, stored key, length of the row, row bytes; lengths are 4 bytes, big-endian. Rows written meanwhile may be
    included or not: the digest is the state at a position only when position_before and position_after are the same.
    """

    state: str
    rows: int
    rows_hash: str
    position_before: Position
    position_after: Position


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


@dataclass(frozen=True, slots=True)
class Digest:
    """The question for a partition's digest. Any copy with a readable store answers it, whatever the consistency.

    `start` is the key to continue at, and the other fields are what was counted and hashed before it. While rows are
    left, the answer is the next question to ask.
    """

    start: bytes = ROW_PREFIX
    rows: int = 0
    hashed: hashlib.blake2b = field(default_factory=_new_hash, repr=False, compare=False)
    position_before: Position | None = None

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> "PartitionDigest | Digest":  # noqa: ARG002
        """Count and hash the next rows; raises PartitionRestoring while the store holds no consistent state."""
        before = task.position if self.position_before is None else self.position_before
        try:
            rows = task.store.scan(self.start, limit=ROWS_PER_TURN) if task.readable else None
        except StoreClosed:
            rows = None
        if rows is None:
            raise PartitionRestoring(
                f"partition {task.partition} of table {task.table} cannot be read: it is {task.state.name.lower()}",
                table=task.table,
                partition=task.partition,
            )
        hashed, count = self.hashed.copy(), self.rows + len(rows)
        for key, row in rows:
            stored = key[len(ROW_PREFIX) :]
            hashed.update(_LENGTH.pack(len(stored)) + stored + _LENGTH.pack(len(row)))
            hashed.update(row)
        if len(rows) < ROWS_PER_TURN:
            return PartitionDigest(task.state.name.lower(), count, hashed.hexdigest(), before, task.position)
        return Digest(rows[-1][0] + b"\0", count, hashed, before)
