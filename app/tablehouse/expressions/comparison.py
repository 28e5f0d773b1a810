"""Comparison of two values that are not null."""

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.kinds import CLASSES, NUMBERS, Kind, name_of

#: Two values of one of these classes can be compared as they are.
_COMPARABLE = frozenset({bool, int, float, Decimal, str, date, datetime})

_CALENDAR = CLASSES[Kind.CALENDAR]


def aligned(left: Any, right: Any) -> tuple[Any, Any]:
    """Return two values as Python compares them; raises EvaluationError if their types do not go together."""
    left_class, right_class = type(left), type(right)
    if left_class is right_class and left_class in _COMPARABLE:
        return left, right
    if left_class in NUMBERS and right_class in NUMBERS:
        # 0.1 as a float is not the decimal 0.1. Integers are compared exactly with both.
        if {left_class, right_class} == {float, Decimal}:
            return float(left), float(right)
        return left, right
    if {left_class, right_class} == {date, datetime}:
        return midnight(left), midnight(right)
    hint = ": CAST the text" if str in (left_class, right_class) and {left_class, right_class} & _CALENDAR else ""
    raise EvaluationError(f"{name_of(left)} cannot be compared with {name_of(right)}{hint}")


def midnight(value: date) -> datetime:
    """Return a timestamp as it is, and a date as the timestamp of its beginning."""
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def compared(left: object, right: object) -> bool:
        return compare(*aligned(left, right))

    return compared


#: By the operator in SQL: the operator in Python, and the function for two values of any types.
COMPARISONS: dict[str, tuple[str, Callable[[object, object], bool]]] = {
    "=": ("==", _comparison(eq)),
    "<>": ("!=", _comparison(ne)),
    "<": ("<", _comparison(lt)),
    "<=": ("<=", _comparison(le)),
    ">": (">", _comparison(gt)),
    ">=": (">=", _comparison(ge)),
}

equal = COMPARISONS["="][1]
_less = COMPARISONS["<"][1]


def distinct(left: object, right: object) -> bool:
    """Return whether two values differ, where null is a value like others."""
    if left is None or right is None:
        return left is not right
    return not equal(left, right)


def unless_equal(left: object, right: object) -> object:
    """Return `left`, or null if both are equal."""
    return None if left is not None and right is not None and equal(left, right) else left


def greatest(*values: object) -> object:
    """Return the greatest value that is not null; null if all are."""
    found: object = None
    for value in values:
        if value is not None and (found is None or _less(found, value)):
            found = value
    return found


def least(*values: object) -> object:
    """Return the least value that is not null; null if all are."""
    found: object = None
    for value in values:
        if value is not None and (found is None or _less(value, found)):
            found = value
    return found
