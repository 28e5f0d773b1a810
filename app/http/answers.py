"""Answers that are not one row: JSON documents, and bodies that are made while they are sent."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec
import structlog
from aiohttp import web

JSON_HEADERS: Mapping[str, str] = {
    "Content-Type": "application/json",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}

#: Seconds for which a client may take nothing of a body, before its connection is closed.
STALL_SECONDS = 30.0


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Render a value that no cache may keep; its mappings keep their order."""
    return json_body(msgspec.json.encode(value), status, headers)


def json_body(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return JSON text as an answer that no cache may keep."""
    return web.Response(status=status, body=body, headers={**JSON_HEADERS, **(headers or {})})


class Streamed(web.StreamResponse):
    """A 200 whose body is made piece by piece, each when the client has taken enough of those before.

    `begun` are the first pieces, which are there already.
    """

    def __init__(self, begun: Sequence[bytes], pieces: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._begun = begun
        self._pieces = pieces

    async def send(self, request: web.BaseRequest) -> None:
        """Send all of it; a body that cannot be finished ends with its connection, so that it does not look whole."""
        try:
            await self.prepare(request)
            async with aclosing(self._pieces) as pieces:
                for piece in self._begun:
                    await self._write(piece)
                async for piece in pieces:
                    await self._write(piece)
            await self.write_eof()
        except (ConnectionError, TimeoutError):
            # The client has gone, or takes nothing.
            self._abort(request)
        except Exception:  # noqa: BLE001 - whatever it is, no other answer can be given any more
            structlog.get_logger("http").exception("an answer could not be finished")
            self._abort(request)

    async def _write(self, piece: bytes) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self.write(piece)

    def _abort(self, request: web.BaseRequest) -> None:
        self.force_close()
        if request.transport is not None:
            request.transport.abort()
