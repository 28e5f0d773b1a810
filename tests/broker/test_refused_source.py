"""A source that was created again, shorter, while a worker reads it: nobody knows how old the rows of before are."""

from pathlib import Path

import pytest

from tablehouse.errors import TooStale
from tablehouse.model import Consistency, Role
from tablehouse.tasks.questions import Get
from tablehouse.tasks.reads import ReadResult
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import new_source, running_engine
from tests.support.kafka import produce, recreate_topic
from tests.support.polling import until


async def test_rows_of_a_recreated_source_are_served_without_figures_and_by_no_bound(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"%d" % number, 0) for number in range(5)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_position("t", 0, 4)
        await recreate_topic(kafka.bootstrap_servers, topic)
        await produce(kafka.bootstrap_servers, topic, [(b"a", b"other", 0)])

        async def refused() -> bool:
            assert "was applied already" in running.reason("t")
            return True

        await until(refused, "the source is refused", 60)

        async def served() -> ReadResult:
            seen = running.read("t", b"a")
            assert seen.freshness.role is Role.SUSPENDED
            return seen

        seen = await until(served, "its rows are served")
        assert seen.row is not None
        assert seen.row.payload == b"4"
        assert (seen.freshness.lag_records, seen.freshness.staleness_ms) == (None, None)
        for bound in (Consistency(max_lag=1_000_000), Consistency(max_staleness_ms=3_600_000)):
            with pytest.raises(TooStale):
                running.engine.local.answer("t", 0, Get(b"a"), bound)
        [status] = running.engine.local.statuses()
        assert status.blocked
        [reason] = running.engine.health.reasons()
        assert reason.startswith("partition 0 of table t is blocked: the source is refused")
        assert "new version" in reason
