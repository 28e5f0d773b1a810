# ruff: noqa: SLF001 - errors are made where aiokafka makes them, and files of the broker are changed
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import RebalanceInProgressError, TopicAuthorizationFailedError
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from structlog.testing import capture_logs

import tablehouse.kafka.group_watch as module
from tablehouse.errors import PartitionRestoring
from tablehouse.http.health import Readiness
from tablehouse.kafka.group_watch import GroupFailed
from tablehouse.model import Role, TaskState, TopicPartition
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import produce, produce_with_codec
from tests.support.polling import until
from tests.support.worker import MakeWorker, make_worker

__all__ = ["make_worker"]

PARTITIONS = 4

#: So many that aiokafka hands out the spoilt partition before, between and after the others.
ROUNDS = 4


async def fill(kafka: EmbeddedKafka, topic: str, mark: str, count: int = 20) -> None:
    """Produce to every partition."""
    await produce(
        kafka.bootstrap_servers,
        topic,
        [
            (f"{mark}-{partition}-{number}".encode(), b'{"n":%d}' % number, partition)
            for number in range(count)
            for partition in range(PARTITIONS)
        ],
    )


# One partition that cannot be read


@contextlib.contextmanager
def corrupted(kafka: EmbeddedKafka, source: TopicPartition, value: bytes) -> Iterator[None]:
    """Spoil a record on the broker's disk, and mend it when the block ends."""
    (file,) = kafka._data_dir.glob(f"*/data/{source.topic}-{source.partition}/{0:020}.log")
    position = file.read_bytes().index(value)

    def write(data: bytes) -> None:
        with file.open("r+b") as opened:
            opened.seek(position)
            opened.write(data)

    write(b"#" * len(value))
    try:
        yield
    finally:
        write(value)


@contextlib.asynccontextmanager
async def lanes_paused(running: RunningEngine, topic: str) -> AsyncIterator[None]:
    """Have nothing fetched, and everything at once when the block ends."""
    sources = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    for source in sources:
        running.consumer.pause_lane(source)

    async def nothing_under_way() -> bool:
        return not running.consumer.client._fetcher._in_flight

    await until(nothing_under_way, "no fetch is under way")
    yield
    for source in sources:
        running.consumer.resume_lane(source)


async def test_a_corrupt_batch_holds_up_its_own_lane_alone_is_reported_once_and_nothing_is_passed_over(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    bad = TopicPartition(topic, 2)
    with capture_logs() as logged:
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(PARTITIONS)
            await fill(kafka, topic, "before")
            await wait_positions(running, 19)

            async def rebalanced() -> bool:
                return running.engine.health.generation() > 1

            # The records' keys lie where no partitioner has put them, of which all workers are told by a rebalance.
            # It starts the lanes once more, so it has to be over.
            await until(rebalanced, "the group has rebalanced")
            await running.wait_active(PARTITIONS)
            for attempt in range(ROUNDS):
                mark, end = f"round{attempt}", 39 + 20 * attempt
                with contextlib.ExitStack() as spoiling:
                    async with lanes_paused(running, topic):
                        await fill(kafka, topic, mark)
                        spoiling.enter_context(corrupted(kafka, bad, f"{mark}-2-0".encode()))
                    for partition in (0, 1, 3):
                        await running.wait_position("t", partition, end)
                    await until(tried_again(running, bad), "the corrupt partition is tried again")
                    assert positions(running)[2] == end - 20
                await wait_positions(running, end)
            await running.check_equal("t", PARTITIONS)

    outages = [line for line in logged if line["event"].startswith("a partition cannot be read")]
    assert [(line["source"], line["offset"]) for line in outages] == [(str(bad), 20 * (n + 1)) for n in range(ROUNDS)]
    assert all("CorruptRecord" in line["error"] and f"of {bad} cannot be read" in line["error"] for line in outages)
    over = [line["source"] for line in logged if line["event"] == "a partition can be read again"]
    assert over == [str(bad)] * ROUNDS


async def test_a_worker_that_starts_before_a_corrupt_batch_is_ready_without_that_partition_and_serves_its_rows(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    bad = TopicPartition(topic, 2)
    await fill(kafka, topic, "before")
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await wait_positions(running, 19)
    await fill(kafka, topic, "after")
    with corrupted(kafka, bad, b"after-2-0"):
        async with running_engine(kafka, tmp_path, definition, group) as running:
            readiness = Readiness(running.engine.health, running.engine.local.statuses, tuple)

            async def ready() -> bool:
                return bool(readiness.document(verbose=False)["status"] == "ready")

            await until(ready, "the worker is ready")
            states = running.states()
            assert {partition: states["t", partition] for partition in (0, 1, 3)} == dict.fromkeys(
                (0, 1, 3), TaskState.ACTIVE
            )

            async def served() -> bool:
                with contextlib.suppress(PartitionRestoring):
                    return running.read("t", b"before-2-7", 2).freshness.role is Role.SUSPENDED
                return False

            await until(served, "old rows of the partition are served")
            [reason] = [reason for reason in running.engine.health.reasons() if "is blocked" in reason]
            assert reason.startswith("partition 2 of table t is blocked")
            assert str(bad) in reason
            assert "CorruptRecord" in reason
            with pytest.raises(PartitionRestoring):
                running.read("t", b"after-2-7", 2)
            for partition in (0, 1, 3):
                await running.wait_position("t", partition, 39)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)
        await running.check_equal("t", PARTITIONS)


def positions(running: RunningEngine) -> dict[int, int]:
    return {task.partition: int(task.position) for task in running.engine.local.statuses()}


async def wait_positions(running: RunningEngine, offset: int) -> None:
    for partition in range(PARTITIONS):
        await running.wait_position("t", partition, offset)


def tried_again(running: RunningEngine, source: TopicPartition) -> Callable[[], Awaitable[bool]]:
    """Ask whether a lane was taken up once more, and waits again."""
    resumed: list[object] = []
    resume = running.consumer.client.resume

    def count(*partitions: object) -> None:
        resumed.extend(partition for partition in partitions if partition == source)
        resume(*partitions)

    running.consumer.client.resume = count

    async def ask() -> bool:
        return bool(resumed) and running.consumer._lane_fetcher._outages.waits(source)

    return ask


async def test_a_topic_that_may_not_be_read_any_more_is_tried_again_and_goes_on_when_it_may(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    source = TopicPartition(topic, 1)
    with capture_logs() as logged:
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(PARTITIONS)
            # What aiokafka does when a broker answers a fetch so.
            fetcher = running.consumer.client._fetcher
            fetcher._records.pop(KafkaPartition(*source), None)
            fetcher._set_error(KafkaPartition(*source), TopicAuthorizationFailedError(topic))
            for waiter in list(fetcher._fetch_waiters):
                fetcher._notify(waiter)

            async def waits() -> bool:
                return running.consumer._lane_fetcher._outages.waits(source)

            await until(waits, "its lane waits")
            assert "TopicAuthorizationFailedError" in running.reason("t", 1)

            async def over() -> bool:
                return all(task.reason is None for task in running.engine.local.statuses())

            # Also where no record comes: the broker answers again.
            await until(over, "nothing keeps the partition any more")
            await fill(kafka, topic, "on")
            await wait_positions(running, 19)
            await running.check_equal("t", PARTITIONS)
    (outage,) = [line for line in logged if line["event"].startswith("a partition cannot be read")]
    assert (outage["source"], outage["offset"]) == (str(source), 0)
    assert "TopicAuthorizationFailedError" in outage["error"]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_compressed_topics_become_tables_beside_the_lane_and_on_it(
    kafka: EmbeddedKafka, tmp_path: Path, codec: str
) -> None:
    topic, group, definition = await new_source(kafka, 1)
    await produce_with_codec(kafka.bootstrap_servers, topic, 0, codec, [b'"%d"' % n for n in range(6000)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        await produce_with_codec(kafka.bootstrap_servers, topic, 0, codec, [b'"%d"' % n for n in range(6000, 7000)])
        await running.check_equal("t", 1)
        assert running.metric("tablehouse_ingest_records_total", table="t") == 7000


# The group


@contextlib.asynccontextmanager
async def crashing_engine(
    kafka: EmbeddedKafka, tmp_path: Path, definition: str, group: str
) -> AsyncIterator[RunningEngine]:
    """Run an engine that may crash, which its end then raises again."""
    with contextlib.suppress(GroupFailed):
        async with running_engine(kafka, tmp_path, definition, group) as running:
            yield running


def crashed(running: RunningEngine) -> Callable[[], Awaitable[str | None]]:
    """Ask what the worker would end with."""

    async def ask() -> str | None:
        reason = running.engine.app._fetcher.crash_reason
        assert reason is None or isinstance(reason, GroupFailed), reason
        return None if reason is None else str(reason)

    return ask


async def test_a_group_that_is_not_of_workers_ends_the_worker_which_says_why(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    # With an assignor of its own kind.
    stranger = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, group_id=group)
    await stranger.start()
    try:
        worker = make_worker(kafka.bootstrap_servers, definition, group=group)
        worker.start()
        assert await worker.wait_exit() == 2
    finally:
        await stranger.stop()
    said = worker.log_text()
    last = said.splitlines()[-1]
    assert last.startswith(f"group {group} cannot be joined: InconsistentGroupProtocolError")
    assert last.endswith("another application uses this group; configure a different one (setting group)")
    assert not any(word in said for word in ("Traceback", "rash", "NoneType")), said


async def test_a_coordination_that_has_ended_ends_the_worker(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, group, definition = await new_source(kafka, PARTITIONS)
    async with crashing_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)
        coordinator = running.consumer.client._coordinator

        def fail(*_: object) -> None:
            raise LookupError("of an assignor")

        assert running.engine.membership is not None
        monkeypatch.setattr(running.engine.membership.assignor, "on_assignment", fail)
        coordinator.request_rejoin()
        reason = await until(crashed(running), "the worker crashes")
    assert reason == f"group {group}: coordination has ended: LookupError('of an assignor')"


async def test_fetching_that_has_ended_ends_the_worker(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    _, group, definition = await new_source(kafka, PARTITIONS)
    async with crashing_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)

        def fail(*_: object) -> None:
            raise LookupError("of a fetcher")

        running.consumer.client._fetcher._get_actions_per_node = fail
        reason = await until(crashed(running), "the worker crashes")
    assert reason == f"group {group}: fetching has ended: LookupError('of a fetcher')"


def answer_with_errors(running: RunningEngine, kind: type, code: int, times: int) -> Callable[[], int]:
    """Have the coordinator answer requests of a kind with an error; return a function that counts them."""
    coordinator, answered = running.consumer.client._coordinator, 0
    send = coordinator._send_req

    async def answer(request: Any) -> Any:
        nonlocal answered
        found = await send(request)
        if isinstance(request, kind) and answered < times:
            answered += 1
            found.error_code = code
        return found

    coordinator._send_req = answer
    return lambda: answered


async def test_an_odd_answer_of_the_coordinator_that_passes_ends_nothing(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka, PARTITIONS)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)
        generation = running.engine.health.generation()
        answered = answer_with_errors(running, JoinGroupRequest, RebalanceInProgressError.errno, 1)
        running.consumer.client._coordinator.request_rejoin()

        async def joined_again() -> bool:
            return running.engine.health.generation() > generation

        await until(joined_again, "the group has rebalanced")
        assert answered() == 1
        await running.wait_active(PARTITIONS)
        await fill(kafka, topic, "on")
        await running.check_equal("t", PARTITIONS)


async def test_odd_answers_of_the_coordinator_that_do_not_pass_end_the_worker(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNEXPECTED_TIMEOUT_SECONDS", 2.0)
    _, group, definition = await new_source(kafka, PARTITIONS)
    async with crashing_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(PARTITIONS)
        # -1, which aiokafka's heartbeat ends at for good.
        answer_with_errors(running, HeartbeatRequest, -1, 1)
        reason = await until(crashed(running), "the worker crashes")
    assert f"group {group}: only errors for " in reason
    assert "heartbeat" in reason
