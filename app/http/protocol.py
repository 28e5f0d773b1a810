"""The connection: aiohttp's server protocol, with its bare texts for malformed requests made problem documents."""

import asyncio
from typing import Any

import structlog
from aiohttp import http_parser, web, web_protocol
from aiohttp.http_exceptions import LineTooLong

from app.errors import InternalError, InvalidParameter, RequestError, UriTooLong
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


def check_parser() -> None:
    """Raise RuntimeError unless aiohttp's C parser is in use; the Python one is slower and accepts more."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp runs without its C parser: install a wheel of it, and unset AIOHTTP_NO_EXTENSIONS")


class Protocol(web_protocol.RequestHandler):
    """One connection of a listener."""

    __slots__ = ("_metrics",)

    def __init__(self, manager: "Server", *, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
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

    def __init__(self, handler: Any, metrics: Metrics) -> None:
        super().__init__(handler)
        self._metrics = metrics

    def __call__(self) -> Protocol:
        """Make the protocol of a new connection."""
        return Protocol(self, loop=self._loop, metrics=self._metrics)


def _error_of(status: int, exc: BaseException | None) -> RequestError:
    if isinstance(exc, LineTooLong):
        if MAX_TARGET_BYTES in exc.args:
            return UriTooLong(f"the URL is longer than {MAX_TARGET_BYTES} bytes")
        return InvalidParameter(f"a header is longer than {MAX_HEADER_BYTES} bytes")
    if status < 500:  # noqa: PLR2004 - the parser refused it
        return InvalidParameter("this is no valid HTTP/1.1 request")
    return InternalError("a fault of ours; the log has it")
