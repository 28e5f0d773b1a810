# ruff: noqa: SLF001 - what a worker is warming up, and when it looks whether it has
import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tablehouse.worker.membership as module
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.model import ShardId, TaskState, TopicPartition
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import table, tables

PARTITIONS = 2
HOUR = 3600.0

#: So that a worker which has nothing is cold, as it would be over a topic of usual size.
ACCEPTABLE_LAG = 10


class Clock:
    """Stands for the engines' clock: it moves when a test says so, and counts by task how often it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = Counter[asyncio.Task[Any] | None]()

    def __call__(self) -> float:
        """Return the time."""
        self.looks[asyncio.current_task()] += 1
        return self.now


class Restoring:
    """Has what one worker reads of any log wait until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, others: RunningEngine) -> None:
        self.go_on = asyncio.Event()
        others_readers = [client for client in others.engine._open_clients if isinstance(client, KafkaLogReader)]
        read = KafkaLogReader.read

        @contextlib.asynccontextmanager
        async def held(reader: KafkaLogReader, partition: TopicPartition, offset: int) -> AsyncIterator[Any]:
            if reader not in others_readers:
                await self.go_on.wait()
            async with read(reader, partition, offset) as cursor:
                yield cursor

        monkeypatch.setattr(KafkaLogReader, "read", held)


class Joiner:
    """A worker that restores what it is to take over, and how often it asked for it."""

    def __init__(self, running: RunningEngine, clock: Clock) -> None:
        self._running, self._clock = running, clock
        self.asked = 0
        rejoin = running.consumer.rejoin

        def counted() -> None:
            self.asked += 1
            rejoin()

        running.consumer.rejoin = counted  # type: ignore[method-assign]

    @property
    def warming(self) -> frozenset[ShardId]:
        """What it is to take over."""
        assert self._running.engine.membership is not None
        return self._running.engine.membership.warming

    async def wait_warm(self) -> None:
        """Wait until it has restored all that it is to take over."""
        shards = self._running.engine._shards
        assert shards is not None

        async def warm() -> bool:
            return bool(self.warming) and await shards.warm(self.warming, ACCEPTABLE_LAG) == sorted(self.warming)

        await until(warm, "what is to be taken over is restored")

    async def wait_looks(self) -> None:
        """Wait until it has looked more than once, from beginning to end, whether it may ask."""

        def looks() -> int:
            return sum(self._clock.looks[upkeep] for upkeep in self._running.engine._upkeep)

        before = looks()

        async def looked() -> bool:
            return looks() >= before + 4

        await until(looked, "the worker looks whether it is warm")

    async def wait_generation(self, generation: int) -> None:
        """Wait until the group has rebalanced."""

        async def assigned() -> bool:
            return self._running.engine.health.generation() >= generation

        await until(assigned, f"generation {generation} is assigned")
        assert self._running.engine.health.generation() == generation


async def test_a_standby_that_has_caught_up_asks_for_a_rebalance_once_the_interval_since_the_last_one_is_over(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = unique("source"), unique("group")
    definition = tables(table("t", topic))
    await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    records = [(b"k%d" % number, b"{}", None) for number in range(20 * ACCEPTABLE_LAG)]
    await produce(kafka.bootstrap_servers, topic, records)
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    start = partial(
        running_engine,
        kafka,
        tables=definition,
        group=group,
        acceptable_lag=str(ACCEPTABLE_LAG),
        takeover_interval="1h",
    )
    async with start(tmp_path / "owner") as owner:
        await owner.check_equal("t", PARTITIONS)
        await owner.wait_active(PARTITIONS)
        restoring = Restoring(monkeypatch, owner)
        async with start(tmp_path / "joiner", advertised_url="http://127.0.0.1:2") as running:
            joiner = Joiner(running, clock)
            generation = owner.engine.health.generation() + 1
            await joiner.wait_generation(generation)
            assert joiner.warming

            # A rebalance for another reason, when nothing is restored yet: the interval begins again.
            clock.now = 0.9 * HOUR
            generation += 1
            owner.consumer.rejoin()
            await joiner.wait_generation(generation)
            assert joiner.warming
            restoring.go_on.set()
            await joiner.wait_warm()
            clock.now = 1.8 * HOUR
            await joiner.wait_looks()
            assert (joiner.asked, running.engine.health.generation()) == (0, generation)

            clock.now = 2 * HOUR
            await joiner.wait_generation(generation + 1)
            assert joiner.asked == 1
            assert not joiner.warming

            async def shared_out() -> bool:
                return sorted(running.states().values()) == [TaskState.STANDBY, TaskState.ACTIVE]

            await until(shared_out, "the joiner owns one partition and follows the other")

            clock.now = 9 * HOUR
            await joiner.wait_looks()
            assert (joiner.asked, running.engine.health.generation()) == (1, generation + 1)
