"""The machine's clock, and what it says of the brokers'."""

import math
import time

from tablehouse.tasks.log import Clock

#: Goes on counting while the machine sleeps, so a lease cannot survive a suspend; where the platform has none, the
#: clock that stops meanwhile has to do.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Seconds between two measurements of the brokers' clock.
MEASURING_INTERVAL = 600.0


class SystemClock:
    """Implements Clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.clock_gettime(_CLOCK)


class MeasuredClock:
    """Implements BrokerClock: counts on from the time that a broker told last.

    What the machine takes for the time of day does not matter, nor when it is set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: How far the brokers' time is ahead of the monotonic clock at most, in milliseconds; None before the first.
        self._ahead_ms: float | None = None

    def measured(self, stamped_ms: int, asked_at: float) -> None:
        """Record what a broker stamped a record with that was not sent before `asked_at`, a monotonic time."""
        self._ahead_ms = stamped_ms - asked_at * 1000

    def now_ms(self) -> int:
        """Return the brokers' time; right after a measurement it is ahead by what that took, at most."""
        if self._ahead_ms is None:
            raise AssertionError("the brokers' clock is asked before it was measured")
        return math.ceil(self._ahead_ms + self._clock.monotonic() * 1000)
