"""A bare HTTP/1.1 client on one connection, for what is asked between measurements."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Response:
    """What was answered; the names of headers are in lower case. Status 0 stands for nobody who answers."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """GETs, one after the other, on a connection of its own to 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and content; (0, b"") when nobody answers."""
        response = await self.ask(path)
        return response.status, response.body

    async def ask(self, path: str) -> Response:
        """Return all of an answer."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            status = int((await reader.readline()).split(b" ")[1])
            headers = {}
            while (line := await reader.readline()) != _CRLF:
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError, IndexError):
            self._drop()
            return Response(0, {}, b"")
        if headers.get("connection", "").lower() == "close":
            self._drop()
        return Response(status, headers, body)

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
