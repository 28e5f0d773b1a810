"""A bare HTTP/1.1 client on one connection, for what is asked between measurements."""

import asyncio
from types import TracebackType
from typing import Self

_CRLF = b"\r\n"


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
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            status = int((await reader.readline()).split(b" ")[1])
            length, closing = 0, False
            while (line := await reader.readline()) != _CRLF:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                closing = closing or line.lower().strip() == b"connection: close"
            body = await reader.readexactly(length)
        except (OSError, EOFError, IndexError):
            self._drop()
            return 0, b""
        if closing:
            self._drop()
        return status, body

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
