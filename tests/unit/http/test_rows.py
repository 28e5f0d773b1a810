from collections.abc import AsyncIterator
from urllib.parse import quote_from_bytes

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tablehouse.errors import PartitionRestoring
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import Role
from tablehouse.stores.rows import Row
from tests.support.http_workers import Reply, Worker, one_worker, send

VALUE = b'{"seats":55}'
PARTITION = partition_of("murmur2", b"N10156", 4)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        put(running, b"N10156", VALUE)
        yield running


def put(worker: Worker, key: bytes, value: bytes, table: str = "planes", timestamp_ms: int = 1_700_000_000_999) -> None:
    worker.local.rows[table, partition_of("murmur2", key, 4), key] = Row(value, timestamp_ms, 41)


def problem_of(reply: Reply, status: int, code: str) -> dict[str, object]:
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    document: dict[str, object] = reply.json
    assert document["type"] == f"urn:tablehouse:problem:{code}"
    assert (document["code"], document["status"]) == (code, status)
    assert document["title"]
    assert document["detail"]
    assert isinstance(document["retryable"], bool)
    return document


async def test_a_row_comes_as_it_is_stored_with_its_freshness_in_headers(worker: Worker) -> None:
    reply = await worker.get("/tables/planes/N10156")
    assert (reply.status, reply.body) == (200, VALUE)
    headers = reply.headers
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(VALUE))
    assert headers["tablehouse-partition"] == str(PARTITION)
    assert headers["tablehouse-position"] == f"{PARTITION}:99"
    assert headers["tablehouse-role"] == "active"
    assert headers["tablehouse-lag-records"] == "2"
    assert headers["tablehouse-staleness-ms"] == "15"
    assert headers["tablehouse-served-by"] == "a"
    assert headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert headers["cache-control"] == "no-cache"
    assert headers["vary"] == "Accept, Accept-Encoding"
    assert headers["etag"].endswith(f'-{PARTITION}-41"')


async def test_lag_and_staleness_are_left_out_when_they_are_not_known(worker: Worker) -> None:
    worker.local.lag = worker.local.staleness_ms = None
    headers = (await worker.get("/tables/planes/N10156")).headers
    assert "tablehouse-lag-records" not in headers
    assert "tablehouse-staleness-ms" not in headers


@pytest.mark.parametrize("timestamp_ms", [-1, 2**62])
async def test_a_timestamp_that_is_no_http_date_leaves_last_modified_out(worker: Worker, timestamp_ms: int) -> None:
    put(worker, b"old", VALUE, timestamp_ms=timestamp_ms)
    reply = await worker.get("/tables/planes/old")
    assert reply.status == 200
    assert "last-modified" not in reply.headers


async def test_a_miss_says_how_fresh_it_is_and_must_not_be_cached(worker: Worker) -> None:
    reply = await worker.get("/tables/planes/nobody")
    partition = partition_of("murmur2", b"nobody", 4)
    document = problem_of(reply, 404, "key_not_found")
    assert (document["table"], document["partition"], document["retryable"]) == ("planes", partition, False)
    assert reply.headers["tablehouse-position"] == f"{partition}:99"
    assert reply.headers["tablehouse-role"] == "active"
    assert reply.headers["tablehouse-lag-records"] == "2"
    assert reply.headers["tablehouse-served-by"] == "a"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["vary"] == "Accept, Accept-Encoding"


async def test_head_answers_like_get_without_the_body(worker: Worker) -> None:
    got = await worker.get("/tables/planes/N10156")
    head = await worker.get("/tables/planes/N10156", method="HEAD")
    varying = {"x-request-id", "date"}
    assert head.status == 200
    assert {k: v for k, v in head.headers.items() if k not in varying} == {
        k: v for k, v in got.headers.items() if k not in varying
    }
    assert (await worker.get("/tables/planes/nobody", method="HEAD")).status == 404


async def test_a_row_that_the_caller_has_already_is_a_304_with_its_freshness(worker: Worker) -> None:
    etag = (await worker.get("/tables/planes/N10156")).headers["etag"]
    for header in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        reply = await worker.get("/tables/planes/N10156", {"If-None-Match": header})
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["etag"] == etag
        assert reply.headers["tablehouse-position"] == f"{PARTITION}:99"
        assert reply.headers["cache-control"] == "no-cache"
        assert "last-modified" in reply.headers
        assert "content-type" not in reply.headers
    for header in ('"other"', "garbage", f"x{etag}"):
        assert (await worker.get("/tables/planes/N10156", {"If-None-Match": header})).status == 200
    assert (await worker.get("/tables/planes/nobody", {"If-None-Match": "*"})).status == 404


async def test_a_new_row_has_a_new_etag(worker: Worker) -> None:
    before = (await worker.get("/tables/planes/N10156")).headers["etag"]
    worker.local.rows["planes", PARTITION, b"N10156"] = Row(VALUE, 0, 42)
    assert (await worker.get("/tables/planes/N10156", {"If-None-Match": before})).status == 200


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("application/*;q=0.5, text/html", 200),
        ("*/*", 200),
        ("", 200),
        ("text/html", 406),
        ("*/*, application/json;q=0", 406),
        ("text/html, */*;q=0.1", 200),
        ("application/jsonx", 406),
    ],
)
async def test_accept_decides_whether_the_row_can_be_sent(worker: Worker, accept: str, status: int) -> None:
    reply = await worker.get("/tables/planes/N10156", {"Accept": accept})
    assert reply.status == status
    if status == 406:
        assert problem_of(reply, 406, "not_acceptable")["available"] == ["application/json"]


async def test_each_value_format_has_its_media_type(worker: Worker) -> None:
    assert (await worker.get("/tables/numbers/x")).status == 400
    stored = b"\x80\x00\x00\x00\x00\x00\x00\x07"
    partition = partition_of("murmur2", (7).to_bytes(8, "big"), 4)
    worker.local.rows["numbers", partition, stored] = Row(b"sept", 0, 1)
    reply = await worker.get("/tables/numbers/7")
    assert (reply.body, reply.headers["content-type"]) == (b"sept", "text/plain; charset=utf-8")


KEYS = [
    b"plain",
    b"a/b",
    b"/",
    b"\x00",
    b"a\x00b",
    b".",
    b"..",
    b"a b+c",
    b"100%",
    b"?&=#;",
    b"planes:get",
    "čáp €/𝄞".encode(),
    b'"\\\r\n\t',
]


@pytest.mark.parametrize("key", KEYS)
async def test_any_bytes_of_a_key_reach_the_table_exactly(worker: Worker, key: bytes) -> None:
    put(worker, key, b'"found"')
    encoded = quote_from_bytes(key, safe="")
    everything = "".join(f"%{byte:02x}" for byte in key)
    for target in (
        f"/tables/planes/{encoded}",
        f"/tables/planes/{everything}",
        f"/tables/planes:get?key={encoded}",
        f"/tables/planes:get?key={everything}",
    ):
        reply = await worker.get(target)
        assert (reply.status, reply.body) == (200, b'"found"'), target
    assert {asked for _, _, asked in worker.local.asked} == {key}


async def test_the_empty_key_is_asked_for_by_parameter(worker: Worker) -> None:
    put(worker, b"", b'"empty"')
    assert (await worker.get("/tables/planes:get?key=")).body == b'"empty"'
    # Without a key in the path it is the table that is asked for.
    assert (await worker.get("/tables/planes/")).json["name"] == "planes"
    document = problem_of(await worker.get("/tables/planes//"), 404, "route_not_found")
    assert ":get?key=" in str(document["detail"])


async def test_a_plus_is_a_plus_in_the_path_and_a_space_in_the_query(worker: Worker) -> None:
    put(worker, b"a+b", b'"plus"')
    put(worker, b"a b", b'"space"')
    for target in ("/tables/planes/a+b", "/tables/planes/a%2Bb", "/tables/planes:get?key=a%2Bb"):
        assert (await worker.get(target)).body == b'"plus"', target
    for target in ("/tables/planes/a%20b", "/tables/planes:get?key=a+b", "/tables/planes:get?key=a%20b"):
        assert (await worker.get(target)).body == b'"space"', target


async def test_a_space_after_the_comma_between_positions_may_be_a_plus(worker: Worker) -> None:
    put(worker, b"x", b"1")
    for separator in (",+", ",%20", "%2C+"):
        assert (await worker.get(f"/tables/planes/x?min_position=0:1{separator}1:1")).status == 200, separator


async def test_a_semicolon_separates_nothing(worker: Worker) -> None:
    put(worker, b"a;read=active", b"1")
    assert (await worker.get("/tables/planes:get?key=a;read=active")).status == 200


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "ab%2", "%%41", "%+1"])
async def test_a_malformed_percent_encoding_is_refused(worker: Worker, text: str) -> None:
    problem_of(await worker.get(f"/tables/planes/{text}"), 400, "invalid_parameter")
    problem_of(await worker.get(f"/tables/planes:get?key={text}"), 400, "invalid_parameter")
    assert worker.local.asked == []


async def test_bytes_that_the_key_format_refuses_are_an_invalid_key(worker: Worker) -> None:
    document = problem_of(await worker.get("/tables/planes/%ff%fe"), 400, "invalid_key")
    assert "string" in str(document["detail"])
    assert document["table"] == "planes"
    problem_of(await worker.get("/tables/numbers/12x"), 400, "invalid_key")


async def test_a_slash_in_the_path_is_no_key(worker: Worker) -> None:
    document = problem_of(await worker.get("/tables/planes/a/b"), 404, "route_not_found")
    assert "%2F" in str(document["detail"])


async def test_an_unknown_table_is_a_404_of_its_own(worker: Worker) -> None:
    for target in ("/tables/nope/x", "/tables/nope", "/tables/nope:get?key=x", "/tables/nope:locate?key=x"):
        assert problem_of(await worker.get(target), 404, "table_not_found")["table"] == "nope"


async def test_unknown_and_repeated_and_missing_parameters_are_refused_by_name(worker: Worker) -> None:
    for target, name in (
        ("/tables/planes/x?limit=1", "limit"),
        ("/tables/planes:get?key=a&key=b", "key"),
        ("/tables/planes:get", "key"),
        ("/tables?q", "q"),
        ("/livez?verbose", "verbose"),
    ):
        document = problem_of(await worker.get(target), 400, "invalid_parameter")
        assert document["parameter"] == name
        assert name in str(document["detail"])


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_other_methods_are_refused_with_allow(worker: Worker, method: str) -> None:
    for target, allowed in (
        ("/tables/planes/N10156", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/tables/planes", "GET, HEAD, OPTIONS"),
    ):
        reply = await worker.get(target, method=method)
        problem_of(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == allowed


@pytest.mark.parametrize(
    "target", ["/nope", "/nope/", "/tables/planes:frobnicate", "/tables/:get?key=x", "//tables", "/internal/v1/status"]
)
async def test_an_unknown_path_is_a_route_not_found(worker: Worker, target: str) -> None:
    problem_of(await worker.get(target), 404, "route_not_found")


async def test_keys_of_8_kib_pass_and_longer_ones_do_not(worker: Worker) -> None:
    assert (await worker.get("/tables/planes/" + "%41" * 8192)).status == 404
    problem_of(await worker.get("/tables/planes/" + "%41" * 8193), 414, "uri_too_long")
    problem_of(await worker.get("/tables/planes:get?key=" + "x" * 8193), 414, "uri_too_long")


async def test_an_endless_url_is_a_414_and_an_endless_header_a_431(worker: Worker) -> None:
    problem_of(await worker.get("/tables/planes/" + "x" * 70_000), 414, "uri_too_long")
    problem_of(await worker.get("/livez", {"X-Long": "x" * 40_000}), 431, "headers_too_large")
    many = {f"X-{number}": "x" * 20_000 for number in range(7)}
    problem_of(await worker.get("/livez", many), 431, "headers_too_large")


@pytest.mark.parametrize(
    "request_line", ["GET / HTTP/1.1\r\nbroken header\r\n\r\n", "\x01\x02\r\n\r\n", "GET  HTTP/9.9\r\n\r\n"]
)
async def test_malformed_http_is_a_problem_document_too(worker: Worker, request_line: str) -> None:
    reply = await send(worker.url, request_line.encode())
    problem_of(reply, 400, "invalid_parameter")
    assert reply.headers["connection"] == "close"


async def test_a_503_says_when_to_come_back_and_where_it_stands(worker: Worker) -> None:
    worker.local.errors[PARTITION] = PartitionRestoring("40 to go", retry_after=3, progress={"remaining": 40})
    reply = await worker.get("/tables/planes/N10156")
    document = problem_of(reply, 503, "partition_restoring")
    assert reply.headers["retry-after"] == "3"
    assert document["retryable"] is True
    assert document["progress"] == {"remaining": 40}
    assert (document["table"], document["partition"], document["generation"]) == ("planes", PARTITION, 7)


async def test_a_suspended_copy_answers_a_hit_labelled_and_never_a_miss(worker: Worker) -> None:
    worker.local.role = Role.SUSPENDED
    assert (await worker.get("/tables/planes/N10156")).headers["tablehouse-role"] == "suspended"
    problem_of(await worker.get("/tables/planes/nobody"), 503, "partition_restoring")


async def test_a_fault_of_ours_is_a_500_without_its_inside(worker: Worker) -> None:
    worker.local.errors[PARTITION] = RuntimeError("secret path /x")  # type: ignore[assignment]
    with capture_logs() as logged:
        reply = await worker.get("/tables/planes/N10156", {"X-Request-Id": "abc-1"})
    assert any("exc_info" in line for line in logged)
    document = problem_of(reply, 500, "internal")
    assert "secret" not in reply.body.decode()
    assert "abc-1" in str(document["detail"])


async def test_a_sane_request_id_is_kept_and_another_replaced(worker: Worker) -> None:
    assert (await worker.get("/livez", {"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, 'a"b', ""):
        made = (await worker.get("/livez", {"X-Request-Id": bad})).headers["x-request-id"]
        assert made != bad
        assert len(made) == 16


async def test_locate_says_who_holds_a_key(worker: Worker) -> None:
    reply = await worker.get("/tables/planes:locate?key=N10156")
    assert reply.json == {
        "table": "planes",
        "generation": 7,
        "locations": [
            {"partition": PARTITION, "active": {"worker": "a", "url": worker.internal}, "standbys": []},
        ],
    }
