"""A listening socket, from bind to the last connection that waits to be accepted."""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Self

from tablehouse.errors import ConfigError
from tablehouse.http.protocol import Server

#: Connections that may wait to be accepted; the kernel caps it.
_BACKLOG = 1024

#: Seconds for connections that are half open when a listener closes, far more than a round trip within a datacenter.
_HANDSHAKE = 0.02

# A program of classic BPF (linux/filter.h), as (code, jump if true, jump if false, operand). It sees a segment from its
# TCP header on, drops a SYN without ACK, and lets everything else pass. The option is of asm-generic/socket.h.
_SO_ATTACH_FILTER = 26
_DROP_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # of which SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # yes: pass 0 bytes
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass all
)


class Listener:
    """Connections that come to one port become the server's."""

    def __init__(self, listening: asyncio.Server, server: Server) -> None:
        self._listening = listening
        self.server = server

    @classmethod
    async def bind(cls, server: Server, host: str, port: int, setting: str) -> Self:
        """Listen on a port, or on a free one for port 0; raises ConfigError, which names the setting."""
        try:
            listening = await asyncio.get_running_loop().create_server(server, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(_bind_problem(error, host, port, setting)) from None
        return cls(listening, server)

    @property
    def url(self) -> str:
        """What it is bound to; a wildcard address shows as loopback."""
        host, port = self._listening.sockets[0].getsockname()[:2]
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening; a connection that was made is served, even if the event loop had no time to accept it yet.

        Closing a socket resets the connections that wait at it, whose clients may have sent a request by then. So new
        ones are held off first: their SYN is dropped, the client's kernel asks again after a second and is refused.
        """
        duplicates = [socket.socket(fileno=os.dup(one.fileno())) for one in self._listening.sockets]
        for duplicate in duplicates:
            _hold_off(duplicate)
        await asyncio.sleep(_HANDSHAKE)
        self._listening.close()
        connections = [connection for duplicate in duplicates for connection in _accept_all(duplicate)]
        for connection in connections:
            await asyncio.get_running_loop().connect_accepted_socket(self.server, connection)


def _hold_off(listening: socket.socket) -> None:
    """Make no more connections at a listening socket; elsewhere than on Linux, do nothing."""
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_NEW_CONNECTIONS)
    kept = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(_DROP_NEW_CONNECTIONS), ctypes.addressof(kept))
    with contextlib.suppress(OSError):  # a sandbox without filters
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    """Accept all that wait, and close the listening socket."""
    connections: list[socket.socket] = []
    with listening:
        listening.settimeout(0)
        while True:
            try:
                connection, _ = listening.accept()
            except ConnectionAbortedError:
                continue
            except OSError:  # no connection waits, or there are no descriptors left
                return connections
            connection.settimeout(0)
            connections.append(connection)


def _bind_problem(error: OSError, host: str, port: int, setting: str) -> str:
    variable = f"TABLEHOUSE_{setting.upper()}"
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: port {port} on {host} is in use by another process: set {variable} to a free port"
    if error.errno == errno.EACCES:
        return f"{setting}: this user may not listen on port {port}: set {variable} to 1024 or above"
    return f"{setting}: cannot listen on {host}:{port}: {error.strerror}: check TABLEHOUSE_HTTP_HOST and {variable}"
