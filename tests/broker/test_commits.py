# ruff: noqa: SLF001 - memberships are looked at where aiokafka keeps them
"""Commits of source offsets, which are advisory: whatever happens to one, the group goes on undisturbed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiokafka.errors import IllegalGenerationError
from aiokafka.protocol.commit import OffsetCommitRequest

from tablehouse.model import TaskState, TopicPartition
from tablehouse.tasks.log import LogRecord
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, delete_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import table, tables

#: Partitions of each of the two topics: both workers own some of each.
PARTITIONS = 4


class HeldCommits:
    """Stands before the lanes and has nothing to commit while `held`; afterwards all is still to be committed."""

    def __init__(self, running: RunningEngine) -> None:
        lanes = running.consumer.lanes
        self._lanes = lanes
        self.held = True
        #: How often a commit asked what there is since then.
        self.asked = 0
        self.expected = lanes.expected
        self.lost = lanes.lost
        self.are_crowded = lanes.are_crowded
        running.consumer.lanes = self

    def offer(self, source: TopicPartition, records: list[LogRecord], next_offset: int) -> bool:
        """See Lanes."""
        return self._lanes.offer(source, records, next_offset)

    def committable(self) -> Mapping[TopicPartition, int]:
        """See Lanes."""
        if self.held:
            return {}
        self.asked += 1
        return self._lanes.committable()


@contextlib.asynccontextmanager
async def two_workers(kafka: EmbeddedKafka, folder: Path) -> AsyncIterator[tuple[str, str, list[RunningEngine]]]:
    """Run two workers of tables `a` and `b`, each over a topic of its own; yields the topics too."""
    first, second, group = unique("first"), unique("second"), unique("group")
    for topic in (first, second):
        await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    definition = tables(table("a", first, standbys=0), table("b", second, standbys=0))
    async with contextlib.AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                running_engine(
                    kafka, folder / name, definition, group, advertised_url=f"http://{name}:1", takeover_interval="1s"
                )
            )
            for name in ("one", "two")
        ]
        await until(shared(running), "each worker owns half of both tables")
        yield first, second, running


def shared(running: list[RunningEngine]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        owned = [set(active(worker)) for worker in running]
        assert all({name for name, _ in one} == {"a", "b"} for one in owned), owned
        assert sum(map(len, owned)) == 2 * PARTITIONS, owned
        return True

    return ask


def active(worker: RunningEngine) -> list[tuple[str, int]]:
    return [task for task, state in worker.states().items() if state is TaskState.ACTIVE]


def members(running: list[RunningEngine]) -> list[str]:
    return [worker.consumer.client._coordinator.member_id for worker in running]


def generation(running: list[RunningEngine]) -> int:
    return max(int(worker.consumer.client._coordinator.generation) for worker in running)


async def fill(kafka: EmbeddedKafka, running: list[RunningEngine], topics: Mapping[str, str]) -> None:
    """Produce to topics, by their tables, and return when all is applied."""
    ends: dict[tuple[str, int], int] = {}
    for name, topic in topics.items():
        rows = [(b"k%d" % number, b"{}", None) for number in range(100)]
        for partition, offset in await produce(kafka.bootstrap_servers, topic, rows):
            ends[name, partition] = max(offset, ends.get((name, partition), -1))
    for worker in running:
        for task in active(worker):
            if task in ends:
                await worker.wait_position(*task, ends[task])


async def test_committing_offsets_of_a_topic_that_was_deleted_costs_one_rebalance_and_no_membership(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    async with two_workers(kafka, tmp_path) as (first, second, running):
        held = [HeldCommits(worker) for worker in running]
        await fill(kafka, running, {"a": first, "b": second})
        before, began = members(running), generation(running)

        await delete_topic(kafka.bootstrap_servers, first)
        for one in held:
            one.held = False

        async def noticed() -> bool:
            return generation(running) > began

        await until(noticed, "the leader has noticed that the topic is gone")
        seen = [one.asked for one in held]

        async def committed_again() -> bool:
            return all(one.asked >= asked + 6 for one, asked in zip(held, seen, strict=True))

        await until(committed_again, "both have tried to commit after the rebalance", 60)
        assert members(running) == before
        assert generation(running) == began + 1
        owned = sorted(task for worker in running for task in active(worker) if task[0] == "b")
        assert owned == [("b", partition) for partition in range(PARTITIONS)]


async def test_a_commit_that_arrives_when_its_generation_is_over_disturbs_no_later_one(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    async with two_workers(kafka, tmp_path) as (_, second, running):
        held = [HeldCommits(worker) for worker in running]
        await fill(kafka, running, {"b": second})
        before, began = members(running), generation(running)
        answers: list[int] = []
        over = asyncio.Event()
        for worker, one in zip(running, held, strict=True):
            hold_commits(worker, over, answers)
            one.held = False

        async def on_their_way() -> bool:
            return all(worker.consumer._commit_fut is not None for worker in running)

        await until(on_their_way, "both workers commit")
        running[0].consumer.rejoin()

        async def rebalanced() -> bool:
            return {worker.engine.health.generation() for worker in running} == {began + 1}

        await until(rebalanced, "the group has rebalanced")
        over.set()

        async def refused() -> bool:
            return [code for code in answers if code].count(IllegalGenerationError.errno) >= 2

        await until(refused, "the broker has refused commits of the generation before")
        await until(shared(running), "each worker owns half of both tables")
        seen = len(answers)
        await fill(kafka, running, {"b": second})

        async def committed() -> bool:
            return answers[seen:].count(0) > 0

        await until(committed, "commits of the present generation are taken")
        assert members(running) == before
        assert generation(running) == began + 1


def hold_commits(worker: RunningEngine, over: asyncio.Event, answers: list[int]) -> None:
    """Send no commit until a rebalance is over; notes the error code of the first partition of each answer."""
    client = worker.consumer.client._client
    send = client.send

    async def hold(node: int, request: object, **group: object) -> Any:
        if not isinstance(request, OffsetCommitRequest):
            return await send(node, request, **group)
        await over.wait()
        answer = await send(node, request, **group)
        answers.extend(code for _, partitions in answer.topics[:1] for _, code in partitions[:1])
        return answer

    client.send = hold
