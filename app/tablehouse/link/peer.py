"""The way to other workers: over links, and over HTTP to those that know none."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from tablehouse.errors import DeadlineExceeded, OwnerUnreachable, RequestError
from tablehouse.link.asking import Line
from tablehouse.link.handshake import NoLink
from tablehouse.link.messages import Agreed, Answer, Ask, AskMany, Crossing, Refused, Reply, Slices, Write, Written
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, HostInfo, TaskStatus
from tablehouse.routing.at_host import AtHost
from tablehouse.routing.error_values import error_of
from tablehouse.routing.ports import (
    HOP_SHARE,
    Answered,
    Answers,
    ConditionalWrite,
    NoCommonSecret,
    NotAsked,
    Peer,
    Slice,
    Terms,
    Unconnected,
    Wanted,
    unknown_write,
)
from tablehouse.routing.slices import decode_slices
from tablehouse.routing.strangers import Strangers
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.questions import Applied, Get, Question, is_short
from tablehouse.tasks.ranges import Range, RangeResult
from tablehouse.tasks.reads import ReadResult

Result = TypeVar("Result")

#: Seconds after which a link that nobody uses is closed, and between two looks for such.
IDLE_SECONDS = 300.0
IDLE_INTERVAL = 60.0

#: What may answer each kind of question.
_RESULTS: dict[type, type] = {Get: ReadResult, Range: RangeResult, CountRange: CountResult, Applied: type(None)}


class HttpFallback(Peer, Protocol):
    """The way to workers without links."""

    async def close(self) -> None:
        """Close every connection."""


class LinkPeer:
    """Implements Peer. To be used in one event loop, and closed there.

    A worker has a line for short questions, and one for those that wait or are long.
    """

    def __init__(
        self,
        *,
        keys: Sequence[bytes],
        me: Callable[[], HostInfo],
        http: HttpFallback,
        strangers: Strangers,
    ) -> None:
        self._keys = keys
        self._me = me
        self._http = http
        self._strangers = strangers
        self._lines: dict[tuple[HostInfo, bool], Line] = {}
        self._numbers = itertools.count(1)
        self._sweep: asyncio.TimerHandle | None = None
        #: Told of workers that could not be connected to, or are silent, besides those that asked them.
        self.on_silent: Callable[[HostInfo, RequestError], None] = _nobody

    def at(self, host: HostInfo) -> Answers:
        """Return what asks `host`."""
        return AtHost(self, host)

    # What lines tell

    def connected(self, host: HostInfo) -> None:
        """Record that a worker has proven itself."""
        self._strangers.met(host)

    def failed(self, host: HostInfo, error: RequestError) -> None:
        """Record that a worker could not be connected to, or is silent."""
        if isinstance(error, NoCommonSecret):
            self._strangers.found(host, error.detail)
        self.on_silent(host, error)

    # Asking

    def ask(
        self,
        host: HostInfo,
        table: str,
        partition: int,
        question: Get,
        consistency: Consistency,
        terms: Terms,
        done: Callable[[ReadResult | RequestError], None],
    ) -> Callable[[], None]:
        """Ask without a task; see QuickPeer."""
        line, number = self._line(host, is_long=False), next(self._numbers)
        if line.has_no_link:
            raise OwnerUnreachable(f"{host.worker_id} knows no links")
        seconds = terms.timeout * HOP_SHARE

        def take(reply: Reply | RequestError | NoLink) -> None:
            if isinstance(reply, NoLink):
                done(OwnerUnreachable(str(reply)))
            elif isinstance(reply, RequestError):
                done(reply)
            else:
                try:
                    result: ReadResult = result_of(reply, question, partition)
                except RequestError as error:
                    done(error)
                else:
                    done(result)

        ask = Ask(number, _agreed(table, terms), partition, question, seconds, _given(consistency))
        line.ask(number, ask, seconds, take, followed=True)
        return lambda: line.forget(number)

    async def answer(
        self,
        host: HostInfo,
        table: str,
        partition: int,
        question: Question[Result],
        consistency: Consistency,
        terms: Terms,
    ) -> Answered[Result]:
        """Ask `host` about a partition that it holds; see the protocol for what it raises."""
        seconds, started = terms.timeout * HOP_SHARE, asyncio.get_running_loop().time()
        crossing = cast("Crossing", question)
        line = self._line(host, is_long=terms.wait > 0 or not is_short(question))
        number = next(self._numbers)
        ask = Ask(
            number, _agreed(table, terms), partition, crossing, seconds, _given(consistency), _wait(terms, seconds)
        )
        reply = await _asked(line, number, ask, seconds, followed=terms.followed)
        if isinstance(reply, NoLink):
            return await self._http.at(host).answer(table, partition, question, consistency, _left(terms, started))
        return Answered(result_of(reply, crossing, partition), host.worker_id)

    async def answer_many(
        self, host: HostInfo, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Ask `host` for keys of some partitions that it holds; see the protocol for what it raises."""
        seconds, started = terms.timeout * HOP_SHARE, asyncio.get_running_loop().time()
        line = self._line(host, is_long=True)
        number = next(self._numbers)
        many = AskMany(number, _agreed(table, terms), wanted, seconds, _given(consistency), _wait(terms, seconds))
        reply = await _asked(line, number, many, seconds, followed=terms.followed)
        if isinstance(reply, NoLink):
            return await self._http.at(host).answer_many(table, wanted, consistency, _left(terms, started))
        if not isinstance(reply, Slices):
            raise _other_answer(reply)
        return Answered(decode_slices(reply.slices, wanted), host.worker_id)

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        """Ask `host` to write a row of a partition that it owns; see the protocol for what it raises."""
        seconds, started = terms.timeout * HOP_SHARE, asyncio.get_running_loop().time()
        line = self._line(host, is_long=True)
        number = next(self._numbers)
        message = Write(
            number,
            _agreed(write.table, terms),
            write.partition,
            write.stored_key,
            write.key,
            write.value,
            write.condition,
            seconds * HOP_SHARE,
        )
        try:
            reply = await _asked(line, number, message, seconds, followed=False)
        except (Unconnected, NotAsked):
            raise
        except OwnerUnreachable as error:
            raise unknown_write(host, error) from None
        if isinstance(reply, NoLink):
            return await self._http.write(host, write, _left(terms, started))
        if isinstance(reply, Refused):
            raise error_of(reply.error)
        if not isinstance(reply, Written):
            raise DeadlineExceeded("the write may have happened: the worker that was to decide it answered otherwise")
        return reply.offset

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """List the tasks of `host`; raises OwnerUnreachable."""
        return await self._http.statuses(host, timeout)

    @property
    def links(self) -> int:
        """Return how many links are open."""
        return sum(line.is_open for line in self._lines.values())

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        await self._http.close()

    def _line(self, host: HostInfo, *, is_long: bool) -> Line:
        line = self._lines.get((host, is_long))
        if line is None:
            line = self._lines[host, is_long] = Line(host, self._me, self._keys, self)
            if self._sweep is None:
                self._sweep = asyncio.get_running_loop().call_later(IDLE_INTERVAL, self._close_idle)
        return line

    def _close_idle(self) -> None:
        """Close the links that nobody uses: most are to processes that have ended."""
        for key, line in [one for one in self._lines.items() if one[1].idle_seconds >= IDLE_SECONDS]:
            line.close()
            del self._lines[key]
        self._sweep = asyncio.get_running_loop().call_later(IDLE_INTERVAL, self._close_idle)


def result_of(reply: Reply, question: Crossing, partition: int) -> Any:
    """Return the result in the reply to a question; raises what it was refused with, or OwnerUnreachable."""
    if not isinstance(reply, Answer):
        raise _other_answer(reply)
    result = reply.result
    if type(result) is not _RESULTS[type(question)]:
        raise OwnerUnreachable("it answered another kind of question than it was asked")
    if result is not None and result.freshness.partition != partition:
        raise OwnerUnreachable(f"it answered for partition {result.freshness.partition}, not {partition}")
    if (
        isinstance(question, Range | CountRange)
        and isinstance(result, RangeResult | CountResult)
        and question.needs_rows_read
        and result.rows_read is None
    ):
        # It passed over these members of the question, and answered for all rows.
        raise OwnerUnreachable("its version of Tablehouse does not know `where` and `fields` yet")
    return result


def _other_answer(reply: Reply) -> RequestError:
    if isinstance(reply, Refused):
        return error_of(reply.error)
    return OwnerUnreachable("it answered another kind of question than it was asked")


async def _asked(line: Line, number: int, message: Any, seconds: float, *, followed: bool) -> Reply | NoLink:
    """Ask, and wait for the reply; return NoLink where there is no link, and raise what else keeps it from coming."""
    if line.has_no_link:
        return NoLink()
    future: asyncio.Future[Reply | RequestError | NoLink] = asyncio.get_running_loop().create_future()

    def done(outcome: Reply | RequestError | NoLink) -> None:
        if not future.done():
            future.set_result(outcome)

    line.ask(number, message, seconds, done, followed=followed)
    try:
        outcome = await future
    except asyncio.CancelledError:
        line.forget(number)
        raise
    if isinstance(outcome, RequestError):
        raise outcome
    return outcome


def _agreed(table: str, terms: Terms) -> Agreed:
    return Agreed(table, terms.table_digest, terms.partitions, terms.generation)


def _given(consistency: Consistency) -> Consistency | None:
    return None if consistency is DEFAULT_CONSISTENCY else consistency


def _wait(terms: Terms, seconds: float) -> float:
    # The asked worker has to answer while this one still waits.
    return min(terms.wait, seconds * HOP_SHARE)


def _left(terms: Terms, started: float) -> Terms:
    """Return the terms for the rest of the time of a hop."""
    spent = asyncio.get_running_loop().time() - started
    # aiohttp takes a timeout of 0 for none at all.
    return terms._replace(timeout=max(terms.timeout - spent, 0.001), wait=max(terms.wait - spent, 0.0))


def _nobody(host: HostInfo, error: RequestError) -> None:
    del host, error
