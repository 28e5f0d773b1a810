"""A new table over a topic of a million records, beside a table that has them all."""

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Sequence

import aiohttp
from aiokafka import AIOKafkaProducer

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Answer, Checked, Client, client, digest_of, wait_applied
from tests.support.kafka import create_topic, unique
from tests.support.load import UNAVAILABLE
from tests.support.oracle import FORMS, Expected, Record, contents
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

PARTITIONS = 4
ROUNDS = 10
KEYS = 100_000

TOPIC = unique("million")
OLD = Checked("old", TOPIC, PARTITIONS, value="string", partitioner="crc32", standbys=0)
NEW = Checked("new", TOPIC, PARTITIONS, value="string", partitioner="crc32", standbys=0)

#: Written once the new table has begun.
LIVE = b"live"
LIVE_PARTITION = zlib.crc32(LIVE) % PARTITIONS

TIMESTAMP = 1_357_000_000_000
_BATCH_BYTES = 900_000
_BETWEEN_READS = 0.02  # seconds
_DEADLINE = 240.0  # seconds


def keys_by_partition() -> list[list[bytes]]:
    found: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    for number in range(KEYS):
        key = b"%d" % number
        found[zlib.crc32(key) % PARTITIONS].append(key)
    return found


def value_of(key: bytes, turn: int) -> bytes:
    return b"%s in round %d" % (key, turn)


def last_value(key: bytes) -> bytes:
    return value_of(key, ROUNDS - 1)


async def fill(producer: AIOKafkaProducer) -> Expected:
    """Write every key ROUNDS times, and return what the topic then holds: the last record of each key."""
    history: dict[bytes, list[Record]] = {}
    ends: dict[int, int] = {}
    for partition, keys in enumerate(keys_by_partition()):
        batch = producer.create_batch()
        for turn in range(ROUNDS):
            for key in keys:
                value = value_of(key, turn)
                if batch.append(key=key, value=value, timestamp=TIMESTAMP) is None:
                    await (await producer.send_batch(batch, TOPIC, partition=partition))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=TIMESTAMP)
        last = await (await producer.send_batch(batch, TOPIC, partition=partition))
        ends[partition] = ROUNDS * len(keys)
        assert last.offset < ends[partition]
        first_of_last = (ROUNDS - 1) * len(keys)
        for index, key in enumerate(keys):
            history[key] = [Record(partition, first_of_last + index, TIMESTAMP, key, last_value(key))]
    return Expected(history, ends)


class Readers:
    """Ask for random keys of both tables through both workers, and judge each answer at once."""

    def __init__(self, http: Client, workers: Sequence[WorkerProcess], seed: int) -> None:
        self._http = http
        self._workers = workers
        self._random = random.Random(seed)
        self._positions: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        #: Set once the old table is active everywhere: from then on it has to stay so.
        self.settled = False
        self.counted: Counter[tuple[str, int, str]] = Counter()
        #: What the new table's partitions said of how many records are still to come.
        self.progress: list[int] = []

    def start(self) -> None:
        """Begin to read."""
        self._tasks = [asyncio.create_task(self._go_on()) for _ in range(4)]

    def check(self) -> None:
        """Raise what one of them found wrong; not as AssertionError, which polling would take for "not yet"."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise RuntimeError("a reader got a wrong answer") from error

    async def stop(self) -> None:
        """Stop reading, and raise what one of them found wrong."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self.check()

    async def _go_on(self) -> None:
        while True:
            key = b"%d" % self._random.randrange(KEYS)
            url = self._random.choice(self._workers).url
            for table in (NEW, OLD):
                settled = self.settled
                try:
                    answer = await self._http.get(url + table.path(key))
                except aiohttp.ClientConnectorError:
                    assert not settled, url
                else:
                    self._judge(table, key, answer, settled=settled)
            await asyncio.sleep(_BETWEEN_READS)

    def _judge(self, table: Checked, key: bytes, answer: Answer, *, settled: bool) -> None:
        about = f"{table.name}/{key.decode()}: {answer}"
        self.counted[table.name, answer.status, answer.headers.get("tablehouse-role", "")] += 1
        if answer.status == 200:
            # Who answers has had all that was there when it began, and each key's last record is among that.
            assert answer.body == last_value(key), about
            if table is OLD and settled:
                assert answer.headers["tablehouse-role"] == "active", about
                partition, _, position = answer.headers["tablehouse-position"].partition(":")
                assert int(position) >= self._positions.get(partition, -1), about
                self._positions[partition] = max(self._positions.get(partition, -1), int(position))
            return
        assert answer.status == 503, about
        assert answer.json["code"] in UNAVAILABLE, about
        assert int(answer.headers["retry-after"]) >= 1, about
        assert not (table is OLD and settled), about
        if table is NEW and answer.json.get("remaining_records"):
            self.progress.append(answer.json["remaining_records"])


async def test_a_new_table_over_a_million_records_never_says_404_and_its_sibling_goes_on(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    bootstrap, group = kafka.bootstrap_servers, unique("million")
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    # The timestamps are old ones, which the broker would delete.
    await create_topic(bootstrap, TOPIC, PARTITIONS, {"retention.ms": "-1"})
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    try:
        async with client() as http:
            expected = await fill(producer)
            workers = await start_with_the_old_table(http, bootstrap, group, make_worker, expected)
            readers = Readers(http, workers, seed)
            for worker in workers:
                worker.tables_file.write_text(tables(OLD.entry(), NEW.entry()))
                worker.start()
            readers.start()
            expected = await watch_the_new_table(http, producer, workers, readers, expected)
            await readers.stop()
            print(readers.counted)  # noqa: T201 - shown when the test fails
            assert readers.counted["new", 503, ""] > 0
            assert readers.counted["new", 200, "active"] > 0
            assert min(readers.progress) < max(readers.progress) <= max(expected.ends.values())
            for table in (OLD, NEW):
                await check_contents(http, workers, table, expected)
    finally:
        await producer.stop()


async def start_with_the_old_table(
    http: Client, bootstrap: str, group: str, make_worker: MakeWorker, expected: Expected
) -> list[WorkerProcess]:
    """Let two workers build the old table, and stop them."""
    # A worker that has nothing of the new table may own its partitions all the same.
    definition, settings = tables(OLD.entry()), {"acceptable_lag": "10000000"}
    workers = [make_worker(bootstrap, definition, group=group, **settings) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)
    await wait_applied(http, workers, OLD, dict(expected.ends))
    for worker in workers:
        worker.terminate()
    assert [await worker.wait_exit() for worker in workers] == [0, 0]
    return workers


async def watch_the_new_table(
    http: Client,
    producer: AIOKafkaProducer,
    workers: Sequence[WorkerProcess],
    readers: Readers,
    expected: Expected,
) -> Expected:
    """Wait until the new table is there; meanwhile the old one takes up a record that is produced now."""

    async def old_is_active() -> bool:
        readers.check()
        states = [[task["state"] for task in await worker.tasks() if task["table"] == "old"] for worker in workers]
        return all(states) and [state for some in states for state in some] == ["active"] * PARTITIONS

    await until(old_is_active, "the old table is active on both workers", _DEADLINE)
    readers.settled = True
    written = await producer.send_and_wait(
        TOPIC, key=LIVE, value=b"now", partition=LIVE_PARTITION, timestamp_ms=TIMESTAMP
    )
    live = Record(LIVE_PARTITION, written.offset, TIMESTAMP, LIVE, b"now")

    async def old_has_it() -> bool:
        readers.check()
        return (await http.get(workers[0].url + OLD.path(LIVE))).status == 200

    await until(old_has_it, "the old table has what was produced after the new one had begun")
    states = [task["state"] for worker in workers for task in await worker.tasks() if task["table"] == "new"]
    assert "restoring" in states, states

    ends = {**expected.ends, LIVE_PARTITION: live.offset + 1}
    await wait_applied(http, workers, NEW, ends)
    return Expected({**expected.history, LIVE: [live]}, ends)


async def check_contents(http: Client, workers: Sequence[WorkerProcess], table: Checked, expected: Expected) -> None:
    for partition, content in contents(expected, FORMS[table.key]).items():
        answers = [await digest_of(http, worker, table.name, partition) for worker in workers]
        (found,) = [answer.json for answer in answers if answer.status == 200]
        assert (found["rows"], found["rows_hash"]) == content.digest(), f"{table.name}[{partition}]"
