"""The brokers' time as a worker knows it: what they said, and what has passed since by its own monotonic clock."""

import pytest

from tablehouse.tasks.clock import MeasuredClock

BROKERS_MS = 1_700_000_000_000


class _Clock:
    """Implements Clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.parametrize("zero", [0.0, 12.5, 1_700_003_600.25, -3600.0])
def test_the_time_is_what_a_broker_said_and_what_has_passed_since_the_record_was_sent(zero: float) -> None:
    clock = _Clock(zero)
    brokers = MeasuredClock(clock)
    # Sent at 1 s, stamped somewhere in between, answered at 4 s.
    clock.seconds = zero + 4
    brokers.measured(BROKERS_MS, asked_at=zero + 1)
    assert brokers.now_ms() == BROKERS_MS + 3000
    clock.seconds += 7200
    assert brokers.now_ms() == BROKERS_MS + 3000 + 7_200_000


@pytest.mark.parametrize("stamped_after", [0.0, 0.4, 3.0])
def test_the_time_is_never_behind_the_brokers(stamped_after: float) -> None:
    clock = _Clock(500.0)
    brokers = MeasuredClock(clock)
    clock.seconds += 3.0
    brokers.measured(BROKERS_MS, asked_at=500.0)
    assert brokers.now_ms() >= BROKERS_MS + int((3.0 - stamped_after) * 1000)


def test_the_newest_measurement_counts_whichever_way_the_brokers_clock_was_set() -> None:
    clock = _Clock(0.0)
    brokers = MeasuredClock(clock)
    for set_to in (BROKERS_MS, BROKERS_MS + 3_600_000, BROKERS_MS - 3_600_000):
        brokers.measured(set_to, asked_at=clock.monotonic())
        assert brokers.now_ms() == set_to


def test_nobody_is_told_a_time_that_was_not_measured() -> None:
    with pytest.raises(AssertionError, match="before it was measured"):
        MeasuredClock(_Clock(0.0)).now_ms()
