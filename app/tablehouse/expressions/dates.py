"""Functions of dates and timestamps, in the calendar of ISO 8601, of the years 1 to 9999 and without a zone."""

from collections.abc import Callable
from datetime import date, datetime, timedelta

from tablehouse.expressions.comparison import midnight
from tablehouse.expressions.errors import EvaluationError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  TIMESTAMP has no zone

_MONTHS_PER_QUARTER = 3


def instant(milliseconds: int | None) -> datetime | None:
    """Return a record's timestamp, in milliseconds since 1970, as a TIMESTAMP in UTC; null if there is none.

    Raises OverflowError beyond the calendar.
    """
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)


def _epoch(value: date) -> float:
    return (midnight(value) - _EPOCH) / timedelta(seconds=1)


#: What extract takes out of a date or timestamp, by the field's name. The week and its year are those of ISO 8601.
FIELDS: dict[str, Callable[[date], int | float]] = {
    "year": lambda value: value.year,
    "quarter": lambda value: (value.month - 1) // _MONTHS_PER_QUARTER + 1,
    "month": lambda value: value.month,
    "week": lambda value: value.isocalendar().week,
    "isoyear": lambda value: value.isocalendar().year,
    "day": lambda value: value.day,
    "doy": lambda value: value.timetuple().tm_yday,
    "dow": lambda value: value.isoweekday() % 7,
    "isodow": lambda value: value.isoweekday(),
    "hour": lambda value: midnight(value).hour,
    "minute": lambda value: midnight(value).minute,
    "second": lambda value: midnight(value).second,
    "epoch": _epoch,
}


def _of_day(value: date, **changes: int) -> datetime:
    """Return the beginning of a value's day, after changes of its month and day."""
    return midnight(date(value.year, value.month, value.day).replace(**changes))


#: What date_trunc returns, by the name of the unit: a timestamp also for a date.
UNITS: dict[str, Callable[[date], datetime]] = {
    "year": lambda value: _of_day(value, month=1, day=1),
    "quarter": lambda value: _of_day(value, month=value.month - (value.month - 1) % _MONTHS_PER_QUARTER, day=1),
    "month": lambda value: _of_day(value, day=1),
    "week": lambda value: _of_day(value) - timedelta(value.weekday()),
    "day": _of_day,
    "hour": lambda value: midnight(value).replace(minute=0, second=0, microsecond=0),
    "minute": lambda value: midnight(value).replace(second=0, microsecond=0),
    "second": lambda value: midnight(value).replace(microsecond=0),
}


def make_date(year: int, month: int, day: int) -> date:
    """Return a day of the calendar; raises EvaluationError for numbers that are none."""
    try:
        return date(year, month, day)
    except ValueError as error:
        raise EvaluationError("make_date takes the numbers of a day of the calendar") from error
