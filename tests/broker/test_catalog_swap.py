# ruff: noqa: SLF001 - which objects stay the same is not to be seen from outside
"""Another catalog in a running worker: what comes, what goes, and what does not notice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from tablehouse.errors import NotOwner
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import ProducerRecord, TaskState
from tablehouse.routing.digests import digest
from tablehouse.tasks.task import Task
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.worker import following
from tests.support.engine import RunningEngine, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.oracle import FORMS, contents, replay_source
from tests.support.polling import until
from tests.support.worker import table, tables

PARTITIONS = 2


class Watched(Task):
    """A task whose states are noted."""

    noted: list[TaskState]

    def __setattr__(self, name: str, value: object) -> None:
        if name == "state" and isinstance(value, TaskState):
            self.noted.append(value)
        super().__setattr__(name, value)


class Staying:
    """The tasks of a table, of which each is to stay the one it is."""

    def __init__(self, running: RunningEngine, table: str) -> None:
        self._running = running
        self._table = table
        self._tasks = self._present()
        self._families = [task.store._shard.families[table] for task in self._tasks]  # type: ignore[attr-defined]
        for task in self._tasks:
            task.__dict__["noted"] = [task.state]
            task.__class__ = Watched

    def _present(self) -> list[Task]:
        shards = self._running.engine._shards
        assert shards is not None
        return sorted((task for task in shards.tasks if task.table == self._table), key=lambda task: task.partition)

    @property
    def states(self) -> set[TaskState]:
        """The states that they have had since."""
        return {state for task in self._tasks if isinstance(task, Watched) for state in task.noted}

    def check(self) -> None:
        """Make sure that they are the same, with the same stores, still open."""
        present = self._present()
        assert len(present) == PARTITIONS
        for task, before, family in zip(present, self._tasks, self._families, strict=True):
            assert task is before
            assert task.store._shard.families[self._table] is family  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def producing(kafka: EmbeddedKafka, topics: Collection[str]) -> AsyncIterator[None]:
    """Produce to topics without a pause."""
    over = asyncio.Event()

    async def keep_on() -> None:
        number = 0
        while not over.is_set():
            for topic in topics:
                found = [(b"k%d" % (key % 100), b'{"n":%d}' % key, None) for key in range(number, number + 20)]
                await produce(kafka.bootstrap_servers, topic, found)
            number += 20

    under_way = asyncio.create_task(keep_on())
    try:
        yield
    finally:
        over.set()
        await under_way


async def sources(kafka: EmbeddedKafka, count: int) -> list[str]:
    """Create topics with some records."""
    topics = [unique("source") for _ in range(count)]
    for topic in topics:
        await create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
        await produce(
            kafka.bootstrap_servers, topic, [(b"k%d" % key, b'{"first":%d}' % key, None) for key in range(200)]
        )
    return topics


async def check_equal(running: RunningEngine) -> None:
    """Check every table against its source."""
    for name in running.catalog.tables:
        await running.check_equal(name, PARTITIONS)


def reads(running: RunningEngine) -> set[str]:
    """Return the topics that the worker reads in its group."""
    return set(running.consumer.client.subscription())


async def test_a_table_over_a_new_topic_comes_and_goes_and_the_others_stay_what_they_are(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    first, second = await sources(kafka, 2)
    one, two = table("one", first), table("two", second)
    async with running_engine(kafka, tmp_path, tables(one), unique("group")) as running:
        await running.wait_active(PARTITIONS)
        staying, generation = Staying(running, "one"), running.engine.health.generation()
        async with producing(kafka, [first, second]):
            running.swap(tables(one, two))
            with pytest.raises(NotOwner, match="its topics are being prepared"):
                running.read("two", b"k1")
            await running.wait_active(2 * PARTITIONS)
        assert running.engine.health.generation() == generation + 1
        assert reads(running) == {first, second}
        staying.check()
        await check_equal(running)
        assert not [reason for reason in running.engine.health.reasons() if "two" in reason]

        async with producing(kafka, [first, second]):
            running.swap(tables(one))
            assert {name for name, _ in running.states()} == {"one"}

            async def gone() -> bool:
                return running.engine.health.generation() == generation + 2 and reads(running) == {first}

            await until(gone, "the group has rebalanced")
            await running.wait_active(PARTITIONS)
        with pytest.raises(NotOwner):
            running.read("two", b"k1")
        staying.check()
        assert staying.states == {TaskState.ACTIVE, TaskState.SUSPENDED}
        await check_equal(running)
        # As after a restart without the table, its data stays.
        kept = sorted(path.name for path in (tmp_path / "data" / "shards").iterdir())
        assert kept == sorted(f"{topic}-{number}" for topic in (first, second) for number in range(PARTITIONS))

        # And it is taken up again.
        running.swap(tables(one, two))
        await running.wait_active(2 * PARTITIONS)
        await check_equal(running)
        staying.check()


async def test_a_table_more_and_less_over_one_topic_leaves_the_other_active_and_the_group_alone(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    (topic,) = await sources(kafka, 1)
    one, two = table("one", topic), table("two", topic)
    async with running_engine(kafka, tmp_path, tables(one), unique("group")) as running:
        await running.wait_active(PARTITIONS)
        staying, generation = Staying(running, "one"), running.engine.health.generation()
        for _ in range(2):
            async with producing(kafka, [topic]):
                running.swap(tables(one, two))
                await running.wait_active(2 * PARTITIONS)
            await check_equal(running)
            async with producing(kafka, [topic]):
                running.swap(tables(one))
                await running.wait_active(PARTITIONS)
            await check_equal(running)
        staying.check()
        assert staying.states == {TaskState.ACTIVE}
        assert running.engine.health.generation() == generation
        assert running.consumer.client._coordinator.generation == generation
        # The other way round: the first one goes, and the lane is the second one's.
        running.swap(tables(one, two))
        await running.wait_active(2 * PARTITIONS)
        staying = Staying(running, "two")
        async with producing(kafka, [topic]):
            running.swap(tables(two))
            await running.wait_active(PARTITIONS)
        await check_equal(running)
        staying.check()
        assert staying.states == {TaskState.ACTIVE}
        assert running.engine.health.generation() == generation
        # Another number of standbys is for the group to know.
        running.swap(tables(table("two", topic, standbys=2)))

        async def told() -> bool:
            return running.engine.health.generation() == generation + 1

        await until(told, "the group has rebalanced")
        await running.wait_active(PARTITIONS)
        staying.check()


async def test_the_first_table_that_is_writable_and_sends_dead_letters_finds_what_it_needs(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    first, second = await sources(kafka, 2)
    one = table("one", first, on_error="skip")
    two = table("two", second) + "    writable: true\n"
    async with running_engine(kafka, tmp_path, tables(one), unique("group")) as running:
        await running.wait_active(PARTITIONS)
        running.swap(tables(one, two))
        await running.wait_active(2 * PARTITIONS)
        local = running.engine.local
        assert local.limit("two") > 0
        place = partition_of("murmur2", b"key", PARTITIONS)
        written = await local.append("two", place, ProducerRecord(b"key", b'{"by":"a caller"}'), 30.0)
        end = await local.catch_up("two", place, 30.0)
        assert end.offset == written + 1
        owned = await local.append_as_owner("two", place, b"key", b"1", end, 30.0)
        await produce(kafka.bootstrap_servers, second, [(b"key", b"not json", place)])
        await running.wait_position("two", place, owned + 1)
        assert running.metric("tablehouse_dead_letters_total", table="two", reason="undecodable_value") == 1


async def test_a_table_whose_topic_is_missing_is_refused_by_reason_until_it_is_there_and_disturbs_no_other(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_RETRY_INTERVAL", 0.2)
    first, second = await sources(kafka, 2)
    later = unique("source")
    one, two, missing = table("one", first), table("two", second), table("missing", later)
    async with running_engine(kafka, tmp_path, tables(one), unique("group")) as running:
        await running.wait_active(PARTITIONS)
        staying, generation = Staying(running, "one"), running.engine.health.generation()
        running.swap(tables(one, missing))

        async def refused() -> bool:
            return any(f"there is no topic {later}" in reason for reason in running.engine.health.reasons())

        await until(refused, "the reason is told")
        with pytest.raises(NotOwner, match=f"table missing is not served: there is no topic {later}"):
            running.read("missing", b"k1")
        assert (staying.states, running.engine.health.generation()) == ({TaskState.ACTIVE}, generation)
        await create_topic(kafka.bootstrap_servers, later, PARTITIONS)
        await running.wait_active(2 * PARTITIONS)
        # All others go at once, and come back.
        running.swap(tables(two))
        await until(lambda: active(running, "two"), "the other table is there")
        assert reads(running) == {second}
        await check_equal(running)
        # The last one is rebuilt.
        running.swap(tables(two + "    version: 2\n"))
        assert running.states() == {}
        await running.wait_active(PARTITIONS)
        await check_equal(running)


async def test_swaps_in_the_middle_of_rebalances_end_in_what_the_last_one_says(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await sources(kafka, 2)
    one, two, beside = table("one", first), table("two", second), table("beside", first)
    async with running_engine(kafka, tmp_path, tables(one), unique("group")) as running:
        await running.wait_active(PARTITIONS)
        staying = Staying(running, "one")
        places = [
            # Where tasks are suspended, where the assignment has come and nobody was told, and where all were.
            (running.engine.membership, "revoked"),
            (running.consumer, "on_partitions_assigned"),
            (running.engine.membership, "assigned"),
        ]
        async with producing(kafka, [first, second]):
            for turn, (owner, name) in enumerate(places * 2):
                await swap_within(running, monkeypatch, owner, name, tables(one, beside if turn % 2 else two))
            running.swap(tables(one, two, beside))
            await running.wait_active(3 * PARTITIONS)
        staying.check()
        await check_equal(running)


async def swap_within(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, text: str
) -> None:
    """Have the group rebalance, and swap at the beginning of a call in the middle of it."""
    call, done = getattr(owner, name), asyncio.Event()

    async def swap_first(*arguments: object) -> None:
        if not done.is_set():
            running.swap(text)
            done.set()
        await call(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, swap_first)
        running.consumer.rejoin()
        async with asyncio.timeout(120):
            await done.wait()


async def active(running: RunningEngine, name: str) -> bool:
    states = running.states()
    return {table for table, _ in states} == {name} and set(states.values()) == {TaskState.ACTIVE}


async def test_two_workers_take_other_tables_one_after_the_other_and_agree_in_the_end(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    first, second = await sources(kafka, 2)
    group, before = unique("group"), tables(table("one", first))
    after = tables(table("one", first), table("two", second), table("beside", first))
    async with (
        running_engine(kafka, tmp_path / "a", before, group, advertised_url="http://127.0.0.1:1") as one,
        running_engine(kafka, tmp_path / "b", before, group, advertised_url="http://127.0.0.1:2") as other,
    ):
        await until(lambda: shared(one, other, "one"), "each has a part")
        async with producing(kafka, [first, second]):
            one.swap(after)

            async def told() -> bool:
                return any("has another tables.yaml" in reason for reason in other.engine.health.reasons())

            await until(told, "the other one hears of it")
            other.swap(after)
            await until(lambda: shared(one, other, "one", "two", "beside"), "each has a part of every table")

            async def agreed() -> bool:
                return not one.engine.health.differences and not other.engine.health.differences

            await until(agreed, "nobody tells of other tables any more")
        for name in one.catalog.tables:
            topic = one.catalog.tables[name].source.topic
            expected = await replay_source(kafka.bootstrap_servers, topic, PARTITIONS)
            for partition, content in contents(expected, FORMS["string"]).items():
                owner = one if one.states()[name, partition] is TaskState.ACTIVE else other
                await owner.wait_position(name, partition, expected.ends[partition] - 1)
                found = await digest(owner.engine.local, name, partition)
                assert (found.rows, found.rows_hash) == content.digest(), f"{name}[{partition}]"


async def shared(one: RunningEngine, other: RunningEngine, *names: str) -> bool:
    """Tell whether every partition of these tables, and of no others, is active here and a standby there."""
    places = {(name, partition) for name in names for partition in range(PARTITIONS)}
    here, there = one.states(), other.states()
    pair = {TaskState.ACTIVE, TaskState.STANDBY}
    return here.keys() == there.keys() == places and all({here[place], there[place]} == pair for place in places)
