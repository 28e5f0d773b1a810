"""The secret between workers, over real HTTP."""

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields

import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tablehouse.errors import OwnerUnreachable
from tablehouse.formats.partitioners import partition_of
from tablehouse.http.internal import STATUS_PATH
from tablehouse.http.proofs import CHALLENGE, CHALLENGE_PATH, NONCE, PROOF, WORKER, Met, keys_of, meet
from tablehouse.link.server import LinkServer
from tablehouse.model import HostInfo
from tablehouse.recurring import FIRST_INTERVAL, Recurring
from tablehouse.routing.ports import NoCommonSecret
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import FakeClock, Placed, snapshot
from tests.support.http_workers import Reply, Worker, ask, send, share, start_worker
from tests.support.members import answer_of_nobody, recording_listener
from tests.unit.http.test_forwarding import headers, target

OLD, NEW, OTHER = "the-old-secret-of-workers", "the-new-secret-of-workers", "the-secret-of-somebody-else"
#: Keys of partition 2, which worker b holds.
KEYS = [key for key in (b"k%d" % n for n in range(999)) if partition_of("murmur2", key, 4) == 2]
KEY = KEYS[0]
ROW = f"/tables/planes/{KEY.decode()}"


@contextlib.asynccontextmanager
async def workers(asking: Sequence[str], asked: Sequence[str]) -> AsyncIterator[tuple[Worker, Worker]]:
    """Run `a`, which holds nothing of partition 2, and `b`, which does, each with its secrets."""
    a, b = await start_worker("a", secrets=asking), await start_worker("b", secrets=asked)
    share([a, b], {"a": [0, 1], "b": [2, 3]})
    b.local.rows["planes", 2, KEY] = Row(b"1", 0, 1)
    try:
        yield a, b
    finally:
        for worker in (a, b):
            await worker.server.stop(1.0)


def host_of(worker: Worker) -> HostInfo:
    return HostInfo(worker.name, 1, worker.internal)


async def met(worker: Worker, secret: str) -> Met:
    """Have a worker prove itself."""
    nonce = "0" * 32
    reply = await ask(worker.internal, CHALLENGE_PATH, {NONCE: nonce})
    assert (reply.status, reply.body) == (204, b"")
    shown = {CHALLENGE: reply.headers[CHALLENGE.lower()], PROOF: reply.headers[PROOF.lower()]}
    return meet(keys_of([SecretStr(secret)]), host_of(worker), nonce, shown)


@pytest.mark.parametrize(
    ("asking", "asked", "why"),
    [
        ([], [], None),
        ([NEW], [NEW], None),
        ([OLD], [NEW, OLD], None),
        ([OLD, NEW], [NEW], None),
        ([OLD, NEW], [NEW, OLD], None),
        ([NEW, OLD], [OLD, NEW], None),
        ([], [NEW], "answers only workers with a secret, and this worker has none"),
        ([NEW], [], "does not prove to be worker b"),
        ([OTHER], [NEW], "does not prove to be worker b"),
        ([OTHER], [NEW, OLD], "does not prove to be worker b"),
    ],
)
async def test_a_hop_is_answered_when_the_workers_have_a_secret_in_common(
    asking: list[str], asked: list[str], why: str | None
) -> None:
    async with workers(asking, asked) as (a, b):
        assert (await a.get("/readyz")).json["reasons"] == []
        for _ in range(2):
            reply = await a.get(ROW)
            survey = (await a.get("/cluster")).json
            batch = await batch_of(a, [KEY, KEYS[1]])
            if why is None:
                assert (reply.status, reply.body, reply.headers["tablehouse-served-by"]) == (200, b"1", "b")
                assert survey["complete"] is True
                assert b'"value":1' in batch.body
                continue
            assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
            assert why in reply.json["tried"][0]["reason"]
            assert [member["reachable"] for member in survey["members"]] == [True, False]
            assert why in survey["members"][1]["reason"]
            assert b"owner_unreachable" in batch.body
            assert b.local.asked == []
        reasons = (await a.get("/readyz")).json["reasons"]
        assert (await b.get("/readyz")).json["reasons"] == []
        if why is None:
            assert reasons == []
            return
        [reason] = reasons
        assert reason.startswith(b.internal)
        assert why in reason
        assert "internal_secrets of both must have one in common" in reason
        # A process that has taken its place is another worker.
        a.view.swap(snapshot(*(Placed(worker.name, worker.internal, incarnation=2) for worker in (a, b))))
        assert (await a.get("/readyz")).json["reasons"] == []


@pytest.mark.parametrize("asking", [[], [OTHER]])
async def test_a_worker_with_another_secret_is_logged_at_growing_distances(
    monkeypatch: pytest.MonkeyPatch, asking: list[str]
) -> None:
    clock = FakeClock()
    monkeypatch.setattr("tablehouse.routing.strangers.Recurring", lambda log: Recurring(log, clock))
    with capture_logs() as logged:
        async with workers(asking, [NEW]) as (a, b):
            for _ in range(3):
                assert (await a.get(ROW, {"Tablehouse-Read": "prefer-active"})).status == 503
            clock.now += FIRST_INTERVAL
            assert (await a.get(ROW, {"Tablehouse-Read": "prefer-active"})).status == 503
    lines = [line for line in logged if line["event"] == "another worker has no secret in common with this one"]
    assert [(line["url"], line["peer"], line["log_level"]) for line in lines] == [(b.internal, "b", "warning")] * 2
    assert lines[1]["suppressed"] == 2
    assert all("internal_secrets" in line["reason"] and b.internal in line["reason"] for line in lines)


async def batch_of(worker: Worker, keys: Sequence[bytes]) -> Reply:
    body = msgspec.json.encode({"keys": [key.decode() for key in keys]})
    head = (
        f"POST /tables/planes:batch-get HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return await send(worker.url, head.encode() + body)


async def test_secrets_are_rotated_one_worker_after_the_other_without_a_refusal() -> None:
    # Both learn the new one, then both forget the old one.
    for here, there in (([OLD], [OLD, NEW]), ([OLD, NEW], [OLD, NEW]), ([NEW], [OLD, NEW]), ([NEW], [NEW])):
        for asking, asked in ((here, there), (there, here)):
            async with workers(asking, asked) as (a, _):
                assert (await a.get(ROW)).status == 200, (asking, asked)


@pytest.mark.parametrize("given", [None, "", OTHER, NEW, f"x 1 {NEW}", "x 1 " + "0" * 64, "x", "\xe9" * 16])
@pytest.mark.parametrize(
    "path", [target(KEY), "/internal/v1/tables/planes/2:digest", "/internal/v1/status", "/internal/v1/nothing"]
)
async def test_every_route_of_the_internal_listener_wants_a_proof(given: str | None, path: str) -> None:
    async with workers([NEW], [NEW, OLD]) as (_, b):
        reply = await ask(b.internal, path, headers() | ({} if given is None else {PROOF: given}))
        assert (reply.status, reply.json["code"]) == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == PROOF
        assert NEW not in reply.body.decode()
        assert b.local.asked == []


@pytest.mark.parametrize("secret", [NEW, OLD])
async def test_a_proven_request_is_answered_once_and_its_answer_is_proven(secret: str) -> None:
    async with workers([NEW], [NEW, OLD]) as (_, b):
        peer = await met(b, secret)
        for path in (target(KEY), "/internal/v1/tables/planes/2:digest", STATUS_PATH, target(KEY)):
            proven, asked = peer.request("GET", path, headers(), None)
            reply = await ask(b.internal, path, proven)
            assert reply.status == 200
            assert peer.is_proven(
                asked, reply.status, reply.headers | {PROOF: reply.headers[PROOF.lower()]}, reply.body
            )
            again = await ask(b.internal, path, proven)
            assert (again.status, again.json["detail"]) == (401, "this request was sent before, or is too old to tell")
        assert len(b.local.asked) == 2


async def test_a_request_that_was_changed_or_is_for_another_worker_is_refused() -> None:
    async with workers([NEW], [NEW]) as (a, b):
        peer = await met(b, NEW)
        for change in (
            {"Tablehouse-Partitions": "5"},
            {"Tablehouse-Max-Lag": "9"},
            {"Tablehouse-Deadline-Ms": "9999999"},
        ):
            proven, _ = peer.request("GET", target(KEY), headers(), None)
            assert (await ask(b.internal, target(KEY), proven | change)).status == 401
        proven, _ = peer.request("GET", target(KEY), headers(), None)
        assert (await ask(b.internal, target(KEYS[1]), proven)).status == 401
        assert (await ask(b.internal, target(KEY), proven, "POST")).status == 401
        assert (await ask(a.internal, target(KEY), proven)).status == 401
        name, number, mac = proven[PROOF].split(" ")
        assert (await ask(b.internal, target(KEY), proven | {PROOF: f"{name} {int(number) + 1} {mac}"})).status == 401
        assert a.local.asked == b.local.asked == []
        # None of that has used its number.
        assert (await ask(b.internal, target(KEY), proven)).status == 200


async def test_a_body_that_was_changed_is_refused() -> None:
    async with workers([NEW], [NEW]) as (_, b):
        peer = await met(b, NEW)
        path, body = "/internal/v1/tables/planes:batch-get", msgspec.msgpack.encode([[2, [KEY]]])
        for sent, status in ((body, 200), (body.replace(KEY, KEY[::-1]), 401)):
            proven, _ = peer.request("POST", path, {**headers(), "Content-Type": "application/vnd.msgpack"}, body)
            lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(sent)}"]
            lines += [f"{name}: {value}" for name, value in proven.items()]
            reply = await send(b.internal, "\r\n".join([*lines, "", ""]).encode() + sent)
            assert reply.status == status
        assert len(b.local.asked) == 1


async def test_requests_that_overtake_each_other_are_each_answered_once() -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # noqa: T201
    async with workers([NEW], [NEW]) as (_, b):
        peer = await met(b, NEW)
        sent = [peer.request("GET", STATUS_PATH, {}, None)[0] for _ in range(40)] * 2
        random.Random(seed).shuffle(sent)
        statuses = [(await ask(b.internal, STATUS_PATH, proven)).status for proven in sent]
        assert (statuses.count(200), statuses.count(401)) == (40, 40)


async def test_a_number_that_is_far_behind_is_refused_and_the_asking_worker_begins_again() -> None:
    async with workers([NEW], [NEW]) as (a, b):
        peer = await met(b, NEW)
        first = peer.request("GET", STATUS_PATH, {}, None)[0]
        for _ in range(5000):
            last = peer.request("GET", STATUS_PATH, {}, None)[0]
        assert (await ask(b.internal, STATUS_PATH, last)).status == 200
        assert (await ask(b.internal, STATUS_PATH, first)).status == 401
        assert (await a.get(ROW)).status == 200


async def test_a_worker_that_forgets_its_peers_gives_them_a_new_challenge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tablehouse.http.proofs._MAX_PEERS", 3)
    async with workers([NEW], [NEW]) as (a, b):
        for _ in range(10):
            peer = await met(b, NEW)
            await ask(b.internal, STATUS_PATH, peer.request("GET", STATUS_PATH, {}, None)[0])
            assert (await a.get(ROW)).status == 200


async def test_a_listener_without_the_secret_gets_a_nonce_alone_and_its_rows_reach_nobody() -> None:
    async with workers([NEW], [NEW]) as (a, b), recording_listener(answer_of_nobody(2)) as (url, received):
        share([a, dressed_as(b, url)], {"a": [0, 1], "b": [2, 3]})
        reply = await a.get(ROW)
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
        assert "does not prove to be worker b" in reply.json["tried"][0]["reason"]
        assert b"evil" not in reply.body
        assert received
        for request in received:
            assert request.startswith((b"GET /internal/v1/challenge ", b"GET /internal/v1/link "))
            assert NEW.encode() not in request


def dressed_as(worker: Worker, url: str) -> Worker:
    """Return a worker that the others find at another URL."""

    class Elsewhere(Worker):
        @property
        def internal(self) -> str:
            return url

    return Elsewhere(**{field.name: getattr(worker, field.name) for field in fields(Worker)})


async def test_a_relay_to_a_real_worker_proves_nothing_for_another_one() -> None:
    async with workers([NEW], [NEW]) as (_, b):
        nonce = "0" * 32
        reply = await ask(b.internal, CHALLENGE_PATH, {NONCE: nonce})
        shown = {CHALLENGE: reply.headers[CHALLENGE.lower()], PROOF: reply.headers[PROOF.lower()]}
        keys = keys_of([SecretStr(NEW)])
        assert meet(keys, host_of(b), nonce, shown)
        for other in (
            HostInfo("c", 1, b.internal),
            HostInfo("b", 2, b.internal),
            HostInfo("b", 1, "http://127.0.0.1:9"),
        ):
            with pytest.raises(OwnerUnreachable):
                meet(keys, other, nonce, shown)
        with pytest.raises(NoCommonSecret):
            meet(keys, host_of(b), "1" * 32, shown)
        # It says that it is another process, so its secret may well be the same.
        for other in (HostInfo("c", 1, b.internal), HostInfo("b", 2, b.internal)):
            with pytest.raises(OwnerUnreachable, match="is worker 'b 1'") as refused:
                meet(keys, other, nonce, shown | {WORKER: reply.headers[WORKER.lower()]})
            assert not isinstance(refused.value, NoCommonSecret)


async def test_an_answer_that_was_changed_on_its_way_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers([NEW], [NEW]) as (a, b):
        peer = await met(b, NEW)
        proven, asked = peer.request("GET", target(KEY), headers(), None)
        reply = await ask(b.internal, target(KEY), proven)
        got = reply.headers | {PROOF: reply.headers[PROOF.lower()]}
        assert peer.is_proven(asked, 200, got, b"1")
        for status, changed, body in (
            (204, got, b"1"),
            (200, got, b"2"),
            (200, got | {"tablehouse-role": "standby"}, b"1"),
            (200, got | {"tablehouse-lag-records": "0"}, b"1"),
            (200, got | {PROOF: ""}, b"1"),
            (200, {name: value for name, value in got.items() if name != PROOF}, b"1"),
        ):
            assert not peer.is_proven(asked, status, changed, body), (status, changed, body)
        _, another = peer.request("GET", target(KEY), headers(), None)
        assert not peer.is_proven(another, 200, got, b"1")

        monkeypatch.setattr("tablehouse.http.proofs._sealing", lambda *_: lambda _: None)
        monkeypatch.setattr(LinkServer, "is_request", lambda *_: False)
        refused = await a.get(ROW)
        assert (refused.status, refused.json["code"]) == (503, "owner_unreachable")
        assert "answered without a proof of the secret" in refused.json["tried"][0]["reason"]
