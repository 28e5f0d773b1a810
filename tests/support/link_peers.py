"""A way to other workers over links, for a test that is no worker itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tablehouse.http.peer import HttpPeer
from tablehouse.link.peer import LinkPeer
from tablehouse.model import HostInfo
from tablehouse.routing.strangers import Strangers

#: What the peer of a test is called.
ME = HostInfo("me", 1, "http://me")


@asynccontextmanager
async def link_peer(me: HostInfo = ME) -> AsyncIterator[LinkPeer]:
    """Give a peer without secrets, and close it."""
    strangers = Strangers()
    peer = LinkPeer(keys=(), me=lambda: me, http=HttpPeer((), strangers), strangers=strangers)
    try:
        yield peer
    finally:
        await peer.close()
