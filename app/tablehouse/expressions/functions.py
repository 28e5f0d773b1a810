"""The functions and types of expressions, and what is said of others."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tablehouse.expressions import arithmetic, casts, dates, texts
from tablehouse.expressions.comparison import greatest, least, unless_equal
from tablehouse.expressions.kinds import Kind


@dataclass(frozen=True, slots=True)
class Function:
    """A function of SQL.

    `call` gets arguments of the kinds of `parameters`, of which the first `required` must be given. With `repeated`,
    the only parameter is that of any number of arguments. The result is null if an argument is, unless `takes_nulls`:
    then `call` gets them. With `of_one_kind`, the arguments have to be of one kind, which is that of the result.
    """

    name: str
    parameters: tuple[Kind, ...]
    result: Kind
    call: Callable[..., Any]
    required: int
    repeated: bool = False
    takes_nulls: bool = False
    of_one_kind: bool = False

    @property
    def most(self) -> int | None:
        """Return the maximum number of arguments; None if there is none."""
        return None if self.repeated else len(self.parameters)

    def parameter(self, index: int) -> Kind:
        """Return the kind of an argument."""
        return self.parameters[0] if self.repeated else self.parameters[index]


def _function(
    name: str, parameters: tuple[Kind, ...], result: Kind, call: Callable[..., Any], optional: int = 0
) -> Function:
    return Function(name, parameters, result, call, len(parameters) - optional)


_ANY = Kind.ANY
_TEXT, _INTEGER, _NUMBER = Kind.TEXT, Kind.INTEGER, Kind.NUMBER

_FUNCTIONS = (
    _function("abs", (_NUMBER,), _NUMBER, arithmetic.absolute),
    _function("ceil", (_NUMBER,), _NUMBER, arithmetic.ceiling),
    _function("ceiling", (_NUMBER,), _NUMBER, arithmetic.ceiling),
    _function("exp", (_NUMBER,), _NUMBER, arithmetic.on_float("exp", math.exp)),
    _function("floor", (_NUMBER,), _NUMBER, arithmetic.floor),
    _function("ln", (_NUMBER,), _NUMBER, arithmetic.on_float("ln", math.log)),
    _function("log10", (_NUMBER,), _NUMBER, arithmetic.on_float("log10", math.log10)),
    _function("mod", (_NUMBER, _NUMBER), _NUMBER, arithmetic.remainder),
    _function("power", (_NUMBER, _NUMBER), _NUMBER, arithmetic.on_float("power", math.pow)),
    _function("round", (_NUMBER, _INTEGER), _NUMBER, arithmetic.round_to, optional=1),
    _function("sign", (_NUMBER,), _INTEGER, arithmetic.sign),
    _function("sqrt", (_NUMBER,), _NUMBER, arithmetic.on_float("sqrt", math.sqrt)),
    _function("trunc", (_NUMBER,), _NUMBER, arithmetic.truncate),
    _function("left", (_TEXT, _INTEGER), _TEXT, texts.left),
    _function("length", (_TEXT,), _INTEGER, len),
    _function("lower", (_TEXT,), _TEXT, texts.lower),
    _function("lpad", (_TEXT, _INTEGER, _TEXT), _TEXT, texts.pad_left),
    _function("ltrim", (_TEXT, _TEXT), _TEXT, texts.trim_left, optional=1),
    _function("repeat", (_TEXT, _INTEGER), _TEXT, texts.repeat),
    _function("replace", (_TEXT, _TEXT, _TEXT), _TEXT, texts.replace),
    _function("right", (_TEXT, _INTEGER), _TEXT, texts.right),
    _function("rpad", (_TEXT, _INTEGER, _TEXT), _TEXT, texts.pad_right),
    _function("rtrim", (_TEXT, _TEXT), _TEXT, texts.trim_right, optional=1),
    _function("split_part", (_TEXT, _TEXT, _INTEGER), _TEXT, texts.split_part),
    _function("starts_with", (_TEXT, _TEXT), Kind.BOOLEAN, texts.starts_with),
    _function("strpos", (_TEXT, _TEXT), _INTEGER, texts.position_of),
    _function("substr", (_TEXT, _INTEGER, _INTEGER), _TEXT, texts.substring, optional=1),
    _function("substring", (_TEXT, _INTEGER, _INTEGER), _TEXT, texts.substring, optional=1),
    _function("trim", (_TEXT, _TEXT), _TEXT, texts.trim, optional=1),
    _function("upper", (_TEXT,), _TEXT, texts.upper),
    _function("make_date", (_INTEGER, _INTEGER, _INTEGER), Kind.DATE, dates.make_date),
    Function("concat", (_ANY,), _TEXT, casts.concatenate_all, 1, repeated=True, takes_nulls=True),
    Function("greatest", (_ANY,), _ANY, greatest, 1, repeated=True, takes_nulls=True, of_one_kind=True),
    Function("least", (_ANY,), _ANY, least, 1, repeated=True, takes_nulls=True, of_one_kind=True),
    Function("nullif", (_ANY, _ANY), _ANY, unless_equal, 2, takes_nulls=True, of_one_kind=True),
)

FUNCTIONS: Mapping[str, Function] = {function.name: function for function in _FUNCTIONS}

#: Functions whose arguments are not only values, with their own rules in parsing.py.
SPECIAL = frozenset({"cast", "coalesce", "date_part", "date_trunc", "extract", "position"})

_NAMES = ", ".join(sorted((*FUNCTIONS, *SPECIAL)))


def field_function(name: str, field: str) -> Function | None:
    """Return the function extract, date_part or date_trunc for a field or unit; None if there is no such one."""
    found = (dates.UNITS if name == "date_trunc" else dates.FIELDS).get(field.lower())
    result = Kind.TIMESTAMP if name == "date_trunc" else Kind.NUMBER if field.lower() == "epoch" else Kind.INTEGER
    return None if found is None else _function(name, (Kind.CALENDAR,), result, found)


def fields_of(name: str) -> str:
    """Return the fields or units of extract, date_part or date_trunc for an error."""
    return ", ".join(dates.UNITS if name == "date_trunc" else dates.FIELDS)


@dataclass(frozen=True, slots=True)
class Cast:
    """A type that values are cast to."""

    kind: Kind
    call: Callable[[Any], Any]
    accepts: frozenset[Kind]


_SCALARS = frozenset({Kind.BOOLEAN, Kind.INTEGER, Kind.NUMBER, Kind.TEXT, Kind.DATE, Kind.TIMESTAMP})
_NUMERIC = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.TEXT})
_TEMPORAL = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TEXT})
_TO_TEXT = Cast(Kind.TEXT, casts.to_text, _SCALARS)
_TO_DOUBLE = Cast(Kind.NUMBER, casts.to_double, _NUMERIC)

#: The types without parameters, by their names.
TYPES: Mapping[str, Cast] = {
    "BIGINT": Cast(Kind.INTEGER, casts.to_bigint, _NUMERIC),
    "BOOLEAN": Cast(Kind.BOOLEAN, casts.to_boolean, frozenset({Kind.BOOLEAN, Kind.TEXT})),
    "DATE": Cast(Kind.DATE, casts.to_date, _TEMPORAL),
    "DOUBLE": _TO_DOUBLE,
    "DOUBLE PRECISION": _TO_DOUBLE,
    "TEXT": _TO_TEXT,
    "TIMESTAMP": Cast(Kind.TIMESTAMP, casts.to_timestamp, _TEMPORAL),
    "VARCHAR": _TO_TEXT,
}
DECIMALS = ("DECIMAL", "NUMERIC")
TYPE_NAMES = "BIGINT, BOOLEAN, DATE, DECIMAL(p, s), DOUBLE, TIMESTAMP and VARCHAR"


def decimal_type(precision: int, scale: int) -> Cast | None:
    """Return DECIMAL(precision, scale); None if there is no such type."""
    call = casts.decimal_cast(precision, scale)
    return None if call is None else Cast(Kind.NUMBER, call, _NUMERIC)


_AGGREGATE = "is a function of many rows, and an expression is about one"
_CHANGING = "gives another value each time, and an expression must always give the same one for a row"
_REGULAR = "takes a regular expression, which can take very long: use LIKE, strpos or split_part"
_WINDOW = "is a function of the order of many rows, and an expression is about one"
_QUERY = "belongs to queries, and an expression is about one row"

_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "any_value",
            "array_agg",
            "avg",
            "bool_and",
            "bool_or",
            "count",
            "count_if",
            "first",
            "last",
            "list",
            "max",
            "max_by",
            "median",
            "min",
            "min_by",
            "mode",
            "stddev",
            "string_agg",
            "sum",
            "variance",
        ),
        _AGGREGATE,
    ),
    **dict.fromkeys(
        (
            "clock_timestamp",
            "current_date",
            "current_time",
            "current_timestamp",
            "gen_random_uuid",
            "get_current_timestamp",
            "localtime",
            "localtimestamp",
            "now",
            "random",
            "today",
            "transaction_timestamp",
            "uuid",
        ),
        _CHANGING,
    ),
    **dict.fromkeys(
        (
            "regexp_extract",
            "regexp_full_match",
            "regexp_like",
            "regexp_match",
            "regexp_matches",
            "regexp_replace",
            "regexp_split_to_array",
            "regexp_substr",
        ),
        _REGULAR,
    ),
    **dict.fromkeys(
        ("cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "ntile", "rank", "row_number"), _WINDOW
    ),
    **dict.fromkeys(("all", "any", "exists", "some"), _QUERY),
    "try_cast": "is not supported: use CAST, in a CASE that tests the value before",
    "if": "is not supported: use CASE WHEN ... THEN ... ELSE ... END",
    **{field: f"is not supported: use extract({field} FROM x)" for field in dates.FIELDS},
    **dict.fromkeys(("ifnull", "nvl"), "is not supported: use coalesce"),
    **dict.fromkeys(("char_length", "character_length", "len"), "is not supported: use length"),
    **dict.fromkeys(
        ("contains", "instr"), "is not supported: use x LIKE '%part%', or strpos(x, part) > 0 for a part with % or _"
    ),
    **dict.fromkeys(("ends_with", "endswith"), "is not supported: use x LIKE '%end'"),
    "startswith": "is not supported: use starts_with",
    **dict.fromkeys(("date_diff", "datediff"), "is not supported: subtract two dates, which gives days"),
    **dict.fromkeys(("to_date", "date"), "is not supported: use CAST(x AS DATE)"),
    **dict.fromkeys(("to_timestamp", "timestamp"), "is not supported: use CAST(x AS TIMESTAMP)"),
    "isnull": "is not supported: use IS NULL",
    "concat_ws": "is not supported: use concat or ||",
}

#: Names without parentheses that SQL does not take for columns.
CHANGING_NAMES = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})


def why_not(name: str) -> str:
    """Return why there is no function of a name in lower case, and which functions there are."""
    known = _REFUSED.get(name)
    if known is not None:
        return f"{name} {known}. The functions are {_NAMES}"
    near = get_close_matches(name[:40], (*FUNCTIONS, *SPECIAL), n=1, cutoff=0.75)
    hint = f", did you mean {near[0]}?" if near else "."
    return f"there is no function {name[:40]}{hint} The functions are {_NAMES}"
