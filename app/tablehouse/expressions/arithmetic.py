"""Arithmetic on integers, decimals and floats.

Integers are exact up to 128 bits, decimals up to 38 digits, and floats are finite. Everything else raises: an
EvaluationError with a reason, or an ArithmeticError, which the compiled expression turns into one.
"""

import math
from collections.abc import Callable
from datetime import date, timedelta
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from operator import add as plus
from operator import mul as times
from operator import sub as minus
from typing import Any

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.kinds import NUMBERS, name_of

Number = int | float | Decimal

MIN_INTEGER, MAX_INTEGER = -(2**127), 2**127 - 1
MAX_DIGITS = 38

#: Raises where a result would have to be rounded. Exponents are bounded, so that no result is long when written out.
EXACT = Context(prec=MAX_DIGITS, Emin=-99, Emax=99, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])


def bounded(value: int) -> int:
    """Return an integer of up to 128 bits; raises EvaluationError beyond them."""
    if MIN_INTEGER <= value <= MAX_INTEGER:
        return value
    raise EvaluationError("an integer has more than 128 bits")


def finite(value: float) -> float:
    """Return a float; raises EvaluationError for infinities and NaN."""
    if math.isfinite(value):
        return value
    raise EvaluationError("a number is beyond the range of DOUBLE")


def _operation(
    symbol: str,
    plain: Callable[[Any, Any], Any],
    exact: Callable[[Any, Any], Decimal],
    dates: Callable[[object, object], object] | None = None,
) -> Callable[[object, object], object]:
    """Return an operation on two values; `dates` is used for operands of which one is not a number."""

    def operate(left: Any, right: Any) -> object:
        kinds = (type(left), type(right))
        if kinds == (int, int):
            return bounded(plain(left, right))
        if kinds[0] not in NUMBERS or kinds[1] not in NUMBERS:
            found = dates(left, right) if dates is not None else None
            if found is None:
                raise EvaluationError(f"{symbol} does not take {name_of(left)} and {name_of(right)}")
            return found
        if float in kinds:
            return finite(plain(float(left), float(right)))
        # Decimals of SQL have no negative zero.
        return EXACT.plus(exact(Decimal(left), Decimal(right)))

    return operate


def _add_days(left: object, right: object) -> object:
    if type(left) is int:
        left, right = right, left
    return left + timedelta(right) if type(left) is date and type(right) is int else None


def _subtract_days(left: object, right: object) -> object:
    if type(left) is date and type(right) is date:
        return (left - right).days
    return left - timedelta(right) if type(left) is date and type(right) is int else None


def _remainder(left: Any, right: Any) -> Any:
    """Return the remainder with the sign of the dividend, as C and SQL have it."""
    _require_divisor(right)
    if type(left) is float:
        return math.fmod(left, right)
    found = abs(left) % abs(right)
    return -found if left < 0 else found


def _exact_remainder(left: Decimal, right: Decimal) -> Decimal:
    _require_divisor(right)
    return EXACT.remainder(left, right)


def _require_divisor(value: Number) -> None:
    if not value:
        raise EvaluationError("division by zero")


add = _operation("+", plus, EXACT.add, _add_days)
subtract = _operation("-", minus, EXACT.subtract, _subtract_days)
multiply = _operation("*", times, EXACT.multiply)
remainder = _operation("%", _remainder, _exact_remainder)


def divide(left: Any, right: Any) -> float:
    """Return the quotient as a float, whatever numbers the operands are."""
    if type(left) not in NUMBERS or type(right) not in NUMBERS:
        raise EvaluationError(f"/ does not take {name_of(left)} and {name_of(right)}")
    _require_divisor(right)
    return finite(float(left) / float(right))


def divide_integers(left: object, right: object) -> int:
    """Return the quotient of two integers without its fraction."""
    if type(left) is not int or type(right) is not int:
        raise EvaluationError(f"// takes two integers, not {_exactly(left)} and {_exactly(right)}")
    _require_divisor(right)
    found = abs(left) // abs(right)
    return bounded(found if (left < 0) == (right < 0) else -found)


def _exactly(value: object) -> str:
    return {int: "an integer", float: "a number with a fraction", Decimal: "a decimal"}.get(type(value), name_of(value))


def negate(value: Any) -> Number:
    """Return the number with the other sign."""
    if type(value) not in NUMBERS:
        raise EvaluationError(f"- does not take {name_of(value)}")
    if type(value) is int:
        return bounded(-value)
    return EXACT.minus(value) if type(value) is Decimal else -value


def absolute(value: Any) -> Number:
    """Return the number without its sign."""
    if type(value) is int:
        return bounded(abs(value))
    return value.copy_abs() if type(value) is Decimal else abs(value)


def _to_whole(on_float: Callable[[float], int], rounding: str) -> Callable[[Any], Number]:
    def whole(value: Any) -> Number:
        if type(value) is int:
            return value
        if type(value) is Decimal:
            return EXACT.plus(value.to_integral_value(rounding, EXACT))
        # An int has no negative zero.
        return math.copysign(float(on_float(value)), value)

    return whole


def round_half_away(value: float) -> int:
    """Return the nearest integer, and of two equally near ones that further from zero."""
    whole = math.trunc(value)
    return whole + int(math.copysign(1, value)) if abs(value - whole) >= 0.5 else whole  # noqa: PLR2004


ceiling = _to_whole(math.ceil, ROUND_CEILING)
floor = _to_whole(math.floor, ROUND_FLOOR)
truncate = _to_whole(math.trunc, ROUND_DOWN)
_round_whole = _to_whole(round_half_away, ROUND_HALF_UP)


def round_to(value: Any, digits: int = 0) -> Number:
    """Return the number rounded to `digits` after the point, halves away from zero; raises EvaluationError."""
    if digits == 0:
        return _round_whole(value)
    if not 0 < digits <= MAX_DIGITS:
        raise EvaluationError(f"round takes 0 to {MAX_DIGITS} digits after the point")
    if type(value) is int:
        return value
    if type(value) is Decimal:
        return round_decimal(value, digits) if -digits > _exponent(value) else value
    scaled = value * 10.0**digits
    return round_half_away(scaled) / 10.0**digits if math.isfinite(scaled) else value


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def round_decimal(value: Decimal, scale: int, precision: int = MAX_DIGITS) -> Decimal:
    """Return a decimal rounded to `scale` digits, halves away from zero; raises EvaluationError if it is too long."""
    if value and value.adjusted() + 1 > precision - scale:
        raise EvaluationError(f"a number has more digits than DECIMAL({precision}, {scale})")
    return EXACT.plus(value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, Context(prec=precision)))


def sign(value: Any) -> int:
    """Return -1, 0 or 1."""
    return int(value > 0) - int(value < 0)


def on_float(name: str, function: Callable[..., float]) -> Callable[..., float]:
    """Return a function of floats for numbers of any kind; raises EvaluationError outside of its domain."""

    def apply(*values: Any) -> float:
        try:
            return finite(function(*map(float, values)))
        except ValueError as error:
            raise EvaluationError(f"{name} is not defined for this number") from error

    return apply
