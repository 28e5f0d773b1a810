"""Scans and counts with a condition, and with some members of rows, through real servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.keys import key_format
from tablehouse.http import scan
from tablehouse.routing import here
from tablehouse.routing.cluster import snapshot_of
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import Placed
from tests.support.http_workers import Reply, Worker, start_worker

NDJSON = {"Accept": "application/x-ndjson"}

_JSON, _STRING = KeySpec("json"), KeySpec("string")
TABLES = (
    TableSpec("planes", SourceSpec("planes", _STRING, ValueSpec("json"))),
    TableSpec("anywhere", SourceSpec("anywhere", _STRING, ValueSpec("json"), partitioner="any")),
    TableSpec("spelled", SourceSpec("spelled", _JSON, ValueSpec("json"))),
    TableSpec("members", SourceSpec("members", KeySpec("json", ("origin", "hour")), ValueSpec("json"))),
    TableSpec("numbers", SourceSpec("numbers", KeySpec("long"), ValueSpec("json"))),
    TableSpec("texts", SourceSpec("texts", _STRING, ValueSpec("string"))),
    TableSpec("blobs", SourceSpec("blobs", KeySpec("bytes"), ValueSpec("bytes"))),
)
CATALOG = Catalog({table.name: table for table in TABLES})


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[list[Worker]]:
    """Run workers that share four partitions of every table."""
    workers = [await start_worker(name, CATALOG) for name in names]
    parts = [range(4)] if len(workers) == 1 else [range(2), range(2, 4)]
    members = []
    for worker, its in zip(workers, parts, strict=True):
        worker.local.held = set(its)
        members.append(Placed(worker.name, worker.internal, dict.fromkeys(CATALOG.tables, its)))
    for worker in workers:
        worker.view.swap(snapshot_of(7, dict.fromkeys(CATALOG.tables, 4), members))
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.server.stop(1.0)


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[list[Worker]]:
    async with running("a", "b") as both:
        yield both


def put(
    workers: Sequence[Worker],
    text: str,
    value: object,
    table: str = "planes",
    partition: int | None = None,
    timestamp: int = 1_700_000_000_000,
    *,
    deleted: bool = False,
) -> None:
    """Put a row where its key says, or into a partition; a value of bytes is the payload itself."""
    stored = key_format(CATALOG.tables[table].source.key).parse(text.encode()).stored
    place = sum(stored) % 4 if partition is None else partition
    payload = value if isinstance(value, bytes) else msgspec.json.encode(value)
    workers[place // 2 % len(workers)].local.rows[table, place, stored] = Row(payload, timestamp, 41, deleted)


def fill(workers: Sequence[Worker], count: int = 40) -> None:
    """Put planes k00 and so on, with their number as `n`."""
    for number in range(count):
        put(workers, f"k{number:02}", {"n": number, "in_it": {"odd": number % 2 == 1, "x": 1.50}})


def target(table: str = "planes", kind: str = "scan", **parameters: Any) -> str:
    return f"/tables/{table}:{kind}?{urlencode(parameters)}"


async def page(workers: Sequence[Worker], table: str = "planes", **parameters: Any) -> Any:
    reply = await workers[0].get(target(table, **parameters))
    assert reply.status == 200, reply
    return reply.json


async def keys(workers: Sequence[Worker], table: str = "planes", **parameters: Any) -> list[Any]:
    """Return the keys of all pages, each from another worker."""
    path: str | None = target(table, **parameters)
    number, found = 0, []
    while path is not None:
        reply = await workers[number % len(workers)].get(path)
        assert reply.status == 200, reply
        found += [row["key"] for row in reply.json["rows"]]
        path, number = reply.json["next"], number + 1
    return found


async def lines(workers: Sequence[Worker], table: str = "planes", **parameters: Any) -> list[Any]:
    reply = await workers[1].get(target(table, **parameters), NDJSON)
    assert reply.status == 200, reply
    return [msgspec.json.decode(line) for line in reply.body.splitlines()]


async def count(workers: Sequence[Worker], table: str = "planes", **parameters: Any) -> Any:
    reply = await workers[0].get(target(table, "count", **parameters))
    assert reply.status == 200, reply
    return reply.json["count"]


async def refused(workers: Sequence[Worker], code: str, table: str = "planes", **parameters: Any) -> Any:
    """Require the same refusal of a page, a stream and, if there can be one, a count, and return its document."""
    replies: list[Reply] = [
        await workers[0].get(target(table, **parameters)),
        await workers[0].get(target(table, **parameters), NDJSON),
    ]
    if "fields" not in parameters:
        replies.append(await workers[0].get(target(table, "count", **parameters)))
    assert {(reply.status, reply.json["code"]) for reply in replies} == {(400, code)}, replies
    return replies[0].json


# Conditions


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n >= 38", ["k38", "k39"]),
        ("n < 4 AND in_it.odd", ["k01", "k03"]),
        ("n BETWEEN 5 AND 6 OR n = 20", ["k05", "k06", "k20"]),
        ("$key LIKE 'k0_' AND n % 5 = 0", ["k00", "k05"]),
        ("$key = 'k07'", ["k07"]),
        ("missing = 1", []),
        ("missing IS NULL AND n = 1", ["k01"]),
        ("n.of.a.number IS NULL AND n = 2", ["k02"]),
        ("NULL", []),
        ("$timestamp = TIMESTAMP '2023-11-14 22:13:20' AND n = 3", ["k03"]),
    ],
)
async def test_pages_streams_and_counts_have_the_rows_that_match(
    workers: list[Worker], where: str, expected: list[str]
) -> None:
    fill(workers)
    assert [row["key"] for row in (await page(workers, where=where))["rows"]] == expected
    assert await keys(workers, where=where, limit=1) == expected
    assert await keys(workers, where=where, limit=3, reverse="true") == expected[::-1]
    assert await keys(workers, where=where, limit=2, keys_only="true") == expected
    *rows, last = await lines(workers, where=where)
    assert ([row["key"] for row in rows], last["next"], last["complete"]) == (expected, None, True)
    assert await count(workers, where=where) == len(expected)


async def test_a_condition_and_a_range_apply_together(workers: list[Worker]) -> None:
    fill(workers)
    assert await keys(workers, where="in_it.odd", prefix="k1", limit=2) == ["k11", "k13", "k15", "k17", "k19"]
    assert await count(workers, where="in_it.odd", to="k10") == 5


async def test_the_partition_of_a_row_can_be_asked_for(workers: list[Worker]) -> None:
    fill(workers)
    for partition in range(4):
        expected = [f"k{number:02}" for number in range(40) if sum(b"k%02d" % number) % 4 == partition]
        assert await keys(workers, where=f"$partition = {partition}") == expected


async def test_limit_counts_rows_that_match(workers: list[Worker]) -> None:
    fill(workers)
    found = await page(workers, where="in_it.odd", limit=5)
    assert [row["value"]["n"] for row in found["rows"]] == [1, 3, 5, 7, 9]
    *rows, last = await lines(workers, where="in_it.odd", limit=5)
    assert len(rows) == 5
    assert (await workers[0].get(last["next"])).json["rows"][0]["value"]["n"] == 11


async def test_keys_are_read_as_the_scan_shows_them(workers: list[Worker]) -> None:
    for text in ('"a"', "7", "true", "null"):
        put(workers, text, {}, "spelled")
    for where, expected in (
        ("$key IS NULL", [None]),
        ("$key || '' = '\"a\"'", ['"a"']),
        ("$key || '' = '7'", [7]),
    ):
        assert await keys(workers, "spelled", where=where) == expected
    for origin, hour in (("EWR", 6), ("EWR", 15), ("LGA", 6)):
        put(workers, json.dumps({"origin": origin, "hour": hour}), {}, "members")
    found = await keys(workers, "members", where="$key.origin = 'EWR' AND $key.hour > 6")
    assert found == [{"origin": "EWR", "hour": 15}]
    put(workers, "-5", {}, "numbers")
    assert await keys(workers, "numbers", where="$key = '-5'") == ["-5"]


async def test_values_that_are_no_objects_have_no_members(workers: list[Worker]) -> None:
    for number, value in enumerate((b"7", b'"text"', b"[1]", b"null", b' {"n": 1}')):
        put(workers, f"k{number}", value)
    assert await keys(workers, where="n IS NULL") == ["k0", "k1", "k2", "k3"]
    assert await keys(workers, where="n = 1") == ["k4"]
    for table, key in (("texts", "a"), ("blobs", "YQ")):
        put(workers, key, b'{"n": 1}', table)
        assert await keys(workers, table, where=f"n IS NULL AND $key = '{key}' AND $partition = 1") == [key]
        assert await count(workers, table, where="n = 1") == 0


async def test_members_with_odd_names_are_read(workers: list[Worker]) -> None:
    put(workers, "a", {'say "hi"': 1, "a\\b": 2, "ü ü": 3, "": 4})
    for name, value in (('say "hi"', 1), ("a\\b", 2), ("ü ü", 3)):
        quoted = name.replace('"', '""')
        assert await count(workers, where=f'"{quoted}" = {value}') == 1, name


async def test_marks_of_deleted_keys_never_match(workers: list[Worker]) -> None:
    put(workers, "a", b"", deleted=True)
    put(workers, "b", b"", "anywhere", deleted=True)
    for table in ("planes", "anywhere"):
        assert await keys(workers, table, where="TRUE") == []
        assert await count(workers, table, where="TRUE") == 0


# Keys in several partitions


async def test_a_row_that_is_not_the_newest_of_its_key_never_matches(workers: list[Worker]) -> None:
    for number in range(20):
        key = f"k{number:02}"
        put(workers, key, {"state": "old", "n": number}, "anywhere", number % 4, 1_000)
        put(workers, key, {"state": "new", "n": number}, "anywhere", (number + 1) % 4, 2_000)
    put(workers, "gone", {"state": "old"}, "anywhere", 0, 1_000)
    put(workers, "gone", b"", "anywhere", 3, 2_000, deleted=True)
    everything = [f"k{number:02}" for number in range(20)]
    for limit in (1, 3, 100):
        assert await keys(workers, "anywhere", where="state = 'old'", limit=limit) == []
        assert await keys(workers, "anywhere", where="state = 'new'", limit=limit) == everything
        some = await keys(workers, "anywhere", where="n < 5", limit=limit, reverse="true", keys_only="true")
        assert some == everything[4::-1]
    assert await count(workers, "anywhere", where="state = 'old'") == 0
    assert await count(workers, "anywhere", where="n < 5") == 5
    assert (await lines(workers, "anywhere", where="state = 'old'"))[0]["complete"] is True
    assert await keys(workers, "anywhere", where="$partition = 1") == everything[::4]
    found = await page(workers, "anywhere", where="n = 3", fields="state")
    assert found["rows"] == [{"key": "k03", "value": {"state": "new"}}]


async def test_a_row_of_several_partitions_without_a_value_is_named(workers: list[Worker]) -> None:
    put(workers, "a", {"n": 0}, "anywhere", 2)
    answer = await refused(workers, "expression_failed", "anywhere", where="1 / n > 0")
    assert (answer["key"], answer["partition"]) == ("a", 2)


# Bounds


async def test_a_page_ends_with_the_rows_read_for_it_and_may_have_none(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "ROWS_READ_PER_PAGE", 8)
    monkeypatch.setattr(here, "SECONDS_PER_QUESTION", 0.0)
    fill(workers)
    path: str | None = target(where="n = 39")
    rows, number = [], 0
    while path is not None:
        reply = await workers[number % 2].get(path)
        assert reply.json["complete"] is True
        rows.append([row["key"] for row in reply.json["rows"]])
        path, number = reply.json["next"], number + 1
    assert number > 2
    assert rows == [[]] * (number - 1) + [["k39"]]


async def test_a_worker_goes_on_reading_where_no_row_matches(workers: list[Worker]) -> None:
    fill(workers)
    reply = await workers[0].get(target(where="FALSE"))
    assert (reply.json["rows"], reply.json["next"]) == ([], None)
    assert len(workers[1].local.asked) == 2 * 4  # slices of three rows, ten in each of two partitions
    metrics = (await workers[0].get("/metrics")).body.decode()
    assert 'tablehouse_scanned_rows_total{table="planes"} 40.0' in metrics


async def test_pages_and_counts_say_what_was_read_for_them(workers: list[Worker]) -> None:
    fill(workers)
    for path, plan in (
        (target(where="n < 3"), "full scan; rows_read=40; rows_returned=3"),
        (target(where="n < 3", prefix=""), "full scan; rows_read=40; rows_returned=3"),
        (target(where="n < 3", prefix="k0"), "key range; rows_read=10; rows_returned=3"),
        (target(), "full scan; rows_read=40; rows_returned=40"),
        (target(kind="count", where="n < 3"), "full scan; rows_read=40; rows_returned=3"),
        (target(kind="count", to="k20"), "key range; rows_read=20; rows_returned=20"),
        (target("anywhere", "count", where="TRUE"), "full scan; rows_read=0; rows_returned=0"),
    ):
        assert (await workers[0].get(path)).headers["tablehouse-plan"] == plan


# Cursors


async def test_a_cursor_is_of_one_condition_and_of_any_fields(workers: list[Worker]) -> None:
    fill(workers)
    mark = (await page(workers, where="in_it.odd", limit=2, fields="n"))["next"].rpartition("cursor=")[2]
    found = await page(workers, where="in_it.odd", limit=2, fields="in_it.odd", cursor=mark)
    assert found["rows"] == [{"key": f"k0{number}", "value": {"in_it": {"odd": True}}} for number in (5, 7)]
    for other in ({}, {"where": "in_it.odd "}, {"where": "TRUE"}):
        reply = await workers[0].get(target(cursor=mark, **other))
        assert (reply.status, reply.json["code"]) == (400, "invalid_cursor")
        assert "where" in reply.json["detail"]
    plain = (await page(workers, limit=2))["next"].rpartition("cursor=")[2]
    assert (await workers[0].get(target(cursor=plain, where="TRUE"))).json["code"] == "invalid_cursor"


# Errors


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("", "empty"),
        ("n >", "column"),
        ("n = 'it", "quote"),
        ("n * 2", "a condition is required"),
        ("SELECT 1", "subqueries are not supported"),
        ("n = (SELECT n FROM planes)", "subqueries are not supported"),
        ("n ~ 'x'", "regular expressions"),
        ("sleep(10)", "sleep"),
        ("$topic = 'x' AND n = 1", "$topic is not known here; there are $key, $partition, $timestamp"),
        ("n = 1 AND $headers.a = 'x'", "column 11: $headers is not known here"),
        ("$offset = 1", "there is no $offset"),
        ("n = '" + "x" * 10_000 + "'", "characters"),
        ("(" * 100 + "TRUE" + ")" * 100, "deep"),
        ("NOT " * 2_000 + "TRUE", ""),
        ("n = 1 OR " * 500 + "TRUE", ""),
        ("\0", ""),
    ],
)
async def test_what_is_no_condition_is_refused_before_a_worker_is_asked(
    workers: list[Worker], where: str, words: str
) -> None:
    answer = await refused(workers, "invalid_expression", where=where)
    assert (answer["parameter"], answer["retryable"]) == ("where", False)
    assert words in answer["detail"]
    assert "line 1, column" in answer["detail"]
    assert len(answer["detail"]) < 1_000
    assert all(worker.local.asked == [] for worker in workers)


async def test_an_error_shows_the_place_in_the_text(workers: list[Worker]) -> None:
    answer = await refused(workers, "invalid_expression", where="n = 1 AND seats >< 2")
    assert (answer["line"], answer["column"]) == (1, 18)
    assert "\n  n = 1 AND seats >< 2\n                   ^" in answer["detail"]
    reply = await workers[0].get("/tables/planes:scan?where=%ff")
    assert (reply.json["code"], reply.json["detail"]) == ("invalid_expression", "where is not valid UTF-8")


@pytest.mark.parametrize(
    ("where", "reason"),
    [("1 / n > 0", "division by zero"), ("name + 1 > 0", "text"), ("n", "a truth value"), ("name < n", "compared")],
)
async def test_a_row_without_a_value_makes_the_answer_an_error_that_names_it(
    workers: list[Worker], where: str, reason: str
) -> None:
    fill(workers)
    for partition in range(4):
        put(workers, f"zero{partition}", {"n": 0, "name": "secret"}, partition=partition)
    answer = await refused(workers, "expression_failed", where=f"$key LIKE 'zero%' AND {where}", partial="true")
    assert (answer["parameter"], answer["table"]) == ("where", "planes")
    assert answer["key"] == f"zero{answer['partition']}"
    assert f'"{answer["key"]}"' in answer["detail"]
    assert reason in answer["detail"]
    assert "secret" not in json.dumps(answer)
    assert (answer["line"], answer["column"]) == (1, answer["column"])


async def test_a_failing_row_of_another_worker_is_named_as_one_here(workers: list[Worker]) -> None:
    for partition in range(4):
        for worker in workers:
            worker.local.rows.clear()
        put(workers, "x" * 300, {"n": 0}, partition=partition)
        answer = await refused(workers, "expression_failed", where="1 % n = 1")
        assert (answer["key"], answer["partition"]) == ("x" * 300, partition)
        assert len(answer["detail"]) < 400


async def test_a_stream_that_fails_on_its_way_ends_with_the_error(workers: list[Worker]) -> None:
    fill(workers, 0)
    for number in range(3_000):
        put(workers, f"k{number:04}", {"n": 3_000 - 1 - number})
    request = target(where="1 / n > -1")
    *rows, last = await _cut(workers[0], request)
    assert (last["error"]["code"], last["error"]["key"]) == ("expression_failed", "k2999")
    assert [row["key"] for row in rows] == [f"k{number:04}" for number in range(len(rows))]


async def _cut(worker: Worker, path: str) -> list[Any]:
    """Return the lines of a stream whose body does not end."""
    host, _, port = worker.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\nAccept: application/x-ndjson\r\n\r\n".encode())
    raw = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert not raw.endswith(b"0\r\n\r\n")
    lines_of = [line for line in raw.partition(b"\r\n\r\n")[2].splitlines() if line.startswith(b"{")]
    return [msgspec.json.decode(line) for line in lines_of]


async def test_a_worker_of_a_version_without_conditions_is_not_believed(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "SECONDS_PER_QUESTION", 0.0)
    fill(workers)
    answer = workers[1].local.answer

    def of_old(*arguments: Any) -> Any:
        return msgspec.structs.replace(answer(*arguments), rows_read=None)

    monkeypatch.setattr(workers[1].local, "answer", of_old)
    for path in (target(where="n = 1"), target(fields="n")):
        reply = await workers[0].get(path)
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
        assert "does not know `where` and `fields` yet" in reply.json["detail"]
    assert len((await page(workers))["rows"]) == 40


# Members


async def test_fields_are_the_members_of_rows_byte_for_byte(workers: list[Worker]) -> None:
    put(workers, "a", b'{ "n": 1.50,\n "b": {"c": [1, {"d":2}] , "e": null}, "big": 123456789012345678901234567890}')
    put(workers, "b", {"b": 7, "n": None})
    put(workers, "c", b"[1]")
    for fields, expected in (
        ("n", [b'{"n":1.50}', b'{"n":null}', b"{}"]),
        ("big,n", [b'{"big":123456789012345678901234567890,"n":1.50}', b'{"n":null}', b"{}"]),
        ("big, n", [b'{"big":123456789012345678901234567890,"n":1.50}', b'{"n":null}', b"{}"]),
        ("b.c", [b'{"b":{"c":[1, {"d":2}]}}', b"{}", b"{}"]),
        ("b.e,n,b.c", [b'{"b":{"e":null,"c":[1, {"d":2}]},"n":1.50}', b'{"n":null}', b"{}"]),
        ("b.c,b", [b'{"b":{"c": [1, {"d":2}] , "e": null}}', b'{"b":7}', b"{}"]),
        ("b.x,none", [b"{}", b"{}", b"{}"]),
        ("b.c.d", [b"{}", b"{}", b"{}"]),
    ):
        reply = await workers[0].get(target(fields=fields))
        rows = b",".join(b'{"key":"%c","value":%b}' % pair for pair in zip(b"abc", expected, strict=True))
        assert reply.body.startswith(b'{"rows":[' + rows + b"],"), fields
        assert [row["value"] for row in (await lines(workers, fields=fields))[:-1]] == list(
            map(msgspec.json.decode, expected)
        )


async def test_a_condition_can_read_members_that_are_not_wanted(workers: list[Worker]) -> None:
    fill(workers)
    found = await page(workers, where="n = 3", fields="in_it.odd")
    assert found["rows"] == [{"key": "k03", "value": {"in_it": {"odd": True}}}]


async def test_names_of_members_can_be_percent_encoded(workers: list[Worker]) -> None:
    put(workers, "a", {"a.b": 1, "a,b": 2, 'a"b\n': 3, "50%": 4, "a": {"b": 5}, "ü": 6})
    for name in ("a.b", "a,b", 'a"b\n', "50%", "ü"):
        [row] = (await page(workers, fields=quote(name, safe="").replace(".", "%2E")))["rows"]
        assert list(row["value"]) == [name]


@pytest.mark.parametrize(
    ("table", "parameters", "words"),
    [
        ("planes", {"fields": ""}, "an empty name"),
        ("planes", {"fields": "a,,b"}, "an empty name"),
        ("planes", {"fields": "a."}, "an empty name"),
        ("planes", {"fields": ",".join(f"a{number}" for number in range(101))}, "101 members, at most 100"),
        ("planes", {"fields": ".".join("a" * 21)}, "21 names, at most 20"),
        ("planes", {"fields": "*"}, "leave fields out for whole rows"),
        ("planes", {"fields": "n,$key"}, "$key is no member"),
        ("planes", {"fields": "%zz"}, "hexadecimal"),
        ("planes", {"fields": "%ff"}, "UTF-8"),
        ("planes", {"fields": "a", "keys_only": "true"}, "keys_only"),
        ("texts", {"fields": "a"}, "are not JSON"),
        ("blobs", {"fields": "a"}, "are not JSON"),
    ],
)
async def test_fields_that_cannot_be_had_are_refused(
    workers: list[Worker], table: str, parameters: dict[str, str], words: str
) -> None:
    answer = await refused(workers, "invalid_parameter", table, **parameters)
    assert words in answer["detail"]
    assert all(worker.local.asked == [] for worker in workers)


async def test_a_count_has_no_fields(workers: list[Worker]) -> None:
    reply = await workers[0].get(target(kind="count", fields="a"))
    assert (reply.status, reply.json["parameter"]) == (400, "fields")


# Against the whole scan


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[asyncio.Runner, list[Worker]]]:
    """Run two workers for all examples of a test."""
    with asyncio.Runner() as runner:
        cluster = running("a", "b")
        workers = runner.run(cluster.__aenter__())
        yield runner, workers
        runner.run(cluster.__aexit__(None, None, None))


#: Conditions, and the same of a row with `n` from 0 to 3 or without it, in Python.
CONDITIONS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "n = 2": lambda row: row.get("n") == 2,
    "n IS NULL": lambda row: row.get("n") is None,
    "n >= 1 AND n < 3": lambda row: row.get("n") in (1, 2),
    "NOT n = 0": lambda row: row.get("n") not in (None, 0),
    "coalesce(n, 3) = 3": lambda row: row.get("n", 3) == 3,
    "FALSE": lambda _: False,
    "TRUE": lambda _: True,
}
ROWS = st.fixed_dictionaries({}, optional={"n": st.integers(0, 3)})
PLACES = st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(1, 5), ROWS, st.booleans())


@given(
    st.sampled_from(["planes", "anywhere"]),
    st.lists(PLACES, max_size=40),
    st.sampled_from(sorted(CONDITIONS)),
    st.booleans(),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([4, 100_000]),
)
@settings(max_examples=80, deadline=None)
def test_a_filtered_scan_is_the_whole_scan_filtered(
    cluster: tuple[asyncio.Runner, list[Worker]],
    table: str,
    places: list[tuple[int, int, int, dict[str, int], bool]],
    where: str,
    reverse: bool,  # noqa: FBT001 - hypothesis passes it by position
    limit: int,
    seconds: float,
    rows_read: int,
) -> None:
    runner, workers = cluster
    for worker in workers:
        worker.local.rows.clear()
    for number, partition, timestamp, row, deleted in places:
        if table == "anywhere":
            put(workers, f"k{number:02}", row, table, partition, timestamp, deleted=deleted)
        else:
            put(workers, f"k{number:02}", row, table, timestamp=timestamp)
    direction = str(reverse).lower()

    async def scenario() -> None:
        *whole, _ = await lines(workers, table, reverse=direction)
        expected = [row["key"] for row in whole if CONDITIONS[where](row["value"])]
        assert await keys(workers, table, where=where, reverse=direction, limit=limit) == expected
        *rows, _ = await lines(workers, table, where=where, reverse=direction)
        assert rows == [row for row in whole if CONDITIONS[where](row["value"])]
        assert await count(workers, table, where=where) == len(expected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "SECONDS_PER_QUESTION", seconds)
        patch.setattr(scan, "ROWS_READ_PER_PAGE", rows_read)
        runner.run(scenario())


def test_the_catalog_has_tables_of_both_kinds() -> None:
    assert replace(TABLES[0].source, partitioner="any", topic="anywhere") == TABLES[1].source
