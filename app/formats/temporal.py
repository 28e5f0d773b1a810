"""Decimals, dates and times as the text that rows have them in, and back.

A number of units is counted in 10 ** -digits seconds, and its text has as many digits behind the point:
`2013-01-31`, `05:17:00.123`, `2013-01-31T05:17:00.123456Z`.
"""

import re
from datetime import date, datetime, timedelta

from app.formats.errors import DecodeError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  what has a zone is in UTC, the rest has none
_DAY_SECONDS = 86_400

#: Digits of a decimal, as of an integer in JSON: a scale of millions would be a text of megabytes.
_MOST_DIGITS = 4300
_MOST_BITS = (10**_MOST_DIGITS - 1).bit_length() - 1

_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")
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


def unscaled(text: str, scale: int) -> int:
    """Return what decimal_text makes `text` of; raises DecodeError for other text and for more digits than `scale`."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is None:
        raise DecodeError('it has to be the digits of a decimal in a string, like "12.30"')
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if len(fraction.rstrip("0")) > max(scale, 0):
        raise DecodeError(f"it has more than {max(scale, 0)} digits behind the point")
    digits = int(whole + fraction[: max(scale, 0)].ljust(max(scale, 0), "0"))
    if scale < 0:
        digits, rest = divmod(digits, _second(-scale))
        if rest:
            raise DecodeError(f"it is no multiple of {10**-scale}")
    return -digits if sign else digits


def date_text(days: int) -> str:
    """Return a date by its days since 1970; raises DecodeError."""
    return _at(days * _DAY_SECONDS).date().isoformat()


def days(text: str) -> int:
    """Return what date_text makes `text` of; raises DecodeError."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise DecodeError('it has to be a date, like "2013-01-31"')
    return (found - _EPOCH.date()).days


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


def timestamp_text(units: int, digits: int, zone: str) -> str:
    """Return a timestamp by its units since 1970, with `zone` ("Z" or nothing) behind it; raises DecodeError."""
    seconds, fraction = divmod(units, _second(digits))
    return f"{_at(seconds).isoformat()}.{fraction:0{digits}}{zone}"


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


def _at(seconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise DecodeError("a date is outside of the years 1 to 9999") from error
