"""A network between workers that can be cut and slowed down: a TCP proxy in front of an internal listener."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tablehouse.testing import processes

_CHUNK = 64 * 1024


class Proxy:
    """Passes bytes on to a port of 127.0.0.1, unless the line is cut, and `delay` seconds late.

    A cut line is silent, as when packets are dropped: connections stay open and new ones are accepted, and nothing
    comes through until it is mended, which resets them all. Only what the target says is late.
    """

    def __init__(self, target_port: int) -> None:
        self.port = processes.free_port()
        self.delay = 0.0
        self.connections = 0
        self.most_connections = 0
        #: Bytes that were passed on to the port.
        self.passed_on = 0
        self.target_port = target_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._lines: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let bytes through again, on new connections."""
        for line in self._lines:
            line.cancel()
        self._whole.set()

    def forget(self) -> None:
        """Count the most connections, and the bytes that are passed on, from now on."""
        self.most_connections, self.passed_on = self.connections, 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        line = asyncio.create_task(self._serve(reader, writer))
        self._lines.add(line)
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        try:
            await asyncio.wait({line})
        finally:
            line.cancel()
            self._lines.discard(line)
            self.connections -= 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._whole.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
            try:
                # Whichever side ends, the connection does.
                directions = [
                    asyncio.create_task(self._pass(reader, back, late=False)),
                    asyncio.create_task(self._pass(there, writer, late=True)),
                ]
                try:
                    await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for direction in directions:
                        direction.cancel()
            finally:
                back.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if late:
                    await asyncio.sleep(self.delay)
                await self._whole.wait()
                if not late:
                    self.passed_on += len(data)
                target.write(data)
                await target.drain()

    async def stop(self) -> None:
        """End every connection."""
        for line in self._lines:
            line.cancel()
        if self._lines:
            await asyncio.wait(set(self._lines))


@asynccontextmanager
async def proxies(*ports: int) -> AsyncIterator[list[Proxy]]:
    """Run a proxy for each of these ports."""
    made = [Proxy(port) for port in ports]
    servers = [await asyncio.start_server(proxy.accept, "127.0.0.1", proxy.port) for proxy in made]
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        for proxy in made:
            await proxy.stop()
