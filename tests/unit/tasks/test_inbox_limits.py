"""How a worker's shards divide what may wait in their inboxes."""

import pytest

from tablehouse.stores.memory import STORES_SHARE_OF_8
from tablehouse.tasks.inbox_limits import MAX_QUEUED_RECORDS, MIN_QUEUED_RECORDS, QUEUED_SHARE, inbox_limits
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES
from tablehouse.worker.kafka_clients import FETCHED_SHARE

BUDGET = 64 << 20


@pytest.mark.parametrize(
    ("shards", "records", "size"),
    [
        (1, 2 * LANE_BATCH, 4 * LANE_BATCH_BYTES),
        (4, 2 * LANE_BATCH, (BUDGET // 16) // 4),
        (16, MAX_QUEUED_RECORDS // 16, (BUDGET // 16) // 16),
        (256, MIN_QUEUED_RECORDS, (BUDGET // 16) // 256),
    ],
)
def test_a_sixteenth_of_the_memory_budget_is_divided_among_the_shards(shards: int, records: int, size: int) -> None:
    assert inbox_limits(shards, BUDGET) == (records, size)


@pytest.mark.parametrize("shards", [1, 3, 50, 1000])
def test_all_shards_together_stay_within_a_sixteenth_of_the_memory_budget(shards: int) -> None:
    assert shards * inbox_limits(shards, BUDGET)[1] <= BUDGET // 16


def test_stores_what_is_fetched_ahead_and_what_waits_are_less_than_the_whole_budget() -> None:
    waiting_and_kept = 1.5 / QUEUED_SHARE
    assert STORES_SHARE_OF_8 / 8 + 1 / FETCHED_SHARE + waiting_and_kept < 1
