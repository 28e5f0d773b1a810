"""Answers compressed and indented, over real sockets."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.http import held
from tablehouse.http.content_coding import MIN_BYTES, takes_gzip
from tablehouse.http.transforms import PIECE_BYTES
from tablehouse.stores.rows import Row
from tablehouse.turns import Turns
from tests.support.cluster_fakes import status
from tests.support.http_workers import Reply, Worker, ask, connected, one_worker, read_reply, send
from tests.support.polling import until

GZIP = {"Accept-Encoding": "gzip, deflate, br"}
SMALL = b'{"seats": 1.50}'
MEDIUM = b'{"seats": [' + b"1.50, " * 300 + b"1]}"
LARGE = b'{"seats": [' + b"1.50, " * 100_000 + b"1]}"
SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}


def put(worker: Worker, key: bytes, value: bytes, table: str = "planes") -> None:
    worker.local.rows[table, partition_of("murmur2", key, 4), key] = Row(value, 1_700_000_000_000, 41)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        for key, value in SIZES.items():
            put(running, key.encode(), value)
        yield running


def decoded(reply: Reply) -> bytes:
    return gzip.decompress(reply.body) if reply.headers.get("content-encoding") == "gzip" else reply.body


async def batch(worker: Worker, query: str = "", headers: Mapping[str, str] | None = None) -> Reply:
    body = msgspec.json.encode({"keys": list(SIZES)})
    lines = ["Content-Type: application/json", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    head = f"POST /tables/planes:batch-get{query} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n"
    return await send(worker.url, (head + "\r\n".join([*lines, "", ""])).encode() + body)


# gzip


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("gzip;q=0.001", True),
        ("gzip ; q=0.5", True),
        ("gzip;q=1, identity;q=0.5", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=high", False),
    ],
)
def test_gzip_is_for_who_takes_it_and_likes_the_body_as_it_is_no_better(accepted: str, *, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


@pytest.mark.parametrize("more", [{}, {"X-Any": "1"}], ids=["plain", "full"])
@pytest.mark.parametrize("key", SIZES)
async def test_a_row_is_compressed_from_1_kib_on(worker: Worker, key: str, more: Mapping[str, str]) -> None:
    as_it_is = await worker.get(f"/tables/planes/{key}", more)
    reply = await worker.get(f"/tables/planes/{key}", {**GZIP, **more})
    assert reply.status == as_it_is.status == 200
    assert "content-encoding" not in as_it_is.headers
    assert decoded(reply) == as_it_is.body == SIZES[key]
    assert reply.headers["vary"] == as_it_is.headers["vary"] == "Accept, Accept-Encoding"
    if len(SIZES[key]) > MIN_BYTES:
        assert reply.headers["content-encoding"] == "gzip"
        assert len(reply.body) < len(as_it_is.body)
        assert reply.headers["etag"] == as_it_is.headers["etag"][:-1] + '-gzip"'
    else:
        assert "content-encoding" not in reply.headers
        assert reply.headers["etag"] == as_it_is.headers["etag"]


@pytest.mark.parametrize("key", SIZES)
async def test_either_entity_tag_of_a_row_says_that_the_caller_has_it(worker: Worker, key: str) -> None:
    target = f"/tables/planes/{key}"
    tag = (await worker.get(target)).headers["etag"]
    for known in (tag, tag[:-1] + '-gzip"'):
        for given in (known, f"W/{known}", f'"other", {known}'):
            for headers in ({}, GZIP):
                reply = await worker.get(target, {"If-None-Match": given, **headers})
                assert (reply.status, reply.headers["etag"]) == (304, known)
    for other in (tag[:-1] + '-gzip-gzip"', tag[:-1] + '-avro"', '"-gzip"'):
        assert (await worker.get(target, {"If-None-Match": other})).status == 200


@pytest.mark.parametrize("key", ["medium", "large"])
async def test_head_has_the_headers_of_get(worker: Worker, key: str) -> None:
    varying = {"x-request-id", "date", "transfer-encoding"}
    for query in ("", "?pretty"):
        get = await worker.get(f"/tables/planes/{key}{query}", {**GZIP, "X-Any": "1"})
        head = await worker.get(f"/tables/planes/{key}{query}", GZIP, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in get.headers.items() if k not in varying
        }


async def test_a_connection_goes_on_after_the_head_and_the_body_of_a_large_compressed_row(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        for method in (b"HEAD", b"GET") * 2:
            writer.write(method + b" /tables/planes/large HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n")
            reply = await read_reply(reader, to_head=method == b"HEAD")
            assert reply.status == 200
            if method == b"GET":
                assert decoded(reply) == LARGE


@pytest.mark.parametrize("size", [2_000, PIECE_BYTES, 1_000_000])
async def test_what_gzip_makes_no_smaller_stays_as_it_is(worker: Worker, size: int) -> None:
    noise = os.urandom(size)
    put(worker, b"\xff", noise, "blobs")
    for headers in (GZIP, {**GZIP, "X-Any": "1"}):
        reply = await worker.get("/tables/blobs/_w", headers)
        assert (reply.body, reply.headers["content-length"]) == (noise, str(size))
        assert "content-encoding" not in reply.headers
        assert "gzip" not in reply.headers["etag"]


@pytest.mark.parametrize("target", ["/openapi.json", "/docs", "/tables?pretty", "/cluster?pretty"])
async def test_other_answers_are_compressed_too(worker: Worker, target: str) -> None:
    reply = await worker.get(target, GZIP)
    assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip")
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    as_it_is = await worker.get(target)
    assert decoded(reply) == as_it_is.body
    assert as_it_is.headers["vary"] == "Accept, Accept-Encoding"


async def test_a_batch_is_compressed_as_it_is_streamed(worker: Worker) -> None:
    as_it_is = await batch(worker)
    reply = await batch(worker, headers=GZIP)
    assert (reply.headers["content-encoding"], reply.headers["transfer-encoding"]) == ("gzip", "chunked")
    assert decoded(reply) == as_it_is.body
    assert len(reply.body) < len(as_it_is.body) / 10


async def test_metrics_are_compressed_on_both_ports_and_nothing_is_between_workers() -> None:
    async with one_worker(probe_port=0) as worker:
        probe_url = worker.server.bound.probe_url
        assert probe_url is not None
        for url in (probe_url, worker.url):
            metrics = await ask(url, "/metrics", GZIP)
            assert metrics.headers["content-encoding"] == "gzip"
            assert b"tablehouse_http_in_flight_requests 1.0" in decoded(metrics)
        worker.local.states = [status(partition=number) for number in range(100)]
        reply = await ask(worker.internal, "/internal/v1/status", GZIP)
        assert "content-encoding" not in reply.headers
        assert len(reply.body) > PIECE_BYTES


async def test_others_have_turns_while_a_large_answer_is_compressed_or_indented(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    wait = Turns.wait

    async def counted(self: Turns) -> None:
        nonlocal turns
        turns += 1
        await wait(self)

    monkeypatch.setattr(Turns, "wait", counted)
    for target, headers in (("/tables/planes/large", GZIP), ("/tables/planes/large?pretty", {})):
        before = turns
        assert (await worker.get(target, headers)).status == 200
        assert turns - before >= len(LARGE) // PIECE_BYTES


async def test_a_client_that_takes_nothing_of_a_compressed_answer_is_cut_off(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "STALL_SECONDS", 0.0)
    # Hardly smaller in gzip, so that the client's window is full long before its end.
    put(worker, b"\xff", b"".join(os.urandom(64) + b"x" * 32 for _ in range(100_000)), "blobs")
    value = worker.metrics.registry.get_sample_value
    async with connected(worker.url) as (_, writer):
        writer.write(b"GET /tables/blobs/_w HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n")

        async def cut() -> bool:
            return bool(value("tablehouse_http_connections_closed_total", {"reason": "slow_reader"}))

        await until(cut, "the client is cut off")
        assert value("tablehouse_http_held_bytes") == 0


async def test_a_compressed_row_goes_to_http_1_0_too_and_ends_with_its_connection(worker: Worker) -> None:
    async with connected(worker.url) as (reader, writer):
        writer.write(b"GET /tables/planes/large HTTP/1.0\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n")
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == LARGE


# ?pretty


@pytest.mark.parametrize("parameter", ["pretty", "pretty=", "pretty=true"])
@pytest.mark.parametrize("key", SIZES)
async def test_a_row_is_indented_and_keeps_its_digits(worker: Worker, key: str, parameter: str) -> None:
    for headers in ({}, GZIP):
        reply = await worker.get(f"/tables/planes/{key}?{parameter}", headers)
        assert reply.status == 200
        text = decoded(reply)
        assert text.startswith(b'{\n  "seats": ')
        assert b"1.50" in text
        assert b"".join(text.split()) == b"".join(SIZES[key].split())
    got = await worker.get(f"/tables/planes:get?key={key}&{parameter}")
    assert got.body == text


async def test_a_batch_is_indented_as_a_whole(worker: Worker) -> None:
    reply = await batch(worker, "?pretty")
    assert decoded(await batch(worker, "?pretty=true", GZIP)) == reply.body
    assert reply.body.count(b"1.50,\n") == 100_300
    rows = reply.json["rows"]
    assert [row["key"] for row in rows] == list(SIZES)
    # Of rows that keep the same text, Python's own indentation is the same.
    start = b'{\n  "rows": [\n    {\n      "key": "small",\n      "value": {\n        "seats": 1.50\n      }\n    },\n'
    assert reply.body.startswith(start)
    assert reply.body.endswith(b"\n  ]\n}\n")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/tables",
        "/tables/planes",
        "/tables/planes:locate?key=x",
        "/cluster",
        "/readyz",
        "/version",
        "/openapi.json",
    ],
)
async def test_every_document_can_be_indented(worker: Worker, target: str) -> None:
    separator = "&" if "?" in target else "?"
    reply = await worker.get(f"{target}{separator}pretty=true")
    assert reply.status == 200
    assert reply.body.decode() == json.dumps(reply.json, indent=2, ensure_ascii=False) + "\n"
    assert (await worker.get(f"{target}{separator}pretty=false")).body == (await worker.get(target)).body


async def test_errors_are_indented_and_what_is_no_json_is_not(worker: Worker) -> None:
    missing = await worker.get("/tables/planes/nobody?pretty")
    assert (missing.status, missing.json["code"]) == (404, "key_not_found")
    assert missing.body.startswith(b'{\n  "type": ')
    put(worker, b"\xff", b"[1,2]", "blobs")
    assert (await worker.get("/tables/blobs/_w?pretty")).body == b"[1,2]"


async def test_another_value_of_pretty_is_refused(worker: Worker) -> None:
    reply = await worker.get("/tables?pretty=yes")
    assert (reply.status, reply.json["code"], reply.json["parameter"]) == (400, "invalid_parameter", "pretty")
    assert (await worker.get("/metrics?pretty")).json["parameter"] == "pretty"
