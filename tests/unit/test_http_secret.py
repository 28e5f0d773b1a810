"""The secret between workers, over real HTTP."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from app.errors import Unauthenticated
from app.formats.partitioners import partition_of
from app.http.shared_secret import SECRET, SharedSecret
from app.stores.rows import Row
from tests.support.http_workers import Worker, ask, share, start_worker
from tests.unit.test_http_forwarding import headers, target

OLD, NEW, OTHER = "the-old-secret-of-workers", "the-new-secret-of-workers", "the-secret-of-somebody-else"
#: A key of partition 2, which worker b holds.
KEY = next(key for key in (b"k%d" % n for n in range(99)) if partition_of("murmur2", key, 4) == 2)
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


@pytest.mark.parametrize(
    ("asking", "asked", "taken"),
    [
        ([], [], True),
        ([NEW], [NEW], True),
        ([NEW], [], True),
        ([OLD], [NEW, OLD], True),
        ([OLD, NEW], [NEW, OLD], True),
        ([NEW, OLD], [OLD, NEW], True),
        ([], [NEW], False),
        ([OTHER], [NEW], False),
        ([OTHER], [NEW, OLD], False),
        # Only the first is shown.
        ([OLD, NEW], [NEW], False),
    ],
)
async def test_a_hop_is_answered_when_the_first_secret_is_one_of_the_asked_worker_s(
    asking: list[str], asked: list[str], *, taken: bool
) -> None:
    async with workers(asking, asked) as (a, b):
        reply = await a.get(ROW)
        survey = (await a.get("/cluster")).json
        if taken:
            assert (reply.status, reply.body, reply.headers["tablehouse-served-by"]) == (200, b"1", "b")
            assert survey["complete"] is True
            return
        assert (reply.status, reply.json["code"]) == (503, "owner_unreachable")
        assert reply.json["tried"][0]["reason"].startswith("it refuses this worker's secret")
        assert [member["reachable"] for member in survey["members"]] == [True, False]
        assert survey["members"][1]["reason"].startswith("it refuses this worker's secret")
        assert b.local.asked == []


async def test_secrets_are_rotated_one_worker_after_the_other_without_a_refusal() -> None:
    # Both learn the new one, then both send it, then both forget the old one.
    for here, there in (
        ([OLD], [OLD, NEW]),
        ([OLD, NEW], [OLD, NEW]),
        ([NEW, OLD], [OLD, NEW]),
        ([NEW, OLD], [NEW, OLD]),
        ([NEW], [NEW, OLD]),
        ([NEW], [NEW]),
    ):
        for asking, asked in ((here, there), (there, here)):
            async with workers(asking, asked) as (a, _):
                assert (await a.get(ROW)).status == 200, (asking, asked)


@pytest.mark.parametrize("given", [None, "", OTHER, NEW[:-1], NEW + "x", NEW.upper(), "\xe9" * 16])
@pytest.mark.parametrize(
    "path", [target(KEY), "/internal/v1/tables/planes/2:digest", "/internal/v1/status", "/internal/v1/nothing"]
)
async def test_every_route_of_the_internal_listener_wants_the_secret(given: str | None, path: str) -> None:
    async with workers([NEW], [NEW, OLD]) as (_, b):
        reply = await ask(b.internal, path, headers() | ({} if given is None else {SECRET: given}))
        assert (reply.status, reply.json["code"]) == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == SECRET
        assert NEW not in reply.body.decode()
        assert b.local.asked == []


@pytest.mark.parametrize("secret", [NEW, OLD])
async def test_who_shows_a_secret_is_answered(secret: str) -> None:
    async with workers([NEW], [NEW, OLD]) as (_, b):
        shown = {SECRET: secret}
        assert (await ask(b.internal, target(KEY), headers() | shown)).status == 200
        assert (await ask(b.internal, "/internal/v1/tables/planes/2:digest", shown)).status == 200
        assert (await ask(b.internal, "/internal/v1/status", shown)).status == 200


async def test_the_public_listener_wants_no_secret_and_lets_none_cross() -> None:
    async with workers([OTHER], [NEW]) as (a, b):
        assert (await b.get(ROW)).status == 200
        # A caller who knows the secret of b cannot lend it to a.
        assert (await a.get(ROW, {SECRET: NEW})).status == 503


def test_every_secret_is_compared_however_early_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(shown: bytes, secret: bytes) -> bool:
        compared.append(secret)
        return shown == secret

    monkeypatch.setattr("app.http.shared_secret.hmac.compare_digest", compare)
    secret = SharedSecret([NEW, OLD])
    secret.check({SECRET: NEW})
    with pytest.raises(Unauthenticated):
        secret.check({SECRET: OTHER})
    assert compared == [NEW.encode(), OLD.encode()] * 2
