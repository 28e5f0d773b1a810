"""The connection: aiohttp's server protocol, with its bare texts for malformed requests made problem documents."""

import asyncio
import re
from typing import Any

import structlog
from aiohttp import http_parser, web, web_protocol
from aiohttp.http_exceptions import LineTooLong

from app.errors import InternalError, InvalidParameter, RequestError, UriTooLong
from app.http.plain import PlainReads
from app.http.problems import problem
from app.telemetry import Metrics

#: Bytes of a request target. The longest key, with every byte percent-encoded, takes 24 KiB of it.
MAX_TARGET_BYTES = 64 * 1024

#: Bytes of one header with its name. It differs from the other limit, by which the parser's error is told
#: apart.
MAX_HEADER_BYTES = 32 * 1024

#: Seconds that an idle connection is kept, above the minute for which common proxies keep theirs.
KEEPALIVE_SECONDS = 75.0

#: Seconds for which the rest of an unwanted request body is read, so that the client sees the answer.
LINGERING_SECONDS = 2.0

#: The route label of requests that could not be parsed.
MALFORMED = "malformed"

_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding|upgrade)[ \t]*:", re.IGNORECASE)


def check_parser() -> None:
    """Raise RuntimeError unless aiohttp's C parser is in use; the Python one is slower and accepts more."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp runs without its C parser: install a wheel of it, and unset AIOHTTP_NO_EXTENSIONS")


class Protocol(web_protocol.RequestHandler):
    """One connection of a listener."""

    __slots__ = ("_metrics", "_plain", "_whole")

    def __init__(
        self, manager: "Server", *, loop: asyncio.AbstractEventLoop, metrics: Metrics, plain: PlainReads | None
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
        self._metrics = metrics
        self._plain = plain
        #: Whether aiohttp's parser stands between two requests, since each piece so far was one without a body.
        self._whole = True

    def data_received(self, data: bytes) -> None:
        """Answer a plain request at once, between two others; the rest is aiohttp's."""
        if self._plain is not None and self._whole:
            if self.is_idle:
                answer = self._plain.answer(data)
                if answer is not None and self.transport is not None:
                    self.transport.write(answer)
                    self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS
                    return
            self._whole = _is_one_bodiless_request(data)
        super().data_received(data)

    @property
    def is_idle(self) -> bool:
        """Say whether the connection waits for a request, with everything before it answered."""
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not (self._messages or self.writing_paused or self._upgraded or self._close or self._force_close)
        )

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
        error = _error_of(status, exc)
        if isinstance(error, InternalError):
            structlog.get_logger("http").error("request failed outside a handler", exc_info=exc)
        self._metrics.http_requests.labels("other", MALFORMED, error.status).inc()
        response = problem(error)
        response.headers["Server"] = "tablehouse"
        response.headers["Connection"] = "close"
        response.force_close()
        return response


class Server(web.Server):
    """One listener's connections."""

    def __init__(self, handler: Any, metrics: Metrics, plain: PlainReads | None = None) -> None:
        super().__init__(handler)
        self._metrics = metrics
        self._plain = plain

    def __call__(self) -> Protocol:
        """Make the protocol of a new connection."""
        return Protocol(self, loop=self._loop, metrics=self._metrics, plain=self._plain)

    @property
    def is_idle(self) -> bool:
        """Say whether every connection waits for a request."""
        return all(connection.is_idle for connection in self.connections if isinstance(connection, Protocol))


def _error_of(status: int, exc: BaseException | None) -> RequestError:
    if isinstance(exc, LineTooLong):
        if MAX_TARGET_BYTES in exc.args:
            return UriTooLong(f"the URL is longer than {MAX_TARGET_BYTES} bytes")
        return InvalidParameter(f"a header is longer than {MAX_HEADER_BYTES} bytes")
    if status < 500:  # noqa: PLR2004 - the parser refused it
        return InvalidParameter("this is no valid HTTP/1.1 request")
    return InternalError("a fault of ours; the log has it")


def _is_one_bodiless_request(data: bytes) -> bool:
    return (
        data.startswith((b"GET ", b"HEAD ")) and data.find(b"\r\n\r\n") == len(data) - 4 and _BODY.search(data) is None
    )
