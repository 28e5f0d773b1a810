"""Many rows with one request, through real servers over tables held in dictionaries."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import MisplacedKeys, PartitionRestoring, TooStale
from tablehouse.formats.keys import key_format
from tablehouse.formats.partitioners import partition_of
from tablehouse.http import held
from tablehouse.http.batch import MAX_BODY_BYTES, MAX_KEYS
from tablehouse.model import ReadMode, Role
from tablehouse.routing.batch import WINDOW
from tablehouse.routing.here import BYTES_PER_ANSWER
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import (
    Reply,
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

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    async with two_workers() as both:
        yield both


def partition(key: bytes) -> int:
    return partition_of("murmur2", key, 4)


def put(holders: Sequence[Worker], key: bytes, value: bytes, table: str = "planes") -> None:
    for holder in holders:
        holder.local.rows[table, partition(key), key] = Row(value, 1_700_000_000_000, 41)


def request(table: str, body: bytes, headers: Mapping[str, str] = JSON, query: str = "") -> bytes:
    lines = [
        f"POST /tables/{table}:batch-get{query} HTTP/1.1",
        "Host: test",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def post(worker: Worker, body: bytes, table: str = "planes", query: str = "", **headers: str) -> Reply:
    return await send(worker.url, request(table, body, {**JSON, **headers}, query))


async def batch(worker: Worker, keys: Sequence[object], table: str = "planes", query: str = "") -> Any:
    reply = await post(worker, msgspec.json.encode({"keys": keys}), table, query)
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-request-id"]
    return reply.json


def codes(answer: Any) -> list[str]:
    return [row["error"]["code"] if "error" in row else "" for row in answer["rows"]]


async def test_rows_come_in_the_order_asked_with_the_freshness_of_their_partitions(worker: Worker) -> None:
    keys = [f"k{number}" for number in range(40)]
    for key in keys[::2]:
        put([worker], key.encode(), b'{"is": "%b"}' % key.encode())
    answer = await batch(worker, keys)
    assert [row["key"] for row in answer["rows"]] == keys
    assert [row.get("value") for row in answer["rows"]] == [
        {"is": key} if number % 2 == 0 else None for number, key in enumerate(keys)
    ]
    assert codes(answer) == ["", "key_not_found"] * 20
    missing = answer["rows"][1]["error"]
    assert missing["retryable"] is False
    assert "no row" in missing["detail"]
    assert answer["partitions"] == [
        {
            "partition": number,
            "position": f"{number}:99",
            "role": "active",
            "lag_records": 2,
            "staleness_ms": 15,
            "rejected_records": 3,
            "served_by": "a",
        }
        for number in sorted({partition(key.encode()) for key in keys})
    ]


async def test_a_key_asked_twice_is_answered_twice_and_no_keys_are_no_rows(worker: Worker) -> None:
    put([worker], b"x", b"1")
    assert [row["value"] for row in (await batch(worker, ["x", "x"]))["rows"]] == [1, 1]
    assert await batch(worker, []) == {"rows": [], "partitions": []}


async def test_json_rows_are_spliced_in_byte_for_byte(worker: Worker) -> None:
    value = b'{ "seats" : 1.50,\n "big": 123456789012345678901234567890 }'
    put([worker], b"x", value)
    reply = await post(worker, b'{"keys": ["x"]}')
    assert reply.body.startswith(b'{"rows":[{"key":"x","value":' + value + b"}]")


async def test_strings_come_as_json_strings_and_bytes_as_base64(worker: Worker) -> None:
    stored = (7 + 2**63).to_bytes(8, "big")
    place = partition_of("murmur2", (7).to_bytes(8, "big"), 4)
    worker.local.rows["numbers", place, stored] = Row('a "b" \n\u00e9'.encode(), 0, 1)
    put([worker], b"\xff\x00", b"\x00\xfe\xff", "blobs")
    [row] = (await batch(worker, ["7"], "numbers"))["rows"]
    assert row["value"] == 'a "b" \n\u00e9'
    [row] = (await batch(worker, ["_wA"], "blobs"))["rows"]
    assert row == {"key": "_wA", "value": "AP7/"}


async def test_an_integer_key_can_be_a_number_too_and_is_echoed_as_it_came(worker: Worker) -> None:
    stored = (7 + 2**63).to_bytes(8, "big")
    place = partition_of("murmur2", (7).to_bytes(8, "big"), 4)
    worker.local.rows["numbers", place, stored] = Row(b"seven", 0, 1)
    answer = await batch(worker, [7, "7", 7.5, 2**63, "x", True, None, [7]], "numbers")
    assert codes(answer) == ["", "", *["invalid_key"] * 6]
    assert [row["key"] for row in answer["rows"]] == [7, "7", 7.5, 2**63, "x", True, None, [7]]


async def test_a_json_key_is_its_text_or_its_value_and_is_found_in_whichever_partition_it_lies() -> None:
    people = TableSpec("people", SourceSpec("planes-topic", KeySpec("json"), ValueSpec("json")))
    worker = await start_worker("a", Catalog({"people": people}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    try:
        keys = key_format(KeySpec("json"))
        # Of the second key Java producers write another form, which hashes to another partition.
        for text, row in ((b"7", b"1"), ('"\U0001f601"'.encode(), b"2")):
            key = keys.parse(text)
            worker.local.rows["people", partition(key.wires[-1]), key.stored] = Row(row, 0, 1)
        answer = await batch(worker, [7, "7", '"\U0001f601"', "\U0001f601", None], "people")
        assert [row.get("value") for row in answer["rows"]] == [1, 1, 2, None, None]
        assert codes(answer) == ["", "", "", "invalid_key", "key_not_found"]
    finally:
        await worker.server.stop(1.0)


async def test_a_key_that_may_lie_in_any_partition_is_the_newest_record_of_all_of_them() -> None:
    source = SourceSpec("planes-topic", KeySpec("string"), ValueSpec("json"), partitioner="any")
    worker = await start_worker("a", Catalog({"people": TableSpec("people", source)}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    try:
        rows = worker.local.rows
        rows["people", 0, b"x"], rows["people", 3, b"x"] = Row(b"1", 5, 1), Row(b"2", 6, 1)
        rows["people", 1, b"y"], rows["people", 2, b"y"] = Row(b"3", 5, 1), Row(b"", 6, 1, deleted=True)
        answer = await batch(worker, ["x", "y", "z"], "people")
        assert answer["rows"][0]["value"] == 2
        assert codes(answer) == ["", "key_not_found", "key_not_found"]
    finally:
        await worker.server.stop(1.0)


async def test_keys_of_several_forms_do_not_wait_for_a_worker_that_others_have_to_ask() -> None:
    people = Catalog({"people": TableSpec("people", SourceSpec("planes-topic", KeySpec("json"), ValueSpec("json")))})
    a, c = [await start_worker(name, people, timeout=1.0) for name in "ac"]
    open_here: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: open_here.append(writer), "127.0.0.1", 0)
    members = [
        Placed("a", a.internal, {}),
        Placed("b", f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", {"planes-topic": [0, 1]}),
        Placed("c", c.internal, {"planes-topic": [2, 3]}),
    ]
    for worker in (a, c):
        worker.view.swap(snapshot(*members))
    c.local.held = {2, 3}
    try:
        keys = key_format(KeySpec("json"))
        texts = [f'"{chr(0x1F600 + number)}"' for number in range(64)]
        parsed = {text: keys.parse(text.encode()) for text in texts}
        places = {text: {partition(wire) for wire in key.wires} for text, key in parsed.items()}
        held_up = [text for text in texts if len(parsed[text].wires) > 1 and places[text] <= {0, 1}][:2]
        free = [text for text in texts if len(parsed[text].wires) > 1 and places[text] <= {2, 3}][:2]
        for text in free:
            for place in places[text]:
                c.local.rows["people", place, parsed[text].stored] = Row(b"1", 0, 1)
        answer = await batch(a, [*held_up, *free], "people")
        assert (len(held_up), len(free)) == (2, 2)
        assert codes(answer)[2:] == ["", ""]
        assert "" not in codes(answer)[:2]
    finally:
        silent.close()
        for writer in open_here:
            writer.close()
        for worker in (a, c):
            await worker.server.stop(1.0)


async def test_one_bad_key_spoils_no_other(worker: Worker) -> None:
    put([worker], b"x", b"1")
    answer = await batch(worker, ["x", 5, "k" * 9000, "x"])
    assert codes(answer) == ["", "invalid_key", "uri_too_long", ""]
    assert "key format string" in answer["rows"][1]["error"]["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_body"),
        (b"{", 400, "invalid_body"),
        (b"[]", 400, "invalid_body"),
        (b'{"keys": "x"}', 400, "invalid_body"),
        (b'{"keys": ["\xff"]}', 400, "invalid_body"),
        (b'{"keys": [' + b"[" * 499 + b"]" * 499 + b"]}", 400, "invalid_body"),
        (b'{"keys": [' + b"[" * 5000 + b"]" * 5000 + b"]}", 400, "invalid_body"),
        (b'{"keys": [], "fields": []}', 400, "invalid_body"),
        (msgspec.json.encode({"keys": ["x"] * (MAX_KEYS + 1)}), 400, "invalid_body"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "payload_too_large"),
        (b" " * (10 << 20), 413, "payload_too_large"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(worker: Worker, body: bytes, status: int, code: str) -> None:
    reply = await post(worker, body)
    assert (reply.status, reply.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
        ({"Accept": "text/csv"}, 406),
    ],
)
async def test_what_the_headers_say_of_the_body_is_minded(
    worker: Worker, headers: Mapping[str, str], status: int
) -> None:
    assert (await send(worker.url, request("planes", b'{"keys": []}', {**JSON, **headers}))).status == status


async def test_a_batch_without_a_content_type_is_refused_with_the_one_to_send(worker: Worker) -> None:
    reply = await send(worker.url, request("planes", b'{"keys": []}', {}))
    assert (reply.status, reply.json["code"]) == (415, "unsupported_media_type")
    assert reply.json["available"] == ["application/json"]


async def test_each_route_names_its_own_methods(worker: Worker) -> None:
    got = await worker.get("/tables/planes:batch-get")
    assert (got.status, got.headers["allow"]) == (405, "POST, OPTIONS")
    posted = await worker.get("/tables/planes:locate?key=x", method="POST")
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_an_unknown_table_and_one_without_an_assignment_are_no_batches(worker: Worker) -> None:
    reply = await post(worker, b'{"keys": ["x"]}', "nope")
    assert (reply.status, reply.json["code"]) == (404, "table_not_found")
    unassigned = await start_worker("lonely")
    try:
        reply = await post(unassigned, b'{"keys": ["x"]}')
        assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
    finally:
        await unassigned.server.stop(1.0)


# Bodies that do not come


async def test_a_body_that_does_not_arrive_is_a_408_and_not_a_wait_without_end() -> None:
    async with one_worker(timeout=0.2) as worker:
        reply = await send(worker.url, request("planes", b'{"keys": ["x"]}')[:-3])
        assert (reply.status, reply.json["code"]) == (408, "request_timeout")


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(worker: Worker) -> None:
    async with connected(worker.url) as (_, writer):
        writer.write(request("planes", b'{"keys": ["x"]}')[:-3])
        await writer.drain()

    async def alone() -> bool:
        return "tablehouse_http_in_flight_requests 1.0" in (await worker.get("/metrics")).body.decode()

    await until(alone, "the request is given up")
    assert (await worker.get("/livez")).status == 200


async def test_malformed_chunks_are_a_400(worker: Worker) -> None:
    head = b"POST /tables/planes:batch-get HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    reply = await send(worker.url, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert reply.status == 400


async def test_a_client_that_asks_first_is_told_to_go_on(worker: Worker) -> None:
    put([worker], b"x", b"1")
    whole = request("planes", b'{"keys": ["x"]}', {**JSON, "Expect": "100-continue"})
    head, body = whole.split(b"\r\n\r\n", 1)
    async with connected(worker.url) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_reply(reader)).json["rows"] == [{"key": "x", "value": 1}]


async def test_plain_reads_and_batches_take_turns_on_one_connection(worker: Worker) -> None:
    put([worker], b"x", b"1")
    plain = b"GET /tables/planes/x HTTP/1.1\r\nHost: test\r\n\r\n"
    async with connected(worker.url) as (reader, writer):
        for _ in range(3):
            writer.write(plain)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n1"), 5)).startswith(b"HTTP/1.1 200 OK")
            writer.write(request("planes", b'{"keys": ["x"]}'))
            assert (await read_reply(reader)).status == 200


# Several workers


async def test_every_worker_gives_the_same_rows_with_one_hop_to_each_owner(workers: tuple[Worker, Worker]) -> None:
    keys = [f"k{number}" for number in range(100)]
    for key in keys:
        put(workers, key.encode(), b'"%b"' % key.encode())
    for asked, other in (workers, workers[::-1]):
        answer = await batch(asked, keys)
        assert [row["value"] for row in answer["rows"]] == keys
        served = {part["partition"]: part["served_by"] for part in answer["partitions"]}
        assert served == {0: "a", 1: "a", 2: "b", 3: "b"}
        metrics = (await asked.get("/metrics")).body.decode()
        assert 'tablehouse_forward_requests_total{outcome="ok"} 1.0' in metrics
        assert 'tablehouse_read_total{result="hit",table="planes"} 100.0' in metrics
        assert other.name != asked.name


async def test_a_batch_of_more_keys_than_a_window_comes_whole(workers: tuple[Worker, Worker]) -> None:
    keys = [f"k{number}" for number in range(2 * WINDOW + 100)]
    for key in keys:
        put(workers, key.encode(), b'"%b"' % key.encode())
    answer = await batch(workers[0], keys)
    assert [row.get("value") for row in answer["rows"]] == keys


async def test_rows_too_large_for_one_answer_between_workers_come_with_more_hops(
    workers: tuple[Worker, Worker],
) -> None:
    keys = [f"k{number}" for number in range(100)]
    size = BYTES_PER_ANSWER // 10
    for key in keys:
        put(workers, key.encode(), b'"%b"' % (b"x" * size))
    answer = await batch(workers[0], keys)
    assert [len(row["value"]) for row in answer["rows"]] == [size] * 100
    metrics = await workers[0].get("/metrics")
    name = 'tablehouse_forward_requests_total{outcome="ok"} '
    [hops] = [line for line in metrics.body.decode().splitlines() if line.startswith(name)]
    assert 4 <= float(hops.split()[-1]) <= 12


async def test_what_an_owner_refuses_is_the_error_of_its_keys_alone(workers: tuple[Worker, Worker]) -> None:
    keys = [f"k{number}" for number in range(60)]
    for key in keys:
        put(workers, key.encode(), b"1")
    workers[1].local.errors[2] = PartitionRestoring("40 to go", retry_after=3)
    workers[1].local.errors[3] = MisplacedKeys("a key lies elsewhere")
    answer = await batch(workers[0], keys)
    expected = {0: "", 1: "", 2: "partition_restoring", 3: "misplaced_keys"}
    assert codes(answer) == [expected[partition(key.encode())] for key in keys]
    refused = next(row["error"] for row in answer["rows"] if "error" in row and row["error"]["retryable"])
    assert refused["detail"] == "40 to go"
    assert {part["partition"] for part in answer["partitions"]} == {0, 1}


async def test_keys_of_an_unreachable_owner_go_to_their_standby_or_say_so(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    keys = [f"k{number}" for number in range(60)]
    for key in keys:
        put(workers, key.encode(), b"1")
    share(workers, {"a": [0, 1], "b": [2, 3]}, standbys={"a": [2]})
    await b.server.stop(0)
    answer = await batch(a, keys)
    expected = {0: "", 1: "", 2: "", 3: "owner_unreachable"}
    assert codes(answer) == [expected[partition(key.encode())] for key in keys]


async def test_keys_that_moved_are_followed_to_their_new_owner(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    keys = [f"k{number}" for number in range(60)]
    for key in keys:
        put(workers, key.encode(), b"1")
    original = b.local.read_many

    def moving(*arguments: Any) -> Any:
        share(workers, {"a": range(4)}, generation=8)
        return original(*arguments)

    b.local.read_many = moving  # type: ignore[method-assign,assignment]
    answer = await batch(a, keys)
    assert codes(answer) == [""] * 60
    assert {part["served_by"] for part in answer["partitions"]} == {"a"}


async def test_a_key_that_nobody_holds_is_unassigned_and_the_owner_is_asked_twice(
    workers: tuple[Worker, Worker],
) -> None:
    workers[1].local.held.clear()
    keys = [f"k{number}" for number in range(20)]
    answer = await batch(workers[0], keys)
    expected = {0: "key_not_found", 1: "key_not_found", 2: "partition_unassigned", 3: "partition_unassigned"}
    assert codes(answer) == [expected[partition(key.encode())] for key in keys]


@pytest.mark.parametrize(("query", "code"), [("", "owner_unreachable"), ("?read=any", "key_not_found")])
async def test_the_misses_of_a_standby_are_taken_by_those_who_ask_for_them(
    workers: tuple[Worker, Worker], query: str, code: str
) -> None:
    a, b = workers
    put([a], b"there", b"1")
    share(workers, {"b": range(4)}, standbys={"a": range(4)})
    await b.server.stop(0)
    a.local.role = Role.STANDBY
    answer = await batch(a, ["there", "gone"], query=query)
    # The active is the one that the caller hears of, as with a single read.
    assert codes(answer) == ["", code]
    assert answer["partitions"][0]["role"] == "standby"


async def test_where_misses_prove_nothing_rows_are_still_given(workers: tuple[Worker, Worker]) -> None:
    put(workers, b"k1", b"1")
    for worker in workers:
        worker.local.miss = MisplacedKeys("a key lies elsewhere", retry_after=60)
    assert codes(await batch(workers[0], ["k1", "k2", "k3", "k4"])) == ["", *["misplaced_keys"] * 3]


async def test_rows_beyond_a_bound_are_asked_of_the_next_copy(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    put(workers, b"k1", b"1")
    share(workers, {"a": range(4)}, standbys={"b": range(4)})
    a.local.hit = TooStale("9 s behind")
    answer = await batch(a, ["k1", "k2"])
    assert codes(answer) == ["", "key_not_found"]
    b.local.hit = TooStale("10 s behind")
    answer = await batch(a, ["k1", "k2"])
    assert (codes(answer), answer["rows"][0]["error"]["detail"]) == (["too_stale", "key_not_found"], "9 s behind")


async def test_a_partition_that_was_asked_more_than_once_is_labelled_with_the_worst_of_each_figure(
    workers: tuple[Worker, Worker],
) -> None:
    a, b = workers
    keys = [key for number in range(99) if partition((key := f"k{number}").encode()) == 0][:6]
    for key in keys:
        put(workers, key.encode(), b"1")
    share(workers, {"a": range(4)}, standbys={"b": range(4)})
    b.local.role, b.local.lag, b.local.staleness_ms = Role.STANDBY, 1, None
    b.local.applied[0] = 105
    original = a.local.read_many

    def once(*arguments: Any) -> Any:
        result = original(*arguments)
        a.local.errors[0] = PartitionRestoring("not any more")
        return result

    a.local.read_many = once  # type: ignore[method-assign,assignment]
    answer = await batch(a, keys)
    assert codes(answer) == [""] * 6
    assert answer["partitions"] == [
        {
            "partition": 0,
            "position": "0:99",
            "role": "standby",
            "lag_records": 2,
            "staleness_ms": None,
            "rejected_records": 3,
            "served_by": "b",
        }
    ]


async def test_a_miss_of_a_copy_that_may_not_say_so_is_none_whatever_it_sends(worker: Worker) -> None:
    worker.local.role = Role.SUSPENDED
    assert codes(await batch(worker, ["gone"])) == ["partition_restoring"]


async def test_what_is_asked_of_single_rows_is_asked_of_a_batch(workers: tuple[Worker, Worker]) -> None:
    far = next(f"k{number}" for number in range(99) if partition(b"k%d" % number) == 2)
    await batch(workers[0], [far, "k1"], query="?read=any&max_lag=7&max_staleness_ms=900")
    for worker in workers:
        for consistency in worker.local.asked_for:
            assert (consistency.mode, consistency.max_lag, consistency.max_staleness_ms) == (ReadMode.ANY, 7, 900)
    reply = await post(workers[0], b'{"keys": []}', query="?read=all")
    assert (reply.status, reply.json["code"]) == (400, "invalid_parameter")


async def test_a_batch_waits_for_positions_wherever_its_keys_are(workers: tuple[Worker, Worker]) -> None:
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        put(workers, key.encode(), b"1")
    asked = asyncio.create_task(batch(workers[0], keys, query="?min_position=0:120,2:130&timeout_ms=4000"))
    await asyncio.wait_for(workers[0].local.waiting.wait(), 5)
    workers[0].local.advance(0, 120)
    await asyncio.wait_for(workers[1].local.waiting.wait(), 5)
    workers[1].local.advance(2, 130)
    answer = await asked
    assert codes(answer) == [""] * 20
    positions = {part["partition"]: part["position"] for part in answer["partitions"]}
    assert (positions[0], positions[2]) == ("0:120", "2:130")


async def test_a_position_that_is_not_reached_is_the_error_of_its_partition_alone(
    workers: tuple[Worker, Worker],
) -> None:
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        put(workers, key.encode(), b"1")
    answer = await batch(workers[0], keys, query="?min_position=1:500,3:500&timeout_ms=50")
    expected = {0: "", 1: "position_not_reached", 2: "", 3: "position_not_reached"}
    assert codes(answer) == [expected[partition(key.encode())] for key in keys]


async def test_a_fault_of_ours_is_a_500_as_long_as_nothing_was_sent_and_a_cut_afterwards(worker: Worker) -> None:
    keys = [f"k{number}" for number in range(3 * WINDOW)]
    for key in keys:
        put([worker], key.encode(), b'"%b"' % (b"x" * 1000))
    reads, original = 0, worker.local.read_many

    def failing(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == fails_at:
            raise RuntimeError("secret path /x")
        return original(*arguments)

    worker.local.read_many = failing  # type: ignore[method-assign,assignment]
    fails_at = 1
    with capture_logs() as logged:
        reply = await post(worker, b'{"keys": ["k1"]}')
        assert (reply.status, reply.json["code"]) == (500, "internal")
        reads, fails_at = 0, WINDOW
        with pytest.raises(asyncio.IncompleteReadError):
            await post(worker, msgspec.json.encode({"keys": keys}))
    assert sum("exc_info" in line for line in logged) == 2
    assert (await worker.get("/livez")).status == 200


async def test_a_client_that_takes_nothing_is_cut_off(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "STALL_SECONDS", 0.1)
    keys = [f"k{number}" for number in range(5000)]
    for key in keys:
        put([worker], key.encode(), b'"%b"' % (b"x" * 10_000))

    async def in_flight(count: int) -> bool:
        metrics = (await worker.get("/metrics")).body.decode()
        return f"tablehouse_http_in_flight_requests {count}.0" in metrics

    async with connected(worker.url) as (_, writer):
        writer.write(request("planes", msgspec.json.encode({"keys": keys})))
        await until(lambda: asyncio.sleep(0, bool(worker.local.asked)), "the batch is under way")
        await until(lambda: in_flight(1), "the batch is given up")
    assert len(worker.local.asked) < len(keys)


async def test_rows_are_read_only_as_fast_as_the_client_takes_them(worker: Worker) -> None:
    keys = [f"k{number}" for number in range(8000)]
    size = 10 * 1024
    for key in keys:
        put([worker], key.encode(), b'"%b"' % (b"x" * (size - 2)))
    async with connected(worker.url) as (reader, writer):
        writer.write(request("planes", msgspec.json.encode({"keys": keys})))
        received = most = 0
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            data = await asyncio.wait_for(reader.read(1 << 16), 30)
            assert data
            received, tail = received + len(data), (tail + data)[-16:]
            most = max(most, len(worker.local.asked) * size - received)
    assert received > 8000 * size
    # What waits: an answer of slices, what the sockets hold, and what this client has buffered.
    assert most < 8000 * size / 4
