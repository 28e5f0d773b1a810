"""How much may wait in the inboxes of a worker's lanes."""

from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES

#: Maximum number of source records in all inboxes of a worker, and the minimum for each shard, however many there are.
#: Their bytes are limited separately.
MAX_QUEUED_RECORDS = 64_000
MIN_QUEUED_RECORDS = 1_000

#: The inboxes of a worker may take one part in this many of the memory budget. Half as much again may be kept for tasks
#: that are about to join.
QUEUED_SHARE = 16


def inbox_limits(shards: int, memory_budget: int) -> tuple[int, int]:
    """Return how many records, and bytes of records, may wait in each inbox of a worker with `shards` shards."""
    records = max(MIN_QUEUED_RECORDS, min(2 * LANE_BATCH, MAX_QUEUED_RECORDS // shards))
    return records, min(4 * LANE_BATCH_BYTES, memory_budget // QUEUED_SHARE // shards)
