"""Scans of a table that is written to all the time, through two workers one of which is killed."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, Client, client, wait_applied
from tests.support.kafka import create_topic, unique
from tests.support.load import UNAVAILABLE, Load
from tests.support.oracle import Expected, replay_source
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

PARTITIONS = 4
STAYING = [f"key-{number:04}".encode() for number in range(0, 600, 2)]
FLEETING = [f"key-{number:04}".encode() for number in range(1, 600, 2)]
KEYS = sorted(STAYING + FLEETING)


@dataclass(frozen=True)
class Part:
    """What one answer says of the keys of a range: the rows that there are, and at which positions it was read."""

    keys: Sequence[bytes]
    rows: Mapping[bytes, Any]
    positions: Mapping[int, int]


@dataclass
class Scans:
    """Scans of a table to its end, over and over, by pages in both directions and by streams, of any worker."""

    workers: Sequence[WorkerProcess]
    table: Checked
    chance: random.Random
    parts: list[Part] = field(default_factory=list)
    #: The keys of each scan, in order, and how many scans of each kind there were.
    whole: list[list[bytes]] = field(default_factory=list)
    streams: int = 0
    #: Answers that are errors or end with one, and connections that failed or ended without a reason.
    refused: list[tuple[int, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    async def go_on(self) -> None:
        """Scan until cancelled."""
        async with client(seconds=60.0) as http, aiohttp.ClientSession() as session:
            while True:
                await self._scan(http, reverse=self.chance.random() < 0.5)
                await self._stream(session)

    async def _scan(self, http: Client, *, reverse: bool) -> None:
        limit = self.chance.randrange(20, 200)
        target: str | None = f"/tables/{self.table.name}:scan?limit={limit}&reverse={str(reverse).lower()}"
        left = KEYS[::-1] if reverse else KEYS
        found: list[bytes] = []
        while target is not None:
            page = await self._page(http, target)
            if page is None:
                # The same page again, of another worker perhaps.
                await asyncio.sleep(0.05)
                continue
            assert page["complete"] is True, page
            rows = {row["key"].encode(): row["value"] for row in page["rows"]}
            assert len(rows) == len(page["rows"]), page
            target = page["next"]
            assert rows or target is None, page
            count = len(left) if target is None else left.index(list(rows)[-1]) + 1
            self.parts.append(Part(left[:count], rows, _positions(page)))
            left = left[count:]
            found += rows
        self.whole.append(found[::-1] if reverse else found)

    async def _page(self, http: Client, target: str) -> Any:
        worker = self.chance.choice(self.workers)
        try:
            answer = await http.get(worker.url + target)
        except (aiohttp.ClientError, TimeoutError):
            self.broken.append(worker.url)
            return None
        if answer.status == 200:
            return answer.json
        self.refused.append((answer.status, answer.json["code"]))
        return None

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        worker = self.chance.choice(self.workers)
        accept = {"Accept": "application/x-ndjson"}
        body = b""
        try:
            async with session.get(f"{worker.url}/tables/{self.table.name}:scan", headers=accept) as answer:
                async for chunk in answer.content.iter_any():
                    body += chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            last_line = body.splitlines()[-1] if isinstance(error, aiohttp.ClientPayloadError) and body else b""
            if last_line.startswith(b'{"error":'):
                told = msgspec.json.decode(last_line)["error"]
                self.refused.append((told["status"], told["code"]))
            else:
                self.broken.append(worker.url)
            return
        if answer.status != 200:
            self.refused.append((answer.status, msgspec.json.decode(body)["code"]))
            return
        *lines, last = map(msgspec.json.decode, body.splitlines())
        assert (last["complete"], last["next"]) == (True, None), last
        rows = {row["key"].encode(): row["value"] for row in lines}
        assert len(rows) == len(lines)
        self.parts.append(Part(KEYS, rows, _positions(last)))
        self.whole.append(list(rows))
        self.streams += 1


def _positions(told: Mapping[str, Any]) -> Mapping[int, int]:
    assert {part["role"] for part in told["partitions"]} == {"active"}, told
    positions = {part["partition"]: int(part["position"].partition(":")[2]) for part in told["partitions"]}
    assert set(positions) == set(range(PARTITIONS)), told
    return positions


def judge(part: Part, expected: Expected) -> None:
    """Check that each key is as it was at the position that an answer says, or later, the keys without rows as well."""
    assert set(part.rows) <= set(part.keys)
    for key in part.keys:
        records = expected.history[key]
        before = [record for record in records if record.offset <= part.positions[record.partition]]
        possible = records[len(before) - 1 :] if before else records
        values = [None if record.value is None else msgspec.json.decode(record.value) for record in possible]
        if not before:
            values.append(None)
        assert part.rows.get(key) in values, (key, part.rows.get(key), part.positions, possible[:2])


async def test_pages_and_streams_are_right_or_refused_while_rows_are_written_and_a_worker_is_killed(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    bootstrap, topic, group = kafka.bootstrap_servers, unique("scans"), unique("scans")
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    await create_topic(bootstrap, topic, PARTITIONS)
    table = Checked("rows", topic, PARTITIONS, standbys=0)
    workers = [make_worker(bootstrap, tables(table.entry()), group=group) for _ in range(2)]
    for worker in workers:
        worker.start()
    async with Load(bootstrap, topic, STAYING, seed, fleeting=FLEETING) as load:
        await all_ready(*workers)

        async def shared() -> bool:
            return [len(await worker.owned()) for worker in workers] == [PARTITIONS // 2] * 2

        await until(shared, "each worker has half of the partitions", 60.0)
        scans = Scans(workers, table, random.Random(seed))
        scanning = asyncio.create_task(scans.go_on())

        async def more(count: int) -> None:
            wanted, streamed = len(scans.whole) + count, scans.streams + count // 4

            async def scanned() -> bool:
                if scanning.done():
                    scanning.result()
                return len(scans.whole) >= wanted and scans.streams >= streamed

            await until(scanned, f"{count} more scans", 60.0)

        try:
            await more(12)
            workers[1].kill()
            await load.more(400)
            workers[1].start()
            await more(12)
            await until(shared, "each worker has its half again", 60.0)
            await more(12)
        finally:
            scanning.cancel()
            await asyncio.wait({scanning})
    print(len(scans.whole), scans.streams, Counter(scans.refused), Counter(scans.broken))  # noqa: T201 - as above
    expected = await replay_source(bootstrap, topic, PARTITIONS)
    for part in scans.parts:
        judge(part, expected)
    for found in scans.whole:
        assert found == sorted(found)
        assert [key for key in found if key in set(STAYING)] == STAYING
    assert {status for status, _ in scans.refused} <= {503}, scans.refused
    assert {code for _, code in scans.refused} <= UNAVAILABLE
    assert set(scans.broken) <= {workers[1].url}
    await _check_rest(workers, table, expected)


async def _check_rest(workers: Sequence[WorkerProcess], table: Checked, expected: Expected) -> None:
    """Check that every worker gives and counts exactly the rows of the topic, once all is applied."""
    rows = {key: msgspec.json.decode(record.value or b"") for key, record in expected.rows().items()}
    async with client() as http:
        await wait_applied(http, workers, table, dict(expected.ends))
        for worker in workers:
            found = (await http.get(f"{worker.url}/tables/{table.name}:scan?limit=10000")).json
            given = [(row["key"].encode(), row["value"]) for row in found["rows"]]
            assert given == sorted(rows.items(), key=lambda row: row[0])
            for query, count in (("", len(rows)), ("?prefix=key-00", sum(key.startswith(b"key-00") for key in rows))):
                counted = (await http.get(f"{worker.url}/tables/{table.name}:count{query}")).json
                assert (counted["count"], counted["complete"]) == (count, True)
