"""What a request may look like on the wire, and the error of what does not look so."""

import re

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import InvalidURLError, LineTooLong

from tablehouse.errors import (
    HeadersTooLarge,
    HttpVersionNotSupported,
    InternalError,
    InvalidParameter,
    RequestError,
    UnsupportedTransferCoding,
    UriTooLong,
)

#: Bytes of a request target. The longest key, with every byte percent-encoded, takes 24 KiB of it.
MAX_TARGET_BYTES = 64 * 1024

#: Bytes of one header with its name. It differs from the other limit, by which the parser's error is told
#: apart.
MAX_HEADER_BYTES = 32 * 1024

#: Bytes of a request's head: its target and all its headers.
MAX_HEAD_BYTES = 128 * 1024

#: Bytes of chunk sizes, chunk extensions and trailers: of a whole body, and more for each byte of its content.
FRAMING_BYTES = 16 * 1024
FRAMING_BYTES_PER_BYTE = 17

_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding|upgrade)[ \t]*:", re.IGNORECASE)


def refusal(message: RawRequestMessage, head_bytes: int) -> RequestError | None:
    """Return why a request is not handled, None when it is; head_bytes are no fewer than its head takes."""
    if message.version is not HttpVersion11 and message.version != HttpVersion10:
        return HttpVersionNotSupported("this server speaks HTTP/1.1")
    if message.chunked and message.headers["Transfer-Encoding"].lower() != "chunked":
        return UnsupportedTransferCoding("the only transfer coding that is taken is chunked")
    # A read may hold several requests, so only what the heads themselves take is counted.
    if head_bytes > MAX_HEAD_BYTES and _size_of(message) > MAX_HEAD_BYTES:
        return head_too_large()
    return None


def most_body_bytes(content_bytes: int) -> int:
    """Return how many bytes a body may take on the wire once this much of its content has come."""
    return FRAMING_BYTES + FRAMING_BYTES_PER_BYTE * content_bytes


def error_of(status: int, exc: BaseException | None) -> RequestError:
    """Return what a request is answered that the parser, or this server, refused."""
    if isinstance(exc, RequestError):
        return exc
    if isinstance(exc, LineTooLong):
        if MAX_TARGET_BYTES in exc.args:
            return UriTooLong(f"the URL is longer than {MAX_TARGET_BYTES} bytes")
        return HeadersTooLarge(f"a header is longer than {MAX_HEADER_BYTES} bytes")
    if isinstance(exc, InvalidURLError):
        return InvalidParameter("the URL has a byte that has to be percent-encoded, as %C3%A9 is for \u00e9 in UTF-8")
    if status < 500:  # noqa: PLR2004 - the parser refused it
        return InvalidParameter("this is no valid HTTP/1.1 request; a space in a URL has to be sent as %20")
    return InternalError("a fault of ours; the log has it")


def head_too_large() -> HeadersTooLarge:
    """Return the error of a head that is over MAX_HEAD_BYTES."""
    return HeadersTooLarge(f"the URL and all headers together are longer than {MAX_HEAD_BYTES} bytes")


def _size_of(message: RawRequestMessage) -> int:
    # Of each header also the colon, a blank and the end of the line.
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)


def is_one_bodiless_request(data: bytes) -> bool:
    """Return whether the data is exactly one request without a body."""
    return (
        data.startswith((b"GET ", b"HEAD ")) and data.find(b"\r\n\r\n") == len(data) - 4 and _BODY.search(data) is None
    )
