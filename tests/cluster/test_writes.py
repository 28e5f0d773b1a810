"""Rows that callers write through any worker of a real cluster, and read through any other."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from tablehouse.formats.partitioners import partition_of
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Answer, Checked, check_equal, client
from tests.support.kafka import create_topic, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, table, tables

PARTITIONS = 4
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass
class Group:
    """Two workers that share a writable table and one that is not."""

    bootstrap: str
    name: str
    rows: Checked
    workers: list[WorkerProcess]

    async def owner(self, key: bytes) -> WorkerProcess:
        """Return the worker that owns a key."""
        partition = partition_of("murmur2", key, PARTITIONS)
        for worker in self.workers:
            if any(task["table"] == self.rows.name and task["partition"] == partition for task in await worker.owned()):
                return worker
        raise AssertionError(f"nobody owns partition {partition}")

    async def source_end(self, key: bytes) -> int:
        """Return the end of the partition of the source in which a key lies."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            place = TopicPartition(self.rows.topic, partition_of("murmur2", key, PARTITIONS))
            return int((await consumer.end_offsets([place]))[place])
        finally:
            await consumer.stop()


@asynccontextmanager
async def sharing(kafka: EmbeddedKafka, make_worker: MakeWorker) -> AsyncIterator[Group]:
    bootstrap = kafka.bootstrap_servers
    rows, fixed = Checked("rows", unique("rows"), PARTITIONS), unique("fixed")
    await create_topic(bootstrap, rows.topic, PARTITIONS)
    await create_topic(bootstrap, fixed, 1)
    definition = tables(rows.entry() + "    writable: true\n", table("fixed", fixed))
    name = unique("writes")
    workers = [make_worker(bootstrap, definition, group=name) for _ in range(2)]
    for worker in workers:
        worker.start()
    await all_ready(*workers)

    async def shared() -> bool:
        for worker in workers:
            owned = [task for task in await worker.owned() if task["table"] == "rows"]
            assert len(owned) == PARTITIONS // 2, owned
        return True

    await until(shared, "both workers own partitions", 60.0)
    yield Group(bootstrap, name, rows, workers)


async def send(
    worker: WorkerProcess, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
) -> Answer:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(
            method, worker.url + target, data=body, headers=headers if body or headers is not JSON else None
        ) as answer,
    ):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, headers, await answer.read())


async def test_what_one_worker_writes_the_other_reads_from_its_position_on(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group, client() as http:
        a, b = group.workers
        keys = [f"k{number}" for number in range(20)]
        for number, key in enumerate(keys):
            writer, reader = (a, b) if number % 2 else (b, a)
            value = b'{"n": %d}' % number
            written = await send(writer, "PUT", f"/tables/rows/{key}", value)
            assert written.status == 200, written
            position = written.headers["tablehouse-position"]
            assert written.json["position"] == position
            seen = await http.get(f"{reader.url}/tables/rows/{key}?min_position={position}")
            assert (seen.status, seen.body) == (200, value), seen

        for number, key in enumerate(keys[:10]):
            writer, reader = (a, b) if number % 2 else (b, a)
            put = await send(writer, "PUT", f"/tables/rows/{key}?wait=visible", b'{"again":true}')
            assert (put.status, put.json["visible"]) == (200, True), put
            for worker in (a, b):
                assert (await http.get(f"{worker.url}/tables/rows/{key}")).body == b'{"again":true}'
            deleted = await send(reader, "DELETE", f"/tables/rows:get?key={key}&wait=visible")
            assert (deleted.status, deleted.json["visible"]) == (200, True), deleted
            for worker in (a, b):
                missing = await http.get(f"{worker.url}/tables/rows/{key}")
                assert (missing.status, missing.json["code"]) == (404, "key_not_found"), missing

        refused = await send(a, "PUT", "/tables/rows/k11", b"{")
        assert (refused.status, refused.json["code"]) == (400, "invalid_body")
        fixed = await send(a, "PUT", "/tables/fixed/k", b"{}")
        assert (fixed.status, fixed.json["code"]) == (405, "not_writable")

        body = b'{"keys": [%s]}' % b", ".join(b'"%b"' % key.encode() for key in keys)
        for worker in (a, b):
            batch = await send(worker, "POST", "/tables/rows:batch-get?read=active", body)
            assert [row["key"] for row in batch.json["rows"]] == keys
            assert [row.get("value") for row in batch.json["rows"]] == [
                None if number < 10 else {"n": number} for number in range(20)
            ]
            assert [row["error"]["code"] for row in batch.json["rows"][:10]] == ["key_not_found"] * 10
            assert {part["role"] for part in batch.json["partitions"]} == {"active"}
            assert {part["served_by"] for part in batch.json["partitions"]} == {
                part["served_by"] for part in (await send(a, "POST", "/tables/rows:batch-get", body)).json["partitions"]
            }
            assert await worker.metric("tablehouse_dead_letters_total") == 0
        await check_equal(group.bootstrap, group.name, group.workers, [group.rows])


async def test_what_a_batch_writes_through_one_worker_the_other_reads_from_its_position_on(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group:
        a, b = group.workers
        keys = [f"k{number % 300}" for number in range(2_000)]
        lines = [b'{"key": "%b", "value": {"n": %d}}' % (key.encode(), number) for number, key in enumerate(keys)]
        lines[1_999] = b'{"key": "%b", "delete": true}' % keys[1_999].encode()
        lines[1_500] = b'{"key": "%b", "value": {' % keys[1_500].encode()
        written = await send(a, "POST", "/tables/rows:batch-put", b"\n".join(lines), NDJSON)
        assert written.status == 200, written
        results = written.json["results"]
        assert [number for number, result in enumerate(results) if result["status"] != 200] == [1_500]
        assert results[1_500]["error"]["code"] == "invalid_body"
        assert written.json["position"].count(":") == PARTITIONS

        latest = {key: number for number, key in enumerate(keys) if number not in {1_500, 1_999}}
        asked = b'{"keys": [%s]}' % b", ".join(b'"%b"' % key.encode() for key in latest)
        for worker in (a, b):
            target = f"/tables/rows:batch-get?min_position={written.json['position']}&read=active"
            rows = (await send(worker, "POST", target, asked)).json["rows"]
            for row in rows:
                if row["key"] == keys[1_999]:
                    assert row["error"]["code"] == "key_not_found"
                else:
                    assert row["value"] == {"n": latest[row["key"]]}
        fixed = await send(a, "POST", "/tables/fixed:batch-put", lines[0], NDJSON)
        assert (fixed.status, fixed.json["code"]) == (405, "not_writable")
        await check_equal(group.bootstrap, group.name, group.workers, [group.rows])


async def test_a_write_that_was_acknowledged_is_there_though_its_worker_died_before_it_could_say_so(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group, client() as http:
        key = b"k1"
        owner = await group.owner(key)
        [writer] = [worker for worker in group.workers if worker is not owner]
        before = await group.source_end(key)
        # The owner cannot say that the row is visible, so the answer is not given yet.
        owner.pause()
        writing = asyncio.create_task(send(writer, "PUT", "/tables/rows/k1?wait=visible&timeout_ms=4000", b'{"n":1}'))

        async def acknowledged() -> bool:
            assert not writing.done(), writing
            return await group.source_end(key) == before + 1

        await until(acknowledged, "the record is in the topic")
        writer.kill()
        owner.resume()
        try:
            await writing
        except aiohttp.ClientError:
            pass
        else:
            raise AssertionError("the worker answered before it was killed")
        place = f"{partition_of('murmur2', key, PARTITIONS)}:{before}"

        async def there() -> bool:
            seen = await http.get(f"{owner.url}/tables/rows/k1?min_position={place}")
            assert (seen.status, seen.body) == (200, b'{"n":1}'), seen
            return True

        await until(there, "the row is there", 60.0)
