"""The answering side of links: questions of other workers, answered from this worker's own tables.

Like the rest of the internal listener it has no query and no way to other workers, so nothing is forwarded again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import structlog

from tablehouse.errors import InternalError, NotOwner, RequestError
from tablehouse.link.asking import MAX_QUESTIONS
from tablehouse.link.handshake import (
    Hello,
    answering_seals,
)
from tablehouse.link.messages import (
    Agreed,
    Answer,
    Ask,
    AskMany,
    Cancel,
    Ping,
    Pong,
    Question,
    Refused,
    Reply,
    Slices,
    Write,
    Written,
    decode_questions,
    encode,
)
from tablehouse.link.packets import BadPacket, PacketReader, packed
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency
from tablehouse.recurring import Recurring
from tablehouse.routing.agreement import Agreement
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.error_values import value_of
from tablehouse.routing.ports import Answers, LocalTables, Slice, Terms
from tablehouse.routing.slices import encode_slices
from tablehouse.routing.tables import RoutedTable
from tablehouse.tasks.questions import is_short
from tablehouse.tasks.ranges import Range

log = structlog.get_logger("link")

#: Messages of one link that are taken in one turn of the event loop, and the bytes of answers after which no more are.
MESSAGES_PER_TURN = 64
BYTES_PER_TURN = 256 << 10

#: Messages that wait on one link, after which no more is read from it.
MAX_WAITING = 1024

#: Questions of one link that are answered later, because they wait or are long; others wait behind them. An asking
#: worker has no more open, so its pings do not.
MAX_LATER = MAX_QUESTIONS

#: Batches and ranges of one link that are answered at the same time: each takes a MiB of rows, and one large row more.
MAX_BATCHES = 8

#: The longest that a worker may take to prove itself with its first packet, in seconds.
FIRST_PACKET_SECONDS = 5.0

_PONG = encode(Pong())


@dataclass(frozen=True, slots=True)
class Answering:
    """What the links of all other workers are answered with.

    keys are those of the secrets; clock is monotonic, in seconds. warnings are of links that are not understood.
    """

    agreement: Agreement
    local: LocalTables
    here: Answers
    decisions: Decisions
    keys: Sequence[bytes]
    clock: Callable[[], float]
    warnings: Recurring = field(default_factory=lambda: Recurring(log))


class AnsweringLink(asyncio.Protocol):
    """The link of one other worker.

    unsent_limit are the bytes of answers that it may hold; ended is called with the link once it is closed.
    """

    def __init__(
        self,
        answering: Answering,
        hello: Hello,
        nonce: str,
        transport: asyncio.Transport,
        unsent_limit: int,
        ended: "Callable[[AnsweringLink], None]",
    ) -> None:
        self._answering = answering
        self._on_end = ended
        self._hello = hello
        self._nonce = nonce
        self._transport: asyncio.Transport | None = transport
        self._loop = asyncio.get_running_loop()
        transport.set_write_buffer_limits(high=unsent_limit)
        self._reader: PacketReader | None = None
        self._begin()
        self._waiting: deque[Question] = deque()
        self._later: dict[int, asyncio.Task[None]] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_scheduled = False
        #: Set while the worker takes the answers.
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._batches = asyncio.Semaphore(MAX_BATCHES)
        self._reads = True
        self._proof_timer = self._loop.call_later(FIRST_PACKET_SECONDS, self._fail, "no proof of the secret in time")

    def _begin(self) -> None:
        if not self._answering.keys:
            self._seals = answering_seals((), b"", self._hello, self._nonce)
            self._reader = PacketReader(self._seals.received)

    @property
    def is_idle(self) -> bool:
        """Return whether no question is without an answer."""
        return not (self._waiting or self._later or self._out)

    def close(self) -> None:
        """Close the connection once what was answered is sent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Take the questions that have arrived."""
        try:
            if self._reader is None:
                self._seals = answering_seals(self._answering.keys, data[:1], self._hello, self._nonce)
                self._reader = PacketReader(self._seals.received)
                data = data[1:]
            for payload in self._reader.feed(data):
                self._proof_timer.cancel()
                self._waiting.extend(decode_questions(payload))
        except (BadPacket, ValueError, RecursionError) as error:
            self._fail(str(error))
            return
        if not self._is_scheduled:
            self._go_on()

    def pause_writing(self) -> None:
        """Take no more questions: the worker does not take the answers."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._has_room.set()
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the questions that have no answer."""
        del exc
        self._transport = None
        self._proof_timer.cancel()
        self._waiting.clear()
        for task in self._later.values():
            task.cancel()
        self._on_end(self)

    def _fail(self, reason: str) -> None:
        peer = self._hello.asking
        # What a worker without a proof says it is must not be remembered.
        self._answering.warnings.warn("link", "a link is closed: it is not understood", peer=peer, reason=reason)
        if self._transport is not None:
            self._transport.abort()

    # Questions

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take some questions, send what is answered, and go on in the next turn of the event loop if more wait."""
        self._is_scheduled = False
        waiting = self._waiting
        for _ in range(min(MESSAGES_PER_TURN, len(waiting))):
            if not self._has_room.is_set() or self._out_bytes >= BYTES_PER_TURN or len(self._later) >= MAX_LATER:
                break
            self._take(waiting.popleft())
        self._flush()
        can_go_on = self._has_room.is_set() and len(self._later) < MAX_LATER
        if waiting and can_go_on:
            self._schedule()
        self._read_more(wanted=len(waiting) < MAX_WAITING)

    def _read_more(self, *, wanted: bool) -> None:
        if wanted != self._reads and self._transport is not None:
            self._reads = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _take(self, question: Question) -> None:
        kind = type(question)
        if kind is Ask:
            ask = cast("Ask", question)
            if not ask.wait and is_short(ask.question):
                self._reply(self._answered(ask))
                return
            answering = self._answer_range if isinstance(ask.question, Range) else self._answer_later
            self._start(ask.number, ask.agreed, partial(answering, ask))
        elif kind is Ping:
            self._queue(_PONG)
        elif kind is Cancel:
            task = self._later.get(cast("Cancel", question).number)
            if task is not None:
                task.cancel()
        elif kind is AskMany:
            many = cast("AskMany", question)
            self._start(many.number, many.agreed, partial(self._answer_many, many))
        else:
            write = cast("Write", question)
            self._start(write.number, write.agreed, partial(self._write, write))

    def _answered(self, ask: Ask) -> Reply:
        """Answer a question here and now."""
        own, agreed = self._answering, ask.agreed
        try:
            own.agreement.table(agreed.table, agreed.digest, agreed.partitions)
            consistency = ask.consistency or DEFAULT_CONSISTENCY
            return Answer(ask.number, own.local.answer(agreed.table, ask.partition, ask.question, consistency))
        except Exception as error:  # noqa: BLE001 - the asking worker gets an answer, whatever it is
            return self._refused(ask.number, agreed, error)

    async def _answer_range(self, ask: Ask) -> Reply:
        async with self._batches:
            await self._has_room.wait()
            return await self._answer_later(ask)

    async def _answer_later(self, ask: Ask) -> Reply:
        table = self._table(ask.agreed)
        terms = _terms(table, ask.agreed, ask.timeout, ask.wait)
        answered = await self._answering.here.answer(
            table.spec.name, ask.partition, ask.question, ask.consistency or DEFAULT_CONSISTENCY, terms
        )
        return Answer(ask.number, answered.result)

    async def _answer_many(self, many: AskMany) -> Reply:
        table = self._table(many.agreed)
        async with self._batches:
            await self._has_room.wait()
            return await self._answer_batch(table, many)

    async def _answer_batch(self, table: RoutedTable, many: AskMany) -> Reply:
        consistency: Consistency = many.consistency or DEFAULT_CONSISTENCY
        terms = _terms(table, many.agreed, many.timeout, many.wait)
        answered = await self._answering.here.answer_many(table.spec.name, many.wanted, consistency, terms)
        return Slices(many.number, encode_slices([self._explained(part, many.agreed) for part in answered.result]))

    async def _write(self, write: Write) -> Reply:
        table = self._table(write.agreed)
        if not table.spec.writable:
            raise NotOwner(f"this worker's definition of table {table.spec.name} does not let callers write")
        offset = await self._answering.decisions.write(
            table,
            write.partition,
            write.stored_key,
            key=write.key,
            value=write.value,
            condition=write.condition,
            deadline=self._answering.clock() + write.timeout,
        )
        return Written(write.number, offset)

    def _explained(self, part: Slice, agreed: Agreed) -> Slice:
        if not isinstance(part.outcome, NotOwner):
            return part
        return part._replace(outcome=self._answering.agreement.with_generations(part.outcome, agreed.generation))

    def _table(self, agreed: Agreed) -> RoutedTable:
        return self._answering.agreement.table(agreed.table, agreed.digest, agreed.partitions)

    # Answers

    def _start(self, number: int, agreed: Agreed, answering: Callable[[], Awaitable[Reply]]) -> None:
        """Answer a question in a task of its own."""
        if number in self._later:
            self._fail(f"question {number} twice")
            return
        task = self._later[number] = self._loop.create_task(self._finish(number, agreed, answering))
        task.add_done_callback(lambda _: self._ended(number))

    async def _finish(self, number: int, agreed: Agreed, answering: Callable[[], Awaitable[Reply]]) -> None:
        try:
            reply = await answering()
        except Exception as error:  # noqa: BLE001 - as in _answered()
            reply = self._refused(number, agreed, error)
        self._reply(reply)

    def _ended(self, number: int) -> None:
        del self._later[number]
        self._schedule()

    def _refused(self, number: int, agreed: Agreed, error: Exception) -> Refused:
        """Return why there is no answer; what is no refusal is a fault of this worker's, and logged."""
        if isinstance(error, NotOwner):
            refusal: RequestError = self._answering.agreement.with_generations(error, agreed.generation)
        elif isinstance(error, RequestError):
            refusal = error
        else:
            log.error(
                "a question of another worker failed", peer=self._hello.asking, table=agreed.table, exc_info=error
            )
            refusal = InternalError("a fault of the worker that was asked; its log has it")
        return Refused(number, value_of(refusal))

    def _reply(self, reply: Reply) -> None:
        self._queue(encode(reply))

    def _queue(self, message: bytes) -> None:
        self._out.append(message)
        self._out_bytes += len(message)

    def _flush(self) -> None:
        """Send everything that was answered in this turn of the event loop."""
        if self._out:
            out, self._out, self._out_bytes = self._out, [], 0
            if self._transport is not None:
                self._transport.writelines(packed(out, self._seals.sent))


def _terms(table: RoutedTable, agreed: Agreed, timeout: float, wait: float) -> Terms:
    return Terms(
        wait=min(wait, timeout),
        timeout=timeout,
        table_digest=table.digest,
        partitions=agreed.partitions,
        generation=agreed.generation,
        request_id="",
    )
