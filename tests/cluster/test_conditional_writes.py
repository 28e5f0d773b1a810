"""Conditional writes through any worker of a real cluster: each rests on the one before, whatever workers do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tablehouse.formats.partitioners import partition_of
from tablehouse.testing.kafka import EmbeddedKafka
from tests.cluster.test_writes import JSON, PARTITIONS, Group, send, sharing
from tests.support.cluster import check_equal, client
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready

KEY = b"counter"


@dataclass
class Counting:
    """Clients that add 1 to a row, each to what it has just read, through the workers in turn."""

    workers: list[WorkerProcess]
    #: What was acknowledged, by its offset.
    acknowledged: dict[int, int] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    stopping: bool = False

    async def run(self, number: int) -> None:
        """Add 1, again and again; what cannot be written, or may have been, is tried on another worker."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6)) as session:
            while not self.stopping:
                number += 1
                url = f"{self.workers[number % len(self.workers)].url}/tables/rows/{KEY.decode()}"
                try:
                    await self._add_one(session, url)
                except (aiohttp.ClientError, TimeoutError):
                    # Nobody knows whether it was written.
                    continue

    async def _add_one(self, session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url) as read:
            self.statuses.add(read.status)
            if read.status not in {200, 404}:
                return
            there = read.status == 200
            count = (await read.json())["n"] if there else 0
            condition = {"If-Match": read.headers["ETag"]} if there else {"If-None-Match": "*"}
        async with session.put(url, data=b'{"n":%d}' % (count + 1), headers={**JSON, **condition}) as written:
            self.statuses.add(written.status)
            if written.status == 200:
                self.acknowledged[(await written.json())["offset"]] = count + 1

    async def get_on(self, by: int) -> None:
        """Wait until more of them are acknowledged."""
        wanted = len(self.acknowledged) + by

        async def further() -> bool:
            assert len(self.acknowledged) >= wanted, (len(self.acknowledged), wanted, self.statuses)
            return True

        await until(further, "writes are acknowledged", 60.0)


@asynccontextmanager
async def counting(group: Group, clients: int) -> AsyncIterator[Counting]:
    """Have clients count while the block runs."""
    counts = Counting(group.workers)
    running = [asyncio.create_task(counts.run(number)) for number in range(clients)]
    try:
        yield counts
    finally:
        counts.stopping = True
        await asyncio.gather(*running)


async def in_topic(group: Group) -> dict[int, int]:
    """Return the counts that the source has, by their offsets."""
    consumer = AIOKafkaConsumer(bootstrap_servers=group.bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(group.rows.topic, partition_of("murmur2", KEY, PARTITIONS))
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        found: dict[int, int] = {}
        while await consumer.position(place) < end:
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                found |= {record.offset: msgspec.json.decode(record.value)["n"] for record in batch}
        return found
    finally:
        await consumer.stop()


async def check_chain(group: Group, counts: Counting) -> None:
    """Check that each write in the topic rests on the one before, and that those acknowledged are where was said."""
    found = await in_topic(group)
    assert list(found.values()) == list(range(1, len(found) + 1))
    for offset, count in counts.acknowledged.items():
        assert found[offset] == count
    await check_equal(group.bootstrap, group.name, group.workers, [group.rows])


async def test_clients_that_count_through_both_workers_lose_nothing(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group:
        async with counting(group, 6) as counts:
            await counts.get_on(200)
        assert counts.statuses <= {200, 404, 412}
        assert 412 in counts.statuses
        await check_chain(group, counts)
        # No outcome was unknown, so there is nothing else.
        assert len(await in_topic(group)) == len(counts.acknowledged)


async def test_clients_that_count_while_owners_are_paused_and_killed_lose_nothing(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group:
        async with counting(group, 6) as counts:
            await counts.get_on(50)
            for _ in range(2):
                owner = await group.owner(KEY)
                [other] = [worker for worker in group.workers if worker is not owner]
                # In the middle of whatever it does; when it goes on, it does not know yet what it has lost.
                owner.pause()

                async def taken_over(other: WorkerProcess = other) -> bool:
                    partition = partition_of("murmur2", KEY, PARTITIONS)
                    owned = [task["partition"] for task in await other.owned() if task["table"] == "rows"]
                    assert partition in owned, owned
                    return True

                await until(taken_over, "the other worker owns the partition", 60.0)
                counts.workers = [other]
                await counts.get_on(20)
                owner.resume()
                counts.workers = group.workers
                await counts.get_on(50)
            owner = await group.owner(KEY)
            owner.kill()
            await counts.get_on(20)
            owner.start()
            await counts.get_on(50)
        await all_ready(*group.workers)
        assert counts.statuses <= {200, 404, 412, 503, 504}
        await check_chain(group, counts)


async def test_a_decision_sees_what_a_producer_had_written_before(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    async with sharing(kafka, make_worker) as group, client() as http:
        producer = AIOKafkaProducer(bootstrap_servers=group.bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        partition = partition_of("murmur2", KEY, PARTITIONS)
        target = f"/tables/rows/{KEY.decode()}"
        try:
            for number in range(40):
                asked, other = group.workers[number % 2], group.workers[1 - number % 2]
                before = await http.get(f"{asked.url}{target}")
                condition = {"If-Match": before.headers["etag"]} if before.status == 200 else {"If-None-Match": "*"}
                # Acknowledged, and not applied yet by the time of the request.
                value = b'{"direct":%d}' % number
                sent = await producer.send_and_wait(group.rows.topic, value, KEY, partition)
                refused = await send(asked, "PUT", target, b'{"lost":true}', {**JSON, **condition})
                assert (refused.status, refused.json["code"]) == (412, "precondition_failed"), refused
                there = await http.get(f"{other.url}{target}?min_position={partition}:{sent.offset}")
                assert (there.body, refused.headers["etag"]) == (value, there.headers["etag"])
                written = await send(
                    other, "PUT", target, b'{"n":%d}' % number, {**JSON, "If-Match": refused.headers["etag"]}
                )
                assert written.status == 200, written
                assert written.json["offset"] == sent.offset + 1
                # A deleted row is one that is not there.
                if number % 5 == 0:
                    gone = await send(asked, "DELETE", target, None, {"If-Match": written.json["etag"]})
                    assert gone.status == 200, gone
                    again = await send(other, "DELETE", target, None, {"If-Match": "*"})
                    assert (again.status, again.json["code"]) == (412, "precondition_failed"), again
        finally:
            await producer.stop()
        await check_equal(group.bootstrap, group.name, group.workers, [group.rows])
