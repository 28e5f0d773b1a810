"""The connections of one listener: how many there may be, and how long each may take to send a request's head."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

#: Seconds in which the head of a request has to arrive, from its first piece on.
HEAD_SECONDS = 20.0

#: Connections beyond the limit that are accepted anyway, for probes only. A new one takes the place of the
#: oldest, so that a probe gets through, which sends its request at once.
RESERVED = 64

#: Connections that are looked at to find an idle one.
_LOOKED_AT = 64


class Connection(Protocol):
    """A connection of the listener."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a request's head."""

    def refuse_slow_head(self) -> None:
        """Answer that the head of the request took too long, and close."""

    def cut(self, reason: str) -> None:
        """Close the connection at once; the reason is a metric's label."""


class Connections:
    """Keeps the connections of one listener within a limit; clock is monotonic, in seconds."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._open: OrderedDict[Connection, None] = OrderedDict()
        self._reserved: OrderedDict[Connection, None] = OrderedDict()
        #: Connections with a part of a head, and when its first piece arrived; the oldest comes first.
        self._heads: dict[Connection, float] = {}

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._open) + len(self._reserved)

    def add(self, connection: Connection) -> bool:
        """Count a new connection; return False when it may be used for the probes alone.

        At the limit, a connection that is idle is closed for it.
        """
        if len(self._open) < self._limit or self._close_an_idle_one():
            self._open[connection] = None
            return True
        self._reserved[connection] = None
        if len(self._reserved) > RESERVED:
            oldest, _ = self._reserved.popitem(last=False)
            oldest.cut("limit")
        return False

    def remove(self, connection: Connection) -> None:
        """Record that a connection is closed."""
        self._open.pop(connection, None)
        self._reserved.pop(connection, None)
        self._heads.pop(connection, None)

    def head_begins(self, connection: Connection) -> None:
        """Record that a part of a head has arrived."""
        self._heads.setdefault(connection, self._clock())

    def head_ends(self, connection: Connection) -> None:
        """Record that the head is complete."""
        self._heads.pop(connection, None)

    def refuse_slow_heads(self) -> None:
        """Refuse the requests whose heads have taken too long; to be called every second."""
        latest = self._clock() - HEAD_SECONDS
        slow = []
        for connection, since in self._heads.items():
            if since > latest:
                break
            slow.append(connection)
        for connection in slow:
            self.head_ends(connection)
            connection.refuse_slow_head()

    def _close_an_idle_one(self) -> bool:
        for _ in range(min(_LOOKED_AT, len(self._open))):
            oldest = next(iter(self._open))
            if oldest.is_idle:
                self.remove(oldest)
                oldest.cut("limit")
                return True
            self._open.move_to_end(oldest)
        return False
