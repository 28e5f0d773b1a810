"""The functions of expressions."""

from datetime import date, datetime
from decimal import Decimal

import pytest

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.expression import parse
from tablehouse.expressions.texts import MAX_TEXT_CHARACTERS


def value(text: str) -> object:
    return parse(text).evaluate({"s": "Straße", "n": None, "long": "x" * MAX_TEXT_CHARACTERS}, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(-5)", 5),
        ("abs(-1.50)", Decimal("1.50")),
        ("abs(-2.5e0)", 2.5),
        ("ceil(1.2)", Decimal(2)),
        ("ceiling(-1.2e0)", -1.0),
        ("floor(-1.2)", Decimal(-2)),
        ("floor(1.8e0)", 1.0),
        ("floor(7)", 7),
        ("trunc(-1.8e0)", -1.0),
        ("round(2.5e0)", 3.0),
        ("round(-2.5e0)", -3.0),
        ("round(0.49999999999999994e0)", 0.0),
        ("round(2.5)", Decimal(3)),
        ("round(2.345, 2)", Decimal("2.35")),
        ("round(2.3, 5)", Decimal("2.3")),
        ("round(2.375e0, 2)", 2.38),
        ("round(1e300, 30)", 1e300),
        ("round(7, 2)", 7),
        ("sign(-3)", -1),
        ("sign(0.0)", 0),
        ("sign(2e0)", 1),
        ("mod(-7, 3)", -1),
        ("sqrt(16)", 4.0),
        ("power(2, 10)", 1024.0),
        ("exp(0)", 1.0),
        ("ln(1)", 0.0),
        ("log10(1000)", 3.0),
    ],
)
def test_functions_of_numbers(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("length(s)", 6),
        ("length('')", 0),
        ("lower('ÄBC')", "äbc"),
        ("upper(s)", "STRAßE"),
        ("upper('abc')", "ABC"),
        ("substring(s, 2, 3)", "tra"),
        ("substr(s, 4)", "aße"),
        ("substring(s FROM 2 FOR 3)", "tra"),
        ("SUBSTRING(s FROM 4)", "aße"),
        ("substring(s, 7, 1)", ""),
        ("left(s, 2)", "St"),
        ("left(s, -2)", "Stra"),
        ("right(s, 2)", "ße"),
        ("right(s, -2)", "raße"),
        ("right(s, 0)", ""),
        ("trim('  a b ')", "a b"),
        ("ltrim('xxa', 'x')", "a"),
        ("rtrim('axy', 'yx')", "a"),
        ("replace(s, 'ß', 'ss')", "Strasse"),
        ("replace(s, '', 'x')", "Straße"),
        ("strpos(s, 'a')", 4),
        ("strpos(s, 'z')", 0),
        ("position('ra' IN s)", 3),
        ("starts_with(s, 'Str')", True),
        ("concat('a', n, 1, TRUE)", "a1true"),
        ("repeat('ab', 3)", "ababab"),
        ("repeat('ab', -3)", ""),
        ("lpad('7', 3, '0')", "007"),
        ("lpad('abcd', 3, '0')", "abc"),
        ("rpad('a', 4, 'xy')", "axyx"),
        ("rpad('abc', -1, 'x')", ""),
        ("split_part('a,b,c', ',', 2)", "b"),
        ("split_part('a,b,c', ',', 4)", ""),
        ("split_part('a', ',', 170141183460469231731687303715884105727)", ""),
        ("lower(n)", None),
        ("substring(s, n)", None),
    ],
)
def test_functions_of_text(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("year", 2024),
        ("quarter", 2),
        ("month", 5),
        ("week", 18),
        ("isoyear", 2024),
        ("day", 5),
        ("doy", 126),
        ("dow", 0),
        ("isodow", 7),
        ("hour", 13),
        ("minute", 14),
        ("second", 15),
        ("epoch", 1714914855.25),
    ],
)
def test_fields_of_a_timestamp(field: str, expected: object) -> None:
    at = "TIMESTAMP '2024-05-05 13:14:15.25'"
    assert value(f"extract({field} FROM {at})") == expected
    assert value(f"date_part('{field.upper()}', {at})") == expected


def test_fields_of_a_date() -> None:
    assert value("extract(hour FROM DATE '2024-05-05')") == 0
    assert value("extract('epoch' FROM DATE '1970-01-02')") == 86400.0


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("year", datetime(2024, 1, 1)),  # noqa: DTZ001
        ("quarter", datetime(2024, 4, 1)),  # noqa: DTZ001
        ("month", datetime(2024, 5, 1)),  # noqa: DTZ001
        ("week", datetime(2024, 4, 29)),  # noqa: DTZ001
        ("day", datetime(2024, 5, 5)),  # noqa: DTZ001
        ("hour", datetime(2024, 5, 5, 13)),  # noqa: DTZ001
        ("minute", datetime(2024, 5, 5, 13, 14)),  # noqa: DTZ001
        ("second", datetime(2024, 5, 5, 13, 14, 15)),  # noqa: DTZ001
    ],
)
def test_timestamps_are_truncated(unit: str, expected: datetime) -> None:
    assert value(f"date_trunc('{unit}', TIMESTAMP '2024-05-05 13:14:15.25')") == expected


def test_dates_are_made_and_truncated() -> None:
    assert value("make_date(2024, 2, 29)") == date(2024, 2, 29)
    assert value("date_trunc('month', DATE '2024-02-29')") == datetime(2024, 2, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sqrt(-1)", "sqrt is not defined for this number"),
        ("ln(0)", "ln is not defined for this number"),
        ("power(-1, 0.5)", "power is not defined for this number"),
        ("power(10, 400)", "a number is out of range"),
        ("round(1, -1)", "round takes 0 to 38 digits after the point"),
        ("substring(s, 0)", "substring begins at position 1 or later"),
        ("substring(s, 1, -1)", "substring takes no negative length"),
        ("lpad(s, 10, '')", "a text cannot be filled up with an empty one"),
        ("split_part(s, '', 1)", "split_part takes no empty separator"),
        ("split_part(s, ',', 0)", "split_part counts parts from 1"),
        ("make_date(2023, 2, 29)", "make_date takes the numbers of a day of the calendar"),
        ("repeat('x', 100001)", "a text has more than 100,000 characters"),
        ("repeat('x', 170141183460469231731687303715884105727)", "a text has more than 100,000 characters"),
        ("lpad(s, 100001, 'x')", "a text has more than 100,000 characters"),
        ("rpad(s, 100001, 'x')", "a text has more than 100,000 characters"),
        ("long || 'x'", "a text has more than 100,000 characters"),
        ("concat(long, 'x')", "a text has more than 100,000 characters"),
        ("replace(long, 'x', 'xx')", "a text has more than 100,000 characters"),
    ],
)
def test_arguments_outside_of_the_domain_are_an_error_of_the_row(text: str, reason: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        value(text)
    assert raised.value.reason == reason


def test_members_may_be_longer_than_the_texts_that_are_made() -> None:
    row = {"s": "x" * (MAX_TEXT_CHARACTERS + 1)}
    assert parse("length(s)").evaluate(row, None) == MAX_TEXT_CHARACTERS + 1
    assert parse("s LIKE '%x'").evaluate(row, None) is True
