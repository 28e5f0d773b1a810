"""The digest of a partition's rows: to compare replicas with each other, and tables with what they were made from."""

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

#: Rows read and hashed in one go, about 1 us each, which is how long readers wait.
ROWS_PER_TURN = 400

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PartitionDigest:
    """The rows of one partition: how many, and a hash over all of them.

    rows_hash is BLAKE2b of 16 bytes, in hexadecimal, over every row in the order of the stored keys: length of the
    stored key, stored key, length of the row, row bytes; lengths are 4 bytes, big-endian. Rows that were written
    meanwhile may be in it or not: it is the state at a position only when position_before and position_after are the
    same.
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
    """The digest of a partition, as any copy with a readable store has it, whatever is asked of other answers.

    What follows `start` is what was counted and hashed before it: a result that is no digest yet is the question to go
    on with.
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
