"""Rows in the order of their keys, through real servers over tables held in dictionaries."""

import asyncio
import base64
import gzip
import json
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import InvalidCursor, MisplacedKeys, PartitionRestoring, TooStale
from tablehouse.formats.keys import KeyFormat, key_format
from tablehouse.http import cursors, scan
from tablehouse.http.cursors import after_cursor, cursor
from tablehouse.http.framing import MAX_TARGET_BYTES
from tablehouse.model import Consistency, Freshness, ReadMode, Role
from tablehouse.routing.cluster import snapshot_of
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tests.support.cluster_fakes import CATALOG, FakeTables, Placed
from tests.support.http_workers import (
    Worker,
    connected,
    one_worker,
    read_reply,
    send,
    share,
    start_worker,
    two_workers,
)
from tests.support.polling import until
from tests.support.schemas import NO_REGISTRY

NDJSON = {"Accept": "application/x-ndjson"}
KEYS = [f"k{number:02}" for number in range(40)]


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    async with two_workers() as both:
        yield both


def put(
    holders: Sequence[Worker], key: bytes, value: bytes, table: str = "planes", partition: int | None = None
) -> None:
    """Put a row into a partition that depends on the key alone; of two workers, b has the upper half."""
    place = sum(key) % 4 if partition is None else partition
    holder = holders[0] if len(holders) == 1 else holders[place // 2]
    holder.local.rows[table, place, key] = Row(value, 1_700_000_000_000, 41)


def fill(holders: Sequence[Worker], keys: Sequence[str] = KEYS) -> None:
    for key in keys:
        put(holders, key.encode(), b'{"is":"%b"}' % key.encode())


async def page(worker: Worker, query: str = "", table: str = "planes", headers: Mapping[str, str] | None = None) -> Any:
    reply = await worker.get(f"/tables/{table}:scan{query}", headers)
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-cache"
    return reply.json


async def pages(holders: Sequence[Worker], query: str = "", table: str = "planes") -> AsyncIterator[Any]:
    """Follow `next` to the end, each page from another worker."""
    target, number = f"/tables/{table}:scan{query}", 0
    while target is not None:
        reply = await holders[number % len(holders)].get(target)
        assert reply.status == 200, reply
        yield reply.json
        target, number = reply.json["next"], number + 1


async def all_keys(holders: Sequence[Worker], query: str = "", table: str = "planes") -> list[Any]:
    return [row["key"] async for one in pages(holders, query, table) for row in one["rows"]]


async def lines(worker: Worker, query: str = "", table: str = "planes") -> list[Any]:
    reply = await worker.get(f"/tables/{table}:scan{query}", NDJSON)
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.body.endswith(b"\n")
    return [msgspec.json.decode(line) for line in reply.body.splitlines()]


async def refused(worker: Worker, query: str, table: str = "planes", headers: Mapping[str, str] | None = None) -> Any:
    reply = await worker.get(f"/tables/{table}:scan{query}", headers)
    assert reply.headers["content-type"] == "application/problem+json", reply
    assert reply.json["status"] == reply.status
    return reply.json


# Pages


async def test_a_page_has_the_rows_of_all_partitions_in_order_with_their_freshness(
    workers: tuple[Worker, Worker],
) -> None:
    fill(workers)
    for asked in workers:
        found = await page(asked)
        assert found["rows"] == [{"key": key, "value": {"is": key}} for key in KEYS]
        assert (found["next"], found["complete"]) == (None, True)
        assert "missing" not in found
        assert found["partitions"] == [
            {
                "partition": number,
                "position": f"{number}:99",
                "role": "active",
                "lag_records": 2,
                "staleness_ms": 15,
                "rejected_records": 3,
                "served_by": "ab"[number // 2],
            }
            for number in range(4)
        ]


async def test_a_page_has_a_hundred_rows_unless_it_is_asked_for_others(worker: Worker) -> None:
    keys = [f"k{number:03}" for number in range(250)]
    fill([worker], keys)
    assert [len(one["rows"]) async for one in pages([worker])] == [100, 100, 50]
    assert [len(one["rows"]) async for one in pages([worker], "?limit=125")] == [125, 125]
    assert [len(one["rows"]) async for one in pages([worker], "?limit=10000")] == [250]
    assert await all_keys([worker], "?limit=1&to=k030") == keys[:30]


async def test_an_empty_table_is_a_page_without_rows(worker: Worker) -> None:
    found = await page(worker)
    assert (found["rows"], found["next"], len(found["partitions"])) == ([], None, 4)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?from=k05&to=k08", ["k05", "k06", "k07"]),
        ("?from=k05&to=k08&reverse=true", ["k07", "k06", "k05"]),
        ("?from=k38", ["k38", "k39"]),
        ("?to=k02", ["k00", "k01"]),
        ("?from=k045&to=k06", ["k05"]),
        ("?from=k05&to=k05", []),
        ("?prefix=k1&to=k12", ["k10", "k11"]),
        ("?prefix=k1&from=k18", ["k18", "k19"]),
        ("?prefix=k1&from=k2", []),
        ("?prefix=k2&to=k1", []),
        ("?prefix=", KEYS),
        ("?prefix=x", []),
        ("?reverse&limit=2", ["k39", "k38"]),
        ("?reverse=false&limit=2", ["k00", "k01"]),
    ],
)
async def test_a_range_has_the_rows_that_fulfil_all_of_it(worker: Worker, query: str, expected: list[str]) -> None:
    fill([worker])
    assert [row["key"] for row in (await page(worker, query))["rows"]] == expected


async def test_the_next_page_keeps_the_parameters_and_any_worker_answers_it(workers: tuple[Worker, Worker]) -> None:
    fill(workers)
    query = "?prefix=k%30&reverse=true&limit=3&keys_only=true&read=any&pretty=true"
    found = [one async for one in pages(workers, query)]
    assert [row for one in found for row in one["rows"]] == [{"key": f"k0{number}"} for number in range(9, -1, -1)]
    assert found[0]["next"].startswith("/tables/planes:scan?prefix=k0&reverse=true&limit=3&keys_only=true&read=any")


async def test_values_come_as_in_a_batch_and_json_byte_for_byte(worker: Worker) -> None:
    value = b'{ "seats" : 1.50,\n "big": 123456789012345678901234567890 }'
    put([worker], b"x", value)
    reply = await worker.get("/tables/planes:scan")
    assert reply.body.startswith(b'{"rows":[{"key":"x","value":' + value + b"}],")
    put([worker], b"\xff\x00", b"\x00\xfe\xff", "blobs")
    assert (await page(worker, table="blobs"))["rows"] == [{"key": "_wA", "value": "AP7/"}]
    put([worker], (7 + 2**63).to_bytes(8, "big"), 'a "b" \n\u00e9'.encode(), "numbers")
    assert (await page(worker, table="numbers"))["rows"] == [{"key": "7", "value": 'a "b" \n\u00e9'}]


async def test_numbers_are_in_the_order_of_numbers(worker: Worker) -> None:
    numbers = [-(2**63), -300, -1, 0, 1, 2, 10, 255, 256, 2**63 - 1]
    for number in numbers:
        put([worker], (number + 2**63).to_bytes(8, "big"), b"x", "numbers")
    assert await all_keys([worker], "?limit=3", "numbers") == list(map(str, numbers))
    assert await all_keys([worker], "?from=-5&to=11", "numbers") == ["-1", "0", "1", "2", "10"]


async def test_bytes_have_prefixes_in_base64url(worker: Worker) -> None:
    for key in (b"\xff", b"\xff\xff", b"\xff\xff\x01", b"\xfe", b""):
        put([worker], key, b"x", "blobs")
    found = await all_keys([worker], "?prefix=" + base64.urlsafe_b64encode(b"\xff\xff").decode(), "blobs")
    assert found == ["__8", "__8B"]


async def test_a_page_ends_with_its_bytes_and_the_next_one_goes_on(workers: tuple[Worker, Worker]) -> None:
    size = scan.BYTES_PER_PAGE // 3
    for key in KEYS[:10]:
        put(workers, key.encode(), b'"%b"' % (b"x" * size))
    found = [one async for one in pages(workers, "?limit=9")]
    assert [len(one["rows"]) for one in found] == [3, 3, 3, 1]
    assert [row["key"] for one in found for row in one["rows"]] == KEYS[:10]
    assert await all_keys(workers, "?keys_only=true") == KEYS[:10]


async def test_a_page_ends_with_the_rows_read_for_it_and_may_have_none(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "ROWS_READ_PER_PAGE", 8)
    for number in range(40):
        worker.local.rows["planes", number % 4, b"a%02d" % number] = Row(b"", 1, 1, deleted=True)
    put([worker], b"z", b"1")
    found = [one async for one in pages([worker])]
    assert len(found) > 2
    assert found[0]["rows"] == []
    assert found[0]["complete"] is True
    assert [row["key"] for one in found for row in one["rows"]] == ["z"]


async def test_a_page_ends_with_its_time(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    fill([worker])
    monkeypatch.setattr(scan, "TIME_SHARE", -1.0)
    found = [one async for one in pages([worker])]
    assert len(found) > 1
    assert [row["key"] for one in found for row in one["rows"]] == KEYS


async def test_rows_of_a_scan_are_counted(worker: Worker) -> None:
    fill([worker])
    await page(worker)
    metrics = (await worker.get("/metrics")).body.decode()
    assert 'tablehouse_scanned_rows_total{table="planes"} 40.0' in metrics
    assert 'tablehouse_scanned_rows_total{table="blobs"} 0.0' in metrics


async def test_head_has_no_body(worker: Worker) -> None:
    fill([worker])
    for headers in ({}, NDJSON):
        reply = await worker.get("/tables/planes:scan", headers, "HEAD")
        assert (reply.status, reply.body) == (200, b"")


# What cannot be asked


@pytest.mark.parametrize(
    ("query", "code", "parameter", "detail"),
    [
        ("?limit=0", "invalid_parameter", "limit", "from 1 to 10000, not '0'"),
        ("?limit=10001", "invalid_parameter", "limit", "from 1 to 10000"),
        ("?limit=-1", "invalid_parameter", "limit", "from 1 to 10000"),
        ("?limit=", "invalid_parameter", "limit", "from 1 to 10000"),
        ("?limit=1e3", "invalid_parameter", "limit", "from 1 to 10000"),
        ("?limit=" + "9" * 5000, "invalid_parameter", "limit", "from 1 to 10000"),
        ("?reverse=yes", "invalid_parameter", "reverse", "true or false"),
        ("?keys_only=1", "invalid_parameter", "keys_only", "true or false"),
        ("?partial=no", "invalid_parameter", "partial", "true or false"),
        ("?from=b&to=a", "invalid_parameter", "from", "after to"),
        ("?form=b", "invalid_parameter", "form", "this route knows: cursor, fields, from"),
        ("?from=a&from=b", "invalid_parameter", "from", "twice"),
        ("?from=%ff", "invalid_key", "from", "UTF-8"),
        ("?to=%ff", "invalid_key", "to", "UTF-8"),
        ("?prefix=%ff", "invalid_key", "prefix", "UTF-8"),
        ("?from=%zz", "invalid_parameter", None, "hexadecimal"),
        ("?read=all", "invalid_parameter", "read", "one of"),
        ("?timeout_ms=5", "invalid_parameter", "timeout_ms", "min_position"),
        ("?cursor=", "invalid_cursor", "cursor", "damaged"),
        ("?cursor=AAAA", "invalid_cursor", "cursor", "damaged"),
        ("?cursor=%00%ff", "invalid_cursor", "cursor", "damaged"),
    ],
)
async def test_what_is_no_range_is_refused_with_the_parameter(
    worker: Worker, query: str, code: str, parameter: str | None, detail: str
) -> None:
    answer = await refused(worker, query)
    assert (answer["status"], answer["code"]) == (400, code)
    assert answer.get("parameter") == parameter
    assert detail in answer["detail"]
    assert worker.local.asked == []


async def test_a_key_that_is_too_long_is_no_end_of_a_range(worker: Worker) -> None:
    assert (await refused(worker, "?to=" + "x" * 8193))["code"] == "uri_too_long"


async def test_keys_and_prefixes_of_another_format_are_refused(worker: Worker) -> None:
    assert "not an integer" in (await refused(worker, "?from=x", "numbers"))["detail"]
    answer = await refused(worker, "?prefix=1", "numbers")
    assert (answer["code"], answer["parameter"]) == ("invalid_key", "prefix")
    assert answer["detail"] == "Keys of format long have no prefix: use from and to."
    assert "base64url" in (await refused(worker, "?prefix=*", "blobs"))["detail"]


async def test_a_media_type_and_a_method_that_there_is_not_are_refused(worker: Worker) -> None:
    answer = await refused(worker, "", headers={"Accept": "text/csv"})
    assert (answer["status"], answer["available"]) == (406, ["application/json", "application/x-ndjson"])
    reply = await worker.get("/tables/planes:scan", method="POST")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await worker.get("/tables/nope:scan")).json["code"] == "table_not_found"


async def test_before_the_first_assignment_there_is_no_page() -> None:
    unassigned = await start_worker("lonely")
    try:
        for headers in ({}, NDJSON):
            reply = await unassigned.get("/tables/planes:scan", headers)
            assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
    finally:
        await unassigned.server.stop(1.0)


# Key formats

JSON_KEYS = {
    "scalars": KeySpec("json"),
    "members": KeySpec("json", ("origin", "hour")),
    "bare": KeySpec("json", ("id",), bare=True),
    "uuids": KeySpec("uuid"),
    "ints": KeySpec("int"),
    "strings": KeySpec("string"),
    "blobs": KeySpec("bytes"),
    "avro": KeySpec("avro"),
}
FORMATS = Catalog(
    {name: TableSpec(name, SourceSpec(f"{name}-topic", key, ValueSpec("json"))) for name, key in JSON_KEYS.items()}
)


FORMS: Mapping[str, KeyFormat] = {name: key_format(key) for name, key in JSON_KEYS.items() if key.format != "avro"}


def assign(holders: Sequence[Worker], parts: Sequence[Sequence[int]]) -> None:
    """Give each worker some partitions of every table of FORMATS."""
    members = []
    for holder, its in zip(holders, parts, strict=True):
        holder.local.held = set(its)
        members.append(Placed(holder.name, holder.internal, {f"{name}-topic": its for name in JSON_KEYS}))
    for holder in holders:
        holder.view.swap(snapshot_of(7, {f"{name}-topic": 4 for name in JSON_KEYS}, members))


@asynccontextmanager
async def with_formats(*names: str) -> AsyncIterator[list[Worker]]:
    """Run one worker, or two that share the partitions as those of two_workers do."""
    holders = [await start_worker(name, FORMATS) for name in names]
    assign(holders, [range(4)] if len(holders) == 1 else [[0, 1], [2, 3]])
    try:
        yield holders
    finally:
        for holder in holders:
            await holder.server.stop(1.0)


def put_text(holders: Sequence[Worker], table: str, text: str, value: bytes = b"1") -> None:
    put(holders, FORMS[table].parse(text.encode()).stored, value, table)


async def test_structured_keys_are_ordered_member_by_member_and_have_prefixes_of_members() -> None:
    keys = [
        {"origin": origin, "hour": hour}
        for origin in (None, False, True, 7, 7.5, "", "A", "A\0", "A\0B", "AB", "B")
        for hour in (None, -1, 2, 10, "x")
    ]
    async with with_formats("a", "b") as holders:
        for key in reversed(keys):
            put_text(holders, "members", json.dumps(key))
        assert await all_keys(holders, "?limit=7", "members") == keys
        for query, chosen in (
            ('prefix=["A"]', [key for key in keys if key["origin"] == "A"]),
            ('prefix=["A",2]', [{"origin": "A", "hour": 2}]),
            ("prefix=[7]", [key for key in keys if key["origin"] == 7]),
            ("prefix=[]", keys),
            ('prefix=["A"]&from={"origin":"A","hour":0}', [{"origin": "A", "hour": hour} for hour in (2, 10, "x")]),
            ('prefix=["A"]&reverse=true&limit=1', [{"origin": "A", "hour": "x"}]),
        ):
            quoted = "&".join(f"{one.partition('=')[0]}={quote(one.partition('=')[2])}" for one in query.split("&"))
            found = await page(holders[0], f"?{quoted}" + ("" if "limit" in query else "&limit=100"), "members")
            assert [row["key"] for row in found["rows"]] == chosen, query
        for prefix in ("A", '"A"', '{"origin":"A"}', '["A",1,2]', "[[1]]", "[1e999]", f"[{2**64}]", "[", "[" * 2000):
            answer = await refused(holders[0], f"?prefix={quote(prefix)}", "members")
            assert (answer["code"], answer["parameter"]) == ("invalid_key", "prefix"), prefix


async def test_each_key_of_a_scan_can_be_asked_for_as_it_is() -> None:
    texts = {
        "scalars": ['"UA"', '"7"', "7", "true", "null", "1.5"],
        "members": ['{"origin":"EWR","hour":6}'],
        "bare": ['"x/y"', "5"],
        "uuids": ["123e4567-e89b-12d3-a456-426614174000"],
        "ints": ["-5"],
        "strings": ['a "b"', "7", ""],
        "blobs": ["_wA"],
    }
    async with with_formats("a") as holders:
        for table, some in texts.items():
            for text in some:
                stored = FORMS[table].parse(text.encode()).stored
                for partition in range(4):
                    put(holders, stored, b"1", table, partition)
            rows = (await page(holders[0], table=table))["rows"]
            assert len(rows) == len(some), table
            body = msgspec.json.encode({"keys": [row["key"] for row in rows]})
            head = f"POST /tables/{table}:batch-get HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            request = head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            assert (await send(holders[0].url, request)).json["rows"] == rows


async def test_keys_that_are_not_stored_in_their_order_are_refused_with_the_reason_and_can_be_counted() -> None:
    async with with_formats("a") as holders:
        for query in ("", "?limit=5", "?from=a"):
            answer = await refused(holders[0], query, "avro")
            assert (answer["status"], answer["code"]) == (400, "unordered_keys")
            assert "no schema of these keys is known" in answer["detail"]
        assert (await holders[0].get("/tables/avro:count?to=a")).json["code"] == "unordered_keys"
        put(holders, b"\x05a\x00", b"1", "avro")
        assert (await holders[0].get("/tables/avro:count")).json["count"] == 1


# Cursors

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(bool)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=4)


def _json_order(value: Any) -> tuple[Any, ...]:
    match value:
        case None:
            return (0,)
        case bool():
            return (1, value)
        case str():
            return (3, value.encode())
    return (2, value, isinstance(value, float))


#: Of each format the keys, as in a URL, and what they are ordered by.
TEXTS: Mapping[str, st.SearchStrategy[tuple[str, Any]]] = {
    "strings": st.text(max_size=6).map(lambda text: (text, text.encode())),
    "blobs": st.binary(max_size=6).map(lambda data: (base64.urlsafe_b64encode(data).rstrip(b"=").decode(), data)),
    "ints": st.integers(-(2**31), 2**31 - 1).map(lambda number: (str(number), number)),
    "uuids": st.uuids().map(lambda one: (str(one), one.bytes)),
    "scalars": SCALARS.map(lambda value: (json.dumps(value), _json_order(value))),
    "members": st.tuples(SCALARS, SCALARS).map(
        lambda pair: (json.dumps({"origin": pair[0], "hour": pair[1]}), tuple(map(_json_order, pair)))
    ),
    "bare": SCALARS.map(lambda value: (json.dumps(value), _json_order(value))),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[asyncio.Runner, list[Worker]]]:
    """Run two workers for all examples of a test."""
    with asyncio.Runner() as runner:
        running = with_formats("a", "b")
        holders = runner.run(running.__aenter__())
        yield runner, holders
        runner.run(running.__aexit__(None, None, None))


@given(st.data(), st.sampled_from(sorted(TEXTS)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_paging_from_any_worker_gives_exactly_the_rows_of_a_range_in_order(
    cluster: tuple[asyncio.Runner, list[Worker]],
    data: st.DataObject,
    table: str,
    reverse: bool,  # noqa: FBT001 - hypothesis passes it by position
) -> None:
    keys = data.draw(st.lists(TEXTS[table], max_size=25, unique_by=lambda key: key[1]))
    bounds = sorted(data.draw(st.lists(TEXTS[table], min_size=2, max_size=2)), key=lambda key: key[1])
    has_from, has_to = data.draw(st.booleans()), data.draw(st.booleans())
    limits = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    chosen = [
        text
        for text, order in sorted(keys, key=lambda key: key[1], reverse=reverse)
        if (not has_from or order >= bounds[0][1]) and (not has_to or order < bounds[1][1])
    ]
    query = f"from={quote(bounds[0][0], safe='')}&" if has_from else ""
    query += f"to={quote(bounds[1][0], safe='')}&" if has_to else ""
    runner, holders = cluster

    async def scenario() -> None:
        direction = f"reverse={str(reverse).lower()}"
        target: str | None = f"/tables/{table}:scan?{query}{direction}&limit={limits[0]}"
        number, found = 0, []
        while target is not None:
            reply = await holders[number % 2].get(target)
            assert reply.status == 200, reply
            found += [row["value"] for row in reply.json["rows"]]
            number += 1
            limit = f"limit={limits[number % len(limits)]}"
            target = re.sub(r"limit=\d+", limit, reply.json["next"]) if reply.json["next"] else None
        assert found == chosen
        assert [row["value"] for row in (await lines(holders[0], f"?{query}{direction}", table))[:-1]] == chosen
        counted = (await holders[1].get(f"/tables/{table}:count?{query}")).json
        assert (counted["count"], counted["complete"]) == (len(chosen), True)

    for holder in holders:
        holder.local.rows.clear()
    for text, _ in keys:
        put_text(holders, table, text, msgspec.json.encode(text))
    runner.run(scenario())


class Changing:
    """Two workers, on each of which keys with odd numbers come and go with every slice that it reads."""

    STAYING = tuple(f"k{number:02}" for number in range(0, 60, 2))

    def __init__(self, holders: Sequence[Worker], seed: int) -> None:
        self._holders = holders
        self._chance = random.Random(seed)
        for holder in holders:
            holder.local.rows = {_place(key): Row(b"1", 1, 1) for key in self.STAYING}
            holder.local.read_range = partial(self._read_range, holder)  # type: ignore[method-assign]

    def _read_range(self, holder: Worker, *arguments: Any) -> RangeResult:
        for _ in range(self._chance.randrange(4)):
            place = _place(f"k{self._chance.randrange(1, 60, 2):02}")
            if holder.local.rows.pop(place, None) is None:
                holder.local.rows[place] = Row(b"1", 1, 1)
        return FakeTables.read_range(holder.local, *arguments)

    async def scan(self, query: str) -> list[str]:
        """Read all pages, of any worker, with other assignments each time."""
        target: str | None = f"/tables/strings:scan{query}"
        found: list[str] = []
        while target is not None:
            mine = self._chance.sample(range(4), 2)
            assign(self._holders, [mine, [other for other in range(4) if other not in mine]])
            reply = await self._chance.choice(self._holders).get(target)
            assert reply.status == 200, reply
            found += [row["key"] for row in reply.json["rows"]]
            target = reply.json["next"]
        return found


def _place(key: str) -> tuple[str, int, bytes]:
    return "strings", sum(key.encode()) % 4, key.encode()


@given(st.integers(0, 2**32), st.integers(1, 9), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_key_that_stays_comes_once_whatever_is_written_meanwhile_and_wherever_partitions_move(
    cluster: tuple[asyncio.Runner, list[Worker]],
    seed: int,
    limit: int,
    reverse: bool,  # noqa: FBT001 - hypothesis passes it by position
    streams: bool,  # noqa: FBT001
) -> None:
    runner, holders = cluster
    query = f"?reverse={str(reverse).lower()}"
    try:
        changing = Changing(holders, seed)
        if streams:
            found = [row["key"] for row in runner.run(lines(holders[0], query, "strings"))[:-1]]
        else:
            found = runner.run(changing.scan(f"{query}&limit={limit}"))
    finally:
        for holder in holders:
            del holder.local.read_range
        assign(holders, [[0, 1], [2, 3]])
    assert [key for key in found if key in changing.STAYING] == sorted(changing.STAYING, reverse=reverse)
    assert found == sorted(set(found), reverse=reverse)


TABLES = routed_tables(CATALOG, "g", NO_REGISTRY)
PLANES = TABLES["planes"]


@given(st.binary(max_size=80), st.binary(max_size=5), st.booleans())
def test_a_cursor_leads_to_what_follows_its_key(key: bytes, start: bytes, reverse: bool) -> None:  # noqa: FBT001
    bounds = Range(min(start, key), None, reverse=reverse, limit=7)
    text = cursor(PLANES, bounds, key).encode()
    assert after_cursor(PLANES, bounds, text) == bounds.after(key, 7)


@given(st.data())
def test_a_cursor_that_was_changed_anywhere_is_none(data: st.DataObject) -> None:
    bounds = Range(limit=7)
    text = cursor(PLANES, bounds, data.draw(st.binary(max_size=40))).encode()
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.integers(0, 255))
    changed = text[:place] + bytes((character,)) + text[place + 1 :]
    for forged in (changed, text[:place], text + bytes((character,)), data.draw(st.binary(max_size=60))):
        if forged != text:
            with pytest.raises(InvalidCursor):
                after_cursor(PLANES, bounds, forged)


async def test_a_cursor_is_of_one_table_one_definition_and_one_range(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill([worker])
    found = await page(worker, "?prefix=k&from=k1&limit=3")
    mark = found["next"].partition("cursor=")[2]
    assert (await page(worker, f"?prefix=k&from=k1&limit=5&keys_only=true&cursor={mark}"))["rows"][0]["key"] == "k13"
    assert (await page(worker, f"?from=k1&to=l&cursor={mark}"))["rows"][0]["key"] == "k13"  # the same range
    for query in ("", "prefix=k", "prefix=k&from=k2", "prefix=k&from=k1&to=k9", "prefix=k&from=k1&reverse=true"):
        answer = await refused(worker, f"?{query}&cursor={mark}")
        assert (answer["status"], answer["code"], answer["parameter"]) == (400, "invalid_cursor", "cursor")
        assert "another range" in answer["detail"]
    answer = await refused(worker, f"?cursor={mark}", "blobs")
    assert (answer["code"], answer["table"]) == ("invalid_cursor", "blobs")
    assert "another table" in answer["detail"]
    changed = replace(PLANES, digest="0" * 32)
    with pytest.raises(InvalidCursor, match="another definition"):
        after_cursor(changed, Range(limit=7), cursor(PLANES, Range(limit=7), b"k").encode())
    with pytest.raises(InvalidCursor, match="another range"):
        after_cursor(PLANES, Range(b"k", b"l"), cursor(PLANES, Range(b"k", b"l"), b"z").encode())
    monkeypatch.setattr(cursors, "VERSION", b"\x02")
    assert "another version" in (await refused(worker, f"?prefix=k&from=k1&cursor={mark}"))["detail"]


async def test_a_page_that_ends_at_a_key_too_long_for_a_url_says_so_and_others_do_not(worker: Worker) -> None:
    put([worker], b"a", b"1")
    put([worker], b"b" * MAX_TARGET_BYTES, b"1")
    put([worker], b"c", b"1")
    answer = await refused(worker, "?limit=2")
    assert (answer["status"], answer["parameter"]) == (400, "limit")
    assert len((await page(worker, "?limit=3"))["rows"]) == 3
    assert len(await lines(worker)) == 4


async def test_a_page_that_ends_at_the_longest_key_has_a_next_one(worker: Worker) -> None:
    keys = ["\x00" * 8192, "\x01" * 8192]
    for key in keys:
        put([worker], key.encode(), b"1")
    assert await all_keys([worker], f"?limit=1&from={quote(keys[0])}&to={'x' * 8192}") == keys


# Partitions that cannot answer


async def test_a_partition_that_cannot_answer_is_the_503_of_its_rows(workers: tuple[Worker, Worker]) -> None:
    fill(workers)
    workers[1].local.errors[2] = PartitionRestoring("40 to go", retry_after=3)
    for target in ("/tables/planes:scan", "/tables/planes:count"):
        for headers in ({}, NDJSON) if target.endswith("scan") else ({},):
            reply = await workers[0].get(target, headers)
            assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "partition_restoring", "3")
            assert (reply.json["partition"], reply.json["tried"][0]["host"]) == (2, "b")


async def test_with_partial_a_page_names_the_partitions_that_are_missing(workers: tuple[Worker, Worker]) -> None:
    fill(workers)
    workers[1].local.errors[2] = PartitionRestoring("40 to go")
    kept = [key for key in KEYS if sum(key.encode()) % 4 != 2]
    found = await page(workers[0], "?partial=true")
    assert [row["key"] for row in found["rows"]] == kept
    assert (found["complete"], found["next"]) == (False, None)
    assert [part["partition"] for part in found["partitions"]] == [0, 1, 3]
    [missing] = found["missing"]
    error = missing["error"]
    assert (missing["partition"], error["code"], error["status"]) == (2, "partition_restoring", 503)
    assert error["detail"] == "40 to go"
    *rows, last = await lines(workers[0], "?partial=true")
    assert ([row["key"] for row in rows], last["complete"], last["missing"]) == (kept, False, [missing])
    counted = (await workers[0].get("/tables/planes:count?partial=true")).json
    assert (counted["count"], counted["complete"], counted["missing"]) == (len(kept), False, [missing])
    # The next page asks it again.
    first = await page(workers[0], "?partial=true&limit=5")
    workers[1].local.errors.clear()
    second = (await workers[0].get(first["next"])).json
    assert (first["complete"], second["complete"]) == (False, True)


async def test_a_worker_that_is_gone_makes_a_page_a_503_or_leaves_its_partitions_missing(
    workers: tuple[Worker, Worker],
) -> None:
    fill(workers)
    await workers[1].server.stop(0)
    answer = await refused(workers[0], "")
    assert (answer["status"], answer["code"]) == (503, "owner_unreachable")
    found = await page(workers[0], "?partial=true")
    assert [missing["partition"] for missing in found["missing"]] == [2, 3]
    assert [row["key"] for row in found["rows"]] == [key for key in KEYS if sum(key.encode()) % 4 < 2]


async def test_what_is_asked_of_rows_is_asked_of_every_partition(workers: tuple[Worker, Worker]) -> None:
    await page(workers[0], "?read=any&max_lag=7", headers={"Tablehouse-Max-Staleness-Ms": "900"})
    asked_for = [asked for worker in workers for asked in worker.local.asked_for]
    assert len(asked_for) >= 4
    assert {(asked.mode, asked.max_lag, asked.max_staleness_ms) for asked in asked_for} == {(ReadMode.ANY, 7, 900)}


async def test_positions_are_waited_for_in_each_partition(workers: tuple[Worker, Worker]) -> None:
    fill(workers)
    asked = asyncio.create_task(page(workers[0], "?min_position=0:120,2:130&timeout_ms=4000"))
    await asyncio.wait_for(workers[0].local.waiting.wait(), 5)
    await asyncio.wait_for(workers[1].local.waiting.wait(), 5)
    workers[0].local.advance(0, 120)
    workers[1].local.advance(2, 130)
    positions = {part["partition"]: part["position"] for part in (await asked)["partitions"]}
    assert (positions[0], positions[2]) == ("0:120", "2:130")
    assert (await refused(workers[0], "?min_position=3:999&timeout_ms=0"))["code"] == "position_not_reached"


async def test_a_standby_answers_for_a_range_if_it_is_asked_for(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    for key in KEYS:
        a.local.rows["planes", sum(key.encode()) % 4, key.encode()] = Row(b"1", 1, 1)
    share(workers, {"b": range(4)}, standbys={"a": range(4)})
    await b.server.stop(0)
    a.local.role = Role.STANDBY
    # The active is the one that the caller hears of, as with a single row.
    assert (await refused(a, ""))["code"] == "owner_unreachable"
    found = await page(a, "?read=any")
    assert [row["key"] for row in found["rows"]] == KEYS
    assert {part["role"] for part in found["partitions"]} == {"standby"}


@pytest.mark.parametrize("error", [MisplacedKeys("a key lies elsewhere"), TooStale("9 s behind")])
async def test_where_a_miss_proves_nothing_there_is_no_page(worker: Worker, error: MisplacedKeys | TooStale) -> None:
    fill([worker])
    worker.local.miss = error
    assert (await refused(worker, ""))["code"] == error.code
    assert (await worker.get("/tables/planes:count")).json["code"] == error.code


# Streams


async def test_a_stream_has_all_rows_and_a_last_line_that_says_so(workers: tuple[Worker, Worker]) -> None:
    keys = [f"k{number:04}" for number in range(1_000)]
    fill(workers, keys)
    *rows, last = await lines(workers[0])
    assert rows == [{"key": key, "value": {"is": key}} for key in keys]
    assert (last["complete"], last["next"], len(last["partitions"])) == (True, None, 4)
    *rows, last = await lines(workers[1], "?reverse=true&keys_only=true&prefix=k00")
    assert rows == [{"key": key} for key in keys[99::-1]]
    assert (await lines(workers[0], "?prefix=none"))[0]["complete"] is True


async def test_a_stream_ends_with_its_limit_and_says_where_to_go_on(worker: Worker) -> None:
    keys = [f"k{number:05}" for number in range(10_100)]
    for key in keys:
        put([worker], key.encode(), b"1")
    worker.local.read_range = partial(_many, worker)  # type: ignore[method-assign]
    *rows, last = await lines(worker, "?limit=10050&keys_only=true")
    assert [row["key"] for row in rows] == keys[:10_050]
    rest = await worker.get(last["next"].replace("limit=10050", "limit=100"))
    assert ([row["key"] for row in rest.json["rows"]], rest.json["next"]) == (keys[10_050:], None)
    assert (await lines(worker, "?limit=1"))[-1]["next"].startswith("/tables/planes:scan?limit=1&cursor=")
    answer = await refused(worker, "?limit=0", headers=NDJSON)
    assert answer["code"] == "invalid_parameter"


def _many(worker: Worker, table: str, partition: int, asked: Range, _consistency: Consistency) -> RangeResult:
    """Answer as a copy does that gives many rows at once."""
    local = worker.local
    place = (table, partition)
    found = sorted(key for *where, key in local.rows if tuple(where) == place and key >= asked.start)
    rows = [KeyedRow(key, b"1", 1, 1) for key in found[: min(256, asked.limit)]]
    label = Freshness(partition, local.position(partition), Role.ACTIVE, 0, 0)
    is_all = len(rows) == len(found)
    return RangeResult(rows, label, None if is_all else asked.after(rows[-1].stored_key, 1))


async def test_rows_of_any_size_are_streamed_whole(workers: tuple[Worker, Worker]) -> None:
    sizes = [1, 100_000, 5, 400_000, 70_000, 3]
    for number, size in enumerate(sizes):
        put(workers, b"k%d" % number, b'"%b"' % (b"x" * size))
    *rows, last = await lines(workers[0])
    assert [len(row["value"]) for row in rows] == sizes
    assert last["complete"] is True


async def test_a_client_that_does_not_read_holds_up_the_scan_and_little_memory(worker: Worker) -> None:
    size, count = 160_000, 500
    for number in range(count):
        put([worker], b"k%04d" % number, b'"%b"' % (b"x" * size))

    async def scanned() -> float:
        metrics = (await worker.get("/metrics")).body.decode()
        return float(re.findall(r'^tablehouse_scanned_rows_total\{table="planes"\} (\S+)$', metrics, re.MULTILINE)[0])

    async with connected(worker.url) as (reader, writer):
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(b"GET /tables/planes:scan HTTP/1.1\r\nHost: t\r\nAccept: application/x-ndjson\r\n\r\n")
        seen = [0.0]

        async def stands_still() -> bool:
            seen.append(await scanned())
            return seen[-1] > 0 and len(seen) > 20 and seen[-20] == seen[-1]

        await until(stands_still, "the scan waits for its client")
        assert seen[-1] < count / 2
        metrics = (await worker.get("/metrics")).body.decode()
        held = float(re.findall(r"^tablehouse_http_held_bytes (\S+)$", metrics, re.MULTILINE)[0])
        assert held < 4 << 20
        cast("asyncio.Transport", writer.transport).resume_reading()
        reply = await read_reply(reader)
    *rows, last = [msgspec.json.decode(line) for line in reply.body.splitlines()]
    assert len(rows) == count
    assert last["complete"] is True


async def test_a_row_is_one_line_however_its_producer_wrote_it(worker: Worker) -> None:
    put([worker], b"x", b'{\r\n "a": 1.50,\n "b": "\\n \\r"\r}')
    reply = await worker.get("/tables/planes:scan", NDJSON)
    row, _last = reply.body.split(b"\n", 1)
    assert row == b'{"key":"x","value":{   "a": 1.50,  "b": "\\n \\r" }}'
    assert len(await lines(worker)) == 2


def _failing_later(worker: Worker, error: Exception, calls: int = 8) -> None:
    """Have a worker fail for good after some slices."""
    original, asked = worker.local.read_range, 0

    def read_range(*arguments: Any) -> RangeResult:
        nonlocal asked
        asked += 1
        if asked > calls:
            raise error
        return original(*arguments)

    worker.local.read_range = read_range  # type: ignore[method-assign,assignment]


async def cut_off(worker: Worker, headers: bytes = b"", version: bytes = b"1.1") -> tuple[bytes, bytes]:
    """Return head and body of a stream up to the end of its connection, the body with its chunks."""
    async with connected(worker.url) as (reader, writer):
        request = b"GET /tables/planes:scan HTTP/%b\r\nHost: t\r\nAccept: application/x-ndjson\r\n%b\r\n"
        writer.write(request % (version, headers))
        whole = await asyncio.wait_for(reader.read(-1), 30)
    head, _, body = whole.partition(b"\r\n\r\n")
    return head, body


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """Return what is in chunks, and whether they end as they should."""
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return content, True
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return content, False


@pytest.mark.parametrize("error", [PartitionRestoring("40 to go"), RuntimeError("a bug")], ids=["refusal", "bug"])
@pytest.mark.parametrize("is_gzip", [False, True])
async def test_an_error_after_the_first_rows_is_the_last_line_of_an_answer_that_does_not_end(
    worker: Worker, error: Exception, *, is_gzip: bool
) -> None:
    fill([worker], [f"k{number:03}" for number in range(400)])
    _failing_later(worker, error)
    with capture_logs() as logs:
        head, body = await cut_off(worker, b"Accept-Encoding: gzip\r\n" if is_gzip else b"")
    assert any(log["log_level"] == "error" for log in logs) == isinstance(error, RuntimeError)
    assert head.startswith(b"HTTP/1.1 200 OK")
    content, is_whole = unchunked(body)
    assert not is_whole
    if is_gzip:
        content = gzip.decompress(content)
    *rows, last = [msgspec.json.decode(line) for line in content.splitlines()]
    assert [row["key"] for row in rows] == [f"k{number:03}" for number in range(len(rows))]
    assert 0 < len(rows) < 400
    assert set(last) == {"error"}
    expected = "partition_restoring" if isinstance(error, PartitionRestoring) else "internal"
    assert last["error"]["code"] == expected
    assert (await worker.get("/livez")).status == 200


async def test_a_client_of_http_1_0_tells_by_the_last_line(worker: Worker) -> None:
    fill([worker], [f"k{number:03}" for number in range(400)])
    _, body = await cut_off(worker, version=b"1.0")
    assert msgspec.json.decode(body.splitlines()[-1])["complete"] is True
    _failing_later(worker, PartitionRestoring("40 to go"))
    _, body = await cut_off(worker, version=b"1.0")
    assert set(msgspec.json.decode(body.splitlines()[-1])) == {"error"}


async def test_an_error_before_the_first_row_is_an_answer_of_its_own(worker: Worker) -> None:
    fill([worker])
    _failing_later(worker, PartitionRestoring("40 to go"), calls=1)
    reply = await worker.get("/tables/planes:scan", NDJSON)
    assert (reply.status, reply.json["code"]) == (503, "partition_restoring")


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(worker: Worker) -> None:
    for number in range(400):
        put([worker], b"k%04d" % number, b'"%b"' % (b"x" * 50_000))
    async with connected(worker.url) as (reader, writer):
        writer.write(b"GET /tables/planes:scan HTTP/1.1\r\nHost: t\r\nAccept: application/x-ndjson\r\n\r\n")
        await reader.readexactly(1_000)
        writer.transport.abort()

    async def alone() -> bool:
        return "tablehouse_http_in_flight_requests 1.0" in (await worker.get("/metrics")).body.decode()

    await until(alone, "the scan is given up")


# Counts and turns


async def test_a_count_is_of_a_range_and_exact(workers: tuple[Worker, Worker]) -> None:
    fill(workers)
    for query, count in (("", 40), ("?from=k10&to=k20", 10), ("?prefix=k3", 10), ("?prefix=k3&from=k38", 2)):
        for asked in workers:
            reply = await asked.get(f"/tables/planes:count{query}")
            assert (reply.status, reply.json["count"], reply.json["complete"]) == (200, count, True)
            assert [part["served_by"] for part in reply.json["partitions"]] == ["a", "a", "b", "b"]
    for query in ("?limit=5", "?reverse=true", "?cursor=x", "?keys_only=true"):
        assert (await workers[0].get(f"/tables/planes:count{query}")).json["code"] == "invalid_parameter"
    assert (await workers[0].get("/tables/planes:count", NDJSON)).status == 406
    assert (await workers[0].get("/tables/planes:count?from=b&to=a")).json["parameter"] == "from"


async def test_each_slice_of_a_scan_and_of_a_count_is_done_in_a_turn_of_its_own(workers: tuple[Worker, Worker]) -> None:
    fill(workers, [f"k{number:03}" for number in range(200)])
    loop, turn, is_over = asyncio.get_running_loop(), 0, False

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if not is_over:
            loop.call_soon(next_turn)

    slices: dict[str, list[int]] = {"a": [], "b": []}
    for worker in workers:

        def answer(*arguments: Any, of: Worker = worker, original: Any = worker.local.answer) -> Any:
            slices[of.name].append(turn)
            return original(*arguments)

        worker.local.answer = answer  # type: ignore[method-assign,assignment]
    next_turn()
    try:
        for target in ("/tables/planes:scan?limit=200", "/tables/planes:count"):
            await workers[0].get(target)
            for seen in slices.values():
                assert len(seen) > 10
                assert len(set(seen)) == len(seen)
                seen.clear()
    finally:
        is_over = True
