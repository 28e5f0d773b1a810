"""Two workers on one Kafka, asked for everything: each says what the topics say, and nothing else."""

import asyncio
import json
import random
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

import pytest

from tablehouse.catalog.load import load_catalog
from tablehouse.routing.tables import routed_tables
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.cluster import Checked, check_equal, client
from tests.support.http_workers import ask
from tests.support.kafka import create_topic, produce, unique
from tests.support.oracle import replay_source
from tests.support.schemas import NO_REGISTRY
from tests.support.worker import WorkerProcess, all_ready, tables

SEED = 20130101
PARTITIONS = 4

Records = list[tuple[bytes | None, bytes | None, int | None]]

STRINGS = Checked("strings", unique("strings"), PARTITIONS)
#: The same topic a second time, with columns.
NAMES = Checked(
    "names",
    STRINGS.topic,
    PARTITIONS,
    columns="{number: n}",
    payload=lambda value: b'{"number":%d}' % json.loads(value)["n"],
)
INTS = Checked("ints", unique("ints"), PARTITIONS, key="int", value="string", partitioner="crc32")
LONGS = Checked("longs", unique("longs"), PARTITIONS, key="long", value="bytes")
UUIDS = Checked("uuids", unique("uuids"), PARTITIONS, key="uuid", value="string")
BLOBS = Checked("blobs", unique("blobs"), PARTITIONS, key="bytes", value="bytes", partitioner="crc32")
SCALARS = Checked("scalars", unique("scalars"), PARTITIONS, key="json", value="json")
PAIRS = Checked("pairs", unique("pairs"), PARTITIONS, key="json", key_entry="{format: json, fields: [carrier, flight]}")
TABLES = (STRINGS, NAMES, INTS, LONGS, UUIDS, BLOBS, SCALARS, PAIRS)

ODD_STRINGS = [*"\x00é鍵🗝?#;~\\\x7f", "a/b", "a%2Fb", "a b", "a+b", "e\u0301", "ключ", "&=", ":get", "..."]
#: Keys that clients rewrite in a path, or that have none there; `:get` takes them.
DOTS = [".", "..", ""]
NOT_UTF8 = [b"\xff\xfe", b"\x00", b"\x80/%2F", b"\xed\xa0\x80", b".."]

KEYS = {
    STRINGS: [f"key-{number}".encode() for number in range(400)] + [key.encode() for key in ODD_STRINGS],
    INTS: [number.to_bytes(4, "big", signed=True) for number in (0, -1, 2**31 - 1, -(2**31), *range(1, 200))],
    LONGS: [number.to_bytes(8, "big", signed=True) for number in (0, -1, 2**63 - 1, -(2**63), *range(1, 200))],
    UUIDS: [str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))).encode() for number in range(200)],
    BLOBS: [random.Random(number).randbytes(number % 40 + 1) for number in range(200)] + NOT_UTF8,
    SCALARS: [b"null", b"true", b"false", b"0", b"1", b"1.0", b"-0.5", b"9223372036854775807", b'""', b'"\xc3\xa9"']
    + [b'"%d"' % number for number in range(50)]
    + [b"%d" % number for number in range(1000, 1050)],
    PAIRS: [b'{"carrier":"%s","flight":%d}' % (carrier, number) for carrier in (b"UA", b"B6") for number in range(60)],
}
STRANGERS = {
    "strings": [b"nobody", b"KEY-1", b"key-1 "],
    "names": [b"nobody"],
    "ints": [(10**6).to_bytes(4, "big")],
    "longs": [(10**12).to_bytes(8, "big")],
    "uuids": [str(uuid.uuid5(uuid.NAMESPACE_DNS, "nobody")).encode()],
    "blobs": [b"nobody" * 10],
    "scalars": [b'"nobody"', b"2.5"],
    "pairs": [b'{"carrier":"UA","flight":1000}'],
}


def value_of(table: Checked, number: int) -> bytes:
    if table.value == "json":
        return b'{ "n": %d, "big": 12345678901234567890123456789, "text": "\xc3\xa9" }' % number
    return f"wert {number} é".encode() if table.value == "string" else b"\x00\xff" + number.to_bytes(4, "big")


def records_of(table: Checked) -> Records:
    """Write each key one to four times, in a random order, and delete some of them in between or at the end."""
    chosen = random.Random(SEED)
    keys = [key for key in KEYS[table] for _ in range(chosen.randint(1, 4))]
    chosen.shuffle(keys)
    records: Records = []
    for number, key in enumerate(keys):
        partition = zlib.crc32(key) % PARTITIONS if table.partitioner == "crc32" else None
        records.append((key, None if chosen.random() < 0.15 else value_of(table, number), partition))
    return records


class Cluster:
    """Two workers with everything produced and applied."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.group = unique("equality")
        definition = tables(*(table.entry() for table in TABLES))
        self.workers = [
            WorkerProcess(folder / f"worker-{number}", bootstrap, definition, group=self.group) for number in (1, 2)
        ]

    async def prepare(self) -> None:
        """Create and fill the topics, and start both workers, the second one while the first one ingests."""
        for table in KEYS:
            await create_topic(self.bootstrap, table.topic, PARTITIONS)
            await produce(self.bootstrap, table.topic, records_of(table))
        dots: Records = [(key.encode(), value_of(STRINGS, number), None) for number, key in enumerate(DOTS)]
        await produce(self.bootstrap, STRINGS.topic, dots)
        for worker in self.workers:
            worker.start()
        await all_ready(*self.workers)


@pytest.fixture(scope="module")
def cluster(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(kafka.bootstrap_servers, tmp_path_factory.mktemp("equality"))
    try:
        asyncio.run(made.prepare())
        yield made
    finally:
        for worker in made.workers:
            worker.close()
            worker.print_log()


async def test_every_key_asked_of_every_worker_equals_the_oracle(cluster: Cluster) -> None:
    print(f"seed {SEED}")  # noqa: T201 - shown when the test fails
    expected = await replay_source(cluster.bootstrap, STRINGS.topic, PARTITIONS)
    assert len(expected.rows()) > 300
    assert len(expected.deleted()) > 20
    await check_equal(cluster.bootstrap, cluster.group, cluster.workers, TABLES, STRANGERS)


async def test_both_workers_own_something_and_forward_the_rest(cluster: Cluster) -> None:
    for worker in cluster.workers:
        owned = {(task["table"], task["partition"]) for task in await worker.owned()}
        assert 0 < len(owned) < len(TABLES) * PARTITIONS
        assert await worker.metric("tablehouse_forward_requests_total", outcome="ok") > 0
        assert await worker.metric("tablehouse_dead_letters_total") == 0


@pytest.mark.parametrize("key", [*DOTS, *ODD_STRINGS])
async def test_a_key_that_proxies_rewrite_is_read_by_get_from_every_worker(cluster: Cluster, key: str) -> None:
    expected = (await replay_source(cluster.bootstrap, STRINGS.topic, PARTITIONS)).history[key.encode()][-1]
    seen = set()
    for worker in cluster.workers:
        answer = await ask(worker.url, f"/tables/strings:get?key={quote(key, safe='')}")
        assert answer.status == (404 if expected.value is None else 200), answer
        if expected.value is not None:
            assert answer.body == expected.value
            assert answer.headers["tablehouse-partition"] == str(expected.partition)
        located = await ask(worker.url, f"/tables/strings:locate?key={quote(key, safe='')}")
        (location,) = located.json["locations"]
        assert location["partition"] == expected.partition
        seen.add((answer.headers["tablehouse-served-by"], location["active"]["worker"]))
    assert len(seen) == 1
    assert len(set(seen.pop())) == 1


async def test_dots_in_a_path_are_taken_as_they_are_written(cluster: Cluster) -> None:
    for worker in cluster.workers:
        for target, key in [("/tables/strings/.", "."), ("/tables/strings/..", ".."), ("/tables/strings/%2e%2E", "..")]:
            answer = await ask(worker.url, target)
            assert answer.status == 200, (target, answer)
            assert answer.body == (await ask(worker.url, f"/tables/strings:get?key={key}")).body


async def test_what_is_one_text_in_another_spelling_is_another_key(cluster: Cluster) -> None:
    for worker in cluster.workers:
        composed = await ask(worker.url, "/tables/strings:get?key=%C3%A9")
        decomposed = await ask(worker.url, "/tables/strings:get?key=e%CC%81")
        plus = await ask(worker.url, "/tables/strings/a+b")
        encoded = await ask(worker.url, "/tables/strings:get?key=a%2Bb")
        space = await ask(worker.url, "/tables/strings/a%20b")
        in_query = await ask(worker.url, "/tables/strings:get?key=a+b")
        assert plus.body == encoded.body != space.body == in_query.body
        assert composed.body != decomposed.body


@pytest.mark.parametrize("raw", ["%ff%fe", "%80", "%ED%A0%80", "%c0%af"])
async def test_bytes_that_are_no_text_are_a_bad_string_key_everywhere(cluster: Cluster, raw: str) -> None:
    for worker in cluster.workers:
        for target in (f"/tables/strings/{raw}", f"/tables/strings:get?key={raw}", f"/tables/strings:locate?key={raw}"):
            answer = await ask(worker.url, target)
            assert (answer.status, answer.json["code"]) == (400, "invalid_key"), target
            assert "string" in answer.json["detail"]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/tables/strings/a%2", "invalid_parameter"),
        ("/tables/strings/%zz", "invalid_parameter"),
        ("/tables/ints/%2B1", "invalid_key"),
        ("/tables/ints/2147483648", "invalid_key"),
        ("/tables/longs/01", "invalid_key"),
        ("/tables/uuids/not-a-uuid", "invalid_key"),
        ("/tables/blobs/%2F", "invalid_key"),
        ("/tables/scalars/UA", "invalid_key"),
        ("/tables/pairs/%7B%22carrier%22:%22UA%22%7D", "invalid_key"),
        ("/tables/strings:get?key=a&kye=b", "invalid_parameter"),
    ],
)
async def test_what_cannot_be_a_key_is_a_400_through_every_worker(cluster: Cluster, target: str, code: str) -> None:
    for worker in cluster.workers:
        answer = await ask(worker.url, target)
        assert (answer.status, answer.json["code"]) == (400, code)


async def test_json_members_may_be_asked_for_in_any_order_and_with_blanks(cluster: Cluster) -> None:
    expected = await replay_source(cluster.bootstrap, PAIRS.topic, PARTITIONS)
    key = next(key for key in sorted(expected.rows()) if b'"B6"' in key)
    flight = json.loads(key)["flight"]
    for worker in cluster.workers:
        answer = await ask(worker.url, "/tables/pairs/" + quote(f'{{ "flight": {flight}, "carrier": "B6" }}', safe=""))
        assert (answer.status, answer.body) == (200, expected.rows()[key].value)


async def test_a_slash_in_a_path_is_no_key(cluster: Cluster) -> None:
    for worker in cluster.workers:
        answer = await ask(worker.url, "/tables/strings/a/b")
        assert (answer.status, answer.json["code"]) == (404, "route_not_found")


async def test_the_internal_listener_of_a_worker_that_does_not_own_a_key_says_so_and_asks_nobody(
    cluster: Cluster,
) -> None:
    key = b"key-1"
    forwarded = [await worker.metric("tablehouse_forward_requests_total") for worker in cluster.workers]
    statuses = []
    async with client() as http:
        for worker in cluster.workers:
            located = await http.get(f"{worker.url}/tables/strings:locate?key={quote_from_bytes(key)}")
            partition = located.json["locations"][0]["partition"]
            row = await ask(
                worker.internal_url,
                f"/internal/v1/tables/strings/{partition}/a2V5LTE",
                {
                    "Tablehouse-Worker": worker.called,
                    "Tablehouse-Internal-Version": "1",
                    "Tablehouse-Table-Digest": routed_tables(
                        load_catalog(worker.tables_file), worker.group, NO_REGISTRY
                    )["strings"].digest,
                    "Tablehouse-Partitions": str(PARTITIONS),
                    "Tablehouse-Generation": "1",
                    "Tablehouse-Deadline-Ms": "1000",
                    "Tablehouse-Read": "active",
                },
            )
            statuses.append(row.status)
            if row.status == 421:
                assert row.json["code"] == "not_owner"
    assert sorted(statuses) in ([200, 421], [204, 421])
    assert forwarded == [await worker.metric("tablehouse_forward_requests_total") for worker in cluster.workers]
