"""The types of SQL that values have, as far as they are known before there is a row."""

import enum
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal


class Kind(enum.Enum):
    """The type of a value; its own value is its name in errors.

    ANY is a member of a row, which may turn out to be of any type. An INTEGER is also a NUMBER; the other numbers are
    Decimal and float. CALENDAR is only the type of a parameter: a DATE or a TIMESTAMP.
    """

    ANY = "a value"
    NULL = "null"
    BOOLEAN = "a truth value"
    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "text"
    DATE = "a date"
    TIMESTAMP = "a timestamp"
    CALENDAR = "a date or timestamp"


#: The classes of Python of values that are used where a kind is required. A datetime is a date and a bool an int to
#: isinstance, so classes are compared.
CLASSES: dict[Kind, frozenset[type]] = {
    Kind.BOOLEAN: frozenset({bool}),
    Kind.INTEGER: frozenset({int}),
    Kind.NUMBER: frozenset({int, float, Decimal}),
    Kind.TEXT: frozenset({str}),
    Kind.DATE: frozenset({date}),
    Kind.TIMESTAMP: frozenset({datetime}),
    Kind.CALENDAR: frozenset({date, datetime}),
}

NUMBERS = CLASSES[Kind.NUMBER]

_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    str: "text",
    date: "a date",
    datetime: "a timestamp",
    list: "an array",
    dict: "an object",
}

_BROADER = {Kind.INTEGER: Kind.NUMBER, Kind.DATE: Kind.CALENDAR, Kind.TIMESTAMP: Kind.CALENDAR}


def name_of(value: object) -> str:
    """Return the name of a value's type for errors, which never show the value."""
    return _NAMES.get(type(value), "a value of an unknown type")


def family(kind: Kind) -> Kind:
    """Return the kind that stands for all kinds that can be compared with this one."""
    return _BROADER.get(kind, kind)


def accepts(parameter: Kind, argument: Kind) -> bool:
    """Return whether an argument may turn out to be of the kind of a parameter; null is accepted everywhere."""
    if argument in (Kind.ANY, Kind.NULL) or parameter in (Kind.ANY, argument, family(argument)):
        return True
    return parameter is Kind.INTEGER and argument is Kind.NUMBER


def common(kinds: Iterable[Kind]) -> Kind | None:
    """Return the kind of a value that has one of some kinds; None if they do not go together."""
    found = {kind for kind in kinds if kind is not Kind.NULL}
    known = found - {Kind.ANY}
    if known == {Kind.INTEGER, Kind.NUMBER}:
        known = {Kind.NUMBER}
    if len(known) > 1:
        return None
    if len(found) > len(known):
        return Kind.ANY
    return known.pop() if known else Kind.NULL
