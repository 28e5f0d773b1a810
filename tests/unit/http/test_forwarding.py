import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import quote_from_bytes

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tablehouse.errors import MisplacedKeys, Overloaded, OwnerUnreachable, PartitionRestoring
from tablehouse.formats.partitioners import partition_of
from tablehouse.http import forms, internal, proofs
from tablehouse.http.peer import HttpPeer
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, HostInfo, Role, TaskState
from tablehouse.routing.cluster import NO_CLUSTER
from tablehouse.routing.ports import Terms, Unconnected, Unresponsive
from tablehouse.routing.strangers import Strangers
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Get
from tests.support.cluster_fakes import CATALOG, Placed, snapshot, status
from tests.support.http_workers import Worker, ask, share, start_worker, two_workers
from tests.support.schemas import NO_REGISTRY

#: A key of partition 2 or 3, which worker b holds.
FAR = next(key for key in (b"k%d" % n for n in range(99)) if partition_of("murmur2", key, 4) == 2)


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    async with two_workers() as both:
        yield both


def put(workers: tuple[Worker, Worker], key: bytes, value: bytes) -> None:
    partition = partition_of("murmur2", key, 4)
    workers[0 if partition < 2 else 1].local.rows["planes", partition, key] = Row(value, 1_700_000_000_000, 41)


async def test_both_workers_give_the_same_answer_and_say_who_gave_it(workers: tuple[Worker, Worker]) -> None:
    value = bytes(range(256)) * 40
    put(workers, FAR, value)
    target = f"/tables/planes/{FAR.decode()}"
    replies = [await worker.get(target) for worker in workers]
    varying = {"x-request-id", "date"}
    first, second = ({k: v for k, v in reply.headers.items() if k not in varying} for reply in replies)
    assert first == second
    assert [reply.body for reply in replies] == [value, value]
    assert first["tablehouse-served-by"] == "b"
    assert first["tablehouse-position"] == "2:99"
    etag = first["etag"]
    assert (await workers[0].get(target, {"If-None-Match": etag})).status == 304


async def test_a_forwarded_miss_is_a_404_with_the_owner_s_freshness(workers: tuple[Worker, Worker]) -> None:
    reply = await workers[0].get(f"/tables/planes/{FAR.decode()}")
    assert (reply.status, reply.json["code"]) == (404, "key_not_found")
    assert reply.headers["tablehouse-served-by"] == "b"
    assert reply.headers["tablehouse-partition"] == "2"
    assert reply.headers["tablehouse-lag-records"] == "2"


async def test_a_key_is_asked_of_its_owner_once(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    await a.get(f"/tables/planes/{FAR.decode()}")
    assert (a.local.asked, b.local.asked) == ([], [("planes", 2, FAR)])


@given(st.lists(st.text().map(str.encode), min_size=1, max_size=8))
@example([b"\x00", b"/", b".", b"..", b""])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_key_round_trips_through_every_worker_to_the_same_partition(keys: list[bytes]) -> None:
    async def scenario() -> None:
        async with two_workers() as workers:
            for number, key in enumerate(keys):
                row = b"row %d" % number
                put(workers, key, row)
                replies = [await w.get(f"/tables/planes:get?key={quote_from_bytes(key, safe='')}") for w in workers]
                assert [(reply.status, reply.body) for reply in replies] == [(200, row)] * 2
                assert len({reply.headers["tablehouse-partition"] for reply in replies}) == 1

    asyncio.run(scenario())


async def test_binary_stored_keys_cross_the_hop_exactly(workers: tuple[Worker, Worker]) -> None:
    for number in (-(2**63), -1, 0, 1, 2**63 - 1):
        stored = (number + 2**63).to_bytes(8, "big")
        partition = partition_of("murmur2", number.to_bytes(8, "big", signed=True), 4)
        owner = workers[0 if partition < 2 else 1]
        owner.local.rows["numbers", partition, stored] = Row(str(number).encode(), 0, 1)
        for worker in workers:
            assert (await worker.get(f"/tables/numbers/{number}")).body == str(number).encode()


async def test_after_a_move_that_only_the_owner_knows_the_caller_gets_a_503(workers: tuple[Worker, Worker]) -> None:
    workers[1].local.held.clear()
    reply = await workers[0].get(f"/tables/planes/{FAR.decode()}", {"Tablehouse-Read": "prefer-active"})
    assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
    assert [attempt["host"] for attempt in reply.json["tried"]] == ["b", "b"]
    assert "generation 7 here, 7 there" in reply.json["tried"][0]["reason"]
    assert len(workers[1].local.asked) == 2
    assert reply.headers["retry-after"] == "1"


async def test_not_mine_is_followed_to_the_new_owner(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    put(workers, FAR, b"1")
    a.local.rows, b.local.rows = b.local.rows, {}
    original = b.local.read

    def moving(table: str, partition: int, stored_key: bytes, consistency: Consistency) -> object:
        share(workers, {"a": range(4)}, generation=8)
        return original(table, partition, stored_key, consistency)

    b.local.read = moving  # type: ignore[method-assign,assignment]
    reply = await a.get(f"/tables/planes/{FAR.decode()}")
    assert (reply.status, reply.headers["tablehouse-served-by"]) == (200, "a")


@pytest.mark.parametrize("kind", [PartitionRestoring, MisplacedKeys, Overloaded])
async def test_the_owner_s_refusal_reaches_the_caller_whole(
    workers: tuple[Worker, Worker], kind: type[PartitionRestoring]
) -> None:
    workers[1].local.errors[2] = kind("40 to go", retry_after=7, progress={"remaining": 40})
    reply = await workers[0].get(f"/tables/planes/{FAR.decode()}")
    assert (reply.status, reply.json["code"]) == (503, kind.code)
    assert reply.json["detail"] == "40 to go"
    assert reply.json["progress"] == {"remaining": 40}
    assert reply.headers["retry-after"] == "7"


async def test_an_unreachable_owner_is_a_503_within_the_deadline(workers: tuple[Worker, Worker]) -> None:
    await workers[1].server.stop(0)
    reply = await workers[0].get(f"/tables/planes/{FAR.decode()}")
    assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
    [attempt] = reply.json["tried"]
    assert attempt["host"] == "b"
    assert "Connect" in attempt["reason"] or "refused" in attempt["reason"]


async def test_an_owner_that_never_answers_is_a_503_within_the_deadline() -> None:
    released = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    worker = await start_worker("a", timeout=0.2)
    port = mute.sockets[0].getsockname()[1]
    worker.view.swap(
        snapshot(Placed("a", worker.internal), Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)}))
    )
    try:
        reply = await worker.get("/tables/planes/x")
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
        assert "no answer" in reply.json["tried"][0]["reason"]
    finally:
        released.set()
        await worker.server.stop(1)
        mute.close()


async def test_a_silent_active_leaves_time_for_its_standby() -> None:
    released = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    worker = await start_worker("s", timeout=1.0)
    worker.local.role = Role.STANDBY
    worker.local.rows["planes", 2, FAR] = Row(b"1", 0, 1)
    url = f"http://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
    everything = {"planes-topic": range(4)}
    worker.view.swap(snapshot(Placed("m", url, everything), Placed("s", worker.internal, standbys=everything)))
    try:
        reply = await worker.get(f"/tables/planes/{FAR.decode()}")
        assert (reply.status, reply.headers["tablehouse-role"]) == (200, "standby")
    finally:
        released.set()
        await worker.server.stop(1)
        mute.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n" + b'{"code":"key_not_found"}  ',
        b"garbage\r\n\r\n",
    ],
)
async def test_another_server_on_the_owner_s_address_is_never_taken_for_a_worker(answer: bytes) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    worker = await start_worker("a")
    port = server.sockets[0].getsockname()[1]
    worker.view.swap(
        snapshot(Placed("a", worker.internal), Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)}))
    )
    try:
        reply = await worker.get("/tables/planes/x")
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
    finally:
        await worker.server.stop(1)
        server.close()


@pytest.mark.parametrize(
    ("answer", "kind"), [(None, Unconnected), (b"", Unresponsive), (b"garbage\r\n\r\n", OwnerUnreachable)]
)
async def test_a_worker_without_a_sign_of_life_is_told_from_one_that_answers_nonsense(
    answer: bytes | None, kind: type[OwnerUnreachable]
) -> None:
    released = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not answer:
            await released.wait()
        writer.write(answer or b"")
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if answer is None:
        server.close()
        await server.wait_closed()
    peer = HttpPeer((), Strangers())
    terms = Terms(0.0, 0.3, "", 4, 7, "r")
    try:
        with pytest.raises(OwnerUnreachable) as raised:
            await peer.at(HostInfo("m", 1, url)).answer("planes", 2, Get(FAR), DEFAULT_CONSISTENCY, terms)
        assert type(raised.value) is kind
    finally:
        released.set()
        await peer.close()
        server.close()


def headers(means: str = "b 1", **changes: str) -> dict[str, str]:
    given = {
        proofs.WORKER: means,
        forms.VERSION: "1",
        internal.TABLE_DIGEST: routed_tables(CATALOG, "g", NO_REGISTRY)["planes"].digest,
        internal.PARTITIONS: "4",
        internal.GENERATION: "7",
        internal.DEADLINE_MS: "1000",
    }
    return given | {getattr(forms if name == "VERSION" else internal, name): value for name, value in changes.items()}


def target(key: bytes = FAR, table: str = "planes", partition: int = 2) -> str:
    return f"/internal/v1/tables/{table}/{partition}/{base64.urlsafe_b64encode(key).decode().rstrip('=')}"


async def test_the_internal_listener_answers_a_row_or_a_204(workers: tuple[Worker, Worker]) -> None:
    put(workers, FAR, b"1")
    found = await ask(workers[1].internal, target(), headers())
    assert (found.status, found.body) == (200, b"1")
    assert found.headers["tablehouse-row-offset"] == "41"
    missing = await ask(workers[1].internal, target(b"nobody"), headers())
    assert (missing.status, missing.body) == (204, b"")
    assert forms.ROW_TIMESTAMP_MS.lower() not in missing.headers
    assert (await ask(workers[1].internal, target(b""), headers())).status == 204


async def test_the_mark_of_a_deleted_key_crosses_the_hop_with_its_timestamp(workers: tuple[Worker, Worker]) -> None:
    workers[1].local.rows["planes", 2, FAR] = Row(b"", 1_700_000_000_000, 41, deleted=True)
    peer, digest = HttpPeer((), Strangers()), headers()[internal.TABLE_DIGEST]
    terms = Terms(0.0, 5.0, digest, 4, 7, "r")
    try:
        owner = peer.at(HostInfo("b", 1, workers[1].internal))
        read = await owner.answer("planes", 2, Get(FAR), DEFAULT_CONSISTENCY, terms)
    finally:
        await peer.close()
    assert (read.result.row, read.result.deleted_ms) == (None, 1_700_000_000_000)


async def test_the_internal_listener_says_not_mine_and_never_forwards(workers: tuple[Worker, Worker]) -> None:
    reply = await ask(workers[0].internal, target(), headers("a 1"))
    assert (reply.status, reply.json["code"]) == (421, "not_owner")
    assert workers[1].local.asked == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"TABLE_DIGEST": "0" * 32}, "definition"),
        ({"PARTITIONS": "5"}, "partitions"),
        ({"VERSION": "2"}, "version"),
        ({"means": "b 2"}, "this is worker 'b 1' (id and incarnation), and the asking one means 'b 2'"),
        ({"means": "a 1"}, "this is worker 'b 1' (id and incarnation), and the asking one means 'a 1'"),
    ],
)
async def test_workers_that_mean_different_tables_or_another_worker_do_not_read_from_each_other(
    workers: tuple[Worker, Worker], change: dict[str, str], word: str
) -> None:
    reply = await ask(workers[1].internal, target(), headers(**change))
    assert (reply.status, reply.json["code"]) == (421, "not_owner")
    assert word in reply.json["detail"]
    assert workers[1].local.asked == []


async def test_a_table_that_only_the_asking_worker_knows_is_not_mine_and_no_404(workers: tuple[Worker, Worker]) -> None:
    reply = await ask(workers[1].internal, target(table="newer"), headers())
    assert (reply.status, reply.json["code"]) == (421, "not_owner")


async def test_during_a_rolling_change_of_a_table_the_caller_gets_a_503_and_no_404() -> None:
    newer = type(CATALOG)({**CATALOG.tables, "planes": replace(CATALOG.tables["planes"], version=2)})
    workers = [await start_worker("a"), await start_worker("b", newer)]
    share(workers, {"a": [0, 1], "b": [2, 3]})
    try:
        reply = await workers[0].get(f"/tables/planes/{FAR.decode()}")
        assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
        assert "definition" in reply.json["tried"][0]["reason"]
    finally:
        for worker in workers:
            await worker.server.stop(1)


async def test_bad_internal_requests_are_refused(workers: tuple[Worker, Worker]) -> None:
    url = workers[1].internal
    assert (await ask(url, target(), headers(DEADLINE_MS="0"))).status == 504
    assert (await ask(url, target(), headers(DEADLINE_MS="-1"))).status == 400
    assert (await ask(url, target() + "!", headers())).status == 400
    assert (await ask(url, "/internal/v1/tables/planes/x/aa", headers())).status == 400
    assert (await ask(url, "/tables/planes/x", headers())).status == 404
    assert (await ask(url, target(), headers(), method="POST")).status == 405


@pytest.mark.parametrize("name", ["Tablehouse-Deadline-Ms", "Tablehouse-Partitions", "Tablehouse-Max-Lag"])
@pytest.mark.parametrize("number", ["9" * 5_000, "-1", "1e3", "\u0661", ""])
async def test_numbers_that_no_worker_sends_are_a_400(workers: tuple[Worker, Worker], name: str, number: str) -> None:
    reply = await ask(workers[1].internal, target(), headers() | {name: number})
    assert (reply.status, reply.json["code"]) == (400, "invalid_parameter"), reply.json
    reply = await ask(workers[1].internal, f"/internal/v1/tables/planes/{'9' * 5_000}:digest")
    assert (reply.status, reply.json["code"]) == (400, "invalid_parameter"), reply.json


async def test_a_generation_of_any_length_does_no_harm(workers: tuple[Worker, Worker]) -> None:
    put(workers, FAR, b"1")
    reply = await ask(workers[1].internal, target(), headers() | {"Tablehouse-Generation": "9" * 5_000})
    assert (reply.status, reply.body) == (200, b"1")


async def test_a_retry_after_of_any_length_from_a_peer_is_passed_over(workers: tuple[Worker, Worker]) -> None:
    document = b'{"code":"partition_restoring","detail":"40 to go","status":503}'

    async def owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 503 x\r\nRetry-After: %b\r\nContent-Length: %d\r\n\r\n" % (b"9" * 5_000, len(document))
        writer.write(head + document)
        writer.close()

    server = await asyncio.start_server(owner, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    workers[0].view.swap(NO_CLUSTER)  # it remembers no former owner
    workers[0].view.swap(snapshot(Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)})))
    reply = await workers[0].get("/tables/planes/x")
    server.close()
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "partition_restoring", "1")


async def test_the_internal_listener_waits_no_longer_than_a_request_of_its_own_may_take() -> None:
    async with two_workers(timeout=0.2) as (_, b):
        waiting = {"Tablehouse-Min-Position": "2:9999", "Tablehouse-Timeout-Ms": "999999999"}
        asked = headers() | waiting | {"Tablehouse-Deadline-Ms": "999999999"}
        reply = await ask(b.internal, target(), asked)
        assert (reply.status, reply.json["code"]) == (503, "position_not_reached"), reply.json


@pytest.mark.parametrize(("count", "status"), [(1_000, 200), (2_000, 400), (6_000, 400)])
async def test_many_positions_are_taken_or_refused_by_every_worker_alike(
    workers: tuple[Worker, Worker], count: int, status: int
) -> None:
    put(workers, FAR, b"1")
    positions = ",".join(f"{number + 10}:12345" for number in range(count))
    for worker in workers:
        reply = await worker.get(f"/tables/planes/{FAR.decode()}?min_position={positions}")
        assert reply.status == status, reply.json
        if status == 400:
            assert (reply.json["code"], reply.json["parameter"]) == ("invalid_parameter", "min_position")


async def test_nothing_that_a_client_sends_crosses_the_hop(workers: tuple[Worker, Worker]) -> None:
    seen: list[bytes] = []

    async def owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(owner, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    workers[0].view.swap(snapshot(Placed("m", f"http://127.0.0.1:{port}", {"planes-topic": range(4)})))
    sent = {
        "Authorization": "secret",
        "Cookie": "c=1",
        "X-Other": "x",
        "Tablehouse-Generation": "99",
        "X-Request-Id": "r-1",
    }
    await workers[0].get("/tables/planes/x", sent)
    server.close()
    link, hop = ({line.split(b":")[0].lower() for line in one.split(b"\r\n")[1:] if line} for one in seen)
    assert link == {
        b"host",
        b"connection",
        b"upgrade",
        b"tablehouse-worker",
        b"tablehouse-asking-worker",
        b"tablehouse-nonce",
    }
    assert hop == {
        b"host",
        b"tablehouse-worker",
        b"x-request-id",
        b"tablehouse-internal-version",
        b"tablehouse-table-digest",
        b"tablehouse-partitions",
        b"tablehouse-generation",
        b"tablehouse-deadline-ms",
    }
    assert b"r-1" in seen[1]
    assert b"Tablehouse-Generation: 7" in seen[1]


async def test_the_cluster_is_described_from_what_every_worker_says(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    a.local.states = [status(partition=0), status(partition=1)]
    b.local.states = [status(partition=2), status(partition=3)]
    seen = (await a.get("/cluster")).json
    assert (seen["generation"], seen["complete"]) == (7, True)
    assert [(m["worker"], m["reachable"]) for m in seen["members"]] == [("a", True), ("b", True)]
    assert [(p["active"], p["state"]) for p in seen["tables"]["planes"]] == [
        ("a", "active"),
        ("a", "active"),
        ("b", "active"),
        ("b", "active"),
    ]
    table = (await b.get("/tables/planes")).json
    assert (table["state"], table["rows_estimate"], table["partitions"]) == ("active", 40, 4)
    assert table["partition_details"][2]["lag_records"] == 2
    tables = (await a.get("/tables")).json["tables"]
    assert [t["name"] for t in tables] == ["planes", "numbers", "blobs"]
    assert tables[0]["source"] == "planes-topic"
    assert (tables[0]["key"], tables[0]["value"], tables[0]["description"]) == ("string", "json", "Aircraft")


async def test_a_table_with_a_partition_that_something_keeps_says_what_and_with_an_active_one_nothing(
    workers: tuple[Worker, Worker],
) -> None:
    a, b = workers
    a.local.states = [status(partition=0), replace(status(partition=1), reason="repeats a record")]
    stopped = replace(status(partition=2, state=TaskState.SUSPENDED), reason="offset 7 cannot become a row")
    b.local.states = [stopped, replace(stopped, partition=3, reason="offset 9 cannot become a row")]
    table = (await a.get("/tables")).json["tables"][0]
    assert (table["state"], table["reason"]) == ("partial", "partition 2: offset 7 cannot become a row")
    b.local.states = [status(partition=2), status(partition=3)]
    table = (await b.get("/tables/planes")).json
    assert (table["state"], table["reason"]) == ("active", None)


async def test_a_table_whose_misses_prove_nothing_or_that_is_not_served_says_why(
    workers: tuple[Worker, Worker],
) -> None:
    a, b = workers
    doubt, held = "misses of table planes are inconclusive: it has grown", "table numbers is not served: it has grown"
    a.local.states = [status(partition=0), replace(status(partition=1), reason="opening the store")]
    b.local.states = [status(partition=2), status(partition=3)]
    for worker in workers:
        worker.local.table_reasons = {"planes": doubt, "numbers": held}
    planes, numbers, blobs = (await a.get("/tables")).json["tables"]
    assert [(table["state"], table["reason"]) for table in (planes, numbers, blobs)] == [
        ("active", doubt),
        ("unavailable", held),
        ("unavailable", None),
    ]
    table, tables = (await a.get("/tables/planes")).json, (await b.get("/cluster")).json["tables"]
    assert table["reason"] == doubt
    assert table["partition_details"] == tables["planes"]
    assert [partition["reason"] for partition in tables["planes"]] == [doubt, "opening the store", doubt, doubt]
    assert {(p["state"], p["lag_records"], p["staleness_ms"]) for p in tables["planes"]} == {("active", None, None)}
    assert {(p["state"], p["reason"]) for p in tables["numbers"]} == {("not_served", held)}
    assert {(p["state"], p["reason"]) for p in tables["blobs"]} == {("unknown", None)}


async def test_a_worker_that_cannot_be_asked_makes_the_picture_incomplete(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    a.local.states = [status(partition=0), status(partition=1)]
    await b.server.stop(0)
    seen = (await a.get("/cluster")).json
    assert seen["complete"] is False
    assert [m["reachable"] for m in seen["members"]] == [True, False]
    assert seen["members"][1]["reason"]
    assert seen["tables"]["planes"][2]["state"] == "unknown"
    table = (await a.get("/tables/planes")).json
    assert (table["complete"], table["state"], table["rows_estimate"]) == (False, "partial", None)
