"""Answers that are not one row: JSON documents, and bodies that are made while they are sent."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import cast

import msgspec
import structlog
from aiohttp import web

from tablehouse.http.held import LARGE_BYTES, AnswerHolder
from tablehouse.http.transforms import PIECE_BYTES, Both, Transform
from tablehouse.turns import Turns

JSON_HEADERS: Mapping[str, str] = {
    "Content-Type": "application/json",
    "Cache-Control": "no-cache",
}

#: The headers of every answer. No browser is to take a row for a page or a script, whatever its bytes look like.
EVERY_ANSWER: Mapping[str, str] = {
    "Server": "tablehouse",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept, Accept-Encoding",
}


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Render a value that no cache may keep; its mappings keep their order."""
    return json_body(msgspec.json.encode(value), status, headers)


def json_body(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return JSON text as an answer that no cache may keep."""
    return web.Response(status=status, body=body, headers={**JSON_HEADERS, **(headers or {})})


class CutShort(Exception):
    """Raised by the pieces of an answer that ends early, and says so itself with the last of them."""


class Streamed(web.StreamResponse):
    """An answer whose body is made piece by piece, each when the client has taken enough of those before.

    `begun` are the first pieces, which are there already.
    """

    def __init__(
        self, begun: Sequence[bytes], pieces: AsyncGenerator[bytes], headers: Mapping[str, str], status: int = 200
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._begun = begun
        self._pieces = pieces
        self._transform: Transform | None = None
        self._turns: Turns | None = None

    @property
    def begun_bytes(self) -> int:
        """The bytes of the body that are there already."""
        return sum(len(piece) for piece in self._begun)

    def transform(self, transform: Transform, turns: Turns) -> None:
        """Send the body as a transform makes it, after the transforms that were given before."""
        self._transform = transform if self._transform is None else Both(self._transform, transform)
        self._turns = turns

    async def give_up(self) -> None:
        """Send nothing of it."""
        await self._pieces.aclose()

    async def send(self, request: web.BaseRequest) -> None:
        """Send all of it; a body that cannot be finished ends with its connection, so that it does not look whole."""
        try:
            await self.prepare(request)
            async with aclosing(self._pieces) as pieces:
                # The answer to HEAD has no body.
                if request.method != "HEAD":
                    await self._send_body(pieces, request)
            await self.write_eof()
        except CutShort:
            self._cut_short(request)
        except ConnectionError:
            # The client has gone, or was cut off because it took nothing or there was no room for more.
            self._abort(request)
        except Exception:  # noqa: BLE001 - whatever it is, no other answer can be given any more
            structlog.get_logger("http").exception("an answer could not be finished")
            self._abort(request)

    async def _send_body(self, pieces: AsyncGenerator[bytes], request: web.BaseRequest) -> None:
        for piece in self._begun:
            await self._send_piece(piece, request)
        self._begun = ()
        try:
            async for piece in pieces:
                await self._send_piece(piece, request)
        except CutShort:
            # A transform may still hold back the piece that says so.
            await self._send_rest(request)
            raise
        await self._send_rest(request)

    async def _send_rest(self, request: web.BaseRequest) -> None:
        if self._transform is not None:
            await self._write(self._transform.end(), request)

    async def _send_piece(self, piece: bytes, request: web.BaseRequest) -> None:
        if self._transform is None or self._turns is None:
            await self._write(piece, request)
            return
        held = len(piece) if len(piece) > LARGE_BYTES else 0
        self._hold(held, request)
        for start in range(0, len(piece), PIECE_BYTES):
            made = self._transform.feed(piece[start : start + PIECE_BYTES])
            if made:
                await self._write(made, request, held)
            await self._turns.wait()
        self._hold(0, request)

    async def _write(self, piece: bytes, request: web.BaseRequest, held: int = 0) -> None:
        """Write a piece, a large one without another copy of all of it; raises ConnectionError if there is no room.

        held are the bytes that it was made of.
        """
        if len(piece) <= LARGE_BYTES:
            await self.write(piece)
            return
        self._hold(held + len(piece), request)
        whole = memoryview(piece)
        for start in range(0, len(piece), LARGE_BYTES):
            await self.write(whole[start : start + LARGE_BYTES])
        self._hold(held, request)

    def _hold(self, size: int, request: web.BaseRequest) -> None:
        """Count what is held of the answer from now on; raises ConnectionError if there is no room for it."""
        connection = cast("AnswerHolder", request.protocol)
        if not connection.hold_answer(size):
            raise ConnectionError("there is no room for the rest of the answer")

    def _cut_short(self, request: web.BaseRequest) -> None:
        """Close the connection without the end of the body, once the client has taken what there is."""
        self.force_close()
        if request.transport is not None:
            request.transport.close()

    def _abort(self, request: web.BaseRequest) -> None:
        self.force_close()
        if request.transport is not None:
            request.transport.abort()
