from datetime import UTC, datetime, timedelta, timezone
from itertools import islice

from tablehouse.demo import flights
from tablehouse.demo.trickle import todays_flights


def test_every_flight_comes_as_scheduled_and_again_under_the_same_key_when_it_has_left() -> None:
    clock = iter(
        datetime(2026, 5, 4, 23, 58, tzinfo=timezone(timedelta(hours=2))) + timedelta(seconds=10 * step)
        for step in range(1000)
    )

    records = list(islice(todays_flights(lambda: next(clock)), 60))

    first = records[0]
    assert flights.record("flights", first).key == b"UA-1545-2026-05-04-EWR"
    assert (first["sched_dep_time"], first["hour"], first["minute"]) == (2358, 23, 58)
    assert first["time_hour"] == "2026-05-04T21:00:00Z"
    assert first["dep_time"] is None

    (left,) = [row for row in records[1:] if flights.record("flights", row).key == b"UA-1545-2026-05-04-EWR"]
    assert left == first | {"dep_time": 1, "dep_delay": 3}


def test_todays_rows_have_the_members_of_the_data_set() -> None:
    now = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

    assert list(next(todays_flights(lambda: now))) == list(next(flights.rows("flights")))
