"""Three workers with a standby of each partition: reads go on while owners die, join and hang."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Answer, Checked, check_equal, client
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

PARTITIONS = 6
#: So that a worker which has nothing is cold, as it would be over a topic of usual size.
COLD = {"log_level": "debug", "acceptable_lag": "10"}
KEYS = [b"key-%d" % number for number in range(300)]


@dataclass
class Group:
    """Some workers over one table, in which every one of KEYS has a row."""

    bootstrap: str
    name: str
    table: Checked
    workers: list[WorkerProcess] = field(default_factory=list)

    async def settled(self, workers: list[WorkerProcess]) -> bool:
        """Say whether these workers share all partitions evenly, each with a standby that has caught up."""
        states = Counter[str]()
        for worker in workers:
            tasks = await worker.tasks()
            assert all(task["staleness_ms"] is not None for task in tasks), tasks
            mine = Counter(task["state"] for task in tasks)
            assert mine["active"] == PARTITIONS // len(workers), mine
            states += mine
        assert states == {"active": PARTITIONS, "standby": PARTITIONS}, states
        return True


@asynccontextmanager
async def group_of(kafka: EmbeddedKafka, make_worker: MakeWorker, count: int) -> AsyncIterator[Group]:
    """Start workers, and compare all they hold with the oracle at the end; those that were killed are left out."""
    bootstrap = kafka.bootstrap_servers
    group = Group(bootstrap, unique("standbys"), Checked("rows", unique("rows"), PARTITIONS))
    await create_topic(bootstrap, group.table.topic, PARTITIONS)
    await produce(bootstrap, group.table.topic, [(key, b'{"of":"%s"}' % key, None) for key in KEYS])
    definition = tables(group.table.entry())
    group.workers = [make_worker(bootstrap, definition, group=group.name, **COLD) for _ in range(count)]
    for worker in group.workers:
        worker.start()
    await all_ready(*group.workers)
    await until(lambda: group.settled(group.workers), "every partition has an owner and a standby", 60.0)
    yield group
    living = [worker for worker in group.workers if worker.exit_code is None]
    await check_equal(bootstrap, group.name, living, [group.table])


@asynccontextmanager
async def readers(group: Group, workers: list[WorkerProcess]) -> AsyncIterator[list[tuple[bytes, Answer]]]:
    """Read every key from these workers, again and again, and collect the answers."""
    seen: list[tuple[bytes, Answer]] = []

    async def read(worker: WorkerProcess) -> None:
        async with client() as http:
            while True:
                for key in KEYS:
                    seen.append((key, await http.get(worker.url + group.table.path(key))))
                    await asyncio.sleep(0.001)

    reading = [asyncio.create_task(read(worker)) for worker in workers]
    try:
        yield seen
    finally:
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    for task in reading:
        assert task.cancelled(), task.exception()
    wrong = [(key, answer) for key, answer in seen if answer.status == 200 and answer.body != b'{"of":"%s"}' % key]
    assert wrong == []


def refused(seen: list[tuple[bytes, Answer]]) -> list[tuple[bytes, int, bytes]]:
    """List the answers that were no row, as they came."""
    return [(key, answer.status, answer.body) for key, answer in seen if answer.status != 200]


async def test_after_a_kill_9_standbys_answer_for_every_key_until_they_own_it_without_a_replay(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with group_of(kafka, make_worker, 3) as group:
        killed, *others = group.workers
        restored = [await worker.metric("tablehouse_restore_records_total") for worker in others]
        async with readers(group, others) as seen:

            async def begun() -> bool:
                return len(seen) > 2 * len(KEYS)

            await until(begun, "some answers", 30.0)
            killed.kill()
            await until(lambda: group.settled(others), "the others share what it had", 60.0)
        assert refused(seen) == []
        assert {answer.headers["tablehouse-role"] for _, answer in seen} >= {"active", "standby"}
        # The claims of the new owners, and what new standbys copy: their own partitions were there.
        taken_over = [worker for worker in others if "promoted" in worker.log_text()]
        assert taken_over
        grown = [await worker.metric("tablehouse_restore_records_total") for worker in others]
        copied = sum(grown) - sum(restored)
        assert copied <= len(KEYS) + 10 * PARTITIONS, (restored, grown)


async def test_while_a_worker_joins_no_read_of_an_existing_key_fails(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with group_of(kafka, make_worker, 2) as group:
        asked = list(group.workers)
        joining = make_worker(group.bootstrap, tables(group.table.entry()), group=group.name, **COLD)
        group.workers.append(joining)
        async with readers(group, asked) as seen:
            joining.start()
            await joining.wait_ready()
            await until(lambda: group.settled(group.workers), "three workers share the partitions", 60.0)
        assert refused(seen) == []
        assert "warm" in joining.log_text()


async def test_whoever_writes_reads_its_own_write_from_any_worker_and_any_copy(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with group_of(kafka, make_worker, 2) as group, client() as http:
        producer = AIOKafkaProducer(bootstrap_servers=group.bootstrap, acks="all")
        await producer.start()
        try:
            for number in range(60):
                key, value = KEYS[number], b'{"number":%d}' % number
                written = await producer.send_and_wait(group.table.topic, value, key)
                token = f"{written.partition}:{written.offset}"
                worker = group.workers[number % 2]
                mode = ("any", "prefer-active", "active")[number % 3]
                url = f"{worker.url}{group.table.path(key)}?read={mode}&min_position={token}&timeout_ms=4000"
                answer = await http.get(url)
                assert (answer.status, answer.body) == (200, value), answer
                assert int(answer.headers["tablehouse-position"].partition(":")[2]) >= written.offset
            beyond = f"{written.partition}:{written.offset + 10}"
            refused = await http.get(f"{worker.url}{group.table.path(key)}?min_position={beyond}&timeout_ms=100")
            assert (refused.status, refused.json["code"]) == (503, "position_not_reached")
        finally:
            await producer.stop()
