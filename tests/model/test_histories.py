"""Random histories, and a check that together they took every path of the protocol.

MODEL_HISTORIES sets their number (300), MODEL_SEED runs only one of them. A failure prints its seed.
"""

import os
from collections import Counter

import pytest

from tablehouse.testing.simulated.loop import run_virtual
from tests.model.history import History

HISTORIES = int(os.environ.get("MODEL_HISTORIES", "300"))
ONE = os.environ.get("MODEL_SEED")

#: What the engine logs, or the world counts, on each of the protocol's paths.
WAYS = {
    "claimed": "a claim is read back",
    "claim answered as another": "a claim loses a race and seems to succeed",
    "seal": "a producer id is sealed",
    "fenced": "the broker refuses an old epoch",
    "another owner has claimed the partition": "an owner is refused",
    "another owner has appended": "a batch is not contiguous",
    "record dead-lettered": "a dead letter is written",
    "the dead letters cannot be written": "a dead letter is not written, or it is not known",
    "the outcome of an append is not known": "an outcome is unknown",
    "the broker is unavailable": "a broker is away",
    "no schema registry": "a partition waits for a schema",
    "dropped a foreign changelog record": "a foreign record is dropped",
    "store quarantined; it is rebuilt from the changelog": "a store is rebuilt",
    "a shard returned while it was closed": "a shard returns before it is closed",
    "store cannot be opened; trying again": "a store cannot be opened",
    "store not flushed at closing": "a store cannot be flushed at the end",
    "compaction": "compaction removes rows",
    "a transaction begins": "a transaction holds back what others write",
    "the brokers' clocks are set": "the brokers' clocks jump",
    "counting on from an old time": "a worker cannot learn the time again",
    "tombstones gone": "compaction removes tombstones",
    "active": "a task catches up",
    "standby": "a standby has replayed what there is",
    "promoted": "a standby becomes the owner",
}
FAULTS = (
    "claim.asked",
    "claim.sent",
    "claim.acknowledged",
    "append.sent",
    "append.acknowledged",
    "letters.asked",
    "letters.written",
    "store.chunk",
    "store.open",
    "store.open done",
    "store.close",
    "store.flush",
    "turn",
    "thread",
    "thread done",
    "schema.asked",
    "time.asked",
)
ANSWERS = ("hit", "miss", "suspended", "standby", "standby miss", "not_owner", "partition_restoring")


def _run(seed: int) -> History:
    histories: list[History] = []

    async def run() -> None:
        histories.append(History(seed))
        await histories[0].run()

    try:
        run_virtual(run())
    except Exception as error:
        raise AssertionError(f"history {seed} fails (MODEL_SEED={seed} runs it alone): {error}") from error
    return histories[0]


@pytest.mark.timeout(60 + HISTORIES)
def test_every_history_ends_with_the_tables_that_the_sources_say(paths: "Counter[str]") -> None:
    answers: Counter[str] = Counter()
    seeds = range(HISTORIES) if ONE is None else [int(ONE)]
    for seed in seeds:
        history = _run(seed)
        paths.update(history.world.paths)
        answers.update(history.checks.reads)
    if ONE is not None or HISTORIES < 300:
        return
    missing = [meaning for way, meaning in WAYS.items() if not paths[way]]
    missing += [point for point in FAULTS if not paths[f"fault at {point}"]]
    missing += [answer for answer in ANSWERS if not answers[answer]]
    assert missing == [], f"never happened in {HISTORIES} histories"
