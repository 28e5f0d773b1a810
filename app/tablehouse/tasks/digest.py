"""The digest of a task's rows: to compare replicas with each other, and tables with what they were made from."""

import asyncio
import hashlib
import struct
from dataclasses import dataclass

from tablehouse.errors import PartitionRestoring
from tablehouse.stores.rows import ROW_PREFIX
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks.task import Task

#: Rows read and hashed in one go, about 1 us each, which is how long readers wait.
ROWS_A_TURN = 400

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PartitionDigest:
    """The rows of one partition: how many, and a hash over all of them.

    rows_hash is BLAKE2b of 16 bytes, in hexadecimal, over every row in the order of the stored keys: length of the
    stored key, stored key, length of the row, row bytes; lengths are 4 bytes, big-endian. Rows that were written
    meanwhile may be in it or not: it is the state at a position only when position_before and position_after, the
    source offsets last applied, are the same.
    """

    state: str
    rows: int
    rows_hash: str
    position_before: int
    position_after: int


async def digest(task: Task) -> PartitionDigest:
    """Count and hash the rows of a task, with turns for others in between.

    Raises PartitionRestoring while its store holds no consistent state, and the store's errors.
    """
    count, hashed = 0, hashlib.blake2b(digest_size=16)
    before, after = task.applied, b""
    while True:
        try:
            rows = task.store.scan(after, ROWS_A_TURN) if task.readable else None
        except StoreClosed:
            rows = None
        if rows is None:
            raise PartitionRestoring(
                f"partition {task.partition} of table {task.table} cannot be read: it is {task.state.name.lower()}",
                table=task.table,
                partition=task.partition,
            )
        for key, row in rows:
            stored = key[len(ROW_PREFIX) :]
            hashed.update(_LENGTH.pack(len(stored)) + stored + _LENGTH.pack(len(row)))
            hashed.update(row)
        count += len(rows)
        if len(rows) < ROWS_A_TURN:
            return PartitionDigest(task.state.name.lower(), count, hashed.hexdigest(), before, task.applied)
        after = rows[-1][0]
        await asyncio.sleep(0)
