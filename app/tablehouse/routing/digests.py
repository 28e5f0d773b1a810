"""The digest of a whole partition that this worker holds."""

import asyncio

from tablehouse.model import DEFAULT_CONSISTENCY
from tablehouse.routing.ports import LocalTables
from tablehouse.tasks.digest import Digest, PartitionDigest


async def digest(local: LocalTables, table: str, partition: int) -> PartitionDigest:
    """Count and hash the rows of a partition held here, with turns for others between two slices of work.

    Raises NotOwner when this worker does not hold it, PartitionRestoring while its rows are in no consistent state.
    """
    question = Digest()
    while True:
        found = local.answer(table, partition, question, DEFAULT_CONSISTENCY)
        if isinstance(found, PartitionDigest):
            return found
        question = found
        await asyncio.sleep(0)
