"""Records that cannot be rows, on a real broker: dead letters, stops, kills in between, and a topic that is gone."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tablehouse.errors import PartitionRestoring, WriteRefused
from tablehouse.kafka.client import Connection
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.topic_plan import dead_letters
from tablehouse.kafka.topics import DeadLetterTopic
from tablehouse.model import DEFAULT_CONSISTENCY, Role, TaskState, TopicPartition
from tablehouse.tasks.dead_letters import DeadLetter, LettersUndelivered, read_letter
from tablehouse.tasks.ingest import BadRecord
from tablehouse.tasks.log import BrokerClock
from tablehouse.tasks.questions import Applied
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.simulated.broker import Record
from tests.support.dead_letters import Letter, letters
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import BROKERS_CLOCK, ShiftedClock, create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.positions import at
from tests.support.topics import alter_topic, partitions_of
from tests.support.worker import MakeWorker, make_worker, table, tables

__all__ = ["make_worker"]

HEADERS = [("trace", b"\x00\xff"), ("trace", b"2"), ("empty", b"")]


async def new_source(kafka: EmbeddedKafka, partitions: int = 1) -> tuple[str, str]:
    """Create a source topic; return it and a group."""
    topic = unique("source")
    await create_topic(kafka.bootstrap_servers, topic, partitions)
    return topic, unique("group")


async def produce_one(
    kafka: EmbeddedKafka,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]] | None = None,
    compression: str | None = None,
) -> int:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        compression_type=compression,
        max_batch_size=16_000_000,
        max_request_size=16_000_000,
    )
    await producer.start()
    try:
        acknowledged = await producer.send_and_wait(topic, key=key, value=value, partition=0, headers=headers)
        return int(acknowledged.offset)
    finally:
        await producer.stop()


async def test_a_letter_has_the_record_as_it_was_and_the_error_and_the_table_goes_on(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group = await new_source(kafka)
    bootstrap = kafka.bootstrap_servers
    await produce(bootstrap, topic, [(b"first", b"{}", 0), (b"\xff\xfe", b"{}", 0), (None, b"{}", 0)])
    await produce_one(kafka, topic, b"bad", b"{not json", HEADERS)
    await produce_one(kafka, topic, b"huge", b'"' + b"x" * 3_000_000 + b'"', compression="gzip")
    await produce(bootstrap, topic, [(b"last", b"{}", 0)])
    definition = tables(table("t", topic), table("u", topic, value="bytes"))
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        await running.wait_position("t", 0, 5)
        await running.wait_position("u", 0, 5)
        for reason in ("null_key", "undecodable_key", "undecodable_value", "oversized"):
            assert running.metric("tablehouse_dead_letters_total", table="t", reason=reason) == 1, reason
            assert running.metric("tablehouse_records_skipped_total", table="t", reason=reason) == 0
        assert running.read("t", b"last").row is not None
        assert running.read("t", b"bad").row is None
    found = await letters(bootstrap, f"{group}-dead-letters")
    assert [one.origin for one in found if one.origin[0] == "t"] == [("t", topic, offset) for offset in (1, 2, 3, 4)]
    assert [one.origin for one in found if one.origin[0] == "u"] == [("u", topic, offset) for offset in (1, 2, 4)]
    key, missing, value, huge = (one for one in found if one.origin[0] == "t")
    assert (key.key, key.value, missing.key, missing.value) == (b"\xff\xfe", b"{}", None, b"{}")
    assert (value.key, value.value, list(value.headers[:3])) == (b"bad", b"{not json", HEADERS)
    assert (huge.key, len(huge.value or b"")) == (b"huge", 3_000_002)
    assert value.header("__connect.errors.stage") == "VALUE_CONVERTER"
    assert "JSON" in value.header("__connect.errors.exception.message")
    assert (value.header("__tablehouse.errors.reason"), value.header("__tablehouse.errors.group")) == (
        "undecodable_value",
        group,
    )


async def test_a_record_without_key_and_value_has_a_letter(kafka: EmbeddedKafka) -> None:
    topic = unique("letters")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    writing = writer(kafka, topic)
    await writing.start()
    bad = BadRecord(Record(0, 1, None, None), "null_key", "a row needs a key")
    try:
        await writing.send([DeadLetter("t", TopicPartition("source", 0), bad)])
    finally:
        await writing.stop()
    [letter] = await letters(kafka.bootstrap_servers, topic)
    assert (letter.key, letter.value) == (None, None)


async def test_a_letter_has_the_brokers_time_and_not_its_machine_s(kafka: EmbeddedKafka) -> None:
    topic = unique("letters")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    writing, before = writer(kafka, topic, clock=ShiftedClock(-3)), ShiftedClock(-3).now_ms()
    await writing.start()
    try:
        await writing.send([letter_of(0, b"v")])
    finally:
        await writing.stop()
    [letter] = await letters(kafka.bootstrap_servers, topic)
    for time_ms in (letter.timestamp_ms, int(letter.header("__tablehouse.errors.time"))):
        assert before <= time_ms <= ShiftedClock(-3).now_ms()


def writer(
    kafka: EmbeddedKafka,
    topic: str,
    partitions: int = 1,
    limit: int = 1_000_000,
    clock: BrokerClock = BROKERS_CLOCK,
) -> KafkaDeadLetters:
    there = DeadLetterTopic(dead_letters(topic, 1, 10_000, {}), partitions, limit)
    return KafkaDeadLetters(Connection(kafka.bootstrap_servers, "w"), there, "group", "w", clock)


def letter_of(offset: int, value: bytes, key: bytes = b"k", partition: int = 0) -> DeadLetter:
    record = Record(offset, 1, key, value, (("own", b"1"),))
    return DeadLetter("t", TopicPartition("source", partition), BadRecord(record, "undecodable_value", "bad"))


@pytest.mark.parametrize("known_limit", [20_000, 5_000_000], ids=["as it is", "as it was"])
async def test_what_the_topic_does_not_take_is_dropped_with_its_size_and_its_neighbours_are_whole(
    kafka: EmbeddedKafka, known_limit: int
) -> None:
    topic = unique("letters")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": "20000"})
    writing = writer(kafka, topic, limit=known_limit)
    await writing.start()
    try:
        await writing.send(
            [
                letter_of(0, b"small"),
                letter_of(1, b"v" * 30_000),
                letter_of(2, b"v", b"k" * 30_000),
                letter_of(3, b"small too"),
            ]
        )
    finally:
        await writing.stop()
    found = [read_letter(0, Read(one)) for one in await letters(kafka.bootstrap_servers, topic)]
    by_offset = {one.source_offset: one for one in found if one is not None}
    assert sorted(by_offset) == [0, 1, 2, 3]
    assert (by_offset[0].original.value, by_offset[3].original.value) == (b"small", b"small too")
    assert (by_offset[1].original.key, by_offset[1].original.value, by_offset[1].dropped) == (
        b"k",
        None,
        {"value": 30_000},
    )
    assert by_offset[2].dropped == {"value": 1, "key": 30_000, "headers": 4}


class Read:
    """A letter as read_letter() takes it."""

    def __init__(self, letter: Letter) -> None:
        self.offset, self.timestamp = letter.offset, 0
        self.key, self.value, self.headers = letter.key, letter.value, letter.headers


async def test_letters_of_one_source_partition_keep_their_order_and_many_are_written(kafka: EmbeddedKafka) -> None:
    topic = unique("letters")
    await create_topic(kafka.bootstrap_servers, topic, 3)
    writing = writer(kafka, topic, 3)
    await writing.start()
    try:
        await asyncio.gather(
            *(
                writing.send([letter_of(offset, b"v" * 500, partition=partition) for offset in range(2000)])
                for partition in range(5)
            )
        )
    finally:
        await writing.stop()
    for place in range(3):
        found = await letters(kafka.bootstrap_servers, topic, place)
        for partition in range(place, 5, 3):
            of_it = [one for one in found if one.header("__connect.errors.partition") == str(partition)]
            assert [one.origin[2] for one in of_it] == list(range(2000))


async def test_a_writer_whose_broker_stands_still_says_so_in_time_and_writes_again_later(
    rough_kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tablehouse.kafka.dead_letters.SEND_TIMEOUT", 1.0)
    topic = unique("letters")
    await create_topic(rough_kafka.bootstrap_servers, topic, 1)
    writing = writer(rough_kafka, topic)
    await writing.start()
    try:
        await writing.send([letter_of(0, b"v")])
        rough_kafka.pause()
        for _ in range(3):
            with pytest.raises(LettersUndelivered):
                await writing.send([letter_of(1, b"v")])
        rough_kafka.resume()

        async def written() -> bool:
            try:
                await writing.send([letter_of(1, b"v")])
            except LettersUndelivered:
                return False
            return True

        await until(written, "letters are written again")
    finally:
        await writing.stop()
    assert {one.origin[2] for one in await letters(rough_kafka.bootstrap_servers, topic)} == {0, 1}


async def test_a_worker_that_is_killed_while_it_writes_letters_leaves_none_out(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = await new_source(kafka)
    bootstrap, total = kafka.bootstrap_servers, 30_000
    worker = make_worker(bootstrap, tables(table("t", topic)), group=group)
    await produce(bootstrap, topic, [(b"k%d" % (at % 50), b"!" if at % 3 else b"%d" % at, 0) for at in range(total)])
    worker.start()
    kills = 0

    async def caught_up() -> bool:
        nonlocal kills
        tasks = await worker.tasks()
        if any(task["position"] == total - 1 for task in tasks):
            return True
        if kills < 5 and len(await letters(bootstrap, f"{group}-dead-letters")) > kills * 3000:
            kills += 1
            worker.kill()
            worker.start()
        return False

    await until(caught_up, "everything is applied", 120)
    assert kills > 0
    found = await letters(bootstrap, f"{group}-dead-letters")
    assert {one.origin[2] for one in found} == {at for at in range(total) if at % 3}
    assert await worker.metric("tablehouse_records_skipped_total") == 0
    assert (await worker.get("/tables/t/k48")).body == b"%d" % max(at for at in range(0, total, 3) if at % 50 == 48)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what asyncio has logged, exceptions that nothing has asked for included."""

    def lines() -> list[str]:
        gc.collect()
        return [record.getMessage() for record in caplog.records if record.name == "asyncio"]

    return lines


async def test_a_dead_letter_topic_that_was_deleted_is_created_again_and_has_the_letters_that_waited(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("tablehouse.kafka.dead_letters.SEND_TIMEOUT", 2.0)
    topic, group = await new_source(kafka)
    bootstrap, name = kafka.bootstrap_servers, f"{group}-dead-letters"
    await create_topic(bootstrap, name, 4)
    definition = tables(table("t", topic), table("sibling", topic, on_error="skip"))
    await produce(bootstrap, topic, [(b"a", b"1", 0), (None, b"1", 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        await running.wait_position("t", 0, 1)
        await delete_topic(kafka.bootstrap_servers, name)
        await produce(bootstrap, topic, [(None, b"1", 0), (b"b", b"2", 0)])
        await running.wait_position("sibling", 0, 3)
        await running.wait_position("t", 0, 3)
        await running.wait_active(2)
        assert running.metric("tablehouse_dead_letter_errors_total", table="t") >= 1
    # As a worker creates it, and not with the partitions that it had.
    assert len(await partitions_of(kafka, name)) == 1
    assert {one.origin for one in await letters(bootstrap, name)} == {("t", topic, 2)}
    assert logged() == []


async def test_a_partition_waits_while_its_dead_letter_topic_cannot_be_used_and_says_what_to_do(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("tablehouse.kafka.dead_letters.SEND_TIMEOUT", 2.0)
    topic, group = await new_source(kafka)
    bootstrap, name = kafka.bootstrap_servers, f"{group}-dead-letters"
    definition = tables(table("t", topic), table("sibling", topic, on_error="skip"))
    await produce(bootstrap, topic, [(b"a", b"1", 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        # A compacted topic takes no letter of a record without a key.
        await alter_topic(kafka, name, {"cleanup.policy": "compact"})
        await produce(bootstrap, topic, [(None, b"1", 0), (b"b", b"2", 0)])
        wrong = f"the dead letters cannot be written: dead-letter topic {name}: cleanup.policy is compact and must be "
        await until(waits_because(running, wrong), "it says so")
        assert "kafka-configs.sh" in running.reason("t")
        with pytest.raises(WriteRefused, match=f"no read would show it: the dead letters cannot be written: .*{name}"):
            running.engine.local.answer("t", 0, Applied(), DEFAULT_CONSISTENCY)
        running.engine.local.answer("sibling", 0, Applied(), DEFAULT_CONSISTENCY)
        await running.wait_position("sibling", 0, 2)
        assert running.states()["sibling", 0] is TaskState.ACTIVE
        assert running.read("t", b"a").freshness.position == at(0, 0)
        await alter_topic(kafka, name, {"cleanup.policy": "delete"})
        await running.wait_position("t", 0, 2)
        await running.wait_active(2)
        running.engine.local.answer("t", 0, Applied(), DEFAULT_CONSISTENCY)
    assert {one.origin for one in await letters(bootstrap, name)} == {("t", topic, 1)}
    assert logged() == []


async def test_nothing_is_logged_of_letters_that_are_given_up(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr("tablehouse.kafka.dead_letters.SEND_TIMEOUT", 2.0)
    topic = unique("letters")
    await create_topic(kafka.bootstrap_servers, topic, 1, {"max.message.bytes": "100000"})
    writing = writer(kafka, topic, limit=100_000)
    await writing.start()
    await writing.send([letter_of(0, b"v")])
    await delete_topic(kafka.bootstrap_servers, topic)
    with pytest.raises(LettersUndelivered, match=f"no acknowledgement from {topic} within 2 s"):
        await writing.send([letter_of(offset, b"v" * 60_000) for offset in range(4)])
    await writing.stop()
    assert logged() == []


def waits_because(running: RunningEngine, why: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        assert why in running.reason("t"), running.engine.local.statuses()
        return True

    return ask


def in_states(running: RunningEngine, **states: TaskState) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        assert running.states() == {(name, 0): state for name, state in states.items()}
        return True

    return ask


async def test_a_stopped_partition_is_read_as_far_as_it_is_and_goes_on_with_another_definition(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0), (b"b", b"!", 0), (b"c", b"3", 0)])
    definition = tables(table("t", topic, on_error="stop"), table("sibling", topic, value="bytes"))
    for _ in range(2):
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await until(waits_because(running, "stopped by on_error: offset 1 of"), "it has stopped")
            await running.wait_position("sibling", 0, 2)
            await until(in_states(running, t=TaskState.SUSPENDED, sibling=TaskState.ACTIVE), "the sibling goes on")
            [reason] = running.engine.health.reasons()
            assert reason.startswith(f"partition 0 of table t is blocked: stopped by on_error: offset 1 of {topic}[0]")
            found = running.read("t", b"a")
            assert found.row is not None
            assert (found.freshness.role, found.freshness.lag_records) == (Role.SUSPENDED, 2)
            with pytest.raises(PartitionRestoring, match="stopped by on_error"):
                running.read("t", b"c")
            with pytest.raises(WriteRefused, match=f"stopped by on_error: offset 1 of {topic}"):
                running.engine.local.answer("t", 0, Applied(), DEFAULT_CONSISTENCY)
            running.engine.local.answer("sibling", 0, Applied(), DEFAULT_CONSISTENCY)
    passing = tables(table("t", topic, on_error="dead_letter"), table("sibling", topic, value="bytes"))
    async with running_engine(kafka, tmp_path, passing, group) as running:
        await running.wait_active(2)
        assert running.read("t", b"c").row is not None
        assert running.engine.health.reasons() == []
    assert [one.origin for one in await letters(kafka.bootstrap_servers, f"{group}-dead-letters")] == [("t", topic, 1)]
