"""The machine's monotonic clock, and an estimate of the brokers' clock based on it."""

import math
import time

from tablehouse.tasks.log import Clock

#: Counts while the machine sleeps, so that a lease cannot survive a suspend. Platforms without it use one that stops
#: during sleep.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Seconds between two measurements of the brokers' clock.
MEASURING_INTERVAL = 600.0


class SystemClock:
    """Implements Clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.clock_gettime(_CLOCK)


class MeasuredClock:
    """Implements BrokerClock: the last timestamp of a broker, advanced by the monotonic clock.

    The machine's time of day is not used, so it may be wrong or be set at any time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: How far the brokers' time is ahead of the monotonic clock at most, in milliseconds; None before the first
        #: measurement.
        self._ahead_ms: float | None = None

    def measured(self, stamped_ms: int, asked_at: float) -> None:
        """Record the timestamp that a broker gave to a record sent at `asked_at`, a monotonic time, or later."""
        self._ahead_ms = stamped_ms - asked_at * 1000

    def now_ms(self) -> int:
        """Return the brokers' time; right after a measurement it is ahead by at most the measurement's duration."""
        if self._ahead_ms is None:
            raise AssertionError("the brokers' clock is read before it was measured")
        return math.ceil(self._ahead_ms + self._clock.monotonic() * 1000)
