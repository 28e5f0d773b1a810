"""What an asking worker makes of workers that are silent, cut, slow, or answer nonsense."""

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tablehouse.errors import (
    DeadlineExceeded,
    NotOwner,
    Overloaded,
    OwnerUnreachable,
    PreconditionFailed,
    RequestError,
)
from tablehouse.http.internal import DEADLINE_MS
from tablehouse.link import asking, wire
from tablehouse.link.handshake import answer, read_request
from tablehouse.link.messages import (
    Answer,
    Ask,
    Ping,
    Pong,
    Question,
    Refused,
    Reply,
    Write,
    Written,
    decode_questions,
    encode,
)
from tablehouse.link.packets import PacketReader, Seal, packed
from tablehouse.link.peer import LinkPeer
from tablehouse.model import DEFAULT_CONSISTENCY, Freshness, HostInfo, Role
from tablehouse.routing.error_values import value_of
from tablehouse.routing.ports import (
    HOP_SHARE,
    Answered,
    Condition,
    ConditionalWrite,
    NotAsked,
    Terms,
    Unconnected,
    Unresponsive,
)
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Applied, Get
from tablehouse.tasks.ranges import Range
from tablehouse.tasks.reads import ReadResult
from tests.support.link_peers import ME, link_peer
from tests.support.polling import until
from tests.support.positions import at

SO_ATTACH_FILTER = 26  # asm-generic/socket.h

TERMS = Terms(0.0, 5.0, "digest", 4, 7, "r", followed=True)


def row(ask: Ask, payload: bytes | None = None) -> Answer:
    """Answer with a row that names the key."""
    assert isinstance(ask.question, Get)
    freshness = Freshness(ask.partition, at(ask.partition, 99), Role.ACTIVE, 0, 0)
    return Answer(ask.number, ReadResult(Row(payload or ask.question.stored_key, 0, 1), freshness))


class Fake:
    """A fake worker; the test sets what it answers."""

    def __init__(self) -> None:
        self.links = 0
        self.questions: list[Question] = []
        self.pongs = True
        #: The number of links, from the first on, on which nothing is said any more.
        self.silent_links = 0
        #: Whether requests for links are answered.
        self.opens = asyncio.Event()
        self.opens.set()
        #: What to do with what has arrived, besides answering pings.
        self.react: Callable[[Question], list[Reply | bytes]] = lambda question: (
            [row(question)] if isinstance(question, Ask) else []
        )
        self.writers: list[asyncio.StreamWriter] = []
        self.host = ME
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = HostInfo("fake", 3, f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}")

    async def stop(self) -> None:
        """Close everything."""
        for writer in self.writers:
            writer.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            hello = read_request(await reader.readuntil(b"\r\n\r\n"))
            await self.opens.wait()
            self.links += 1
            number = self.links
            writer.write(answer(hello, self.host, "0" * 32, ()))
            packets = PacketReader(Seal(None))
            while data := await reader.read(1 << 16):
                for payload in packets.feed(data):
                    for question in decode_questions(payload):
                        self._take(question, writer, is_silent=number <= self.silent_links)

    def _take(self, question: Question, writer: asyncio.StreamWriter, *, is_silent: bool) -> None:
        if isinstance(question, Ping):
            if self.pongs and not is_silent:
                self.send(writer, Pong())
            return
        self.questions.append(question)
        if is_silent:
            return
        for reply in self.react(question):
            if isinstance(reply, bytes):
                writer.write(reply)
            else:
                self.send(writer, reply)

    @staticmethod
    def send(writer: asyncio.StreamWriter, *replies: Reply) -> None:
        """Send some replies as one packet."""
        writer.writelines(packed([encode(reply) for reply in replies], Seal(None)))


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[Fake]:
    one = Fake()
    await one.start()
    yield one
    await one.stop()


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[LinkPeer]:
    async with link_peer() as one:
        yield one


def get(peer: LinkPeer, fake: Fake, key: bytes = b"k", terms: Terms = TERMS) -> Awaitable[Answered[ReadResult]]:
    return peer.at(fake.host).answer("planes", 2, Get(key), DEFAULT_CONSISTENCY, terms)


async def refused(asked: Awaitable[object]) -> RequestError:
    with pytest.raises(RequestError) as raised:
        await asked
    return raised.value


async def arrived(fake: Fake, count: int) -> None:
    async def ask() -> bool:
        return len(fake.questions) == count

    await until(ask, f"{count} questions at the worker")


async def test_one_connection_carries_many_questions_and_their_answers_in_any_order(peer: LinkPeer, fake: Fake) -> None:
    held: list[Ask] = []

    def react(question: Question) -> list[Reply | bytes]:
        assert isinstance(question, Ask)
        held.append(question)
        return [row(one) for one in reversed(held)] if len(held) == 100 else []

    fake.react = react
    keys = [b"key %d" % number for number in range(100)]
    answers = await asyncio.gather(*(get(peer, fake, key) for key in keys))
    assert [one.result.row and one.result.row.payload for one in answers] == keys
    assert {one.worker_id for one in answers} == {"fake"}
    assert fake.links == 1


async def test_a_long_question_takes_a_connection_of_its_own(peer: LinkPeer, fake: Fake) -> None:
    await get(peer, fake)
    await get(peer, fake, terms=TERMS._replace(wait=1.0))
    assert fake.links == 2


async def test_a_refusal_is_the_error_that_it_was(peer: LinkPeer, fake: Fake) -> None:
    error = NotOwner("not mine", table="planes")
    fake.react = lambda question: [Refused(question.number, value_of(error))] if isinstance(question, Ask) else []
    got = await refused(get(peer, fake))
    assert (type(got), got.detail, got.details["table"]) == (NotOwner, "not mine", "planes")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x03abc",
        b"".join(packed([b"\x93\x63\x01\x02"], Seal(None))),
        b"".join(packed([b"\x01"], Seal(None))),
    ],
    ids=["length", "no message", "unknown message", "no structure"],
)
async def test_nonsense_ends_the_link_and_the_next_question_opens_another(
    peer: LinkPeer, fake: Fake, nonsense: bytes
) -> None:
    honest = fake.react
    fake.react = lambda question: [nonsense] if isinstance(question, Ask) else []
    got = await refused(get(peer, fake))
    assert type(got) is OwnerUnreachable
    assert "cannot be understood" in got.detail
    fake.react = honest
    assert (await get(peer, fake)).result.row is not None
    assert fake.links == 2


async def test_an_answer_to_another_question_is_no_answer(peer: LinkPeer, fake: Fake) -> None:
    def react(question: Question) -> list[Reply | bytes]:
        if not isinstance(question, Ask):
            return []
        other = row(question)
        return [Answer(question.number + 1_000, other.result), Answer(question.number, None), other]

    fake.react = react
    assert "another kind of question" in (await refused(get(peer, fake))).detail
    fake.react = lambda question: (
        [Answer(question.number, ReadResult(None, Freshness(3, at(3, 9), Role.ACTIVE, 0, 0)))]
        if isinstance(question, Ask)
        else []
    )
    assert "partition 3, not 2" in (await refused(get(peer, fake))).detail


async def test_a_link_that_is_cut_in_the_middle_of_an_answer_ends_its_questions(peer: LinkPeer, fake: Fake) -> None:
    honest = fake.react

    def react(question: Question) -> list[Reply | bytes]:
        if not isinstance(question, Ask):
            return []
        whole = b"".join(packed([encode(row(question, b"x" * 10_000))], Seal(None)))
        fake.writers[-1].write(whole[:5_000])
        fake.writers[-1].close()
        return []

    fake.react = react
    got = await refused(get(peer, fake))
    assert type(got) is OwnerUnreachable
    fake.react = honest
    assert (await get(peer, fake)).result.row is not None


async def test_a_worker_that_is_not_there_is_unconnected(peer: LinkPeer, fake: Fake) -> None:
    told: list[HostInfo] = []
    peer.on_silent = lambda host, error: told.append(host) if isinstance(error, Unresponsive) else None
    await fake.stop()
    assert type(await refused(get(peer, fake))) is Unconnected
    assert told == [fake.host]


async def test_a_silent_worker_is_found_out_and_only_those_wait_who_can_ask_nobody_else(
    peer: LinkPeer, fake: Fake
) -> None:
    told = asyncio.Event()
    peer.on_silent = lambda _, error: told.set() if isinstance(error, Unresponsive) else None
    await get(peer, fake)
    fake.react, fake.pongs = (lambda _: []), False
    alone = asyncio.ensure_future(get(peer, fake, terms=TERMS._replace(timeout=60.0, followed=False)))
    got = await refused(get(peer, fake, terms=TERMS._replace(timeout=60.0)))
    assert type(got) is Unresponsive
    assert "ping" in got.detail
    assert told.is_set()
    assert not alone.done()
    # It is there again, and answers what waits.
    [*_, waiting] = [one for one in fake.questions if isinstance(one, Ask)]
    fake.send(fake.writers[0], row(waiting))
    assert (await alone).result.row is not None


async def test_a_slow_answer_of_a_worker_that_answers_others_is_no_silence(peer: LinkPeer, fake: Fake) -> None:
    fake.react = lambda question: (
        [row(question)] if isinstance(question, Ask) and question.question == Get(b"quick") else []
    )
    slow = asyncio.ensure_future(refused(get(peer, fake, b"slow", TERMS._replace(timeout=0.5))))
    while not slow.done():
        await get(peer, fake, b"quick")
        await asyncio.wait([slow], timeout=0.05)
    assert type(await slow) is OwnerUnreachable


async def test_more_questions_than_the_bound_are_refused_at_once(
    peer: LinkPeer, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_QUESTIONS", 10)
    fake.react = lambda _: []
    waiting = [asyncio.ensure_future(get(peer, fake)) for _ in range(10)]
    await arrived(fake, 10)
    got = await refused(get(peer, fake))
    assert type(got) is Overloaded
    assert "fake" in got.detail
    for question in list(fake.questions):
        assert isinstance(question, Ask)
        fake.send(fake.writers[0], row(question))
    await asyncio.gather(*waiting)
    waiting = [asyncio.ensure_future(get(peer, fake)) for _ in range(10)]
    await arrived(fake, 20)
    for one in waiting:
        one.cancel()


async def test_bytes_that_a_worker_does_not_take_are_bounded(
    peer: LinkPeer, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_UNSENT_BYTES", 100_000)
    await get(peer, fake)
    fake.writers[0].transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport has it
    terms = TERMS._replace(timeout=1.0)
    outcomes = await asyncio.gather(*(refused(get(peer, fake, b"k" * 8_000, terms)) for _ in range(2_000)))
    assert {type(outcome) for outcome in outcomes} == {Overloaded, Unresponsive}


async def test_nobody_waits_for_the_answer_to_a_question_that_was_given_up(peer: LinkPeer, fake: Fake) -> None:
    fake.react = lambda _: []
    given_up = asyncio.ensure_future(get(peer, fake))
    await arrived(fake, 1)
    given_up.cancel()
    await arrived(fake, 2)
    [ask, cancel] = fake.questions
    assert isinstance(ask, Ask)
    fake.send(fake.writers[0], row(ask))
    fake.react = lambda question: [row(question, b"mine")] if isinstance(question, Ask) else []
    answered = await get(peer, fake)
    assert answered.result.row is not None
    assert answered.result.row.payload == b"mine"
    assert cancel.number == ask.number  # type: ignore[union-attr] # a Cancel


async def test_a_closed_peer_ends_every_question(fake: Fake) -> None:
    fake.react = lambda _: []
    async with link_peer() as peer:
        waiting = [asyncio.ensure_future(refused(get(peer, fake))) for _ in range(3)]
        await arrived(fake, 3)
    assert {type(one) for one in await asyncio.gather(*waiting)} == {OwnerUnreachable}


@pytest.mark.parametrize("question", [Applied(), Range(limit=3)])
async def test_every_kind_of_question_crosses(peer: LinkPeer, fake: Fake, question: Applied | Range) -> None:
    error = NotOwner("seen")
    fake.react = lambda asked: [Refused(asked.number, value_of(error))] if isinstance(asked, Ask) else []
    await refused(peer.at(fake.host).answer("planes", 2, question, DEFAULT_CONSISTENCY, TERMS))
    [asked] = fake.questions
    assert isinstance(asked, Ask)
    assert asked.question == question


WRITE = ConditionalWrite("planes", 2, b"s", b"k", b"v", Condition(exists=False))


@pytest.mark.parametrize("end", ["cut", "silence", "another answer", "nonsense"])
async def test_of_a_write_that_was_asked_for_and_has_no_answer_nobody_knows_whether_it_was_made(
    peer: LinkPeer, fake: Fake, end: str
) -> None:
    def react(question: Question) -> list[Reply | bytes]:
        if not isinstance(question, Write):
            return []
        if end == "cut":
            fake.writers[-1].close()
        if end == "another answer":
            return [Answer(question.number, None)]
        return [b"\xff" * 8] if end == "nonsense" else []

    fake.react = react
    got = await refused(peer.write(fake.host, WRITE, TERMS._replace(timeout=1.0)))
    assert type(got) is DeadlineExceeded
    assert "may have happened" in got.detail
    assert isinstance(fake.questions[0], Write)


async def test_a_write_to_a_worker_that_was_not_reached_was_not_made(peer: LinkPeer, fake: Fake) -> None:
    meant, fake.host = fake.host, HostInfo("another", 1, fake.host.url)
    assert type(await refused(peer.write(meant, WRITE, TERMS))) is NotAsked
    await fake.stop()
    assert type(await refused(peer.write(fake.host, WRITE, TERMS))) is Unconnected


async def test_a_write_gives_the_offset_or_what_it_was_refused_with(peer: LinkPeer, fake: Fake) -> None:
    fake.react = lambda question: [Written(question.number, 41)] if isinstance(question, Write) else []
    assert await peer.write(fake.host, WRITE, TERMS) == 41
    error = PreconditionFailed("there is a row", etag='"1"')
    fake.react = lambda question: [Refused(question.number, value_of(error))] if isinstance(question, Write) else []
    got = await refused(peer.write(fake.host, WRITE, TERMS))
    assert (type(got), got.details["etag"]) == (PreconditionFailed, '"1"')


async def test_a_worker_that_is_slow_to_answer_the_request_for_a_link_is_waited_for_by_those_with_nobody_else(
    peer: LinkPeer, fake: Fake
) -> None:
    told = asyncio.Event()
    peer.on_silent = lambda _, error: told.set() if isinstance(error, Unresponsive) else None
    fake.opens.clear()
    alone = asyncio.ensure_future(get(peer, fake, terms=TERMS._replace(timeout=60.0, followed=False)))
    got = await refused(get(peer, fake, terms=TERMS._replace(timeout=60.0)))
    assert type(got) is Unresponsive
    assert "request for a link" in got.detail
    assert told.is_set()
    assert not alone.done()
    fake.opens.set()
    assert (await alone).result.row is not None
    assert fake.links == 1


async def test_a_connection_that_has_gone_silent_is_replaced_and_its_questions_are_asked_again_but_for_writes(
    peer: LinkPeer, fake: Fake
) -> None:
    """As after a network has failed for a while: the old connection is silent for longer than that."""
    terms = TERMS._replace(timeout=60.0, wait=1.0, followed=False)
    await get(peer, fake, terms=terms)
    fake.silent_links = 1
    read = asyncio.ensure_future(get(peer, fake, terms=terms))
    write = asyncio.ensure_future(refused(peer.write(fake.host, WRITE, TERMS._replace(timeout=60.0))))
    answered = await read
    assert answered.result.row is not None
    assert answered.result.row.payload == b"k"
    got = await write
    assert type(got) is DeadlineExceeded
    assert "may have happened" in got.detail
    assert fake.links == 2
    assert [type(question) for question in fake.questions].count(Write) == 1


async def test_a_silent_connection_that_speaks_again_is_kept(peer: LinkPeer, fake: Fake) -> None:
    terms = TERMS._replace(timeout=60.0, followed=False)
    await get(peer, fake, terms=terms)
    fake.silent_links = 1
    fake.opens.clear()
    told = asyncio.Event()
    peer.on_silent = lambda _, error: told.set() if isinstance(error, Unresponsive) else None
    read = asyncio.ensure_future(get(peer, fake, terms=terms))
    await told.wait()
    [*_, waiting] = [one for one in fake.questions if isinstance(one, Ask)]
    fake.send(fake.writers[0], row(waiting))
    assert (await read).result.row is not None
    fake.silent_links = 0
    assert (await get(peer, fake, terms=terms)).result.row is not None
    assert fake.links == 1


async def test_what_was_given_up_before_there_was_a_link_is_never_sent(peer: LinkPeer, fake: Fake) -> None:
    fake.opens.clear()
    terms = TERMS._replace(timeout=0.5)
    assert type(await refused(peer.write(fake.host, WRITE, terms))) is Unconnected
    cancelled = asyncio.ensure_future(get(peer, fake, b"cancelled", TERMS._replace(wait=1.0)))
    await asyncio.sleep(0)
    cancelled.cancel()
    later = asyncio.ensure_future(get(peer, fake, b"later", TERMS._replace(timeout=60.0, wait=1.0, followed=False)))
    await asyncio.sleep(0)
    fake.opens.set()
    await later
    assert [question.question for question in fake.questions if isinstance(question, Ask)] == [Get(b"later")]
    assert len(fake.questions) == 1


async def test_a_name_that_no_connection_can_be_made_to_is_found_out_at_once(peer: LinkPeer, fake: Fake) -> None:
    fake.host = HostInfo("fake", 3, "http://fake..test:80")
    for _ in range(2):
        got = await refused(get(peer, fake, terms=TERMS._replace(timeout=60.0, followed=False)))
        assert isinstance(got, OwnerUnreachable)
        assert "within" not in got.detail


async def test_the_time_that_it_took_to_find_out_that_there_is_no_link_is_gone(peer: LinkPeer) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) == 1:
            await asyncio.sleep(0.2)  # as a slow worker
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host = HostInfo("old", 3, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await refused(peer.at(host).answer("planes", 2, Get(b"k"), DEFAULT_CONSISTENCY, TERMS))
    [_, head] = heads
    [left] = [line for line in head.decode().split("\r\n") if line.startswith(DEADLINE_MS)]
    assert int(left.partition(":")[2]) <= (TERMS.timeout - 0.2) * HOP_SHARE * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends such a connection, and drops what arrives on it")
async def test_a_link_over_a_network_that_has_failed_is_opened_anew(
    peer: LinkPeer, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "GONE_SECONDS", 0.5)
    await get(peer, fake)
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # classic BPF: pass 0 bytes
    taken: socket.socket = fake.writers[0].get_extra_info("socket")
    taken.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_all)))

    async def answered() -> bool:
        with contextlib.suppress(RequestError):
            return (await get(peer, fake)).result.row is not None
        return False

    await until(answered, "an answer on another link")
    assert fake.links == 2
