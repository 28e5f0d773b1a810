"""Where links of other workers begin: on connections of the internal listener."""

import asyncio
import secrets
from collections.abc import Callable

from tablehouse.link.answering import Answering, AnsweringLink
from tablehouse.link.handshake import NoLink, answer, is_request, read_request, refusal
from tablehouse.model import HostInfo
from tablehouse.routing.ports import name_of

#: The least that answers which a worker has not taken may fill on its link, before no more of its questions are taken.
MIN_UNSENT_BYTES = 64 << 10


class LinkServer:
    """Begins the links of all other workers, and keeps them within bounds.

    me is this worker. held_bytes is what the answers that workers have not taken may fill on all links together, and
    max_links how many links there may be.
    """

    def __init__(self, answering: Answering, me: Callable[[], HostInfo], *, held_bytes: int, max_links: int) -> None:
        self._answering = answering
        self._me = me
        self._held_bytes = held_bytes
        self._max_links = max_links
        self._links: set[AnsweringLink] = set()

    def __len__(self) -> int:
        """Return how many links there are."""
        return len(self._links)

    @property
    def is_idle(self) -> bool:
        """Return whether no question is without an answer."""
        return all(link.is_idle for link in self._links)

    @staticmethod
    def is_request(data: bytes) -> bool:
        """Return whether the first bytes of a connection request a link."""
        return is_request(data)

    def accept(self, transport: asyncio.Transport, head: bytes) -> AnsweringLink | None:
        """Begin a link on a connection that began with this head, and answer it; None when it is closed instead."""
        me = self._me()
        hello, refused = None, b""
        try:
            hello = read_request(head)
        except NoLink as error:
            refused = refusal(426, "Upgrade Required", str(error))
        else:
            if hello.meant != name_of(me):
                detail = f"this is worker {name_of(me)!r}, and the asking one means {hello.meant!r}"
                refused = refusal(421, "Misdirected Request", detail)
            elif len(self._links) >= self._max_links:
                detail = f"this worker has {self._max_links} links, and may have no more"
                refused = refusal(503, "Service Unavailable", detail)
        if hello is None or refused:
            transport.write(refused)
            transport.close()
            return None
        nonce = secrets.token_hex(16)
        transport.write(answer(hello, me, nonce, self._answering.keys))
        unsent_limit = max(MIN_UNSENT_BYTES, self._held_bytes // (len(self._links) + 1))
        link = AnsweringLink(self._answering, hello, nonce, transport, unsent_limit, self._links.discard)
        self._links.add(link)
        return link

    def close(self) -> None:
        """Close every link."""
        for link in list(self._links):
            link.close()
