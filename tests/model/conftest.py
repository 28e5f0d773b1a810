"""Small lane batches, so that a few records make many, and counts of the engine's log lines.

Values of five bytes and more are large ones, which a thread decodes.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog

from tablehouse.tasks import flushing, inbox_limits, lane, pipeline, shards
from tablehouse.testing.simulated import loop
from tests.model import tables
from tests.model.history import count_paths


@pytest.fixture(autouse=True)
def small_lane_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LANE_BATCH", 12)
    monkeypatch.setattr(pipeline, "RECORDS_PER_SLICE", 5)
    monkeypatch.setattr(pipeline, "LARGE_VALUE_BYTES", 4)
    monkeypatch.setattr(lane, "LANE_BATCH", 12)
    monkeypatch.setattr(inbox_limits, "LANE_BATCH", 12)
    monkeypatch.setattr(inbox_limits, "MIN_QUEUED_RECORDS", 12)


@pytest.fixture(autouse=True)
def simulated_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "codec_of", tables.codec_of)
    monkeypatch.setattr(shards, "identity_of", tables.identity_of)


@pytest.fixture(autouse=True)
def flushes_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "FLUSH_INTERVAL", 3.0)


@pytest.fixture(autouse=True)
def turns_that_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", loop.sleep)


@pytest.fixture(autouse=True)
def paths() -> Iterator[Counter[str]]:
    """Count the engine's log lines by event and reason."""
    counted: Counter[str] = Counter()
    structlog.configure(processors=[count_paths(counted)])
    yield counted
    structlog.reset_defaults()
