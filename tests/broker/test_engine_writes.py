"""Writes through the engine of a worker, with a broker behind it that comes and goes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tablehouse.errors import DeadlineExceeded, MisplacedKeys, RequestError, SourceUnavailable
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import Consistency, ProducerRecord
from tablehouse.tasks.questions import Get, MultiGet
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.positions import at
from tests.support.worker import table, tables


async def new_table(
    kafka: EmbeddedKafka, partitions: int = 1, settings: Mapping[str, str] | None = None
) -> tuple[str, str, str]:
    """Create a source topic; return it, a group, and a definition of the writable table `t` over it."""
    topic = unique("written")
    await create_topic(kafka.bootstrap_servers, topic, partitions, settings)
    return topic, unique("group"), tables(table("t", topic) + "    writable: true\n")


async def test_what_is_written_becomes_a_row_and_a_tombstone_deletes_it(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    _, group, definition = await new_table(kafka, 2)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        engine, place = running.engine, partition_of("murmur2", b"k", 2)
        for value in (b'{"n":1}', None, b'{"n":2}'):
            offset = await engine.local.append("t", place, ProducerRecord(b"k", value), 10.0)
            await engine.local.wait_for_position("t", place, at(place, offset), 10.0)
            seen = engine.local.answer("t", place, Get(b"k"), Consistency(min_position=at(place, offset)))
            assert (None if seen.row is None else seen.row.payload) == value
            assert seen.row is None or seen.row.offset == offset
        many = engine.local.answer("t", place, MultiGet([b"none", b"k"]), Consistency())
        assert many.payloads == [None, b'{"n":2}']
        await running.check_equal("t", 2)


async def test_the_limit_is_the_topic_s_and_a_worker_that_reached_no_broker_yet_has_none(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    _, group, definition = await new_table(kafka, settings={"max.message.bytes": "54321"})
    idle = RunningEngine(kafka, tmp_path / "idle", definition, unique("idle"))
    with pytest.raises(SourceUnavailable, match="no broker"):
        idle.engine.local.limit("t")
    with pytest.raises(SourceUnavailable, match="no broker"):
        await idle.engine.local.append("t", 0, ProducerRecord(b"k", b"1"), 1.0)
    idle.engine._directory.release()  # noqa: SLF001 - the engine was not started, so stopping it does not
    async with running_engine(kafka, tmp_path / "running", definition, group) as running:
        assert running.engine.local.limit("t") == 54321


async def test_while_nobody_knows_where_keys_belong_nothing_is_written(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_table(kafka, 2)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
        place = partition_of("murmur2", b"k", 2)
        await produce(kafka.bootstrap_servers, topic, [(b"k", b"1", 1 - place)])

        async def doubted() -> bool:
            return running.metric("tablehouse_misses_in_doubt", table="t") == 1

        await until(doubted, "the misplaced key is found")
        with pytest.raises(MisplacedKeys, match="nothing was written") as refused:
            await running.engine.local.append("t", place, ProducerRecord(b"k", b"2"), 10.0)
        assert refused.value.retry_after == 60


async def test_a_paused_broker_delays_an_answer_no_longer_than_the_request_and_the_engine_s_end_no_longer_than_itself(
    rough_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    _, group, definition = await new_table(rough_kafka)
    async with running_engine(rough_kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        offset = await running.engine.local.append("t", 0, ProducerRecord(b"k", b"1"), 10.0)
        await running.engine.local.wait_for_position("t", 0, at(0, offset), 10.0)
        rough_kafka.pause()
        writes = [
            running.engine.local.append("t", 0, ProducerRecord(b"k%d" % number, b"2"), 0.5) for number in range(20)
        ]
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(outcome, (DeadlineExceeded, SourceUnavailable)) for outcome in outcomes), outcomes
        rough_kafka.resume()

        async def written() -> bool:
            try:
                after = await running.engine.local.append("t", 0, ProducerRecord(b"k", b"3"), 2.0)
            except RequestError as error:
                raise AssertionError(error.detail) from None
            await running.engine.local.wait_for_position("t", 0, at(0, after), 10.0)
            return True

        await until(written, "writes go on", 60.0)
        assert running.read("t", b"k").row is not None
        unknown = [isinstance(outcome, DeadlineExceeded) for outcome in outcomes]
        for number, is_unknown in enumerate(unknown):
            # Whatever was said not to be written is not there.
            if not is_unknown:
                assert running.read("t", b"k%d" % number).row is None
        await running.check_equal("t", 1)
