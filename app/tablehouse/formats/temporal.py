"""Decimals, dates and times as the text that rows have them in, and back.

A number of units is counted in 10 ** -digits seconds, and its text has as many digits behind the point:
`2013-01-31`, `05:17:00.123`, `2013-01-31T05:17:00.123456Z`. Years are written as Java's java.time does: with four
digits at least, with a plus sign where there are more, and 0000 before 0001: `+10000-01-01`, `-0001-12-31`.
"""

import re
from contextlib import suppress
from datetime import MAXYEAR, date, datetime, timedelta

from tablehouse.formats.errors import DecodeError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  what has a zone is in UTC, the rest has none
_DAY_SECONDS = 86_400

#: Years and days after which the calendar repeats itself.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097

#: Digits of a decimal, as of an integer in JSON: a scale of millions would be a text of megabytes.
_MOST_DIGITS = 4300
_MOST_BITS = (10**_MOST_DIGITS - 1).bit_length() - 1

#: Characters of the longest text of one: all digits, zeros for a scale, a sign and a point.
_LONGEST_DECIMAL = 2 * _MOST_DIGITS + 2

#: Of decimals, numbers in JSON, with an exponent as well.
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]{1,9}))?")
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_DATE = re.compile(r"([-+]?[0-9]{4,10})(-[0-9]{2}-[0-9]{2})")
_DURATION = re.compile(r"(-?)([0-9]{2,13}):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?")
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?")


def decimal_text(unscaled: int, scale: int) -> str:
    """Return the digits of unscaled * 10 ** -scale, all `scale` of them behind the point; raises DecodeError."""
    if unscaled.bit_length() > _MOST_BITS or abs(scale) > _MOST_DIGITS:
        raise DecodeError(f"a decimal has more than {_MOST_DIGITS} digits")
    sign, digits = "-" if unscaled < 0 else "", str(abs(unscaled))
    if scale <= 0:
        return sign + digits + "0" * (-scale if unscaled else 0)
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def plain_decimal(text: str) -> str:
    """Return a number in JSON without its exponent, all its digits kept; raises DecodeError."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise DecodeError("it has to be a number, with an exponent of at most 9 digits")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    if len(whole) + len(fraction) > _MOST_DIGITS:
        raise DecodeError(f"a decimal has more than {_MOST_DIGITS} digits")
    return sign + decimal_text(int(whole + fraction), len(fraction) - int(exponent))


def unscaled(text: str, scale: int) -> int:
    """Return what decimal_text makes `text` of; raises DecodeError for other text and for more digits than `scale`."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _LONGEST_DECIMAL else None
    if match is None:
        raise DecodeError('it has to be the digits of a decimal in a string, like "12.30"')
    sign, whole, fraction = match[1], match[2], match[3] or ""
    places, zeros = max(scale, 0), max(-scale, 0)
    if len(fraction.rstrip("0")) > places:
        raise DecodeError(f"it has more than {places} digits behind the point")
    # A schema's scale may be any number, so nothing is made of that length before it is known to be short.
    if abs(scale) > _MOST_DIGITS:
        raise DecodeError(f"a decimal has more than {_MOST_DIGITS} digits")
    digits = (whole + fraction[:places].ljust(places, "0")).lstrip("0")
    if digits and not digits.endswith("0" * zeros):
        raise DecodeError(f"it does not end with {zeros} zeros, as its scale of {scale} demands")
    digits = digits[: len(digits) - zeros] if digits else "0"
    if len(digits) > _MOST_DIGITS:
        raise DecodeError(f"a decimal has more than {_MOST_DIGITS} digits")
    return -int(digits) if sign else int(digits)


def date_text(days: int) -> str:
    """Return a date by its days since 1970."""
    try:
        return (_EPOCH + timedelta(days)).date().isoformat()
    except OverflowError:
        return _far_date(days)


def _far_date(days: int) -> str:
    """Return a date outside of the years 1 to 9999, which are all that Python's have."""
    cycles, days = divmod(days, _CYCLE_DAYS)
    found = _EPOCH + timedelta(days)
    year = found.year + cycles * _CYCLE_YEARS
    sign = "-" if year < 0 else "+" if year > MAXYEAR else ""
    return f"{sign}{abs(year):04}{found:-%m-%d}"


def days(text: str) -> int:
    """Return what date_text makes `text` of; raises DecodeError."""
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
    """Return a time of day; 24:00:00 is the end of a day, and a time that PostgreSQL has. Raises DecodeError."""
    if not 0 <= units <= _DAY_SECONDS * _second(digits):
        raise DecodeError("it is no time of a day")
    seconds, fraction = divmod(units, _second(digits))
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def time_units(text: str, digits: int) -> int:
    """Return what time_text makes `text` of; raises DecodeError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise DecodeError('it has to be a time of day, like "05:17:00.123"')
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
    units = seconds * _second(digits) + _fraction(match[4] or "", digits)
    if units > _DAY_SECONDS * _second(digits):
        raise DecodeError("it is no time of a day")
    return units


def duration_text(units: int, digits: int) -> str:
    """Return a time that may be negative, or longer than a day, as MySQL writes it: `-26:30:00.000`."""
    seconds, fraction = divmod(abs(units), _second(digits))
    sign = "-" if units < 0 else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def duration_units(text: str, digits: int) -> int:
    """Return what duration_text makes `text` of; raises DecodeError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise DecodeError('it has to be a time, like "05:17:00.123", "26:30:00" or "-01:00:00"')
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    units = seconds * _second(digits) + _fraction(match[5] or "", digits)
    return -units if match[1] else units


def timestamp_text(units: int, digits: int, zone: str) -> str:
    """Return a timestamp by its units since 1970, with `zone` ("Z" or nothing) behind it."""
    seconds, fraction = divmod(units, _second(digits))
    try:
        at = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        days, seconds = divmod(seconds, _DAY_SECONDS)
        at = f"{_far_date(days)}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{at}.{fraction:0{digits}}{zone}"


def timestamp_units(text: str, digits: int, zone: str) -> int:
    """Return what timestamp_text makes `text` of; raises DecodeError."""
    day, _, time = text.removesuffix(zone).partition("T")
    if not text.endswith(zone) or not time:
        raise DecodeError(f'it has to be a timestamp, like "2013-01-31T05:17:00.123{zone}"')
    return days(day) * _DAY_SECONDS * _second(digits) + time_units(time, digits)


def _second(digits: int) -> int:
    """Return the units that a second has."""
    return int(10**digits)


def _fraction(text: str, digits: int) -> int:
    if len(text.rstrip("0")) > digits:
        raise DecodeError(f"it has more than {digits} digits behind the point")
    return int(text[:digits].ljust(digits, "0") or "0")
