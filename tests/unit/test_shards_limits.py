"""How a worker's shards divide what may wait in their inboxes."""

import pytest

from app.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES
from app.tasks.shards import LEAST_QUEUED, QUEUED_RECORDS, limits

BUDGET = 64 << 20


@pytest.mark.parametrize(
    ("shards", "records", "size"),
    [
        (1, 2 * LANE_BATCH, 2 * LANE_BATCH_BYTES),
        (4, 2 * LANE_BATCH, 2 * LANE_BATCH_BYTES),
        (16, QUEUED_RECORDS // 16, (BUDGET // 8) // 16),
        (256, LEAST_QUEUED, (BUDGET // 8) // 256),
    ],
)
def test_an_eighth_of_the_memory_budget_is_divided_among_the_shards(shards: int, records: int, size: int) -> None:
    assert limits(shards, BUDGET) == (records, size)


@pytest.mark.parametrize("shards", [1, 3, 50, 1000])
def test_all_shards_together_stay_within_an_eighth_of_the_memory_budget(shards: int) -> None:
    assert shards * limits(shards, BUDGET)[1] <= BUDGET // 8
