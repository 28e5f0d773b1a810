# ruff: noqa: SLF001 - files of the broker are changed
"""Records that cannot be read: one partition waits, says so, and goes on when an operator passes them over."""

import asyncio
import contextlib
import json
import re
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from tablehouse.cli import main as cli
from tablehouse.errors import RequestError, WriteRefused
from tablehouse.kafka import lane_fetcher
from tablehouse.model import DEFAULT_CONSISTENCY, TaskState, TopicPartition
from tablehouse.tasks.questions import Applied
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.batches import spoil_head
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import produce
from tests.support.polling import until
from tests.support.worker import table, tables


async def fill(kafka: EmbeddedKafka, topic: str, *keys: str) -> None:
    """Produce each record in a batch of its own; its value tells it from all others."""
    for key in keys:
        await produce(kafka.bootstrap_servers, topic, [(key.encode(), b'"value of %s"' % key.encode(), 0)])


def spoil(kafka: EmbeddedKafka, topic: str, *keys: str) -> None:
    """Damage records on the broker's disk."""
    (file,) = kafka._data_dir.glob(f"*/data/{topic}-0/{0:020}.log")
    for key in keys:
        value = b'"value of %s"' % key.encode()
        with file.open("r+b") as opened:
            opened.seek(file.read_bytes().index(value))
            opened.write(b"#" * len(value))


async def command(kafka: EmbeddedKafka, group: str, *arguments: str) -> Result:
    given = [*arguments, "--bootstrap-servers", kafka.bootstrap_servers, "--group", group, "--timeout", "20"]
    return await asyncio.to_thread(CliRunner().invoke, cli.main, given)


async def skip(kafka: EmbeddedKafka, group: str, topic: str, first: int, last: int, partition: int = 0) -> Result:
    where = ["--topic", topic, "--partition", str(partition), "--from", str(first), "--to", str(last)]
    return await command(kafka, group, "skip", *where)


def waits(running: RunningEngine, problem: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        statuses = running.engine.local.statuses()
        assert statuses, "there are no tasks"
        assert all(status.blocked and problem in (status.reason or "") for status in statuses), statuses
        return True

    return ask


def refuses_writes(running: RunningEngine, table: str, problem: str) -> None:
    with pytest.raises(WriteRefused) as refused:
        running.engine.local.answer(table, 0, Applied(), DEFAULT_CONSISTENCY)
    assert f"nothing was written to partition 0 of table {table}" in refused.value.detail
    assert problem in refused.value.detail
    assert "skip them with `tablehouse skip`" in refused.value.detail
    assert refused.value.retry_after == 60


def shows_old_rows(running: RunningEngine) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        assert set(running.states().values()) == {TaskState.SUSPENDED}, running.states()
        return True

    return ask


async def test_records_that_cannot_be_read_hold_up_their_partition_until_an_operator_passes_them_over(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, _ = await new_source(kafka)
    definition = tables(table("t", topic, on_error="stop"), table("u", topic))
    await fill(kafka, topic, "first", "gone", "gone too", "last")
    spoil(kafka, topic, "gone", "gone too")
    problem = f"offset 1 of {topic}[0] cannot be read"
    with capture_logs() as logged:
        async with running_engine(kafka, tmp_path, definition, group) as running:
            running.metrics.watch_tasks(running.engine.local.statuses)
            await until(waits(running, problem), "both tables wait")
            await until(shows_old_rows(running), "rows of before are shown")
            assert (await row(running, b"first")) is not None
            await running.metrics.exposition()
            assert running.metric("tablehouse_partition_blocked", table="t", partition="0") == 1
            for name in "tu":
                refuses_writes(running, name, problem)
            (one, other) = [reason for reason in running.engine.health.reasons() if problem in reason]
            assert one.startswith("partition 0 of table t is blocked:")
            assert other.startswith("partition 0 of table u is blocked:")

            # Only what cannot be read is passed over, and all of it.
            for first, last, why in (
                (0, 1, "offset 0 of .* can be read"),
                (1, 3, "offset 3 of .* can be read"),
                (3, 3, "offset 3 of .* can be read"),
                (1, 9, "has offsets 0 to 3"),
            ):
                refused = await skip(kafka, group, topic, first, last)
                assert refused.exit_code == 1, refused.output
                assert re.search(why, refused.stderr), refused.stderr
            refused = await skip(kafka, group, topic, 2, 1)
            assert (refused.exit_code, "2 is greater than --to, which is 1" in refused.stderr) == (2, True)
            refused = await skip(kafka, group, f"{group}-t-changelog", 0, 0)
            assert "is a changelog" in refused.stderr, refused.output
            assert running.states() == {("t", 0): TaskState.SUSPENDED, ("u", 0): TaskState.SUSPENDED}

            skipped = await skip(kafka, group, topic, 1, 2)
            assert skipped.exit_code == 0, skipped.output
            for first in (1, 2):
                again = await skip(kafka, group, topic, first, 2)
                assert (again.exit_code, again.stdout) == (0, f"already decided: {skipped.stdout}")
            await running.wait_active(2)
            await running.wait_position("t", 0, 3)
            assert all(running.read(name, b"last").row is not None for name in "tu")
            assert all(running.read(name, b"gone").row is None for name in "tu")
            await running.metrics.exposition()
            assert running.metric("tablehouse_partition_blocked", table="t", partition="0") == 0
            for name in "tu":
                running.engine.local.answer(name, 0, Applied(), DEFAULT_CONSISTENCY)
    over = [line for line in logged if line["event"].startswith("unreadable offsets are skipped")]
    assert {(line["source"], line["first"], line["last"]) for line in over} == {
        (f"{topic}[0]", 1, 1),
        (f"{topic}[0]", 2, 2),
    }

    # A letter says so, which holds nothing that could be replayed.
    listed = json.loads((await command(kafka, group, "dead-letters", "list", "--json")).stdout)
    assert (listed["table"], listed["reason"], listed["record"]) == ("*", "unreadable", f"{topic}:0:1")
    assert listed["detail"].startswith("offsets 1 to 2 are skipped, as decided by an operator: offset 1 of")
    replayed = await command(kafka, group, "dead-letters", "replay", "--all")
    assert replayed.exit_code == 1
    assert "left alone: it cannot be read" in replayed.stderr

    # Every table that is built later passes over the same offsets, also when it catches up next to the lane.
    more = tables(table("t", topic, on_error="stop"), table("u", topic), table("v", topic))
    async with running_engine(kafka, tmp_path, more, group) as running:
        await running.wait_active(3)
        assert running.read("v", b"last").row is not None


async def test_a_partition_that_comes_to_unreadable_records_under_way_stays_active_and_says_so(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await fill(kafka, topic, "first")
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await running.wait_position("t", 0, 0)
        running.consumer.pause_lane(TopicPartition(topic, 0))

        async def nothing_under_way() -> bool:
            return not running.consumer.client._fetcher._in_flight

        await until(nothing_under_way, "no fetch is under way")
        await fill(kafka, topic, "gone", "last")
        spoil(kafka, topic, "gone")
        running.consumer.resume_lane(TopicPartition(topic, 0))
        await until(waits(running, f"offset 1 of {topic}[0] cannot be read"), "the partition waits")
        assert running.states() == {("t", 0): TaskState.ACTIVE}
        refuses_writes(running, "t", f"offset 1 of {topic}[0] cannot be read")
        assert (await skip(kafka, group, topic, 1, 1)).exit_code == 0
        await running.wait_position("t", 0, 2)
        assert running.read("t", b"last").row is not None
        assert not running.reason("t")
        running.engine.local.answer("t", 0, Applied(), DEFAULT_CONSISTENCY)

    # What was applied last is looked at after a restart, to see whether the source is still the same.
    spoil(kafka, topic, "last")
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await until(waits(running, f"offset 2 of {topic}[0] cannot be read"), "the partition waits")
        assert running.states() == {("t", 0): TaskState.SUSPENDED}
        assert (await skip(kafka, group, topic, 2, 2)).exit_code == 0
        await running.wait_active(1)
        assert running.read("t", b"last").row is not None


@pytest.mark.parametrize(
    ("at", "data", "problem"),
    [
        (0, struct.pack(">q", 77), r"offsets 1 to 2 of \S+ cannot be read: .* beyond the end of the log"),
        (8, struct.pack(">i", 5), r"offset 1 of \S+ cannot be read: .* the broker cannot read it"),
        (8, struct.pack(">i", 1 << 20), r"has sent no records from offset 1 of \S+ for 0.5 s, .* ends at offset 2"),
    ],
    ids=["its offset", "too short", "too long"],
)
async def test_a_batch_whose_head_is_damaged_holds_up_its_partition_which_says_so(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, data: bytes, problem: str
) -> None:
    monkeypatch.setattr(lane_fetcher, "SILENCE_SECONDS", 0.5)
    topic, group, definition = await new_source(kafka)
    await fill(kafka, topic, "first", "gone", "last")
    spoil_head(kafka, topic, 1, at, data)
    async with running_engine(kafka, tmp_path, definition, group) as running:

        async def told() -> bool:
            assert re.search(problem, running.reason("t")), running.engine.local.statuses()
            return True

        await until(told, "the partition waits")
        await until(shows_old_rows(running), "rows of before are shown")
        assert (await row(running, b"first")) is not None


async def row(running: RunningEngine, key: bytes) -> object:
    """Return a row, once the worker has a lease."""

    async def read() -> object:
        with contextlib.suppress(RequestError):
            return running.read("t", key).row
        return None

    return await until(read, "the row can be read")


async def test_a_changelog_that_cannot_be_read_keeps_its_partition_and_no_worker(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await fill(kafka, topic, "first")
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await running.wait_position("t", 0, 0)
    changelog = f"{group}-t-changelog"
    spoil(kafka, changelog, "first")
    async with running_engine(kafka, tmp_path / "new", definition, group) as running:
        await until(waits(running, f"of {changelog}[0] cannot be read"), "the partition waits")
        assert running.states() == {("t", 0): TaskState.RESTORING}
        (reason,) = running.engine.health.reasons()
        assert reason.startswith("partition 0 of table t is blocked: the log cannot be read: offset")
        assert "give the table a new version" in reason
        with pytest.raises(WriteRefused, match="give the table a new version"):
            running.engine.local.answer("t", 0, Applied(), DEFAULT_CONSISTENCY)
    # A copy that has applied it needs it no more.
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
