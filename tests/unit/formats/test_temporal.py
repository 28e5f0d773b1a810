"""Decimals, dates and times: texts that lose nothing, and bounds on what a few bytes can ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.temporal import (
    date_text,
    days,
    decimal_text,
    duration_text,
    duration_units,
    plain_decimal,
    time_text,
    time_units,
    timestamp_text,
    timestamp_units,
    unscaled,
)


@given(st.integers(-(10**40), 10**40), st.integers(-5, 45))
def test_decimals_come_back_with_every_digit(number: int, scale: int) -> None:
    assert unscaled(decimal_text(number, scale), scale) == number


@pytest.mark.parametrize(
    ("number", "scale", "text"),
    [(0, 0, "0"), (0, 2, "0.00"), (-5, 2, "-0.05"), (-1230, 2, "-12.30"), (12, -3, "12000"), (0, -3, "0")],
)
def test_a_decimal_has_as_many_digits_behind_the_point_as_its_scale(number: int, scale: int, text: str) -> None:
    assert decimal_text(number, scale) == text


@pytest.mark.parametrize(("exponent", "scale"), [(1, 2**31 - 1), (1, -(2**31)), (5000, 0)])
def test_a_decimal_of_too_many_digits_is_refused(exponent: int, scale: int) -> None:
    with pytest.raises(DecodeError, match="more than 4300 digits"):
        decimal_text(10**exponent, scale)


@pytest.mark.parametrize(
    ("text", "scale"),
    [("1.234", 2), ("1", -1), ("", 2), ("+1", 2), ("01", 2), ("1.", 2), (".5", 2), ("1e3", 2), ("٣", 2), ("1\n", 2)],
)
def test_what_is_no_decimal_of_the_scale_is_refused(text: str, scale: int) -> None:
    with pytest.raises(DecodeError):
        unscaled(text, scale)


@pytest.mark.parametrize(
    ("number", "scale"), [(1, 4300), (-(10**4298), 4300), (0, 4300), (7, -4300), (-(10**4299), -4300), (0, -4300)]
)
def test_the_longest_decimals_come_back(number: int, scale: int) -> None:
    assert unscaled(decimal_text(number, scale), scale) == number


@pytest.mark.parametrize("scale", [4300, 4301, 10**6, 10**12, -1, -4300, -4301, -(10**6), -(10**12)])
def test_a_scale_of_any_size_is_refused_at_once(scale: int) -> None:
    for text in ("1.0", "12345"):
        with pytest.raises(DecodeError):
            unscaled(text, scale)


def test_digits_that_are_zeros_need_no_place_in_the_scale() -> None:
    assert unscaled("1.2300", 2) == 123
    assert unscaled("1", 2) == 100
    assert unscaled("1200", -2) == 12


@given(st.integers(-719_162, 2_932_896) | st.integers(-(2**63), 2**63 - 1))
def test_dates_come_back(number: int) -> None:
    if abs(number) < 2**40:
        assert days(date_text(number)) == number


@given(st.integers(-719_162, 2_932_896))
def test_a_date_of_far_away_has_the_day_that_the_calendar_repeats(number: int) -> None:
    near = date_text(number)
    for cycles in (25, 1_000_000, -25, -1_000_000):
        far = date_text(number + cycles * 146_097)
        assert far[-6:] == near[-6:]
        assert int(far[:-6]) == int(near[:4]) + 400 * cycles
        assert days(far) == number + cycles * 146_097


#: As java.time.LocalDate.ofEpochDay and Instant.ofEpochMilli write them.
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2_932_896, "9999-12-31"),
        (2_932_897, "+10000-01-01"),
        (-719_162, "0001-01-01"),
        (-719_163, "0000-12-31"),
        (-719_528, "0000-01-01"),
        (-719_529, "-0001-12-31"),
        (2**31 - 1, "+5881580-07-11"),
        (-(2**31), "-5877641-06-23"),
    ],
)
def test_a_date_outside_of_the_years_1_to_9999_is_written_as_java_writes_it(number: int, text: str) -> None:
    assert date_text(number) == text
    assert days(text) == number
    for digits, zone in ((3, "Z"), (6, ""), (9, "Z")):
        stamp = f"{text}T23:59:59.{'9' * digits}{zone}"
        units = (number + 1) * 86_400 * 10**digits - 1
        assert timestamp_text(units, digits, zone) == stamp
        assert timestamp_units(stamp, digits, zone) == units


@pytest.mark.parametrize(
    "text",
    ["+2013-01-31", "02013-01-31", "+010000-01-01", "10000-01-01", "-0000-01-01", "2013-02-30", "2013-1-31", "x"],
)
def test_a_date_that_java_would_write_otherwise_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="it has to be a date"):
        days(text)


@given(st.sampled_from([3, 6, 9]), st.integers(-(2**63), 2**63 - 1))
def test_times_of_any_length_come_back(digits: int, units: int) -> None:
    assert duration_units(duration_text(units, digits), digits) == units


@pytest.mark.parametrize("text", ["1:00:00", "00:60:00", "00:00", "+01:00:00", "01:00:00.1234", "--01:00:00", "1e3"])
def test_what_is_no_time_of_any_length_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        duration_units(text, 3)


@pytest.mark.parametrize("text", ["1E+5000", "1E-5000", "1E9999999999", "1" * 4301, "+1", "1.", "1 "])
def test_a_number_that_is_no_decimal_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        plain_decimal(text)


@given(st.sampled_from([3, 6, 9]), st.data())
def test_times_and_timestamps_come_back(digits: int, data: st.DataObject) -> None:
    units = data.draw(st.integers(0, 86_400 * 10**digits))
    assert time_units(time_text(units, digits), digits) == units
    units = data.draw(st.integers(-62_135_596_800 * 10**digits, 253_402_300_800 * 10**digits - 1))
    for zone in ("Z", ""):
        assert timestamp_units(timestamp_text(units, digits, zone), digits, zone) == units


@pytest.mark.parametrize(
    ("units", "digits"),
    [
        (-1, 3),
        (86_400_001, 3),
        (2**63 - 1, 9),
    ],
)
def test_what_no_day_has_is_no_time_of_one(units: int, digits: int) -> None:
    with pytest.raises(DecodeError, match="no time of a day"):
        time_text(units, digits)
