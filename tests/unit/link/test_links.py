"""Links between whole workers: what callers get through them, with secrets and without, and while they break."""

import asyncio
import contextlib
import gc
import random
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvloop

from tablehouse.formats.partitioners import partition_of
from tablehouse.http.plain import PlainReads
from tablehouse.link import asking
from tablehouse.link.asking import MAX_QUESTIONS
from tablehouse.link.handshake import request
from tablehouse.link.messages import Agreed, Ask, AskMany, Cancel, Ping, Pong, decode_replies, encode
from tablehouse.link.messages import Reply as Message
from tablehouse.link.packets import MAX_FIRST_PACKET_BYTES, PacketReader, Seal, packed
from tablehouse.link.server import LinkServer
from tablehouse.model import Consistency, HostInfo, Role
from tablehouse.routing.ports import Wanted
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Get
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import Reply, Worker, connected, read_reply, share, start_worker, two_workers
from tests.support.polling import until
from tests.support.positions import at

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


def test_a_request_for_a_link_that_comes_with_its_connection_leaves_no_task_behind() -> None:
    failures: list[object] = []

    async def come_together() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        worker = await start_worker("b")
        try:
            address = urlsplit(worker.internal)
            # Neither call lets the server run before both are done.
            with socket.create_connection((address.hostname, address.port)) as wire:
                wire.sendall(request(HostInfo("b", 1, worker.internal), address.netloc, "a 1", "00" * 16))

                async def begun() -> bool:
                    return len(links(worker)) == 1

                await until(begun, "the link has begun")
            gc.collect()
        finally:
            await worker.server.stop(1)

    # Its transports, unlike asyncio's, read before any task that their connection began.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(come_together())
    assert failures == []


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


async def test_the_first_answer_on_a_link_may_be_large(workers: tuple[Worker, Worker]) -> None:
    a, b = workers
    body = b'"%b"' % (b"x" * MAX_FIRST_PACKET_BYTES)
    b.local.rows["planes", partition_of("murmur2", FAR[0], 4), FAR[0]] = Row(body, 0, 1)
    assert (await read(a)).body == body
    assert len(links(b)) == 1


async def test_an_answer_that_cannot_be_given_at_once_is_given_by_the_full_handler(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = workers

    def rendered(_self: PlainReads, _found: object, _read: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(PlainReads, "_rendered", rendered)
    assert (await read(a)).body == b'"%b"' % FAR[0]
    plain_reads = a.server._public.plain  # noqa: SLF001 - as above
    assert plain_reads is not None
    plain_reads.close()
    await asyncio.wait_for(plain_reads.idle.wait(), 30)


async def test_what_arrives_behind_a_request_that_waits_for_another_worker_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "SILENT_SECONDS", 600.0)
    a, b = await start_worker("a", held=64 << 10, timeout=600.0), await start_worker("b")
    count = 1
    share((a, b), {"a": [0, 1], "b": [2, 3]})
    fill(b)

    def sample(name: str, **labels: str) -> float:
        return a.metrics.registry.get_sample_value(name, labels) or 0

    async def waiting() -> bool:
        return a.server._public.plain._waiting == count  # type: ignore[union-attr] # noqa: SLF001 - as above

    async def held() -> bool:
        return sample("tablehouse_http_held_bytes") > 32 << 10

    async def none_held() -> bool:
        return sample("tablehouse_http_held_bytes") == 0

    try:
        await read(a)
        [link] = links(b)._links  # noqa: SLF001 - as above
        assert link._transport is not None  # noqa: SLF001 - as above
        link._transport.pause_reading()  # noqa: SLF001 - as above
        behind = plain(FAR[1]) * 1_000
        async with connected(a.url) as (reader, writer), connected(a.url) as (other_reader, other_writer):
            writer.write(plain(FAR[0]))
            await until(waiting, "another worker is asked")
            writer.write(behind)
            await until(held, "the requests behind are counted")
            count = 2
            other_writer.write(plain(FAR[0]))
            await until(waiting, "another worker is asked")
            other_writer.write(behind)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(other_reader.read(), 30) == b""
            assert sample("tablehouse_http_connections_closed_total", reason="memory") == 1
            link._transport.resume_reading()  # noqa: SLF001 - as above
            for _ in range(1_001):
                assert (await read_reply(reader)).status == 200
        await until(none_held, "nothing is counted any more")
    finally:
        await a.server.stop(1)
        await b.server.stop(1)


async def test_a_ping_is_answered_however_many_questions_wait(workers: tuple[Worker, Worker]) -> None:
    _, b = workers
    digest = links(b)._answering.agreement._tables["planes"].digest  # noqa: SLF001 - as above
    agreed = Agreed("planes", digest, 4, 7)
    wanted = Consistency(min_position=at(2, 1_000))
    async with connected(b.internal) as (reader, writer):
        writer.write(request(HostInfo("b", 1, b.internal), "test", "c 1", "0" * 32))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        asks = [encode(Ask(number, agreed, 2, Get(FAR[0]), 60.0, wanted, 60.0)) for number in range(1, MAX_QUESTIONS)]
        writer.writelines(packed([encode(Ping())], Seal(None)))
        writer.writelines(packed([*asks, encode(Ping())], Seal(None)))
        packets, replies = PacketReader(Seal(None)), list[Message]()
        while replies != [Pong(), Pong()]:
            data = await asyncio.wait_for(reader.read(1 << 16), 30)
            replies += [reply for payload in packets.feed(data) for reply in decode_replies(payload)]
    assert len(b.local.waits) == len(asks)


async def test_a_question_that_is_given_up_right_away_leaves_no_trace(workers: tuple[Worker, Worker]) -> None:
    _, b = workers
    async with connected(b.internal) as (reader, writer):
        writer.write(request(HostInfo("b", 1, b.internal), "test", "c 1", "0" * 32))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        many = AskMany(1, Agreed("planes", "", 4, 7), [Wanted(2, [FAR[0]])], 5.0)
        writer.writelines(packed([encode(many), encode(Cancel(1)), encode(Ping())], Seal(None)))
        [payload] = PacketReader(Seal(None)).feed(await asyncio.wait_for(reader.read(1 << 16), 30))
        assert decode_replies(payload) == [Pong()]

        async def idle() -> bool:
            return links(b).is_idle

        await until(idle, "nothing is answered any more")
    gc.collect()


async def test_what_those_without_a_secret_call_themselves_is_not_remembered() -> None:
    b = await start_worker("b", secrets=("s",))
    try:
        for number in range(10):
            async with connected(b.internal) as (reader, writer):
                writer.write(request(HostInfo("b", 1, b.internal), "test", f"c {number}", "0" * 32))
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                writer.write(b"\x00" * 100)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), 30) == b""
        assert len(links(b)._answering.warnings._troubles) == 1  # noqa: SLF001 - as above
    finally:
        await b.server.stop(1)


async def test_batches_for_a_worker_that_does_not_read_fill_no_memory(workers: tuple[Worker, Worker]) -> None:
    _, b = workers
    b.local.rows["planes", 2, b"large"] = Row(b"x" * (1 << 20), 0, 1)
    digest = links(b)._answering.agreement._tables["planes"].digest  # noqa: SLF001 - as above
    async with connected(b.internal) as (reader, writer):
        writer.write(request(HostInfo("b", 1, b.internal), "test", "c 1", "0" * 32))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        [link] = links(b)._links  # noqa: SLF001 - as above
        transport = link._transport  # noqa: SLF001 - as above
        assert transport is not None
        transport.set_write_buffer_limits(high=2 << 20)
        agreed, wanted = Agreed("planes", digest, 4, 7), [Wanted(2, [b"large"])]
        count = 100
        writer.writelines(packed([encode(Ping())], Seal(None)))
        writer.writelines(
            packed([encode(AskMany(one, agreed, wanted, 60.0)) for one in range(1, count + 1)], Seal(None))
        )
        most = 0

        async def is_stuck() -> bool:
            nonlocal most
            most = max(most, transport.get_write_buffer_size())
            return not link._has_room.is_set()  # noqa: SLF001 - as above

        await until(is_stuck, "the rest waits until some of the answers are taken")
        packets, replies = PacketReader(Seal(None), 1 << 30), list[Message]()
        while len(replies) < count + 1:
            data = await asyncio.wait_for(reader.read(1 << 20), 30)
            most = max(most, transport.get_write_buffer_size())
            replies += [reply for payload in packets.feed(data) for reply in decode_replies(payload)]
    assert most < 16 << 20
