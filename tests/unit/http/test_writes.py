"""PUT and DELETE through real servers over a source that notes what it is given."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import DeadlineExceeded, MisplacedKeys, NotOwner, RequestError, SourceUnavailable, WriteRefused
from tablehouse.formats.json_pieces import PIECE_BYTES
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.schemas import Schema
from tablehouse.formats.variants import Known
from tablehouse.stores.rows import Row
from tablehouse.turns import Turns, Work
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import Reply, Worker, one_worker, send, start_worker, two_workers
from tests.support.schemas import FetchedSchemas, framed

JSON = {"Content-Type": "application/json"}
PARTITION = partition_of("murmur2", b"N1", 4)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


async def write(
    worker: Worker, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """PUT a body, or DELETE without one."""
    given = (JSON if body is not None else {}) if headers is None else headers
    lines = [f"{'DELETE' if body is None else 'PUT'} {target} HTTP/1.1", "Host: test"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return await send(worker.url, "\r\n".join([*lines, "", ""]).encode() + (body or b""))


async def test_a_row_is_written_to_the_partition_of_its_key_and_the_answer_says_where(worker: Worker) -> None:
    reply = await write(worker, "/tables/planes/N1", b' {"seats": 55} ')
    assert worker.source.records == [("planes", PARTITION, b"N1", b' {"seats": 55} ')]
    assert (reply.status, reply.json) == (
        200,
        {
            "table": "planes",
            "partition": PARTITION,
            "offset": 100,
            "position": f"{PARTITION}:100",
            "etag": reply.json["etag"],
        },
    )
    assert reply.headers["tablehouse-position"] == f"{PARTITION}:100"
    assert reply.headers["tablehouse-partition"] == str(PARTITION)
    assert reply.headers["cache-control"] == "no-cache"


async def test_a_row_is_deleted_by_a_tombstone_whether_there_is_one_or_not(worker: Worker) -> None:
    reply = await write(worker, "/tables/planes/N1")
    assert (reply.status, reply.json["offset"]) == (200, 100)
    assert worker.source.records == [("planes", PARTITION, b"N1", None)]


async def test_a_row_is_deleted_under_every_form_of_its_key_and_written_under_the_canonical_one() -> None:
    people = TableSpec("people", SourceSpec("planes-topic", KeySpec("json"), ValueSpec("json")), writable=True)
    canonical, other = '"\U0001f601"'.encode(), b'"\\uD83D\\uDE01"'
    places = [partition_of("murmur2", key, 4) for key in (canonical, other)]
    assert places[0] != places[1]
    worker = await start_worker("a", Catalog({"people": people}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    worker.source.on_append = worker.local.advance
    try:
        target = "/tables/people/%22%F0%9F%98%81%22?wait=visible"
        put = await write(worker, target, b"1")
        assert (put.status, put.json["position"]) == (200, f"{places[0]}:100")
        deleted = await write(worker, target)
        assert (deleted.status, deleted.json["offset"]) == (200, 101)
        assert deleted.json["position"] == f"{places[1]}:100,{places[0]}:101"
        assert deleted.headers["tablehouse-position"] == deleted.json["position"]
        assert [record[1:] for record in worker.source.records] == [
            (places[0], canonical, b"1"),
            (places[1], other, None),
            (places[0], canonical, None),
        ]
        worker.source.error, worker.source.taken = SourceUnavailable("nothing was written"), 4
        partly = await write(worker, target)
        assert (partly.status, partly.json["code"]) == (504, "deadline_exceeded")
        assert "delete it again" in partly.json["detail"]
    finally:
        await worker.server.stop(1.0)


async def test_keys_that_do_not_survive_in_a_path_are_written_by_parameter(worker: Worker) -> None:
    assert (await write(worker, "/tables/planes:get?key=..%2F", b"1")).status == 200
    assert (await write(worker, "/tables/planes:get?key=")).status == 200
    assert [record[2:] for record in worker.source.records] == [(b"../", b"1"), (b"", None)]
    assert (await write(worker, "/tables/planes:get", b"1")).json["code"] == "invalid_parameter"


async def test_binary_rows_are_written_as_they_are(worker: Worker) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    for headers in (octets, {}):
        assert (await write(worker, "/tables/blobs/_wA", b"\x00\xff", headers)).status == 200
    assert {record[2:] for record in worker.source.records} == {(b"\xff\x00", b"\x00\xff")}


@pytest.mark.parametrize(
    ("target", "body", "headers", "status", "code"),
    [
        ("/tables/planes/N1", b"{", JSON, 400, "invalid_body"),
        ("/tables/planes/N1", b"", JSON, 400, "invalid_body"),
        ("/tables/planes/N1", b'"\xff"', JSON, 400, "invalid_body"),
        ("/tables/planes/N1", b"1", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ("/tables/planes/N1", b"1", {}, 415, "unsupported_media_type"),
        ("/tables/planes/N1", b" " * 1_001, JSON, 413, "payload_too_large"),
        ("/tables/planes/N1", b" " * (10 << 20), JSON, 413, "payload_too_large"),
        ("/tables/planes/%FF", b"1", JSON, 400, "invalid_key"),
        ("/tables/planes/" + "k" * 9_000, b"1", JSON, 414, "uri_too_long"),
        ("/tables/nope/N1", b"1", JSON, 404, "table_not_found"),
        ("/tables/numbers/1", b"1", {"Content-Type": "text/plain"}, 405, "not_writable"),
        ("/tables/planes/N1?wait=acknowledged", b"1", JSON, 400, "invalid_parameter"),
        ("/tables/planes/N1?timeout_ms=5", b"1", JSON, 400, "invalid_parameter"),
        ("/tables/planes/N1?wait=visible&timeout_ms=x", b"1", JSON, 400, "invalid_parameter"),
        ("/tables/planes/N1?read=any", b"1", JSON, 400, "invalid_parameter"),
        ("/tables/planes/N1", b"1", {**JSON, "If-Modified-Since": "x"}, 400, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_written_is_refused_and_nothing_is(
    worker: Worker, target: str, body: bytes, headers: Mapping[str, str], status: int, code: str
) -> None:
    reply = await write(worker, target, body, headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert worker.source.records == []


async def test_a_table_that_is_not_writable_says_what_to_set(worker: Worker) -> None:
    reply = await write(worker, "/tables/numbers/1")
    assert (reply.status, reply.json["code"], reply.headers["allow"]) == (405, "not_writable", "GET, HEAD, OPTIONS")
    assert "writable: true" in reply.json["detail"]
    assert "numbers-topic" in reply.json["detail"]


async def test_other_methods_of_a_row_are_named(worker: Worker) -> None:
    reply = await worker.get("/tables/planes/N1", method="PATCH")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE, OPTIONS")


@pytest.mark.parametrize(
    ("end", "status", "detail"),
    [
        (b'{"seats":55}]', 200, None),
        (b'{"seats":1e999}]', 400, "Number out of range - at `$[100000][...]`"),
        (b'{"seats":55},]', 400, "trailing comma in array (byte 1300014)"),
    ],
)
async def test_others_have_turns_while_a_large_body_is_checked(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, end: bytes, status: int, detail: str | None
) -> None:
    turns = 0
    wait = Turns.wait

    async def counted(self: Turns) -> None:
        nonlocal turns
        turns += 1
        await wait(self)

    monkeypatch.setattr(Turns, "wait", counted)
    body = b"[" + b'{"seats":55},' * 100_000 + end
    worker.source.bytes_of_a_record = 2 << 20
    reply = await write(worker, "/tables/planes/N1", body)
    assert reply.status == status
    assert turns >= len(body) // PIECE_BYTES
    if detail is None:
        assert worker.source.records == [("planes", PARTITION, b"N1", body)]
    else:
        assert detail in reply.json["detail"]
        assert worker.source.records == []


@contextlib.asynccontextmanager
async def avro_worker(timeout: float = 20.0) -> AsyncIterator[Worker]:  # noqa: ASYNC109
    """Run one worker with a table of Avro: lists of strings."""
    known = Known(FetchedSchemas(Schema(7, "AVRO", '{"type":"array","items":"string"}')))
    source = SourceSpec("planes-topic", KeySpec("string"), ValueSpec("avro", schema=7))
    table = TableSpec("people", source, writable=True)
    worker = await start_worker("a", Catalog({"people": table}), timeout=timeout, known=known)
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    worker.source.bytes_of_a_record = 2 << 20
    try:
        yield worker
    finally:
        await worker.server.stop(1.0)


LARGE = b"[" + b'"x",' * 300_000 + b'"x"]'


@contextlib.asynccontextmanager
async def busy_thread(worker: Worker) -> AsyncIterator[None]:
    """Have something else converted for as long as the block takes."""
    entered, leaves = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert leaves.wait(30)

    def work() -> Work[None]:
        yield wait

    working = asyncio.create_task(worker.turns.finish(work()))
    await asyncio.to_thread(entered.wait, 10)
    try:
        yield
    finally:
        leaves.set()
        await working


async def test_a_large_row_is_converted_to_avro_and_back_while_others_are_answered() -> None:
    async with avro_worker(timeout=60.0) as worker:
        async with busy_thread(worker):
            writing = asyncio.create_task(write(worker, "/tables/people/N1", LARGE))
            small = await write(worker, "/tables/people/N1", b'["x"]')
            assert small.status == 200
            assert not writing.done()
        assert (await writing).status == 200
        avro = b"\xc2\xcf\x24" + b"\x02x" * 300_001 + b"\0"
        assert [record[3] for record in worker.source.records] == [
            framed(7, b"\x02\x02x\0"),
            framed(7, avro),
        ]
        worker.local.rows["people", PARTITION, b"N1"] = Row(LARGE, 0, 1)
        async with busy_thread(worker):
            reading = asyncio.create_task(worker.get("/tables/people/N1", {"Accept": "avro/binary"}))
            assert (await worker.get("/tables/people/N1")).body == LARGE
            assert not reading.done()
        assert (await reading).body == avro


async def test_a_large_row_that_is_not_converted_in_time_is_refused_and_nothing_is_written() -> None:
    async with avro_worker(timeout=1.0) as worker:
        worker.local.rows["people", PARTITION, b"N1"] = Row(LARGE, 0, 1)
        async with busy_thread(worker):
            put, read = await asyncio.gather(
                write(worker, "/tables/people/N1", LARGE),
                worker.get("/tables/people/N1", {"Accept": "avro/binary"}),
            )
        for refused in (put, read):
            assert (refused.status, refused.json["code"]) == (503, "overloaded")
        assert put.json["table"] == "people"
        assert worker.source.records == []
        assert (await write(worker, "/tables/people/N1", b'["x"]')).status == 200


@pytest.mark.parametrize(
    ("error", "status", "result"),
    [
        (SourceUnavailable("nothing was written"), 503, "unavailable"),
        (MisplacedKeys("a key lies elsewhere", retry_after=60), 503, "unavailable"),
        (DeadlineExceeded("the write may have happened"), 504, "unknown"),
    ],
)
async def test_a_write_that_failed_says_whether_it_may_have_happened(
    worker: Worker, error: RequestError, status: int, result: str
) -> None:
    worker.source.error = error
    reply = await write(worker, "/tables/planes/N1", b"1")
    assert (reply.status, reply.json["detail"]) == (status, error.detail)
    metrics = (await worker.get("/metrics")).body.decode()
    assert f'tablehouse_writes_total{{result="{result}",table="planes"}} 1.0' in metrics


async def test_nothing_is_written_where_the_owner_says_that_it_applies_nothing_more() -> None:
    async with two_workers() as (one, two):
        owner = one if PARTITION < 2 else two
        why = "the topic was created again: give the table a new version"
        owner.local.write_errors[PARTITION] = WriteRefused(why, retry_after=60)
        for worker in (one, two):
            for body in (b'{"seats": 55}', None):
                reply = await write(worker, "/tables/planes/N1", body)
                assert (reply.status, reply.json["code"], reply.json["retryable"]) == (503, "write_refused", False)
                assert reply.json["detail"] == why
                assert reply.headers["retry-after"] == "60"
                assert worker.source.records == []
        # Any other trouble of the owner's keeps no record from its topic.
        owner.local.write_errors[PARTITION] = NotOwner("this worker does not hold the partition")
        for worker in (one, two):
            assert (await write(worker, "/tables/planes/N1", b"{}")).status == 200


async def test_a_worker_without_an_assignment_knows_no_partition_to_write_to() -> None:
    worker = await start_worker("lonely")
    try:
        reply = await write(worker, "/tables/planes/N1", b"1")
        assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
        assert worker.source.records == []
    finally:
        await worker.server.stop(1.0)


async def test_a_write_can_wait_until_it_is_seen_wherever_the_row_is() -> None:
    async with two_workers() as workers:
        for asked in workers:
            for key in (b"k1", b"k3"):
                owner = workers[0 if partition_of("murmur2", key, 4) < 2 else 1]
                owner.local.applied.clear()
                owner.local.waiting.clear()
                writing = asyncio.create_task(write(asked, f"/tables/planes/{key.decode()}?wait=visible", b"1"))
                await asyncio.wait_for(owner.local.waiting.wait(), 5)
                assert not writing.done()
                _, partition, _, value = asked.source.records[-1]
                owner.local.rows["planes", partition, key] = Row(value or b"", 0, 200)
                owner.local.advance(partition, 200)
                reply = await writing
                assert (reply.status, reply.json["visible"]) == (200, True)


async def test_a_deleted_row_is_seen_as_well(worker: Worker) -> None:
    worker.source.on_append = worker.local.advance
    reply = await write(worker, "/tables/planes/N1?wait=visible")
    assert (reply.status, reply.json["visible"]) == (200, True)


@pytest.mark.parametrize("headers", [{}, {"Tablehouse-Timeout-Ms": "20"}])
async def test_a_write_that_is_not_seen_in_time_is_a_202_with_its_position(
    worker: Worker, headers: Mapping[str, str]
) -> None:
    query = "" if headers else "&timeout_ms=20"
    reply = await write(worker, f"/tables/planes/N1?wait=visible{query}", b"1", {**JSON, **headers})
    assert (reply.status, reply.json["visible"]) == (202, False)
    assert reply.json["position"] == f"{PARTITION}:100"
    assert len(worker.source.records) == 1


async def test_a_body_that_does_not_arrive_writes_nothing() -> None:
    async with one_worker(timeout=0.2) as worker:
        head = (
            b"PUT /tables/planes/N1 HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n1"
        )
        reply = await send(worker.url, head)
        assert (reply.status, reply.json["code"]) == (408, "request_timeout")
        assert worker.source.records == []


async def test_a_chunked_body_over_the_limit_is_refused_as_it_comes(worker: Worker) -> None:
    head = (
        b"PUT /tables/planes/N1 HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    )
    chunk = b"1f4\r\n" + b" " * 500 + b"\r\n"
    reply = await send(worker.url, head + b"\r\n" + 3 * chunk)
    assert (reply.status, reply.json["code"], reply.json["limit"]) == (413, "payload_too_large", 1_000)
