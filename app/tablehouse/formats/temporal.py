"""Converts decimals, dates and times to the text that rows show, and back.

Units are 10 ** -digits seconds, and the text has as many digits after the point: `2013-01-31`, `05:17:00.123`,
`2013-01-31T05:17:00.123456Z`. Years are written as by Java's java.time: with at least four digits, with a plus sign if
there are more, and 0000 before 0001: `+10000-01-01`, `-0001-12-31`.
"""

import re
from contextlib import suppress
from datetime import MAXYEAR, date, datetime, timedelta

from tablehouse.formats.errors import DecodeError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  values with a zone are in UTC, others have no zone
_DAY_SECONDS = 86_400

#: The calendar repeats after this many years and days.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097

#: Maximum digits of a decimal, as of an integer in JSON: a scale of millions would make a text of megabytes.
_MAX_DIGITS = 4300
_MAX_BITS = (10**_MAX_DIGITS - 1).bit_length() - 1

#: Maximum characters of a decimal as text: all digits, zeros for a scale, a sign and a point.
_MAX_DECIMAL_CHARACTERS = 2 * _MAX_DIGITS + 2

#: A decimal as a number in JSON, which may have an exponent.
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]{1,9}))?")
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_DATE = re.compile(r"([-+]?[0-9]{4,10})(-[0-9]{2}-[0-9]{2})")
_DURATION = re.compile(r"(-?)([0-9]{2,13}):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?")
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?")


def decimal_text(unscaled: int, scale: int) -> str:
    """Return the digits of unscaled * 10 ** -scale, with `scale` digits after the point; raises DecodeError."""
    if unscaled.bit_length() > _MAX_BITS or abs(scale) > _MAX_DIGITS:
        raise DecodeError(f"a decimal has more than {_MAX_DIGITS} digits")
    sign, digits = "-" if unscaled < 0 else "", str(abs(unscaled))
    if scale <= 0:
        return sign + digits + "0" * (-scale if unscaled else 0)
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def plain_decimal(text: str) -> str:
    """Return a number in JSON without an exponent and with all its digits; raises DecodeError."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise DecodeError("it has to be a number, with an exponent of at most 9 digits")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    if len(whole) + len(fraction) > _MAX_DIGITS:
        raise DecodeError(f"a decimal has more than {_MAX_DIGITS} digits")
    return sign + decimal_text(int(whole + fraction), len(fraction) - int(exponent))


def unscaled(text: str, scale: int) -> int:
    """Return the unscaled value of a text of decimal_text; raises DecodeError for other text and beyond the scale."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _MAX_DECIMAL_CHARACTERS else None
    if match is None:
        raise DecodeError('it has to be a decimal in a string, like "12.30"')
    sign, whole, fraction = match[1], match[2], match[3] or ""
    places, zeros = max(scale, 0), max(-scale, 0)
    if len(fraction.rstrip("0")) > places:
        raise DecodeError(f"it has more than {places} digits after the point")
    # A schema's scale may be any number, so it is checked before a text of that length is made.
    if abs(scale) > _MAX_DIGITS:
        raise DecodeError(f"a decimal has more than {_MAX_DIGITS} digits")
    digits = (whole + fraction[:places].ljust(places, "0")).lstrip("0")
    if digits and not digits.endswith("0" * zeros):
        raise DecodeError(f"it does not end with {zeros} zeros, as its scale of {scale} requires")
    digits = digits[: len(digits) - zeros] if digits else "0"
    if len(digits) > _MAX_DIGITS:
        raise DecodeError(f"a decimal has more than {_MAX_DIGITS} digits")
    return -int(digits) if sign else int(digits)


def date_text(days: int) -> str:
    """Return the text of a date, given as days since 1970."""
    try:
        return (_EPOCH + timedelta(days)).date().isoformat()
    except OverflowError:
        return _far_date(days)


def _far_date(days: int) -> str:
    """Return the text of a date outside of the years 1 to 9999, which Python's dates do not have."""
    cycles, days = divmod(days, _CYCLE_DAYS)
    found = _EPOCH + timedelta(days)
    year = found.year + cycles * _CYCLE_YEARS
    sign = "-" if year < 0 else "+" if year > MAXYEAR else ""
    return f"{sign}{abs(year):04}{found:-%m-%d}"


def days(text: str) -> int:
    """Return the days since 1970 of a text of date_text; raises DecodeError."""
    match = _DATE.fullmatch(text)
    if match is not None:
        cycles, year = divmod(int(match[1]) - _EPOCH.year, _CYCLE_YEARS)
        with suppress(ValueError):
            day = date.fromisoformat(f"{_EPOCH.year + year}{match[2]}")
            found = (day - _EPOCH.date()).days + cycles * _CYCLE_DAYS
            if date_text(found) == text:
                return found
    raise DecodeError('it has to be a date, like "2013-01-31"')


def time_text(units: int, digits: int) -> str:
    """Return the text of a time of day; 24:00:00, the end of a day, is valid in PostgreSQL. Raises DecodeError."""
    if not 0 <= units <= _DAY_SECONDS * _second(digits):
        raise DecodeError("it is no time of a day")
    seconds, fraction = divmod(units, _second(digits))
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def time_units(text: str, digits: int) -> int:
    """Return the units of a text of time_text; raises DecodeError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise DecodeError('it has to be a time of day, like "05:17:00.123"')
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
    units = seconds * _second(digits) + _fraction(match[4] or "", digits)
    if units > _DAY_SECONDS * _second(digits):
        raise DecodeError("it is no time of a day")
    return units


def duration_text(units: int, digits: int) -> str:
    """Return the text of a time that may be negative or longer than a day, as MySQL writes it: `-26:30:00.000`."""
    seconds, fraction = divmod(abs(units), _second(digits))
    sign = "-" if units < 0 else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def duration_units(text: str, digits: int) -> int:
    """Return the units of a text of duration_text; raises DecodeError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise DecodeError('it has to be a time, like "05:17:00.123", "26:30:00" or "-01:00:00"')
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    units = seconds * _second(digits) + _fraction(match[5] or "", digits)
    return -units if match[1] else units


def timestamp_text(units: int, digits: int, zone: str) -> str:
    """Return the text of a timestamp, given as units since 1970, followed by `zone` ("Z" or empty)."""
    seconds, fraction = divmod(units, _second(digits))
    try:
        at = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        days, seconds = divmod(seconds, _DAY_SECONDS)
        at = f"{_far_date(days)}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{at}.{fraction:0{digits}}{zone}"


def timestamp_units(text: str, digits: int, zone: str) -> int:
    """Return the units since 1970 of a text of timestamp_text; raises DecodeError."""
    day, _, time = text.removesuffix(zone).partition("T")
    if not text.endswith(zone) or not time:
        raise DecodeError(f'it has to be a timestamp, like "2013-01-31T05:17:00.123{zone}"')
    return days(day) * _DAY_SECONDS * _second(digits) + time_units(time, digits)


def _second(digits: int) -> int:
    """Return the number of units in a second."""
    return int(10**digits)


def _fraction(text: str, digits: int) -> int:
    if len(text.rstrip("0")) > digits:
        raise DecodeError(f"it has more than {digits} digits after the point")
    return int(text[:digits].ljust(digits, "0") or "0")
