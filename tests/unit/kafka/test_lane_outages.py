from structlog.testing import capture_logs

from tablehouse.kafka.lane_outages import RETRY_SECONDS, LaneOutages
from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import OUTAGE_LASTS_SECONDS

ONE, OTHER = TopicPartition("flights", 3), TopicPartition("flights", 4)
CORRUPT = ValueError("corrupt")


class Clock:
    """A clock that stands still until it is put forward."""

    now = 100.0

    def monotonic(self) -> float:
        """Return seconds."""
        return self.now


def test_a_partition_that_failed_waits_for_a_pause_and_no_other_does() -> None:
    clock = Clock()
    outages = LaneOutages(clock)
    outages.failed(ONE, 7, CORRUPT)

    assert outages.waits(ONE)
    assert not outages.waits(OTHER)
    assert outages.take_due() == []
    clock.now += RETRY_SECONDS
    assert outages.take_due() == [ONE]
    assert not outages.waits(ONE)
    assert outages.take_due() == []


def test_an_outage_is_reported_with_partition_offset_and_cause_and_its_end_with_its_length() -> None:
    clock = Clock()
    outages = LaneOutages(clock)
    with capture_logs() as logged:
        for _ in range(2):
            outages.failed(ONE, 7, CORRUPT)
            clock.now += RETRY_SECONDS
            outages.take_due()
        outages.delivered(OTHER)
        outages.delivered(ONE)
        outages.delivered(ONE)

    assert [line["log_level"] for line in logged] == ["warning", "info"]
    assert (logged[0]["source"], logged[0]["offset"], logged[0]["error"]) == ("flights[3]", 7, "ValueError: corrupt")
    assert (logged[1]["source"], logged[1]["seconds"]) == ("flights[3]", 2 * RETRY_SECONDS)


def test_offsets_that_cannot_be_read_are_told_to_a_lane_that_still_wants_what_it_failed_at() -> None:
    outages = LaneOutages(Clock())
    error = UnreadableBatch(ONE, 9, 12, CORRUPT)
    outages.failed(ONE, 7, error)
    assert [outages.unreadable_at(ONE, offset) for offset in (6, 7, 8, 9)] == [None, error, None, None]
    assert outages.unreadable_at(OTHER, 7) is None
    outages.failed(ONE, 10, error)
    assert outages.unreadable_at(ONE, 10) is error
    outages.failed(ONE, 10, CORRUPT)
    assert outages.unreadable_at(ONE, 10) is None


def test_what_a_worker_cannot_parse_lasts_at_once_and_what_the_broker_refuses_after_a_while() -> None:
    clock = Clock()
    outages = LaneOutages(clock)
    outages.failed(ONE, 7, UnreadableBatch(ONE, 9, 12, CORRUPT))
    outages.failed(OTHER, 7, UnreadableBatch(OTHER, 7, 7, CORRUPT, is_refused=True))

    def lasts() -> list[bool]:
        return [outage.lasts for source in (ONE, OTHER) if (outage := outages.of(source)) is not None]

    assert lasts() == [True, False]
    clock.now += OUTAGE_LASTS_SECONDS
    assert lasts() == [True, True]


def test_another_kind_of_cause_and_the_next_outage_are_reported_at_once() -> None:
    outages = LaneOutages(Clock())
    with capture_logs() as logged:
        outages.failed(ONE, 7, CORRUPT)
        outages.failed(ONE, 7, PermissionError("not allowed"))
        outages.failed(ONE, 7, CORRUPT)
        outages.delivered(ONE)
        outages.failed(ONE, 8, CORRUPT)

    warnings = [line for line in logged if line["log_level"] == "warning"]
    assert [line["error"][:7] for line in warnings] == ["ValueEr", "Permiss", "ValueEr"]


def test_an_outage_of_an_hour_is_reported_a_dozen_times_however_its_words_change() -> None:
    clock = Clock()
    outages = LaneOutages(clock)
    with capture_logs() as logged:
        for second in range(3600):
            outages.failed(ONE, 7, ValueError(f"nothing for {second} s"))
            clock.now += RETRY_SECONDS

    assert 5 < len(logged) < 20
    assert sum(line.get("suppressed", 0) + 1 for line in logged) > 3000


def test_partitions_that_were_taken_away_are_forgotten() -> None:
    outages = LaneOutages(Clock())
    outages.failed(ONE, 7, CORRUPT)
    outages.failed(OTHER, 7, CORRUPT)
    outages.keep({OTHER})

    assert not outages.waits(ONE)
    assert outages.waits(OTHER)
