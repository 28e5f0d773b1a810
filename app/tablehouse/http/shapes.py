"""An answer in the shape that its client asks for: indented, compressed."""

from collections.abc import AsyncGenerator

from aiohttp import web

from tablehouse.http.answers import Streamed
from tablehouse.http.content_coding import MIN_BYTES, Gzip, gzip_tag, gzipped
from tablehouse.http.pretty import PrettyJson
from tablehouse.http.transforms import PIECE_BYTES, Transform
from tablehouse.turns import Turns

_JSON = frozenset({"application/json", "application/problem+json"})


def indented(response: web.StreamResponse, turns: Turns) -> web.StreamResponse:
    """Return an answer with its JSON indented; one that is no JSON stays as it is."""
    if response.content_type not in _JSON:
        return response
    if isinstance(response, Streamed):
        response.transform(PrettyJson(), turns)
        return response
    body = _body(response)
    if len(body) > PIECE_BYTES:
        return _streamed(response, body, PrettyJson(), turns)
    pretty = PrettyJson()
    return _with_body(response, pretty.feed(body) + pretty.end())


def compressed(response: web.StreamResponse, turns: Turns) -> web.StreamResponse:
    """Return an answer in gzip; one that is small, or that gzip makes no smaller, stays as it is."""
    if isinstance(response, Streamed):
        response.transform(Gzip(), turns)
    else:
        body = _body(response)
        made = gzipped(body[:PIECE_BYTES]) if len(body) > MIN_BYTES else None
        if made is None:
            return response
        is_large = len(body) > PIECE_BYTES
        response = _streamed(response, body, Gzip(), turns) if is_large else _with_body(response, made)
    headers = response.headers
    headers["Content-Encoding"] = "gzip"
    # An error has the tag of the row, not of its own body.
    if "ETag" in headers and response.status == 200:  # noqa: PLR2004
        headers["ETag"] = gzip_tag(headers["ETag"])
    return response


def _body(response: web.StreamResponse) -> bytes:
    body = response.body if isinstance(response, web.Response) else None
    return body if isinstance(body, bytes) else b""


def _with_body(response: web.StreamResponse, body: bytes) -> web.StreamResponse:
    return web.Response(status=response.status, headers=response.headers, body=body)


def _streamed(response: web.StreamResponse, body: bytes, transform: Transform, turns: Turns) -> Streamed:
    streamed = Streamed((body,), _no_more(), response.headers, response.status)
    streamed.transform(transform, turns)
    return streamed


async def _no_more() -> AsyncGenerator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece
