"""Decimals, dates and times: texts that lose nothing, and bounds on what a few bytes can ask for."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats.errors import DecodeError
from app.formats.temporal import (
    date_text,
    days,
    decimal_text,
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


def test_digits_that_are_zeros_need_no_place_in_the_scale() -> None:
    assert unscaled("1.2300", 2) == 123
    assert unscaled("1", 2) == 100
    assert unscaled("1200", -2) == 12


@given(st.integers(-719_162, 2_932_896))
def test_dates_come_back(number: int) -> None:
    assert days(date_text(number)) == number


@given(st.sampled_from([3, 6, 9]), st.data())
def test_times_and_timestamps_come_back(digits: int, data: st.DataObject) -> None:
    units = data.draw(st.integers(0, 86_400 * 10**digits))
    assert time_units(time_text(units, digits), digits) == units
    units = data.draw(st.integers(-62_135_596_800 * 10**digits, 253_402_300_800 * 10**digits - 1))
    for zone in ("Z", ""):
        assert timestamp_units(timestamp_text(units, digits, zone), digits, zone) == units


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (date_text, (2_932_897,)),
        (date_text, (-719_163,)),
        (date_text, (2**62,)),
        (time_text, (-1, 3)),
        (time_text, (86_400_001, 3)),
        (timestamp_text, (2**63 - 1, 3, "Z")),
        (timestamp_text, (-(2**63), 6, "")),
    ],
)
def test_what_no_calendar_has_is_refused(make: Callable[..., str], given: tuple[Any, ...]) -> None:
    with pytest.raises(DecodeError, match=r"outside of the years 1 to 9999|no time of a day"):
        make(*given)
