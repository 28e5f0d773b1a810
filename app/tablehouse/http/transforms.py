"""What bodies can be made into on their way to a client, a piece at a time."""

from typing import Protocol

#: Bytes that are given to a transform in one go, which takes it about a millisecond at most.
PIECE_BYTES = 16 * 1024


class Transform(Protocol):
    """Makes one body into another; for one body only."""

    def feed(self, piece: bytes) -> bytes:
        """Return what there is of the new body once the next piece of the old one is known; may be nothing yet."""

    def end(self) -> bytes:
        """Return the rest, once there are no more pieces."""


class Both:
    """Two transforms, one after the other."""

    def __init__(self, first: Transform, second: Transform) -> None:
        self._first = first
        self._second = second

    def feed(self, piece: bytes) -> bytes:
        """Return what both make of the next piece."""
        return self._second.feed(self._first.feed(piece))

    def end(self) -> bytes:
        """Return the rest of both."""
        return self._second.feed(self._first.end()) + self._second.end()
