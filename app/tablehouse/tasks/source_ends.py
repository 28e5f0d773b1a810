"""The freshness of a position, measured against the ends that its source had at known times."""

from collections import deque

from tablehouse.tasks.log import Bounds

#: Seconds between listings of the sources' ends, from which lag and staleness are computed.
SOURCE_ENDS_INTERVAL = 1.0

#: Seconds for which a listed end is used to compute lag. After a broker did not answer, or the process was paused,
#: there may be records that this worker does not know of.
KNOWN_SECONDS = 3 * SOURCE_ENDS_INTERVAL

#: Maximum number of ends that are remembered. Beyond it every second one is dropped, so the staleness of a task that is
#: more than a minute behind has a resolution of two seconds, then four.
REMEMBERED = 64


class SourceEnds:
    """The listed ends of a source partition that the position has not reached yet.

    An end is the high watermark: it includes what an open transaction keeps from being read. If the source is not the
    one that the position refers to, nothing is known until trust() is called.
    """

    def __init__(self) -> None:
        #: When the newest end that the position has reached was listed; None while it has reached none.
        self.reached_at: float | None = None
        self._newest: tuple[Bounds, float] | None = None
        self._ahead: deque[tuple[int, float]] = deque()
        self._held_since: float | None = None
        self._distrusted = False
        #: The last source offset that was applied before this process.
        self._loaded = -1

    def end(self, now: float) -> int | None:
        """Return the newest end; None before the first, and when it is older than KNOWN_SECONDS."""
        return None if self._newest is None or now - self._newest[1] > KNOWN_SECONDS else self._newest[0].high_watermark

    def stable_end(self, now: float) -> int | None:
        """Return the source's stable end when it was last listed; None where end() is None."""
        return None if self._newest is None or now - self._newest[1] > KNOWN_SECONDS else self._newest[0].end

    def held_back(self) -> tuple[Bounds, float] | None:
        """Return the last listing if an open transaction held back records, and for how many seconds it has."""
        if self._newest is None or self._held_since is None:
            return None
        bounds, at = self._newest
        return bounds, at - self._held_since

    def listed(self, bounds: Bounds, at: float, position: int) -> None:
        """Record the bounds of the source; `position` is what was applied before they were requested."""
        if bounds.high_watermark <= max(position, self._loaded):
            # Applied records are missing, so this is not the source that the position refers to.
            self.distrust()
        if self._distrusted:
            return
        if not bounds.held:
            self._held_since = None
        elif self._held_since is None or self._newest is None or self._newest[0].end != bounds.end:
            self._held_since = at
        self._newest = bounds, at
        if len(self._ahead) == REMEMBERED:
            self._ahead = deque(list(self._ahead)[::2])
        self._ahead.append((bounds.high_watermark, at))

    def loaded(self, position: int) -> None:
        """Record the last source offset applied according to the store; ends may have been listed before."""
        self._loaded = position
        if self._newest is not None and self._newest[0].high_watermark <= position:
            self.distrust()

    def applied(self, position: int) -> None:
        """Record the last source offset applied, -1 before the first."""
        while self._ahead and position + 1 >= self._ahead[0][0]:
            self.reached_at = self._ahead.popleft()[1]

    def forget(self) -> None:
        """Forget all figures until the source is listed again."""
        self.reached_at = self._newest = self._held_since = None
        self._ahead.clear()

    def distrust(self) -> None:
        """Forget all figures until trust() is called: the source is not the one that the position refers to."""
        self.forget()
        self._distrusted = True

    def trust(self) -> None:
        """Use listings from now on: the source was compared with what was applied."""
        self._distrusted = False
