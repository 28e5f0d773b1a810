"""How fresh a position is, measured against the ends that its source had at known times."""

from collections import deque

#: Seconds for which a listed end says how far behind a position is, three times what lies between two listings. When
#: the broker does not answer, or the process was paused, there may be records that nobody here has heard of.
KNOWN_SECONDS = 3.0

#: Ends that are remembered. They are listed each second, so a task that is more than a minute behind gets its staleness
#: in steps of the two seconds, then four, that are left between those which stay.
REMEMBERED = 64


class SourceEnds:
    """The ends of a source partition as they were listed, as far as the position has not reached them.

    `reached_at` is when the newest end that the position has reached was listed, on the clock of whoever lists; None
    while it has reached none.
    """

    def __init__(self) -> None:
        self.reached_at: float | None = None
        self._newest: tuple[int, float] | None = None
        self._ahead: deque[tuple[int, float]] = deque()

    def end(self, now: float) -> int | None:
        """Return the newest end; None before the first, and when it is too old to be the end still."""
        if self._newest is None or now - self._newest[1] > KNOWN_SECONDS:
            return None
        return self._newest[0]

    def listed(self, end: int, at: float) -> None:
        """Take note of an end."""
        self._newest = end, at
        if len(self._ahead) == REMEMBERED:
            self._ahead = deque(list(self._ahead)[::2])
        self._ahead.append((end, at))

    def applied(self, position: int) -> None:
        """Take note of the last source offset applied, -1 before the first."""
        while self._ahead and position + 1 >= self._ahead[0][0]:
            self.reached_at = self._ahead.popleft()[1]
