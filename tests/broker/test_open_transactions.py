# ruff: noqa: SLF001 - a producer is closed as a kill closes it
"""A source in which a producer has died in a transaction: what others write is there, and no reader gets it."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tablehouse.errors import PartitionRestoring, PositionNotReached, TooStale
from tablehouse.model import Consistency, TaskStatus
from tablehouse.tasks.open_transactions import HELD_BACK_TIMEOUT_SECONDS
from tablehouse.tasks.questions import Get
from tablehouse.tasks.source_ends import SOURCE_ENDS_INTERVAL
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.batches import spoil_head
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import produce, unique
from tests.support.polling import until
from tests.support.positions import at


def transactional(kafka: EmbeddedKafka, transactional_id: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=transactional_id, transaction_timeout_ms=600_000
    )


@asynccontextmanager
async def abandoned_transaction(kafka: EmbeddedKafka, topic: str) -> AsyncIterator[str]:
    """Begin a transaction, send a record, and leave it open; it is aborted at the end. Yields its transactional id."""
    transactional_id = unique("transaction")

    dying = transactional(kafka, transactional_id)
    await dying.start()
    await dying.begin_transaction()
    await dying.send_and_wait(topic, key=b"x", value=b"9", partition=0)
    # Closed as a process that is killed leaves it: without a word to the coordinator.
    await dying._sender.close()
    await dying.client.close()
    dying._closed = True
    try:
        yield transactional_id
    finally:
        # A new producer of the same id has the coordinator abort what the one before left open.
        async with transactional(kafka, transactional_id):
            pass


def status(running: RunningEngine) -> TaskStatus:
    (found,) = running.engine.local.statuses()
    return found


async def test_labels_bounds_and_misses_tell_of_what_an_abandoned_transaction_holds_back(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)

        async def caught_up() -> bool:
            return running.read("t", b"a").freshness.lag_records == 0

        await until(caught_up, "nothing is behind")
        async with abandoned_transaction(kafka, topic):
            await produce(kafka.bootstrap_servers, topic, [(b"a", b"2", 0), (b"new", b"1", 0)])

            async def held_back() -> bool:
                return status(running).reason is not None

            await until(held_back, "the worker knows what is held back")
            assert f"an open transaction holds back 3 offsets of {topic}[0] from 1 on" in str(status(running).reason)
            seen = running.read("t", b"a")
            assert seen.row is not None
            assert (seen.row.payload, seen.freshness.position, seen.freshness.lag_records) == (b"1", at(0, 0), 3)
            for bound in (Consistency(max_lag=0), Consistency(max_staleness_ms=1_000)):
                with pytest.raises(TooStale):
                    running.engine.local.answer("t", 0, Get(b"a"), bound)
            with pytest.raises(PartitionRestoring, match="open transaction"):
                running.read("t", b"new")
            with pytest.raises(PositionNotReached, match="open transaction"):
                await running.engine.local.wait_for_position("t", 0, at(0, 2), 0.1)
            reasons = list(running.engine.health.reasons())
            assert any("open transaction" in reason and "table t" in reason for reason in reasons), reasons

        # Aborted, it holds nothing back, and leaves nothing.
        await running.wait_position("t", 0, 3)
        await until(caught_up, "nothing is behind any more")
        seen = running.read("t", b"a")
        assert seen.row is not None
        assert seen.row.payload == b"2"
        assert running.read("t", b"new").row is not None
        assert running.read("t", b"x").row is None
        assert status(running).reason is None


async def test_what_only_an_open_transaction_has_written_is_no_row_yet_and_keys_without_one_are_missing(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(1)
        async with abandoned_transaction(kafka, topic):

            async def open_for_long() -> bool:
                return status(running).held_back_seconds > HELD_BACK_TIMEOUT_SECONDS

            await until(open_for_long, "the transaction has been open for long")
            seen = running.read("t", b"never")
            assert (seen.row, seen.freshness.lag_records) == (None, 1)
            # One that is committed behind it is there for good.
            async with transactional(kafka, unique("transaction")) as producer, producer.transaction():
                await producer.send_and_wait(topic, key=b"new", value=b"1", partition=0)

            async def in_doubt() -> bool:
                return status(running).reason is not None

            await until(in_doubt, "a committed record is held back")
            with pytest.raises(PartitionRestoring, match="open transaction"):
                running.read("t", b"new")


async def test_a_worker_that_starts_in_an_abandoned_transaction_serves_rows_and_calls_nothing_missing(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0)])
    async with abandoned_transaction(kafka, topic):
        await produce(kafka.bootstrap_servers, topic, [(b"new", b"1", 0)])
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(1)
            seen = running.read("t", b"a")
            assert seen.row is not None
            assert (seen.freshness.lag_records, seen.freshness.staleness_ms) == (2, None)
            for key in (b"new", b"never"):
                with pytest.raises(PartitionRestoring, match="open transaction"):
                    running.read("t", key)


async def test_a_damaged_batch_of_an_open_transaction_ends_no_worker(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"a", b"1", 0)])
    async with abandoned_transaction(kafka, topic):
        # The length of the batch, which its checksum does not cover.
        spoil_head(kafka, topic, 1, 8, struct.pack(">i", 3))
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(1)

            async def looked_at_twice() -> bool:
                return status(running).held_back_seconds > 2 * SOURCE_ENDS_INTERVAL

            await until(looked_at_twice, "what is held back is looked at again and again")
            assert running.engine.health.trouble is None
            assert running.read("t", b"a").row is not None
