"""The machine's clock."""

import time

#: Goes on counting while the machine sleeps, so a lease cannot survive a suspend; where the platform has none, the
#: clock that stops meanwhile has to do.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Implements Clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.clock_gettime(_CLOCK)

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000
