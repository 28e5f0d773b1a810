"""One connection of the asking side, from the request for a link on."""

import asyncio
import secrets
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from tablehouse.errors import RequestError
from tablehouse.link.handshake import END, MAX_HEAD_BYTES, Hello, NoLink, Seals, read_answer, request
from tablehouse.link.messages import Ping, Reply, decode_replies, encode
from tablehouse.link.packets import MAX_PACKET_BYTES, BadPacket, PacketReader, packed
from tablehouse.model import HostInfo
from tablehouse.routing.ports import NotAsked, Unconnected, name_of

log = structlog.get_logger("link")

#: Seconds after which the kernel ends a link whose other side takes nothing at all. It would go on for a quarter of an
#: hour otherwise.
GONE_SECONDS = 10.0

PING = encode(Ping())


class Questions(Protocol):
    """The questions that a connection is for."""

    @property
    def host(self) -> HostInfo:
        """The worker that is asked."""

    def opened(self, wire: "Wire") -> None:
        """Send what was asked meanwhile: the worker has proven itself."""

    def received(self, replies: Sequence[Reply]) -> None:
        """Call back the questions that these answer."""

    def lost(self, wire: "Wire", reason: str) -> None:
        """Call back every open question: the connection has ended."""


class Wire(asyncio.Protocol):
    """One connection of a line."""

    def __init__(self, line: Questions, hello: Hello, keys: Sequence[bytes], head: bytes) -> None:
        self._line = line
        self._hello = hello
        self._keys = keys
        self._request = head
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._seals: Seals | None = None
        self._reader: PacketReader | None = None
        self._reason = "the connection was closed"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, messages: Sequence[bytes]) -> None:
        """Send encoded messages; nothing where the connection is lost."""
        if self._transport is not None and self._seals is not None:
            self._transport.writelines(packed(messages, self._seals.sent))

    async def answered(self, seconds: float) -> None:
        """Wait for the answer to the request for a link; raises NoLink, NotAsked, and Unconnected if none comes."""
        try:
            async with asyncio.timeout(seconds):
                await self.ready
        except TimeoutError:
            # The answer may have come in the same turn of the event loop.
            if self._reader is None:
                raise Unconnected(f"no link to {self._line.host.url} within {seconds:g} s") from None
        finally:
            if self._reader is None:
                self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request a link."""
        self._transport = transport  # type: ignore[assignment] # a stream's
        if sys.platform == "linux":
            one = transport.get_extra_info("socket")
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(GONE_SECONDS * 1000))
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Take the answer to the request, and then packets."""
        try:
            if self._reader is None:
                data = self._take_head(data)
            if self._reader is not None and data:
                for payload in self._reader.feed(data):
                    self._line.received(decode_replies(payload))
        except (BadPacket, ValueError, RecursionError) as error:
            self._reason = f"its answer cannot be understood: {error}"
            log.warning("a link is closed", peer=self._line.host.worker_id, reason=self._reason)
            self.abort()
        except (NoLink, RequestError) as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            self.abort()

    def _take_head(self, data: bytes) -> bytes:
        """Return what follows the answer to the request; nothing while that is not complete."""
        self._head += data
        end = self._head.find(END)
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                raise BadPacket("the answer to the request for a link does not end")
            return b""
        if self.ready.done():
            # Nobody waits for the link any more, and it is about to be closed.
            return b""
        head, rest = bytes(self._head[: end + len(END)]), bytes(self._head[end + len(END) :])
        self._head.clear()
        seals = self._seals = read_answer(head, self._hello, self._line.host, self._keys)
        self._reader = PacketReader(seals.received, MAX_PACKET_BYTES)
        if self._transport is not None:
            self._transport.write(seals.first)
            self.send([PING])
        self.ready.set_result(None)
        self._line.opened(self)
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        """End the questions on it."""
        self._transport = None
        reason = self._reason if exc is None else f"{self._reason}: {exc}"
        if not self.ready.done():
            self.ready.set_exception(NotAsked(f"{self._line.host.url}: {reason}"))
        self._line.lost(self, reason)


async def connected(line: Questions, host: HostInfo, me: HostInfo, keys: Sequence[bytes]) -> Wire:
    """Connect to a worker, and request a link; raises OSError."""
    url = urlsplit(host.url)
    hello = Hello(name_of(host), name_of(me), secrets.token_hex(16))
    make = partial(Wire, line, hello, keys, request(host, url.netloc, hello.asking, hello.nonce))
    _, wire = await asyncio.get_running_loop().create_connection(make, url.hostname or "", url.port or 80)
    return wire
