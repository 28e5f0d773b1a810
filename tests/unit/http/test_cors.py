"""What browsers are told about pages of other origins."""

from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.http.cors import EXPOSED
from tablehouse.stores.rows import Row
from tests.support.http_workers import Reply, Worker, share, start_worker

APP = "https://app.example.com"
OTHER = "http://localhost:3000"
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type, if-match"}
SAFELISTED = {"Last-Modified"}


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[Mapping[str, Worker]]:
    running = {
        name: await start_worker("a", cors_origins=origins)
        for name, origins in (("none", ()), ("some", (APP, OTHER)), ("any", ("*",)))
    }
    for worker in running.values():
        share([worker], {"a": range(4)})
        worker.local.rows["planes", partition_of("murmur2", b"k", 4), b"k"] = Row(b"{}", 0, 41)
    yield running
    for worker in running.values():
        await worker.server.stop(1.0)


def of_cors(reply: Reply) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name.startswith("access-control-")}


async def test_without_the_setting_no_origin_is_told_anything(workers: Mapping[str, Worker]) -> None:
    worker = workers["none"]
    assert of_cors(await worker.get("/tables/planes/k", {"Origin": APP})) == {}
    preflight = await worker.get("/tables/planes/k", {"Origin": APP, **PREFLIGHT}, method="OPTIONS")
    assert (preflight.status, of_cors(preflight)) == (204, {})
    assert preflight.headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("origin", [APP, OTHER])
async def test_a_page_of_an_origin_that_is_named_may_read_every_answer(
    workers: Mapping[str, Worker], origin: str
) -> None:
    for target in ("/tables/planes/k", "/tables/planes/nobody", "/tables/nope/k", "/nope", "/tables"):
        told = of_cors(await workers["some"].get(target, {"Origin": origin}))
        assert told["access-control-allow-origin"] == origin
        assert told["access-control-allow-credentials"] == "true"
        exposed = told["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "Tablehouse-Position"} <= set(exposed)


@pytest.mark.parametrize(
    "origin", ["https://app.example.com.evil.com", "http://app.example.com", "null", "*", APP + "/"]
)
async def test_a_page_of_another_origin_may_read_nothing(workers: Mapping[str, Worker], origin: str) -> None:
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        reply = await workers["some"].get("/tables/planes/k", {"Origin": origin, **headers}, method=method)
        assert (reply.status, of_cors(reply)) == ({"GET": 200, "OPTIONS": 204}[method], {})


async def test_every_page_may_read_without_credentials_where_all_are_allowed(workers: Mapping[str, Worker]) -> None:
    for origin in (APP, "https://anywhere.example", "null"):
        told = of_cors(await workers["any"].get("/tables/planes/k", {"Origin": origin}))
        assert told["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in told
        preflight = await workers["any"].get("/tables/planes/k", {"Origin": origin, **PREFLIGHT}, method="OPTIONS")
        assert "access-control-allow-credentials" not in of_cors(preflight)


async def test_caches_keep_the_answers_of_origins_apart(workers: Mapping[str, Worker]) -> None:
    expected = {"none": "Accept, Accept-Encoding", "some": "Accept, Accept-Encoding, Origin"}
    expected["any"] = expected["none"]
    for name, worker in workers.items():
        # The first of these is answered in the short way.
        for headers in ({}, {"X-Any": "1"}, {"Origin": APP}, {"Origin": "https://other.example"}):
            for target in ("/tables/planes/k", "/tables/planes/nobody"):
                assert (await worker.get(target, headers)).headers["vary"] == expected[name]


async def test_a_preflight_says_which_requests_may_be_sent(workers: Mapping[str, Worker]) -> None:
    for name in ("some", "any"):
        reply = await workers[name].get("/tables/planes/k", {"Origin": APP, **PREFLIGHT}, method="OPTIONS")
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-methods"] == "GET, HEAD, PUT, DELETE, OPTIONS"
        assert reply.headers["access-control-allow-headers"] == "content-type, if-match"
        assert reply.headers["access-control-max-age"] == "600"
    reply = await workers["some"].get(
        "/tables/planes/k", {"Origin": APP, **PREFLIGHT, "Access-Control-Request-Headers": "a\tb;c"}, method="OPTIONS"
    )
    assert "access-control-allow-headers" not in reply.headers


async def test_options_without_a_preflight_answers_allow(workers: Mapping[str, Worker]) -> None:
    expected = {
        "/": "GET, HEAD, OPTIONS",
        "/tables": "GET, HEAD, OPTIONS",
        "/tables/planes/k": "GET, HEAD, PUT, DELETE, OPTIONS",
        "/tables/numbers/1": "GET, HEAD, OPTIONS",
        "/tables/planes:batch-get": "POST, OPTIONS",
        "/readyz": "GET, HEAD, OPTIONS",
    }
    for target, allow in expected.items():
        reply = await workers["some"].get(target, method="OPTIONS")
        assert (reply.status, reply.headers["allow"], reply.body) == (204, allow, b"")
        assert of_cors(reply) == {}
    assert (await workers["some"].get("/nope", method="OPTIONS")).json["code"] == "route_not_found"


async def test_pages_may_read_every_header_that_is_documented(workers: Mapping[str, Worker]) -> None:
    document = (await workers["none"].get("/openapi.json")).json
    assert set(document["components"]["headers"]) - SAFELISTED <= set(EXPOSED)
