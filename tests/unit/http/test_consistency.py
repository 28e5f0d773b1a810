"""What callers ask of an answer, over real HTTP: as parameters, as headers, and across a hop."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tablehouse.errors import PartitionRestoring, RequestError, TooStale
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, ReadMode, Role
from tablehouse.positions import Position
from tablehouse.stores.rows import Row
from tests.support.http_workers import Worker, ask, one_worker, share, start_worker
from tests.unit.http.test_forwarding import headers, target

KEY = b"N10156"
PARTITION = partition_of("murmur2", KEY, 4)
ROW = "/tables/planes/N10156"
ROUTES = [f"{ROW}?", "/tables/planes:get?key=N10156&"]
EVERYTHING = Consistency(ReadMode.ANY, 1500, 20, Position.parse(f"{PARTITION}:7,9:31"))


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        running.local.rows["planes", PARTITION, KEY] = Row(b"{}", 0, 41)
        yield running


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[tuple[Worker, Worker]]:
    """Run `a`, the active of everything, and `s`, its standby."""
    workers = [await start_worker(name) for name in "as"]
    share(workers, {"a": range(4)}, standbys={"s": range(4)})
    workers[1].local.role = Role.STANDBY
    for worker in workers:
        worker.local.rows["planes", PARTITION, KEY] = Row(b"{}", 0, 41)
    try:
        yield workers[0], workers[1]
    finally:
        for worker in workers:
            await worker.server.stop(1.0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_parameters_say_what_is_asked(worker: Worker, route: str, method: str) -> None:
    query = f"read=any&max_staleness_ms=1500&max_lag=20&min_position={PARTITION}:7,9:31&timeout_ms=250"
    assert (await worker.get(f"{route}{query}", method=method)).status == 200
    assert worker.local.asked_for == [EVERYTHING]


@pytest.mark.parametrize("route", ROUTES)
async def test_headers_say_the_same(worker: Worker, route: str) -> None:
    headers = {
        "Tablehouse-Read": "any",
        "tablehouse-max-staleness-ms": " 1500",
        "Tablehouse-Max-Lag": "20",
        "Tablehouse-Min-Position": f"{PARTITION}:7, 9:31",
        "Tablehouse-Timeout-Ms": "250",
    }
    assert (await worker.get(route[:-1], headers)).status == 200
    assert worker.local.asked_for == [EVERYTHING]


async def test_a_parameter_wins_over_the_header_of_its_meaning_and_over_no_other(worker: Worker) -> None:
    headers = {"Tablehouse-Read": "active", "Tablehouse-Max-Lag": "20"}
    await worker.get(f"{ROW}?read=any&max_staleness_ms=1500", headers)
    assert worker.local.asked_for == [Consistency(ReadMode.ANY, 1500, 20)]


async def test_who_asks_for_nothing_gets_the_default(worker: Worker) -> None:
    await worker.get(ROW)
    await worker.get(ROW, {"X-Anything": "1"})
    await worker.get("/tables/planes:get?key=N10156")
    assert worker.local.asked_for == [DEFAULT_CONSISTENCY] * 3


@pytest.mark.parametrize(
    ("name", "header", "value", "right"),
    [
        ("read", "Tablehouse-Read", "standby", "one of active, prefer-active, any"),
        ("read", "Tablehouse-Read", "", "one of active, prefer-active, any"),
        ("read", "Tablehouse-Read", "ANY", "one of active, prefer-active, any"),
        ("max_staleness_ms", "Tablehouse-Max-Staleness-Ms", "1s", "a whole number of milliseconds"),
        ("max_staleness_ms", "Tablehouse-Max-Staleness-Ms", "-1", "a whole number of milliseconds"),
        ("max_staleness_ms", "Tablehouse-Max-Staleness-Ms", "1" * 16, "a whole number of milliseconds"),
        ("max_lag", "Tablehouse-Max-Lag", "1.5", "a whole number of records"),
        ("max_lag", "Tablehouse-Max-Lag", "", "a whole number of records"),
        ("min_position", "Tablehouse-Min-Position", "7", "partition:offset"),
        ("min_position", "Tablehouse-Min-Position", "", "partition:offset"),
        ("min_position", "Tablehouse-Min-Position", "2:-2", "partition:offset"),
        ("min_position", "Tablehouse-Min-Position", "2:7,", "partition:offset"),
        ("min_position", "Tablehouse-Min-Position", "2:7;3:8", "partition:offset"),
        ("min_position", "Tablehouse-Min-Position", "-1:7", "partition:offset"),
        ("timeout_ms", "Tablehouse-Timeout-Ms", "250", "min_position, which is not given"),
    ],
)
async def test_a_value_that_cannot_be_used_is_a_400_that_says_what_would_be_right(
    worker: Worker, name: str, header: str, value: str, right: str
) -> None:
    for reply, parameter in (
        (await worker.get(f"{ROW}?{name}={value}"), name),
        (await worker.get(ROW, {header: value}), header),
    ):
        assert (reply.status, reply.json["code"], reply.json["parameter"]) == (400, "invalid_parameter", parameter)
        assert right in reply.json["detail"]
        assert reply.json["detail"].startswith(parameter)
    assert worker.local.asked == []


async def test_a_wait_has_to_be_a_number_too(worker: Worker) -> None:
    reply = await worker.get(f"{ROW}?min_position=2:7&timeout_ms=soon")
    assert (reply.status, reply.json["parameter"]) == (400, "timeout_ms")


async def test_a_header_or_a_parameter_that_comes_twice_is_refused(worker: Worker) -> None:
    twice = await worker.get(ROW, {"Tablehouse-Max-Lag": "1", "tablehouse-max-lag": "2"})
    assert (twice.status, twice.json["parameter"]) == (400, "Tablehouse-Max-Lag")
    again = await worker.get(f"{ROW}?max_lag=1&max_lag=1")
    assert (again.status, again.json["parameter"]) == (400, "max_lag")


async def test_other_routes_know_none_of_it(worker: Worker) -> None:
    assert (await worker.get("/tables/planes:locate?key=x&read=any")).status == 400
    assert (await worker.get("/cluster?read=any")).status == 400


@pytest.mark.parametrize("position", [-1, 0, 99])
async def test_the_position_of_any_answer_is_a_min_position(worker: Worker, position: int) -> None:
    worker.local.applied[PARTITION] = position
    token = (await worker.get(ROW)).headers["tablehouse-position"]
    assert token == f"{PARTITION}:{position}"
    assert (await worker.get(f"{ROW}?min_position={token}")).status == 200


async def test_a_read_waits_for_its_position(worker: Worker) -> None:
    asking = asyncio.create_task(worker.get(f"{ROW}?min_position={PARTITION}:120&timeout_ms=4000"))
    await worker.local.waiting.wait()
    worker.local.advance(PARTITION, 120)
    reply = await asking
    assert (reply.status, reply.headers["tablehouse-position"]) == (200, f"{PARTITION}:120")
    [(_, _, seconds)] = worker.local.waits
    assert 0.0 < seconds <= 4.0


async def test_a_wait_is_bounded_by_the_request_s_time() -> None:
    async with one_worker(timeout=0.2) as worker:
        reply = await worker.get(f"{ROW}?min_position={PARTITION}:120&timeout_ms=999999999999999")
        assert (reply.status, reply.json["code"]) == (503, "position_not_reached")
        assert worker.local.waits[0][2] <= 0.2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_position_that_is_not_reached_is_a_503_with_the_position_there_is(worker: Worker, method: str) -> None:
    reply = await worker.get(f"{ROW}?min_position={PARTITION}:120&timeout_ms=0", method=method)
    assert reply.status == 503
    assert reply.headers["tablehouse-position"] == f"{PARTITION}:99"
    assert reply.headers["tablehouse-served-by"] == "a"
    assert reply.headers["retry-after"] == "1"
    assert worker.local.waits == []
    if method == "GET":
        assert (reply.json["code"], reply.json["position"]) == ("position_not_reached", 99)
        assert [(tried["host"], tried["role"]) for tried in reply.json["tried"]] == [("a", "active")]


async def test_what_is_asked_crosses_the_hop_and_the_asked_worker_sees_all_of_it(pair: tuple[Worker, Worker]) -> None:
    active, standby = pair
    asked = f"max_staleness_ms=1500&max_lag=20&min_position={PARTITION}:7,9:31"
    assert (await standby.get(f"{ROW}?read=active&{asked}")).headers["tablehouse-served-by"] == "a"
    assert active.local.asked_for == [Consistency(ReadMode.ACTIVE, 1500, 20, EVERYTHING.min_position)]
    assert standby.local.asked == []
    await standby.get(ROW)
    assert active.local.asked_for[1:] == [DEFAULT_CONSISTENCY]


async def test_the_asked_worker_waits_for_the_position(pair: tuple[Worker, Worker]) -> None:
    active, standby = pair
    asking = asyncio.create_task(standby.get(f"{ROW}?min_position={PARTITION}:120&timeout_ms=4000"))
    await active.local.waiting.wait()
    active.local.advance(PARTITION, 120)
    reply = await asking
    assert (reply.status, reply.headers["tablehouse-position"]) == (200, f"{PARTITION}:120")
    [(_, _, seconds)] = active.local.waits
    assert 0.0 < seconds <= 4.0


async def test_hops_that_wait_do_not_take_the_connections_of_those_that_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tablehouse.http.peer.CONNECTIONS_PER_HOST", 1)
    workers = [await start_worker(name) for name in "as"]
    share(workers, {"a": range(4)}, standbys={"s": range(4)})
    active, standby = workers
    try:
        waiting = asyncio.create_task(standby.get(f"{ROW}?min_position={PARTITION}:120"))
        await active.local.waiting.wait()
        reply = await standby.get(ROW)
        assert (reply.status, reply.headers["tablehouse-served-by"]) == (404, "a")
        active.local.advance(PARTITION, 120)
        assert (await waiting).status == 404
    finally:
        for worker in workers:
            await worker.server.stop(1.0)


async def test_a_position_that_the_asked_worker_does_not_reach_is_that_worker_s_503(
    pair: tuple[Worker, Worker],
) -> None:
    _, standby = pair
    reply = await standby.get(f"{ROW}?read=active&min_position={PARTITION}:120&timeout_ms=10")
    assert (reply.status, reply.json["code"], reply.json["position"]) == (503, "position_not_reached", 99)
    assert reply.headers["tablehouse-served-by"] == "a"


async def test_after_the_active_is_gone_its_standby_answers_labelled(pair: tuple[Worker, Worker]) -> None:
    active, standby = pair
    await active.server.stop(0)
    reply = await standby.get(ROW)
    assert (reply.status, reply.headers["tablehouse-role"], reply.headers["tablehouse-served-by"]) == (
        200,
        "standby",
        "s",
    )
    refused = await standby.get(f"{ROW}?read=active")
    assert (refused.status, refused.json["code"]) == (503, "owner_unreachable")


async def test_a_miss_of_a_standby_is_a_404_only_for_those_who_asked_for_it(pair: tuple[Worker, Worker]) -> None:
    active, standby = pair
    await active.server.stop(0)
    nobody = "/tables/planes/nobody"
    reply = await standby.get(f"{nobody}?read=any")
    assert (reply.status, reply.json["code"], reply.headers["tablehouse-role"]) == (404, "key_not_found", "standby")
    assert "standby" in reply.json["detail"]
    assert reply.headers["tablehouse-lag-records"] == "2"
    plain = await standby.get(nobody, {"Tablehouse-Read": "prefer-active"})
    assert (plain.status, plain.json["code"]) == (503, "owner_unreachable")
    assert [(tried["host"], tried["role"]) for tried in plain.json["tried"]] == [("a", "active"), ("s", "standby")]


async def test_a_503_has_the_freshness_of_the_copy_that_refused(pair: tuple[Worker, Worker]) -> None:
    active, standby = pair
    standby.local.errors[PARTITION] = TooStale(
        "too old", partition=PARTITION, position=90, role="standby", lag_records=9, staleness_ms=1200
    )
    await active.server.stop(0)
    headers = (await standby.get(ROW)).headers
    assert {name: value for name, value in headers.items() if name.startswith("tablehouse-")} == {
        "tablehouse-partition": str(PARTITION),
        "tablehouse-position": f"{PARTITION}:90",
        "tablehouse-role": "standby",
        "tablehouse-lag-records": "9",
        "tablehouse-staleness-ms": "1200",
        "tablehouse-served-by": "s",
    }


@pytest.mark.parametrize(
    "error",
    [
        PartitionRestoring("restoring", position=-1),
        PartitionRestoring("nonsense of another version", position=7, role="leader"),
        PartitionRestoring("nonsense of another version", position="x\r\ny", role="standby"),
        PartitionRestoring("nonsense of another version", position=7, role="standby", lag_records=[]),
    ],
)
async def test_what_is_no_freshness_of_a_readable_copy_makes_no_headers(worker: Worker, error: RequestError) -> None:
    worker.local.errors[PARTITION] = error
    reply = await worker.get(ROW)
    assert reply.status == 503
    assert not [name for name in reply.headers if name.startswith("tablehouse-")]


async def test_a_bad_value_between_workers_is_refused_by_the_asked_one(pair: tuple[Worker, Worker]) -> None:
    active, _ = pair
    bad = headers("a 1") | {"Tablehouse-Read": "all"}
    assert (await ask(active.internal, target(KEY, partition=PARTITION), bad)).status == 400
    assert active.local.asked == []
