"""The memory that connections hold: requests that are arriving or waiting, and answers that clients have not taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

#: Bytes of an answer from which on it is given only when there is room for it, and handed to the connection uncopied.
LARGE_BYTES = 64 * 1024

#: Seconds in which a client has to take MIN_TAKEN_BYTES of an answer, or all that is left of it.
STALL_SECONDS = 30.0
MIN_TAKEN_BYTES = 16 * 1024

#: Seconds without progress after which a connection makes room for others that need it.
STALLED_SECONDS = 1.0


class Holder(Protocol):
    """A connection."""

    def unsent(self) -> int:
        """Return the bytes of answers that the kernel has not taken yet."""

    def waits_for_client(self) -> bool:
        """Return whether it is the client's turn: to send the rest of a request, or to take the rest of an answer."""

    def cut(self, reason: str) -> None:
        """Close the connection at once; the reason is a metric's label."""


class AnswerHolder(Protocol):
    """A connection, for a handler that sends a large answer itself."""

    def hold_answer(self, size: int) -> bool:
        """Count what the handler holds of an answer from now on; return False when there is no room for it."""


@dataclass(slots=True)
class _Entry:
    """What one connection holds; unsent is what it was at `since`, when it last made progress."""

    size: int
    unsent: int
    since: float


class HeldBytes:
    """Bounds the bytes that all connections of a worker hold together; clock is monotonic, in seconds.

    A single connection may hold more than the limit, or a row of that size could never be read.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._entries: dict[Holder, _Entry] = {}
        self._total = 0

    @property
    def total(self) -> int:
        """The bytes that all connections hold."""
        return self._total

    def hold(self, holder: Holder, size: int) -> bool:
        """Record what a connection holds from now on; return False, and record nothing, when there is no room for it.

        Connections whose clients make no progress are closed to make room.
        """
        entry = self._entries.get(holder)
        more = size - (entry.size if entry is not None else 0)
        if more > 0 and not self._has_room(holder, more):
            return False
        self._total += more
        now, unsent = self._clock(), holder.unsent()
        if entry is None:
            self._entries[holder] = _Entry(size, unsent, now)
        else:
            entry.size, entry.unsent, entry.since = size, unsent, now
        return True

    def has_room(self, size: int) -> bool:
        """Return whether a connection may hold this many bytes more; closes stalled connections to make room."""
        return self._has_room(None, size)

    def release(self, holder: Holder) -> None:
        """Record that a connection holds nothing."""
        entry = self._entries.pop(holder, None)
        if entry is not None:
            self._total -= entry.size

    def cut_stalled(self) -> None:
        """Close connections whose clients have not taken enough of an answer in time; to be called every second."""
        now = self._clock()
        for holder, entry in list(self._entries.items()):
            unsent = holder.unsent()
            if not unsent:
                continue
            if unsent > entry.unsent or entry.unsent - unsent >= MIN_TAKEN_BYTES:
                entry.unsent, entry.since = unsent, now
            elif now - entry.since >= STALL_SECONDS:
                self._cut(holder, "slow_reader")

    def _has_room(self, holder: Holder | None, more: int) -> bool:
        if self._total + more <= self._limit:
            return True
        oldest = self._clock() - STALLED_SECONDS
        for other, entry in list(self._entries.items()):
            if other is not holder and entry.since <= oldest and other.waits_for_client():
                self._cut(other, "memory")
                if self._total + more <= self._limit:
                    return True
        return all(other is holder for other in self._entries)

    def _cut(self, holder: Holder, reason: str) -> None:
        self.release(holder)
        holder.cut(reason)
