"""A source that was deleted: its tables keep their rows, through restarts too, and no other table notices."""

from pathlib import Path

import pytest

from tablehouse.errors import PartitionRestoring, SourceUnavailable, TooStale
from tablehouse.model import Consistency, ProducerRecord, Role, TaskState
from tablehouse.tasks.questions import Get
from tablehouse.tasks.reads import ReadResult
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.positions import at
from tests.support.topics import topics_of
from tests.support.worker import table, tables

#: Partition 1 of the source that is deleted never has any record.
PARTITIONS = 2


class Scene:
    """Table `t` over a topic that is deleted, and table `u` over one that stays."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.kafka, self.bootstrap = kafka, kafka.bootstrap_servers
        self.gone, self.kept, self.group = unique("gone"), unique("kept"), unique("group")
        self.definition = tables(table("t", self.gone) + "    writable: true\n", table("u", self.kept))
        self.updates = 0

    async def prepare(self) -> None:
        """Create the topics, with rows of both tables."""
        await create_topic(self.bootstrap, self.gone, PARTITIONS)
        await create_topic(self.bootstrap, self.kept, 1)
        await produce(self.bootstrap, self.gone, [(b"a", b"%d" % number, 0) for number in range(5)])

    async def built(self, running: RunningEngine) -> None:
        """Wait until both tables are."""
        await running.wait_active(PARTITIONS + 1)
        await running.wait_position("t", 0, 4)

    async def check_kept(self, running: RunningEngine) -> None:
        """Check that the other table is updated and answers as always."""
        await produce(self.bootstrap, self.kept, [(b"b", b"%d" % self.updates, 0)])
        await running.wait_position("u", 0, self.updates)
        self.updates += 1

        async def active() -> bool:
            return running.states()["u", 0] is TaskState.ACTIVE

        await until(active, "the other table is active")
        assert running.read("u", b"none").row is None


async def refused(running: RunningEngine, why: str, partition: int = 0) -> None:
    """Wait until a partition of the table says why its source is refused, and is blocked by that."""

    async def said() -> bool:
        assert running.reason("t", partition).startswith("the source is refused: ")
        assert why in running.reason("t", partition)
        return True

    await until(said, f"partition {partition} of t says: {why}", 60)
    [task] = [one for one in running.engine.local.statuses() if (one.table, one.partition) == ("t", partition)]
    assert task.blocked
    assert any(
        " of table t " in line and " blocked: the source is ref" in line for line in running.engine.health.reasons()
    )


async def check_rows(running: RunningEngine) -> None:
    """Check that rows are those of before, under a true label, and that nothing else is said."""

    async def row() -> ReadResult | None:
        # After a restart not before the first heartbeat.
        try:
            return running.read("t", b"a")
        except TooStale:
            return None

    seen = await until(row, "rows are served")
    assert seen.row is not None
    assert (seen.row.payload, seen.freshness.position) == (b"4", at(0, 4))
    assert (seen.freshness.role, seen.freshness.lag_records, seen.freshness.staleness_ms) == (
        Role.SUSPENDED,
        None,
        None,
    )
    for bound in (Consistency(max_lag=1_000_000), Consistency(max_staleness_ms=3_600_000)):
        with pytest.raises(TooStale):
            running.engine.local.answer("t", 0, Get(b"a"), bound)
    with pytest.raises(PartitionRestoring):
        running.read("t", b"none")


async def test_tables_of_a_deleted_source_keep_their_rows_and_a_restart_takes_nothing_away(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    scene = Scene(kafka)
    await scene.prepare()
    missing = f"the brokers do not know topic {scene.gone} (deleted?)"
    async with running_engine(kafka, tmp_path / "disk", scene.definition, scene.group) as running:
        await scene.built(running)
        await delete_topic(scene.bootstrap, scene.gone)
        await refused(running, missing)
        await check_rows(running)
        await scene.check_kept(running)
    for folder in ("disk", "empty disk"):
        async with running_engine(kafka, tmp_path / folder, scene.definition, scene.group) as running:
            for partition in range(PARTITIONS):
                await refused(running, missing, partition)
                with pytest.raises(PartitionRestoring):
                    running.read("t", b"none", partition)
            await check_rows(running)
            await scene.check_kept(running)
            with pytest.raises(SourceUnavailable, match=r"nothing was written.*\(was the topic deleted\?\)"):
                await running.engine.local.append("t", 0, ProducerRecord(b"k", b"1"), 5.0)
    assert scene.gone not in await topics_of(kafka)


@pytest.mark.parametrize("partitions", [1, 2, 3])
async def test_a_source_that_is_created_again_is_noticed_and_says_that_a_new_version_is_needed(
    kafka: EmbeddedKafka, tmp_path: Path, partitions: int
) -> None:
    scene = Scene(kafka)
    await scene.prepare()
    async with running_engine(kafka, tmp_path, scene.definition, scene.group) as running:
        await scene.built(running)
    await delete_topic(scene.bootstrap, scene.gone)
    async with running_engine(kafka, tmp_path, scene.definition, scene.group) as running:
        await refused(running, f"the brokers do not know topic {scene.gone} (deleted?)")

        async def created() -> bool:
            await create_topic(scene.bootstrap, scene.gone, partitions)
            return True

        await until(created, "the topic is there again")
        await produce(scene.bootstrap, scene.gone, [(b"a", b"100", None)])
        await refused(running, "the topic was deleted and created again, restored, or lost its last records. Give the ")
        await check_rows(running)
        await scene.check_kept(running)
    async with running_engine(kafka, tmp_path, scene.definition, scene.group) as running:
        await refused(running, "the topic was deleted and created again")
        if partitions < PARTITIONS:
            await refused(running, f"topic {scene.gone} has no partition 1, only those up to 0 (created again?)", 1)
        await check_rows(running)
        await scene.check_kept(running)
    version = tables(table("t", scene.gone) + "    version: 2\n", table("u", scene.kept))
    async with running_engine(kafka, tmp_path, version, scene.group) as running:
        await running.wait_active(partitions + 1)
        contents = await running.check_equal("t", partitions)
        assert sum(len(content.rows) for content in contents.values()) == 1


async def test_a_table_without_rows_goes_on_with_a_source_that_is_there_again(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = unique("gone"), unique("group"), ""
    definition = tables(table("t", topic))
    await create_topic(kafka.bootstrap_servers, topic, 1)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
    await delete_topic(kafka.bootstrap_servers, topic)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await refused(running, f"the brokers do not know topic {topic} (deleted?)")
        with pytest.raises(PartitionRestoring, match="the source is refused"):
            running.read("t", b"a")

        async def created() -> bool:
            await create_topic(kafka.bootstrap_servers, topic, 1)
            return True

        await until(created, "the topic is there again")
        await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0)])
        await running.wait_active(1)
        await running.check_equal("t", 1)
