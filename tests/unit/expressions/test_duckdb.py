"""Random well-typed expressions over random rows have the values that DuckDB gives them.

What DESIGN.md lists as different is left out here: each place says so.
"""

import random
import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.expression import parse

Texts = st.SearchStrategy[str]

#: Columns by their names. Integers are HUGEINT, since those of expressions have 128 bits; `k` is for sums with others.
COLUMNS = {
    "h": "HUGEINT",
    "i": "HUGEINT",
    "k": "BIGINT",
    "f": "DOUBLE",
    "g": "DOUBLE",
    "m": "DECIMAL(12,3)",
    "n": "DECIMAL(12,3)",
    "s": "VARCHAR",
    "t": "VARCHAR",
    "b": "BOOLEAN",
    "c": "BOOLEAN",
    "d": "DATE",
    "e": "DATE",
    "u": "TIMESTAMP",
    "w": "TIMESTAMP",
}

#: Few characters, with those of patterns, so that texts often meet; of letters only those whose case is agreed on.
ALPHABET = "abAB %_éÉжЖ🦆'"

#: Values of each type: few, so that they are often equal, and some at the ends. There are no infinities and NaN, which
#: no row has, and no floats whose products are infinite.
VALUES: dict[str, list[Any]] = {
    "HUGEINT": [*range(-3, 4), 7, 100, -(2**127), 2**127 - 1, 2**64, 2**63, -(2**63), 10**20],
    "BIGINT": [*range(-3, 4), 1000, -999],
    "DOUBLE": [0.0, -0.0, 0.1, 0.5, 1.0, 1.25, 1.5, 2.0, 2.5, -2.5, -3.0, 7.0, 1e15, 1e16, 1e-7, 123456.789],
    "DECIMAL(12,3)": [Decimal(units).scaleb(-3) for units in (0, 1000, -1000, 1250, -2500, 2500, 100, 1, 9_999_999)],
    "VARCHAR": ["", "a", "b", "A", "ab", "aB", "abab", " a ", "  ", "%", "_", "a%b", "é", "É", "жЖ", "🦆a", "it's"],
    "BOOLEAN": [True, False],
    "DATE": [date(2024, 2, 29), date(1970, 1, 1), date(2023, 12, 31), date(1969, 12, 28), date(2100, 3, 1)],
    "TIMESTAMP": [
        datetime(year, month, day, hour, minute, 59, fraction)  # noqa: DTZ001  TIMESTAMP has no zone
        for year, month, day, hour, minute, fraction in (
            (2024, 2, 29, 0, 0, 0),
            (2024, 2, 29, 23, 59, 500_000),
            (1970, 1, 1, 0, 0, 1),
            (1969, 12, 31, 12, 30, 999_999),
            (2100, 3, 1, 6, 0, 120_000),
        )
    ],
}


def random_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return rows in which one value in eight is null."""
    draw = random.Random(seed)
    return [
        {name: None if draw.random() < 1 / 8 else draw.choice(VALUES[kind]) for name, kind in COLUMNS.items()}
        for _ in range(count)
    ]


#: The seed is fixed, since there are rows enough for each expression. With it every failure can be repeated.
ROWS = random_rows(60, seed=1)

#: An integer in both languages: DuckDB has 32 bits for a literal unless it is told.
INTEGER = re.compile("#([0-9]+)#")

#: Which operands of these are evaluated is not the same everywhere, so an error in one may not matter on one side.
LAZY = re.compile("AND|OR|CASE|IN |BETWEEN|coalesce|nullif")

#: Errors of DuckDB about the values of a row.
ERRORS = (duckdb.OutOfRangeException, duckdb.ConversionException)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.execute("PRAGMA disable_optimizer")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE rows (number INTEGER, {columns})")
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        for number, row in enumerate(ROWS):
            connection.execute(f"INSERT INTO rows VALUES ({marks})", [number, *row.values()])
        yield connection


def binary(operands: Texts, *operators: str) -> Texts:
    """Return operations without brackets, so that precedence is tested."""
    return st.builds("{} {} {}".format, operands, st.sampled_from(operators), operands)


def call(name: str, *operands: Texts) -> Texts:
    return st.tuples(*operands).map(lambda texts: f"{name}({', '.join(texts)})")


def chosen(operands: Texts) -> Texts:
    """Return expressions that have the value of one of their operands."""
    return st.one_of(
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, st.sampled_from("bc"), operands, operands),
        st.builds("CASE {} WHEN {} THEN {} END".format, operands, operands, operands),
        call("coalesce", operands, operands),
        call("nullif", operands, operands),
        call("greatest", operands, operands, operands),
        call("least", operands, operands),
    )


def nested(operands: Texts, larger: Any) -> Texts:
    """Return operands, and what `larger` makes of them, in brackets or as the argument of a function."""
    return st.recursive(operands, lambda inner: larger(inner) | chosen(inner), max_leaves=5)


def literal(texts: st.SearchStrategy[str]) -> Texts:
    return texts.map(lambda text: "'" + text.replace("'", "''") + "'")


SIZES = st.integers(0, 8).map(str)
POSITIONS = st.integers(1, 8).map(str)

dates = nested(
    st.sampled_from(["d", "e", "DATE '2024-02-29'", "DATE '1970-01-01'"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-"), st.integers(0, 1000)),
        st.builds("CAST({} AS DATE)".format, inner | st.sampled_from(["u", "w"])),
    ),
)
timestamps = nested(
    st.sampled_from(["u", "w", "TIMESTAMP '2024-02-29 23:59:59.5'"]),
    lambda inner: st.one_of(
        call(
            "date_trunc",
            st.sampled_from([f"'{unit}'" for unit in ("year", "quarter", "month", "week", "day", "hour", "second")]),
            inner | dates,
        ),
        st.builds("CAST({} AS TIMESTAMP)".format, inner | dates),
    ),
)
texts = nested(
    st.sampled_from(["s", "t"]) | literal(st.text(ALPHABET, max_size=3)),
    lambda inner: st.one_of(
        binary(inner, "||").map("({})".format),
        call("lower", inner),
        call("upper", inner),
        call("trim", inner),
        call("ltrim", inner, inner),
        call("rtrim", inner, inner),
        call("left", inner, st.integers(-8, 8).map(str)),
        call("right", inner, st.integers(-8, 8).map(str)),
        call("substring", inner, POSITIONS, SIZES),
        call("substr", inner, POSITIONS),
        st.builds("substring({} FROM {} FOR {})".format, inner, POSITIONS, SIZES),
        call("replace", inner, inner, inner),
        call("repeat", inner, st.integers(-1, 3).map(str)),
        call("lpad", inner, SIZES, literal(st.text(ALPHABET, min_size=1, max_size=2))),
        call("rpad", inner, SIZES, literal(st.text(ALPHABET, min_size=1, max_size=2))),
        call("split_part", inner, literal(st.sampled_from(ALPHABET)), POSITIONS),
        call("concat", inner, inner),
        st.builds("({} || {})".format, inner, st.sampled_from(["h", "f", "m", "b", "d", "u"])),
        st.builds("CAST({} AS VARCHAR)".format, inner | st.sampled_from(["h", "f", "m", "b", "d", "u"])),
    ),
)
#: Fields are cast, since DuckDB takes some for floats where the date is a null of no type.
integers = nested(
    st.one_of(
        st.sampled_from(["h", "i"]),
        st.integers(-9, 9).map(lambda number: f"#{number}#" if number >= 0 else f"- #{-number}#"),
        call("length", texts),
        call("strpos", texts, texts),
        st.builds("position({} IN {})".format, texts, texts),
        st.builds(
            "CAST(extract({} FROM {}) AS BIGINT)".format,
            st.sampled_from(["year", "quarter", "month", "week", "isoyear", "day", "doy", "dow", "isodow"]),
            dates | timestamps,
        ),
        st.builds(
            "CAST(extract({} FROM {}) AS BIGINT)".format, st.sampled_from(["hour", "minute", "second"]), timestamps
        ),
        st.builds("({} - {})".format, dates, dates),
        st.builds("CAST('{}' AS BIGINT)".format, st.integers(-9, 9)),
    ),
    lambda inner: st.one_of(
        binary(inner, "+", "-", "*"),
        binary(inner, "+", "-", "*").map("({})".format),
        inner.map("- {}".format),
        # Division by zero is an error here, and null or infinite there.
        st.builds("({} {} nullif({}, #0#))".format, inner, st.sampled_from(["%", "//"]), inner),
        call("abs", inner),
    ),
)
decimals = nested(
    st.sampled_from(
        [
            "m",
            "n",
            "1.25",
            "0.001",
            "(m * n)",
            "(m + k)",
            "(m * 2)",
            "CAST('2.345' AS DECIMAL(6, 2))",
            "CAST(k / 8 AS DECIMAL(9, 2))",
        ]
    ),
    lambda inner: st.one_of(
        binary(inner, "+", "-"),
        binary(inner, "+", "-").map("({})".format),
        inner.map("- {}".format),
        call("abs", inner),
        call("floor", inner),
        call("ceil", inner),
        call("round", inner, st.just("1")),
    ),
)
floats = nested(
    st.sampled_from(
        ["f", "g", "1.5e0", "(f + k)", "(k / 7)", "(m / 3)", "(f + m)", "CAST('1.5' AS DOUBLE)", "(1 / 3)"]
    ),
    lambda inner: st.one_of(
        binary(inner, "+", "-", "*"),
        binary(inner, "+", "-", "*").map("({})".format),
        inner.map("- {}".format),
        st.builds("({} {} nullif({}, 0e0))".format, inner, st.sampled_from(["/", "%"]), inner),
        call("abs", inner),
        call("floor", inner),
        call("ceil", inner),
        call("round", inner),
        call("trunc", inner),
        call("sqrt", call("abs", inner)),
    ),
)


def about(operands: Texts) -> Texts:
    """Return conditions about operands of one type."""
    return st.one_of(
        binary(operands, "=", "<>", "<", "<=", ">", ">="),
        st.builds("{} IS {}NULL".format, operands, st.sampled_from(["", "NOT "])),
        st.builds("{} IS {}DISTINCT FROM {}".format, operands, st.sampled_from(["", "NOT "]), operands),
        st.builds("{} {}BETWEEN {} AND {}".format, operands, st.sampled_from(["", "NOT "]), operands, operands),
        st.builds(
            "{} {}IN ({}, {})".format, operands, st.sampled_from(["", "NOT "]), operands, operands | st.just("NULL")
        ),
    )


PATTERNS = texts | literal(st.text("abA%_é", max_size=5))
conditions = st.recursive(
    st.one_of(
        st.sampled_from(["b", "c", "TRUE", "FALSE", "b = c"]),
        about(integers),
        about(floats),
        about(decimals),
        about(texts),
        about(dates),
        about(timestamps),
        st.sampled_from(
            ["k < f", "k = m", "f >= m", "d < u", "u = d", "f < 1", "m > 1.5", "f = 0.1", "k IN (1, 2.5, f)"]
        ),
        st.builds("{} {}LIKE {}".format, texts, st.sampled_from(["", "NOT "]), PATTERNS),
        st.builds("{} {}ILIKE {}".format, texts, st.sampled_from(["", "NOT "]), PATTERNS),
        st.builds("{} LIKE {} ESCAPE '_'".format, texts, literal(st.text("abA%é", max_size=5))),
        call("starts_with", texts, texts),
    ),
    lambda inner: st.one_of(
        binary(inner, "AND", "OR"),
        inner.map("NOT {}".format),
        inner.map("({})".format),
        st.builds("({}) IS {}".format, inner, st.sampled_from(["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "NULL"])),
        chosen(inner.map("({})".format)),
    ),
    max_leaves=6,
)


def values_of(database: duckdb.DuckDBPyConnection, text: str) -> list[object]:
    """Return the values of an expression for all rows in DuckDB, and the class of the error for those without one."""
    try:
        return [value for (value,) in database.execute(f"SELECT {text} FROM rows ORDER BY number").fetchall()]
    except ERRORS:
        return [value_of(database, f"SELECT {text} FROM rows WHERE number = {number}") for number in range(len(ROWS))]


def value_of(database: duckdb.DuckDBPyConnection, query: str) -> object:
    try:
        found = database.execute(query).fetchone()
    except ERRORS as error:
        return type(error)
    assert found is not None
    return found[0]


def compare(database: duckdb.DuckDBPyConnection, text: str) -> None:
    """Require that an expression has the same values for all rows here and in DuckDB."""
    expression = parse(INTEGER.sub(r"\1", text))
    for row, theirs in zip(ROWS, values_of(database, INTEGER.sub(r"\1::HUGEINT", text)), strict=True):
        try:
            ours: object = expression.evaluate(row)
        except EvaluationError:
            ours = EvaluationError
        if ours is EvaluationError or isinstance(theirs, type):
            assert (ours is EvaluationError and isinstance(theirs, type)) or LAZY.search(text), row
        else:
            assert ours == theirs, row
            assert (type(ours) is bool) == (type(theirs) is bool)


#: Every operation and function at least once, for which random expressions may need many attempts.
EACH = """
h + i; h - i; h * i; h % nullif(i, 0); h // nullif(i, 0); k / nullif(h, 0); - h; h + k * i - k; h - i - k; - h % 7
f + g; f - g; f * g; f / nullif(g, 0); f % nullif(g, 0); - f; m + n; m - n; m * n; m / nullif(n, 0); - m; m % 1.5
f + m; f + k; m + k; f * m; d + 3; 3 + d; d - 3; d - e; s || t; s || k; f || s; m || s; b || s; d || s; u || s
s || NULL; h = i; h <> i; h < i; h <= i; h > i; h >= i; f = g; f < g; m = n; m < n; s = t; s < t; s <= t; b = c
b < c; d = e; d < e; u = w; u < w; d < u; u >= d; k = f; k < f; k = m; m < f; m = f; k = 1; k > 0.5; f = 0.1
f < 1e0; m >= 1.25; 's' > s; b AND c; b OR c; NOT b; b AND NOT c OR b; b = (c OR b); b AND k > 0; NULL AND b
NULL OR b; k > 0 AND m > 0 AND f > 0; h IS NULL; h IS NOT NULL; b IS TRUE; b IS NOT TRUE; b IS FALSE; b IS NOT FALSE
(h = i) IS NULL; h IS DISTINCT FROM i; s IS NOT DISTINCT FROM t; b IS DISTINCT FROM c; b IS DISTINCT FROM NULL
f IS DISTINCT FROM g; k BETWEEN h AND i; k NOT BETWEEN h AND i; s BETWEEN 'a' AND t; k BETWEEN NULL AND 1
d BETWEEN e AND DATE '2024-02-29'; k IN (1, 2, h); k NOT IN (1, 2, 3); k IN (1, NULL); k NOT IN (1, NULL)
s IN ('a', 'ab'); s NOT IN (t, 'a'); f IN (1.5, 2); s LIKE t; s NOT LIKE t; s LIKE 'a%'; s LIKE '%b'; s LIKE '%a%'
s LIKE '_'; s LIKE '_b%'; s ILIKE t; s ILIKE 'A_'; s LIKE 'a!%%' ESCAPE '!'; s LIKE '!_' ESCAPE '!'
s NOT ILIKE '%É%'; s LIKE '%a_a%'; s LIKE ''; CASE WHEN b THEN h WHEN c THEN i ELSE k END
CASE k WHEN 1 THEN s WHEN 2 THEN t END; CASE k WHEN NULL THEN 1 ELSE 2 END; coalesce(h, i, 0); nullif(s, t)
nullif(k, 1); greatest(h, i, k); least(s, t); greatest(d, e); least(f, g); greatest(m, n); abs(h); abs(f); abs(m)
ceil(f); ceil(m); ceiling(f); floor(f); floor(m); trunc(f); trunc(m); round(f); round(m); round(m, 1); round(f, 2)
sign(k); sign(f); sign(m); mod(k, 3); sqrt(abs(f)); sqrt(4); length(s); lower(s); upper(s); strpos(s, t)
position(t IN s); position('' IN s); substring(s, 2, 2); substring(s, 2); substr(s, 1, 0); substring(s FROM 2 FOR 1)
left(s, 1); left(s, -1); right(s, 1); right(s, -1); right(s, 0); trim(s); ltrim(s); rtrim(s); trim(s, 'a')
ltrim(s, 'ab'); rtrim(s, 'b'); replace(s, 'a', t); replace(s, t, 'x'); repeat(s, 2); repeat(s, 0); lpad(s, 3, 'xy')
rpad(s, 3, 'xy'); lpad(s, 0, 'x'); split_part(s, 'a', 1); split_part(s, 'b', 2); split_part(s, 'a', 9)
starts_with(s, t); concat(s, k, t, f); CAST(h AS BIGINT); CAST(f AS BIGINT); CAST(m AS BIGINT); CAST(k AS DOUBLE)
CAST(m AS DOUBLE); CAST('1.5e3' AS DOUBLE); CAST(k AS DECIMAL(5, 1)); CAST(f AS DECIMAL(9, 2))
CAST(m AS DECIMAL(5, 1)); CAST('2.345' AS DECIMAL(9, 2)); CAST(h AS VARCHAR); CAST(f AS VARCHAR); CAST(m AS VARCHAR)
CAST(b AS VARCHAR); CAST(d AS VARCHAR); CAST(u AS VARCHAR); CAST('t' AS BOOLEAN); CAST('FALSE' AS BOOLEAN)
CAST('2024-02-30' AS DATE); CAST(u AS DATE); CAST(d AS TIMESTAMP)
CAST('2024-01-31T12:30:00.123456789Z' AS TIMESTAMP); make_date(2024, 2, 29); make_date(2023, 2, k)
"""

FIELDS = "year quarter month week isoyear day doy dow isodow hour minute second epoch"
UNITS = "year quarter month week day hour minute second"
OF_TIME = [
    *(f"extract({name} FROM {column})" for name in FIELDS.split() for column in "du"),
    *(f"date_trunc('{name}', {column})" for name in UNITS.split() for column in "du"),
]


@pytest.mark.parametrize("text", [*(text.strip() for text in re.split("[;\n]", EACH.strip())), *OF_TIME])
def test_each_operation_has_the_values_of_duckdb(database: duckdb.DuckDBPyConnection, text: str) -> None:
    compare(database, text)


@settings(max_examples=150, deadline=None)
@given(st.one_of(integers, decimals, floats, texts, dates, timestamps, conditions, conditions))
def test_expressions_have_the_values_of_duckdb(database: duckdb.DuckDBPyConnection, text: str) -> None:
    compare(database, text)
