import structlog
from structlog.testing import capture_logs

from tablehouse.recurring import FIRST_INTERVAL, MAX_INTERVAL, Recurring


class Clock:
    """A clock that stands still until it is put forward."""

    now = 100.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


def test_the_first_line_comes_at_once_later_ones_at_doubling_distances_with_the_number_suppressed() -> None:
    clock = Clock()
    recurring = Recurring(structlog.get_logger("test"), clock)
    with capture_logs() as logged:
        for _ in range(31):
            recurring.warn("a", "no answer", reason="gone")
            clock.now += 1

    assert [line.get("seconds", 0) for line in logged] == [0, 2, 6, 14, 30]
    assert [line.get("suppressed", 0) for line in logged] == [0, 1, 3, 7, 15]
    assert {(line["event"], line["reason"], line["log_level"]) for line in logged} == {("no answer", "gone", "warning")}


def test_the_distance_stops_growing() -> None:
    clock = Clock()
    recurring = Recurring(structlog.get_logger("test"), clock)
    with capture_logs() as logged:
        while clock.now < 100 + 10 * MAX_INTERVAL:
            recurring.warn("a", "no answer")
            clock.now += 1

    last, before = logged[-1]["seconds"], logged[-2]["seconds"]
    assert last - before == MAX_INTERVAL


def test_the_end_is_told_once_and_the_next_trouble_at_once_again() -> None:
    clock = Clock()
    recurring = Recurring(structlog.get_logger("test"), clock)
    with capture_logs() as logged:
        recurring.end("a", "answers again")
        for _ in range(2):
            recurring.warn("a", "no answer")
        clock.now += FIRST_INTERVAL / 2
        recurring.end("a", "answers again", url="x")
        recurring.end("a", "answers again", url="x")
        recurring.warn("a", "no answer")

    assert [line["event"] for line in logged] == ["no answer", "answers again", "no answer"]
    assert (logged[1]["suppressed"], logged[1]["seconds"], logged[1]["url"]) == (1, FIRST_INTERVAL / 2, "x")


def test_subjects_are_apart_and_one_that_was_quiet_for_long_begins_again() -> None:
    clock = Clock()
    recurring = Recurring(structlog.get_logger("test"), clock)
    with capture_logs() as logged:
        for subject in ("a", "b", "a", "b"):
            recurring.error(subject, "no answer", subject=subject)
        clock.now += MAX_INTERVAL + 1
        recurring.warn("a", "no answer", subject="a")

    assert [(line["subject"], line["log_level"]) for line in logged] == [
        ("a", "error"),
        ("b", "error"),
        ("a", "warning"),
    ]
    assert not any("suppressed" in line for line in logged)
