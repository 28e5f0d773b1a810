# ruff: noqa: SLF001 - rebalances and refetches are brought about where they happen
import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs

from tablehouse.errors import PartitionRestoring, TooStale, TopicError
from tablehouse.kafka import broker_time
from tablehouse.kafka.broker_time import measure
from tablehouse.model import Role, TaskState, TopicPartition
from tablehouse.tasks.log import LogRecord
from tablehouse.tasks.reads import ReadResult
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.positions import at
from tests.support.worker import table, tables


def rows(start: int, end: int, keys: int = 100) -> list[tuple[bytes | None, bytes | None, int | None]]:
    return [(b"k%d" % (number % keys), b'{"n":%d}' % number, None) for number in range(start, end)]


class Refusals:
    """Stands before the lanes and refuses some of what is fetched, as a shard does that has just stopped or moved."""

    def __init__(self, running: RunningEngine, seed: int) -> None:
        self._lanes = running.consumer.lanes
        self._random = random.Random(seed)
        self.refused = 0
        self.expected = self._lanes.expected
        self.are_crowded = self._lanes.are_crowded
        self.committable = self._lanes.committable
        self.lost = self._lanes.lost

    def offer(self, source: TopicPartition, records: list[LogRecord], next_offset: int) -> bool:
        """Refuse, or hand over."""
        if records and self._random.random() < 0.3:
            self.refused += 1
            return False
        return self._lanes.offer(source, records, next_offset)


async def test_rebalances_and_refetches_under_load_leave_no_gap_and_nothing_twice(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, 4)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chosen = random.Random(seed)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(4)
        refusals = Refusals(running, seed)
        running.consumer._lane_fetcher._lanes = refusals
        seeks = count_calls(running.consumer.client, "seek")
        for round_number in range(5):
            producing = asyncio.create_task(
                produce(kafka.bootstrap_servers, topic, rows(round_number * 4000, (round_number + 1) * 4000, 500))
            )
            position = sum(int(task.position) for task in running.engine.local.statuses())
            await until(moved_on(running, position + chosen.randrange(500)), "records are being applied")
            generation = running.engine.health.generation()
            running.consumer.client._coordinator.request_rejoin()
            await until(in_generation(running, generation + 1), "the group has rebalanced")
            await producing
        await running.wait_active(4)

        await running.check_equal("t", 4)
        assert refusals.refused > 0
        assert seeks() >= refusals.refused
        # A batch that was acknowledged while the task was suspended comes back out of the changelog, uncounted.
        assert running.metric("tablehouse_ingest_records_total", table="t") <= 20_000


def count_calls(owner: object, name: str) -> Callable[[], int]:
    """Count the calls of a method from here on."""
    original, calls = getattr(owner, name), 0

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return original(*arguments)

    setattr(owner, name, counted)
    return lambda: calls


def moved_on(running: RunningEngine, position: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return sum(int(task.position) for task in running.engine.local.statuses()) > position

    return ask


def in_generation(running: RunningEngine, generation: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return running.engine.health.generation() >= generation

    return ask


async def test_an_empty_data_directory_is_restored_from_the_changelog(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka, 2)
    await produce(kafka.bootstrap_servers, topic, [*rows(0, 3000, 700), (b"k1", None, None), (b"k2", None, None)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.check_equal("t", 2)
    shutil.rmtree(tmp_path / "data")

    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        assert running.metric("tablehouse_restore_records_total", table="t") >= 700
        assert running.metric("tablehouse_ingest_records_total", table="t") == 0
        right = await running.check_equal("t", 2)
        assert sum(len(content.rows) for content in right.values()) == 698


async def test_a_restart_with_its_data_applies_only_what_is_new(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 1000))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.check_equal("t", 1)
    await produce(kafka.bootstrap_servers, topic, rows(1000, 1010))

    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.check_equal("t", 1)
        assert running.metric("tablehouse_ingest_records_total", table="t") == 10
        assert running.metric("tablehouse_restore_records_total", table="t") == 0


async def test_aborted_records_become_no_rows_and_the_position_passes_the_markers(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await transaction(kafka, topic, [b"before"], commit=True)
    await transaction(kafka, topic, [b"aborted"], commit=False)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        # Record, marker, record, marker: caught up means offset 3, where no record is.
        await running.wait_active(1)
        assert running.states() == {("t", 0): TaskState.ACTIVE}
        assert running.read("t", b"before").freshness.position == at(0, 3)
        assert running.read("t", b"before").freshness.lag_records == 0
        assert running.read("t", b"aborted").row is None

        # And on the lane as well.
        await transaction(kafka, topic, [b"later", b"later still"], commit=True)
        await transaction(kafka, topic, [b"aborted too"], commit=False)
        await running.wait_position("t", 0, 8)
        assert running.read("t", b"later").row is not None
        assert running.read("t", b"aborted too").row is None
        await running.check_equal("t", 1)


async def transaction(kafka: EmbeddedKafka, topic: str, keys: list[bytes], *, commit: bool) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=unique("transaction"))
    await producer.start()
    try:
        await producer.begin_transaction()
        for key in keys:
            await producer.send_and_wait(topic, key=key, value=b"{}", partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def test_what_cannot_become_a_row_is_counted_and_logged_and_its_neighbours_are_right(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, _ = await new_source(kafka)
    definition = tables(table("t", topic, on_error="skip"))
    await produce(
        kafka.bootstrap_servers,
        topic,
        [
            (b"first", b'{"n":1}', 0),
            (None, b'{"n":2}', 0),
            (b"\xff\xfe", b'{"n":3}', 0),
            (b"bad", b"{not json", 0),
            (b"second", b'{"n":5}', 0),
        ],
    )
    # Compressed it passes the limit of the topic; a row is not compressed.
    await produce_compressed(kafka, topic, b"huge", b'"' + b"x" * 3_000_000 + b'"')
    await produce(kafka.bootstrap_servers, topic, [(b"gone", b"{}", 0), (b"gone", None, 0), (b"last", b"{}", 0)])
    with capture_logs() as logged:
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_position("t", 0, 8)
            await running.wait_active(1)
            for reason in ("null_key", "undecodable_key", "undecodable_value", "oversized"):
                assert running.metric("tablehouse_records_skipped_total", table="t", reason=reason) == 1, reason
            assert all(running.read("t", key).row is not None for key in (b"first", b"second", b"last"))
            assert all(running.read("t", key).row is None for key in (b"bad", b"huge", b"gone", b"\xff\xfe"))
    skipped = {line["offset"]: line["reason"] for line in logged if line["event"] == "record skipped"}
    assert skipped == {1: "null_key", 2: "undecodable_key", 3: "undecodable_value", 5: "oversized"}


async def produce_compressed(kafka: EmbeddedKafka, topic: str, key: bytes, value: bytes) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        compression_type="gzip",
        max_batch_size=4_000_000,
        max_request_size=4_000_000,
    )
    await producer.start()
    try:
        await producer.send_and_wait(topic, key=key, value=value, partition=0)
    finally:
        await producer.stop()


async def test_a_new_table_starts_where_retention_has_left_the_topic(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 100))
    await delete_before(kafka, topic, 60)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        assert running.read("t", b"k59").row is None
        assert running.read("t", b"k60").row is not None
        await running.check_equal("t", 1)


async def test_a_new_table_over_a_topic_that_retention_has_emptied_is_active_at_its_end(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 10))
    await delete_before(kafka, topic, 10)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        assert running.read("t", b"k0").freshness.position == at(0, 9)


async def test_records_that_retention_removed_before_they_were_applied_are_never_passed_over(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 10))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await running.wait_position("t", 0, 9)
        running.consumer.pause_lane(TopicPartition(topic, 0))
        await produce(kafka.bootstrap_servers, topic, rows(10, 30))
        await delete_before(kafka, topic, 20)
        running.consumer.resume_lane(TopicPartition(topic, 0))

        await until(waits_because(running, "retention deleted records"), "the partition is refused")
        assert "begins at offset 20, but 10 comes next" in running.reason("t")
        await check_old_rows(running, position=9)


async def test_a_source_that_was_recreated_while_the_worker_ran_is_refused_and_the_old_rows_stay_readable(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 10))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await running.wait_position("t", 0, 9)
        await recreate(kafka, topic)
        await produce(kafka.bootstrap_servers, topic, [(b"k1", b'{"n":"of the new topic"}', 0)])

        await until(waits_because(running, "deleted and created again"), "the partition is refused")
        await check_old_rows(running, position=9)


@pytest.mark.parametrize("records", [3, 20], ids=["shorter", "longer"])
async def test_a_source_that_was_recreated_while_no_worker_ran_is_refused_and_the_old_rows_stay_readable(
    kafka: EmbeddedKafka, tmp_path: Path, records: int
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 10))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_position("t", 0, 9)
    await recreate(kafka, topic)
    await produce(kafka.bootstrap_servers, topic, [(b"k1", b'{"n":"of the new topic"}', 0)] * records)

    async with running_engine(kafka, tmp_path, definition, group) as running:
        await until(waits_because(running, "deleted and created again"), "the partition is refused")
        await check_old_rows(running, position=9)


def waits_because(running: RunningEngine, why: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        assert why in running.reason("t"), running.engine.local.statuses()
        return True

    return ask


async def check_old_rows(running: RunningEngine, position: int) -> None:
    """Check that rows are read as they were, labelled, and that no key is said to be missing."""

    async def read() -> ReadResult | None:
        try:
            return running.read("t", b"k1")
        except TooStale:  # before the first heartbeat
            return None

    found = await until(read, "old rows are readable")
    assert found.row is not None
    assert found.row.payload == b'{"n":1}'
    assert found.freshness.role is Role.SUSPENDED
    assert found.freshness.position == at(0, position)
    with pytest.raises(PartitionRestoring):
        running.read("t", b"never written")


async def recreate(kafka: EmbeddedKafka, topic: str) -> None:
    await delete_topic(kafka.bootstrap_servers, topic)

    async def created() -> bool:
        await create_topic(kafka.bootstrap_servers, topic, 1)
        return True

    await until(created, f"topic {topic} is created again")


async def delete_before(kafka: EmbeddedKafka, topic: str, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({KafkaPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_what_others_write_to_a_changelog_is_ignored_and_counted(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, rows(0, 10))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await produce(kafka.bootstrap_servers, f"{group}-t-changelog", [(b"\x01k1", b"not a row", 0)])
        await produce(kafka.bootstrap_servers, topic, rows(10, 20))

        await running.check_equal("t", 1)
        await running.wait_active(1)
        assert running.metric("tablehouse_foreign_changelog_writes_total", table="t") == 1
        assert running.read("t", b"k1").row is not None


async def test_two_tables_of_one_topic_hold_the_same_however_they_got_there(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, _ = await new_source(kafka, 2)
    await produce(kafka.bootstrap_servers, topic, rows(0, 9000, 300))
    async with running_engine(kafka, tmp_path, tables(table("old", topic)), group) as running:
        await running.check_equal("old", 2)
    await produce(kafka.bootstrap_servers, topic, rows(9000, 9100, 300))

    both = tables(table("old", topic), table("new", topic))
    async with running_engine(kafka, tmp_path, both, group) as running:
        await running.wait_active(4)
        await produce(kafka.bootstrap_servers, topic, rows(9100, 9300, 300))
        await running.check_equal("old", 2)
        await running.check_equal("new", 2)


async def test_the_brokers_clock_is_measured_again_and_again_whatever_fails_meanwhile(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [TimeoutError(), KafkaTimeoutError(), TopicError("altered"), AttributeError("of a library")]
    tries = 0

    async def measured(*arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if 1 < tries <= 1 + len(failures):
            raise failures[tries - 2]
        await measure(*arguments)

    monkeypatch.setattr(broker_time, "measure", measured)
    monkeypatch.setattr("tablehouse.worker.brokers.MEASURING_INTERVAL", 0.02)
    _, group, definition = await new_source(kafka)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        known = running.engine._broker_clock._ahead_ms

        async def again() -> bool:
            return tries > 1 + len(failures) and running.engine._broker_clock._ahead_ms != known

        await until(again, "the brokers' clock is measured after all failures")
        await running.wait_active(1)
