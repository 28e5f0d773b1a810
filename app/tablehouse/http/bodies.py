"""The body of a request, read within a limit and the request's time."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from io import BytesIO

from aiohttp import HttpVersion11, web

from tablehouse.errors import InvalidBody, PayloadTooLarge, RequestTimeout, Unauthenticated, UnsupportedMediaType


class Body:
    """The body of one request; seconds_left says how much of the request's time is left.

    digest is the SHA-256 that the body must have, None for any.
    """

    def __init__(self, request: web.BaseRequest, seconds_left: Callable[[], float], digest: str | None = None) -> None:
        self._request = request
        self._seconds_left = seconds_left
        self._digest = digest

    async def read(self, media_types: Sequence[str], limit: int) -> bytes:
        """Return the whole body, of at most `limit` bytes; empty when there is none.

        Raises UnsupportedMediaType, PayloadTooLarge, RequestTimeout when it has not arrived in the request's time,
        InvalidBody when the client ended it or broke its framing before it was whole, and Unauthenticated when it is
        not the one that was proven.
        """
        self._check_type(media_types)
        if (self._request.content_length or 0) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(max(0.0, self._seconds_left())):
                body = await self._read(limit)
        except TimeoutError:
            raise RequestTimeout("the body had not arrived when the request's time ran out") from None
        except (ConnectionError, web.RequestPayloadError):
            raise InvalidBody("the body ended before it was whole, or its chunks are malformed") from None
        if self._digest is not None and hashlib.sha256(body).hexdigest() != self._digest:
            raise Unauthenticated("the body is not the one that was proven")
        return body

    async def _read(self, limit: int) -> bytes:
        request = self._request
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # aiohttp counts it as the beginning of the answer.
            request.writer.output_size = 0
        # Its value is not a copy, as that of a bytearray would be: copying 10 MiB takes 5 ms and as much memory again.
        body = BytesIO()
        while chunk := await request.content.readany():
            body.write(chunk)
            if body.tell() > limit:
                raise _too_large(limit)
        return body.getvalue()

    def _check_type(self, media_types: Sequence[str]) -> None:
        headers = self._request.headers
        taken = " or ".join(media_types)
        lines = headers.getall("Content-Encoding", ())
        codings = [coding.strip().lower() for line in lines for coding in line.split(",")]
        if not {"", "identity"}.issuperset(codings):
            raise UnsupportedMediaType(
                f"the body is encoded as {', '.join(codings)}: send it as it is, without Content-Encoding",
                available=list(media_types),
            )
        # One without a Content-Type is application/octet-stream here (RFC 9110, section 8.3).
        if self._request.content_type not in media_types:
            raise UnsupportedMediaType(
                f"the body is {headers.get('Content-Type', 'without a Content-Type')}: send {taken}, and say so in "
                "Content-Type",
                available=list(media_types),
            )
        charset = (self._request.charset or "utf-8").lower()
        if charset not in {"utf-8", "utf8", "us-ascii"}:
            raise UnsupportedMediaType(f"the body is in {charset}: send UTF-8", available=list(media_types))


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than {limit} bytes, which is the most that is taken here", limit=limit)
