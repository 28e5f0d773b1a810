"""Links between whole workers: what callers get through them, with secrets and without, and while they break."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tablehouse.formats.partitioners import partition_of
from tablehouse.link.answering import LinkServer
from tablehouse.link.handshake import request
from tablehouse.link.packets import Seal, packed
from tablehouse.model import HostInfo, Role
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import Reply, Worker, connected, read_reply, share, start_worker, two_workers
from tests.support.polling import until

#: Keys that worker b has.
FAR = [key for key in (b"k%d" % number for number in range(2_000)) if partition_of("murmur2", key, 4) > 1]


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    async with two_workers() as both:
        fill(both[1])
        yield both


def fill(worker: Worker) -> None:
    for key in FAR:
        worker.local.rows["planes", partition_of("murmur2", key, 4), key] = Row(b'"%b"' % key, 1_700_000_000_000, 41)


def links(worker: Worker) -> LinkServer:
    found = worker.server._internal.links  # noqa: SLF001 - there is no other way to see them
    assert isinstance(found, LinkServer)
    return found


def plain(key: bytes) -> bytes:
    return b"GET /tables/planes/%b HTTP/1.1\r\nHost: test\r\n\r\n" % key


async def read(worker: Worker, key: bytes = FAR[0]) -> Reply:
    return await worker.get(f"/tables/planes/{key.decode()}")


async def test_answers_come_in_the_order_of_their_requests_whichever_worker_has_the_rows(
    workers: tuple[Worker, Worker],
) -> None:
    a, b = workers
    near = [key for key in (b"n%d" % number for number in range(200)) if partition_of("murmur2", key, 4) < 2]
    for key in near:
        a.local.rows["planes", partition_of("murmur2", key, 4), key] = Row(b'"%b"' % key, 0, 1)
    keys = [key for pair in zip(FAR, near, strict=False) for key in pair]
    async with connected(a.url) as (reader, writer):
        for key in keys:
            # Each on its own, so that it is no part of one that is looked at as a whole.
            writer.write(plain(key))
            await asyncio.sleep(0)
        assert [(await read_reply(reader)).body for _ in keys] == [b'"%b"' % key for key in keys]
    assert b.local.asked


async def test_a_client_that_sends_its_last_request_and_no_more_gets_its_answer(
    workers: tuple[Worker, Worker],
) -> None:
    async with connected(workers[0].url) as (reader, writer):
        writer.write(plain(FAR[0]))
        writer.write_eof()
        assert (await read_reply(reader)).body == b'"%b"' % FAR[0]
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_client_that_goes_away_is_not_waited_for(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    await read(a)
    [link] = links(b)._links  # noqa: SLF001 - as above
    assert link._transport is not None  # noqa: SLF001 - as above
    link._transport.pause_reading()  # noqa: SLF001 - as above
    async with connected(a.url) as (_, writer):
        writer.write(plain(FAR[1]))

    async def gone() -> bool:
        return a.metrics.registry.get_sample_value("tablehouse_http_connections", {"listener": "http"}) == 0

    await until(gone, "the connection is closed")
    link._transport.resume_reading()  # noqa: SLF001 - as above
    assert (await read(a, FAR[2])).body == b'"%b"' % FAR[2]


@pytest.mark.parametrize(
    ("of_a", "of_b", "status"),
    [
        (("s",), ("s",), 200),
        (("new", "old"), ("old",), 200),
        (("old",), ("new", "old"), 200),
        (("s",), ("other",), 503),
        (("s",), (), 503),
        ((), ("s",), 503),
    ],
)
async def test_workers_with_a_secret_in_common_use_links_and_others_say_why_not(
    of_a: tuple[str, ...], of_b: tuple[str, ...], status: int
) -> None:
    a, b = await start_worker("a", secrets=of_a), await start_worker("b", secrets=of_b)
    share((a, b), {"a": [0, 1], "b": [2, 3]})
    fill(b)
    try:
        for _ in range(2):
            reply = await read(a)
            assert reply.status == status
        if status == 200:
            assert len(links(b)) == 1
        else:
            assert "secret" in reply.json["tried"][0]["reason"]
    finally:
        await a.server.stop(1)
        await b.server.stop(1)


async def test_a_worker_that_knows_no_links_is_asked_over_http(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinkServer, "is_request", lambda _, __: False)
    for _ in range(2):
        assert (await read(workers[0])).body == b'"%b"' % FAR[0]
    assert len(links(workers[1])) == 0
    body = await workers[0].get("/cluster")
    assert body.json["complete"] is True


async def test_a_process_on_the_address_of_another_one_gives_no_answer() -> None:
    a, b = await start_worker("a"), await start_worker("b")
    everything = {"planes-topic": range(4)}
    a.view.swap(snapshot(Placed("a", a.internal), Placed("c", b.internal, everything)))
    b.view.swap(snapshot(Placed("b", b.internal, everything)))
    fill(b)
    try:
        reply = await read(a)
        assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
        assert "means 'c 1'" in reply.json["tried"][0]["reason"]
        assert b.local.asked == []
    finally:
        await a.server.stop(1)
        await b.server.stop(1)


async def test_when_a_link_ends_the_standby_answers(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    everything = {"planes-topic": range(4)}
    a.view.swap(snapshot(Placed("b", b.internal, everything), Placed("a", a.internal, standbys=everything)))
    a.local.role = Role.STANDBY
    a.local.rows.update(b.local.rows)
    a.local.held.update(b.local.held)
    assert (await read(a)).headers["tablehouse-role"] == "active"
    await b.server.stop(0)

    assert (await read(a)).headers["tablehouse-role"] == "standby"


async def test_a_worker_has_a_bound_of_links() -> None:
    a, b = await start_worker("a"), await start_worker("b", connections=6)
    share((a, b), {"a": [0, 1], "b": [2, 3]})
    fill(b)
    try:
        assert (await read(a)).status == 200
        asked = HostInfo("b", 1, b.internal)
        async with connected(b.internal) as (reader, writer):
            writer.write(request(asked, "test", "c 1", "0" * 32))
            assert (await read_reply(reader)).status == 503
    finally:
        await a.server.stop(1)
        await b.server.stop(1)


@pytest.mark.parametrize(
    "message",
    [
        b"\xc1",
        b"\x01",
        b"\x92\x63\x01",  # an unknown kind
        b"\x91\x01",  # an Ask of nothing
        b"\x95\x01\x01\x94\xa1t\xa1d\x04\x07\x02\x95\xa5range\xc4\x00\xc0\xc2\x00",  # a Range of no rows
        b"\x91" * 50_000,
    ],
)
async def test_a_question_that_cannot_be_understood_ends_the_link(
    workers: tuple[Worker, Worker], message: bytes
) -> None:
    _, b = workers
    async with connected(b.internal) as (reader, writer):
        writer.write(request(HostInfo("b", 1, b.internal), "test", "c 1", "0" * 32))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        writer.writelines(packed([message], Seal(None)))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
    assert b.local.asked == []


async def test_whatever_arrives_on_a_link_ends_that_link_alone(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    chance = random.Random(17)
    asked = HostInfo("b", 1, b.internal)
    for _ in range(100):
        async with connected(b.internal) as (reader, writer):
            writer.write(request(asked, "test", "c 1", "0" * 32))
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 101 ")
            size = chance.randint(1, 200)
            garbage = chance.randbytes(size)
            if chance.random() < 0.7:
                garbage = size.to_bytes(4, "big") + garbage
            with contextlib.suppress(OSError):
                writer.write(garbage)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 30)
    assert (await read(a)).body == b'"%b"' % FAR[0]

    async def left() -> bool:
        return len(links(b)) == 1

    await until(left, "the link of worker a alone is left")


async def test_no_answer_reaches_another_request_while_links_come_and_go(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    chance = random.Random(17)
    done = asyncio.Event()
    answered = 0

    async def cut() -> None:
        while not done.is_set():
            for link in list(links(b)._links):  # noqa: SLF001 - as above
                if link._transport is not None:  # noqa: SLF001 - as above
                    link._transport.abort()  # noqa: SLF001 - as above
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 0.01)

    async def client() -> None:
        nonlocal answered
        async with connected(a.url) as (reader, writer):
            for _ in range(150):
                keys = chance.choices(FAR, k=chance.randint(1, 4))
                for key in keys:
                    writer.write(plain(key))
                    await asyncio.sleep(0)
                for key in keys:
                    reply = await read_reply(reader)
                    assert reply.status in {200, 503}, reply
                    if reply.status == 200:
                        assert reply.body == b'"%b"' % key
                        answered += 1

    cutting = asyncio.ensure_future(cut())
    await asyncio.gather(*(client() for _ in range(16)))
    done.set()
    await cutting
    assert answered > 1_000
