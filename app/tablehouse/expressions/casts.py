"""CAST between the types of SQL."""

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Context, Decimal
from typing import Any

from tablehouse.expressions.arithmetic import MAX_DIGITS, bounded, finite, round_decimal, round_half_away
from tablehouse.expressions.comparison import midnight
from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.kinds import name_of
from tablehouse.expressions.texts import require_size

_MIN_BIGINT, _MAX_BIGINT = -(2**63), 2**63 - 1

#: Characters of a text that is read as a number, since its digits are all looked at.
_MAX_NUMBER_CHARACTERS = 400
#: Digits before or after the point of a decimal with an exponent that is written out.
_MAX_WRITTEN_DIGITS = 400

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|[-+]00(?::?00)?)?)?"
)
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_MICROSECOND_DIGITS = 6

#: Holds every float as an integer.
_WIDE = Context(prec=_MAX_WRITTEN_DIGITS)


def to_text(value: Any) -> str:  # noqa: PLR0911  one for each type
    """Return a value as VARCHAR; raises EvaluationError for arrays and objects."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(bounded(value))
        case float():
            return str(value)
        case Decimal():
            if abs(value.adjusted()) > _MAX_WRITTEN_DIGITS or len(value.as_tuple().digits) > _MAX_WRITTEN_DIGITS:
                raise EvaluationError(f"a number has more than {_MAX_WRITTEN_DIGITS} digits")
            return format(value, "f")
        case datetime():
            text = value.isoformat(" ")
            return text.rstrip("0") if value.microsecond else text
        case date():
            return value.isoformat()
    raise EvaluationError(f"{name_of(value)} cannot become text")


def concatenate(left: object, right: object) -> str:
    """Return `left || right`, of which one at least is text; raises EvaluationError."""
    if type(left) is not str and type(right) is not str:
        raise EvaluationError(f"|| takes a text on one side at least, not {name_of(left)} and {name_of(right)}")
    return concatenate_all(left, right)


def concatenate_all(*values: object) -> str:
    """Return the texts of some values in a row, without those that are null."""
    texts = [to_text(value) for value in values if value is not None]
    require_size(sum(map(len, texts)))
    return "".join(texts)


def to_boolean(value: object) -> bool:
    """Return a value as BOOLEAN."""
    if type(value) is bool:
        return value
    if type(value) is str:
        found = _TRUTHS.get(value.lower())
        if found is None:
            raise EvaluationError("a text is not a BOOLEAN: it has to be true, t, 1, false, f or 0")
        return found
    raise _refused(value, "BOOLEAN")


def to_bigint(value: Any) -> int:
    """Return a value as BIGINT: floats are rounded half to even, decimals half away from zero."""
    match value:
        case bool():
            raise _refused(value, "BIGINT")
        case int():
            found = value
        case float():
            found = round(value)
        case Decimal():
            # A decimal with a large exponent would become an integer of millions of digits.
            found = int(round_decimal(value, 0))
        case str():
            if len(value) > _MAX_NUMBER_CHARACTERS or not _INTEGER.fullmatch(value):
                raise EvaluationError("a text is not an integer")
            found = int(value)
        case _:
            raise _refused(value, "BIGINT")
    if _MIN_BIGINT <= found <= _MAX_BIGINT:
        return found
    raise EvaluationError("a number is beyond the range of BIGINT")


def to_double(value: Any) -> float:
    """Return a value as DOUBLE."""
    match value:
        case bool():
            raise _refused(value, "DOUBLE")
        case int() | float() | Decimal():
            return finite(float(value))
        case str():
            return finite(float(_number_in(value)))
    raise _refused(value, "DOUBLE")


def to_decimal(precision: int, scale: int) -> Callable[[object], Decimal]:
    """Return the cast to DECIMAL(precision, scale), which rounds half away from zero."""

    def cast(value: Any) -> Decimal:
        match value:
            case bool():
                raise _refused(value, "DECIMAL")
            case int():
                return round_decimal(Decimal(bounded(value)), scale, precision)
            case float():
                # The product is rounded to a float first, as DuckDB does: 1.005 becomes 1.00.
                scaled = round_half_away(finite(value * 10.0**scale))
                return round_decimal(Decimal(scaled).scaleb(-scale, _WIDE), scale, precision)
            case Decimal():
                return round_decimal(value, scale, precision)
            case str():
                return round_decimal(Decimal(_number_in(value)), scale, precision)
        raise _refused(value, "DECIMAL")

    return cast


def _number_in(text: str) -> str:
    if len(text) > _MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        raise EvaluationError("a text is not a number")
    return text


def to_date(value: object) -> date:
    """Return a value as DATE; of a timestamp its day."""
    match value:
        case datetime():
            return value.date()
        case date():
            return value
        case str():
            if _DATE.fullmatch(value):
                try:
                    return date.fromisoformat(value)
                except ValueError as error:
                    raise EvaluationError("a text is not a day of the calendar") from error
            if _TIMESTAMP.fullmatch(value):
                raise EvaluationError("a text is a TIMESTAMP and not a DATE: CAST it to TIMESTAMP, and that to DATE")
            raise EvaluationError("a text is not a DATE like 2024-01-31")
    raise _refused(value, "DATE")


def to_timestamp(value: object) -> datetime:
    """Return a value as TIMESTAMP, whose fraction has six digits; a text may name the zone UTC, and no other."""
    match value:
        case date():
            return midnight(value)
        case str():
            match = _TIMESTAMP.fullmatch(value)
            if match is None:
                raise EvaluationError("a text is not a TIMESTAMP like 2024-01-31 12:30:00.5, in UTC")
            fraction = (match[3] or "")[:_MICROSECOND_DIGITS].ljust(_MICROSECOND_DIGITS, "0")
            try:
                return datetime.fromisoformat(f"{match[1]} {match[2] or '00:00:00'}.{fraction}")
            except ValueError as error:
                raise EvaluationError("a text is not a time of the calendar") from error
    raise _refused(value, "TIMESTAMP")


def _refused(value: object, target: str) -> EvaluationError:
    return EvaluationError(f"CAST does not turn {name_of(value)} into {target}")


def decimal_cast(precision: int, scale: int) -> Callable[[object], Decimal] | None:
    """Return the cast to DECIMAL(precision, scale); None if there is no such type."""
    return to_decimal(precision, scale) if 0 < precision <= MAX_DIGITS and scale <= precision else None
