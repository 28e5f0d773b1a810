"""The connection: aiohttp's server protocol, with its bare texts for malformed requests made problem documents.

This stays one file of one class: its methods, which aiohttp calls for every piece of a request, share the state of one
connection, and a part in another object would cost each request more calls.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, cast
from typing import Protocol as TypingProtocol

import structlog
from aiohttp import StreamReader, http_parser, web, web_protocol
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from tablehouse.errors import InternalError, InvalidBody, Overloaded, RequestError, RequestTimeout
from tablehouse.http.answers import EVERY_ANSWER
from tablehouse.http.connections import HEAD_SECONDS, Connections
from tablehouse.http.framing import (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_TARGET_BYTES,
    error_of,
    head_too_large,
    is_one_bodiless_request,
    most_body_bytes,
    refusal,
)
from tablehouse.http.held import LARGE_BYTES, HeldBytes
from tablehouse.http.plain import PlainReads, Waiting
from tablehouse.http.problems import problem
from tablehouse.telemetry import Metrics

#: Bytes of requests that wait behind the one that is handled, after which no more is read.
MAX_QUEUED_BYTES = 128 * 1024

#: Bytes of requests that a connection may have under way without being counted, as nearly all have fewer.
SMALL_BYTES = 4 * 1024

#: What is answered on a connection beyond the limit.
PROBES = frozenset({"/livez", "/readyz"})

#: Seconds that an idle connection is kept, above the minute for which common proxies keep theirs.
KEEPALIVE_SECONDS = 75.0

#: Seconds for which the rest of an unwanted request is read, and how many bytes, so that the client sees the answer.
LINGERING_SECONDS = 2.0
LINGERING_BYTES = 1024 * 1024

#: The route label of requests that could not be parsed.
MALFORMED = "malformed"


def check_parser() -> None:
    """Raise RuntimeError unless aiohttp's C parser is in use; the Python one is slower and accepts more."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp runs without its C parser: install a wheel of it, and unset AIOHTTP_NO_EXTENSIONS")


class Links(TypingProtocol):
    """What takes over connections on which another worker requests a link."""

    def is_request(self, data: bytes) -> bool:
        """Return whether the first bytes of a connection request a link."""

    def accept(self, transport: asyncio.Transport, head: bytes) -> asyncio.BaseProtocol | None:
        """Begin a link on a connection that began with this head, and answer it; None when it is closed instead."""

    @property
    def is_idle(self) -> bool:
        """Return whether no question is without an answer."""

    def close(self) -> None:
        """Close every link."""


class _Pending:
    """A request for which another worker is asked, what has arrived behind it, and whether that is the last."""

    __slots__ = ("behind", "is_last", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.behind = bytearray()
        self.is_last = False


class Protocol(web_protocol.RequestHandler):
    """One connection of a listener."""

    __slots__ = (
        "_answer_bytes",
        "_body_bytes",
        "_broken",
        "_connections",
        "_discarded",
        "_discards",
        "_ending",
        "_head_bytes",
        "_held",
        "_is_held",
        "_is_new",
        "_last_read",
        "_lingering",
        "_links",
        "_metrics",
        "_payload",
        "_pending",
        "_plain",
        "_probes_only",
        "_received",
        "_whole",
        "_wire",
        "began_at",
    )

    def __init__(
        self,
        manager: "Server",
        *,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        connections: Connections,
        held: HeldBytes,
        plain: PlainReads | None,
        links: Links | None,
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type] # aiohttp documents None for no access log
        )
        # Reading that was paused goes on once no request is queued, so that the queue does not grow with every read.
        self._msg_queue_resume_size = 0
        self._metrics = metrics
        self._connections = connections
        self._held = held
        self._plain = plain
        self._links = links
        #: Whether nothing has arrived yet.
        self._is_new = True
        #: The request for which another worker is asked.
        self._pending: _Pending | None = None
        #: When the request began that aiohttp has got after another worker was asked; None for any other.
        self.began_at: float | None = None
        self._probes_only = False
        #: The transport until the connection is lost; aiohttp forgets it when it begins to close.
        self._wire: asyncio.Transport | None = None
        #: Whether aiohttp's parser stands between two requests, since each piece so far was one without a body.
        self._whole = True
        #: Whether the parser has failed or a request was refused: nothing that arrives is looked at any more.
        self._broken = False
        #: Whether no further request can come.
        self._ending = False
        self._lingering: asyncio.Future[None] | None = None
        #: The body that arrives, None while there is none, and the bytes on the wire that belong to it.
        self._payload: StreamReader | None = None
        self._body_bytes = 0
        #: Whether the rest of the body is thrown away, since its request was answered without it.
        self._discards = False
        #: Bytes of what nothing is done with any more.
        self._discarded = 0
        #: Bytes of the head that arrives.
        self._head_bytes = 0
        #: No fewer bytes than the requests take that were received and not answered yet, and those of the last read.
        self._received = 0
        self._last_read = 0
        self._is_held = False
        #: The size of the answer that is being sent, or of the part of it that the handler holds.
        self._answer_bytes = 0

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and ask the transport to tell as soon as a client does not keep up."""
        self._wire = cast("asyncio.Transport", transport)
        self._wire.set_write_buffer_limits(high=0)
        self._probes_only = not self._connections.add(self)
        if self._probes_only:
            self._plain = self._links = None
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give back what the connection held."""
        self._wire = None
        if self._pending is not None:
            self._pending.waiting.cancel()
            self._pending = None
        self._end_lingering()
        self._connections.remove(self)
        self._held.release(self)
        handler = self._task_handler
        if (
            handler is not None
            and getcoroutinestate(cast("Coroutine[Any, Any, None]", handler.get_coro())) == CORO_CREATED
        ):
            # uvloop reads what came with a connection before aiohttp's task has begun, and its begin would fail.
            handler.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer a plain request at once, between two others; the rest is aiohttp's."""
        if self._broken:
            self._discarded += len(data)
            if self._discarded > LINGERING_BYTES:
                self._end_lingering()
            return
        if self._pending is not None:
            self._queue_behind(self._pending, data)
            return
        if self._links is not None and self._is_new and self._links.is_request(data):
            self._become_link(self._links, data)
            return
        self._is_new = False
        if self._plain is not None and self._whole:
            if self.is_idle:
                answer = self._plain.answer(data, partial(self._answer_later, data))
                if isinstance(answer, Waiting):
                    self._pending = _Pending(answer)
                    self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS
                    return
                if answer is not None:
                    self._send_plain(answer)
                    return
            self._whole = is_one_bodiless_request(data)
        self._handle(data)

    def _handle(self, data: bytes) -> None:
        """Have aiohttp handle what has arrived."""
        queued, in_body = len(self._messages), self._waits_for_body()
        super().data_received(data)
        self._check_received(len(data), queued, in_body=in_body)

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp always closes, and says None
        """Keep the connection of a client that sends nothing more until its requests are answered."""
        if self._pending is not None:
            self._pending.is_last = True
            return True
        if self._waiter is not None and not self._waiter.done():
            return False
        if self._lingering is not None:
            self._end_lingering()
            return True
        if self._waits_for_body():
            if self._discards:
                return False
            self._fail_body(InvalidBody("the body ended before it was whole"))
        self._end()
        return True

    def pause_writing(self) -> None:
        """Count what the client has not taken yet."""
        super().pause_writing()
        if not self._count():
            # Not within the call that writes.
            self._loop.call_soon(self.cut, "memory")

    def resume_writing(self) -> None:
        """Count nothing any more: the client has taken everything."""
        super().resume_writing()
        if self._waiter is not None and not self._waiter.done():
            self._answer_bytes = 0
        self._count()

    # What may end a connection

    @property
    def is_idle(self) -> bool:
        """Return whether the connection waits for a request, with everything before it answered."""
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and self._pending is None
            and not (self._messages or self.writing_paused or self._upgraded or self._close or self._force_close)
        )

    def hold_answer(self, size: int) -> bool:
        """Count what a handler holds of an answer from now on; return False when there is no room for it."""
        self._answer_bytes = size
        return self._count()

    def unsent(self) -> int:
        """Return the bytes of answers that the kernel has not taken yet."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def waits_for_client(self) -> bool:
        """Return whether it is the client's turn: to send the rest of a request, or to take the rest of an answer."""
        waits_for_head = self._waiter is not None and not self._waiter.done() and self._pending is None
        return self.writing_paused or waits_for_head or self._waits_for_body()

    def cut(self, reason: str) -> None:
        """Close the connection at once, whatever is unsent."""
        if self._wire is not None:
            self._metrics.http_connections_closed.labels(reason).inc()
            self._wire.abort()

    def refuse_slow_head(self) -> None:
        """Answer that the head of the request took too long, and close."""
        if self._buffer_paused:
            # It is this server that does not read.
            self._connections.head_begins(self)
            return
        self._metrics.http_connections_closed.labels("slow_head").inc()
        self._refuse(RequestTimeout(f"the head of the request had not arrived within {HEAD_SECONDS:g} s"))

    # What another worker answers

    def _answer_later(self, data: bytes, answer: Sequence[bytes] | None) -> None:
        """Send the answer to a request, or have aiohttp handle it, and go on with what arrived behind it."""
        pending, self._pending = self._pending, None
        if pending is None or self._wire is None:
            return
        if answer is not None:
            self._send_plain(answer)
        else:
            self.began_at = pending.waiting.began_at
            self._whole = is_one_bodiless_request(data)
            self._handle(data)
        behind = bytes(pending.behind)
        if self._is_held:
            self._count()
        if len(behind) > MAX_QUEUED_BYTES:
            self._resume_transport_reading()
        if behind:
            self.data_received(behind)
        if pending.is_last and not self.eof_received():
            self._wire.close()

    def _queue_behind(self, pending: _Pending, data: bytes) -> None:
        """Keep what arrives while another worker is asked; what follows is read once it has answered."""
        pending.behind += data
        if len(pending.behind) > MAX_QUEUED_BYTES:
            self._pause_transport_reading()
        if len(pending.behind) > SMALL_BYTES and not self._count():
            self.cut("memory")

    def _send_plain(self, answer: Sequence[bytes]) -> None:
        if self.transport is None:
            return
        # The kernel may take a part, but the memory is kept until it has taken the last byte.
        self._answer_bytes = len(answer[-1])
        for part in answer:
            self.transport.write(part)
        self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS

    def _become_link(self, links: Links, data: bytes) -> None:
        """Hand the connection over to a link of another worker."""
        wire = self._wire
        if wire is None:
            return
        link = links.accept(wire, data)
        if link is not None:
            # For aiohttp and this object the connection is lost, but aiohttp must not close it.
            self.transport = None
            self.connection_lost(None)
            wire.set_protocol(link)

    # What arrives

    def _check_received(self, size: int, queued: int, *, in_body: bool = False) -> None:
        """Check and count what a read of `size` bytes has brought; `queued` requests were waiting before."""
        messages = self._messages
        self._received += size
        self._last_read = size or self._last_read
        if len(messages) > queued:
            self._take_new(queued, self._head_bytes + size)
        elif self._discards and self._waits_for_body():
            self._discarded += size
            if self._discarded > LINGERING_BYTES:
                self.force_close()
            return
        elif self._payload is not None and not self._payload.is_eof():
            self._body_bytes += size
            if self._body_bytes > most_body_bytes(self._payload.total_bytes):
                self._refuse(InvalidBody("the body has more chunk sizes, chunk extensions and trailers than content"))
        elif size and not in_body and not self._upgraded and not self._close:
            self._head_bytes += size
            self._connections.head_begins(self)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())
        if self._received > SMALL_BYTES and not self._broken and not self._count():
            self._refuse(Overloaded("the requests and answers under way take all the memory there is for them"))
        if messages and self._received > MAX_QUEUED_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _take_new(self, queued: int, head_bytes: int) -> None:
        """Check the requests that are new in the queue; one that is refused is the last."""
        messages = self._messages
        if self._head_bytes:
            self._connections.head_ends(self)
        for index in range(queued, len(messages)):
            message = messages[index][0]
            if isinstance(message, web_protocol._ErrInfo):  # noqa: SLF001 - how aiohttp's queue holds a parser's error
                error: RequestError | None = error_of(message.status, message.exc)
                # Its traceback holds the frame that holds it, and what was received.
                message.exc.__traceback__ = None
            else:
                error = self._refusal(message, head_bytes)
            if error is not None:
                while len(messages) > index:
                    messages.pop()
                self._refuse(error)
                return
        payload = messages[-1][1]
        self._payload = None if payload.is_eof() else payload
        self._head_bytes = self._body_bytes = self._discarded = 0
        self._discards = False

    def _refusal(self, message: RawRequestMessage, head_bytes: int) -> RequestError | None:
        if self._probes_only and message.path.partition("?")[0] not in PROBES:
            return Overloaded("this worker has as many connections as it may have, and answers probes alone")
        return refusal(message, head_bytes)

    def _refuse(self, error: RequestError) -> None:
        """Answer with an error once what was asked before is answered, and take nothing more."""
        self._broken = True
        self._pause_transport_reading()
        if self._waits_for_body():
            if self._discards:
                self.force_close()
                return
            # The request whose body this is gets the answer.
            self._fail_body(error)
        else:
            info = web_protocol._ErrInfo(error.status, error, "")  # noqa: SLF001 - as above
            self._messages.append((info, EMPTY_PAYLOAD))
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._end()

    def _waits_for_body(self) -> bool:
        return self._payload is not None and not self._payload.is_eof()

    def _fail_body(self, error: RequestError) -> None:
        """Have the handler that reads the body, or is going to, raise an error."""
        if self._payload is not None:
            self._payload.set_exception(error)
        # aiohttp would read the rest of it, and raise the error itself.
        self._lingering_time = 0.0

    def _end(self) -> None:
        """Close the connection once everything is answered that was asked on it."""
        self._ending = True
        if not self._messages:
            self.close()

    def _resume_reading_if_drained(self) -> None:
        """Go on reading: no request is queued, so no more is waiting here than the last read brought."""
        self._received = min(self._received, self._last_read)
        super()._resume_reading_if_drained()

    def _count(self) -> bool:
        """Count what the connection holds; return False when there is no room for it."""
        size = self._received + (0 if self._pending is None else len(self._pending.behind))
        if size <= SMALL_BYTES:
            size = 0
        if unsent := self.unsent():
            size += max(unsent, self._answer_bytes)
        if size:
            has_room = self._held.hold(self, size)
            self._is_held |= has_room
            return has_room
        if self._is_held:
            self._is_held = False
            self._held.release(self)
        return True

    # What is answered

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, without a copy of a large one; after the last one, let the client see it before the end."""
        body = resp.body if isinstance(resp, web.Response) else None
        if type(body) is bytes and len(body) > LARGE_BYTES:
            self._answer_bytes = len(body)
            await resp.prepare(request)
            request.writer.send_headers()
        finished = await super().finish_response(request, resp, start_time)
        self._discards = self._payload is not None and self._waits_for_body()
        if not self._messages:
            self._received = self._answer_bytes = 0
            if self._is_held:
                self._count()
            if self._ending or self._probes_only:
                self.close()
                if self._broken:
                    await self._linger()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the connection closes, since what follows on it cannot be framed."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so no other can be sent")
        error = error_of(status, exc)
        if isinstance(error, InternalError):
            structlog.get_logger("http").error("request failed outside a handler", exc_info=exc)
        self._metrics.http_requests.labels("other", MALFORMED, error.status).inc()
        response = problem(error)
        response.headers.update(EVERY_ANSWER)
        response.headers["Connection"] = "close"
        response.force_close()
        return response

    async def _linger(self) -> None:
        """Send the end, and take what still arrives for a while: a closed socket would take back the answer."""
        wire = self._wire
        if wire is None or wire.is_closing():
            return
        wire.write_eof()
        self._resume_transport_reading()
        self._lingering = self._loop.create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGERING_SECONDS):
                await self._lingering

    def _end_lingering(self) -> None:
        if self._lingering is not None and not self._lingering.done():
            self._lingering.set_result(None)


class Server(web.Server):
    """One listener's connections."""

    def __init__(
        self,
        handler: Any,
        metrics: Metrics,
        *,
        connections: Connections,
        held: HeldBytes,
        plain: PlainReads | None = None,
        links: Links | None = None,
    ) -> None:
        super().__init__(handler)
        self._metrics = metrics
        self._limited = connections
        self._held = held
        self._plain = plain
        self._links = links

    def __call__(self) -> Protocol:
        """Make the protocol of a new connection."""
        return Protocol(
            self,
            loop=self._loop,
            metrics=self._metrics,
            connections=self._limited,
            held=self._held,
            plain=self._plain,
            links=self._links,
        )

    @property
    def is_idle(self) -> bool:
        """Return whether every connection waits for a request."""
        return all(connection.is_idle for connection in self.connections if isinstance(connection, Protocol))
