"""CAST, and the bounds on what a few characters can ask for."""

from datetime import date, datetime
from decimal import Decimal

import pytest

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.expression import parse

ROW = {
    "big": 2**100,
    "huge": Decimal("1e999999"),
    "tiny": Decimal("1e-999999"),
    "digits": "9" * 500,
    "list": [],
    "f": 1e300,
    "day": date(2024, 1, 31),
    "at": datetime(2024, 1, 31, 12, 30, 0, 120_000),  # noqa: DTZ001
}


def cast(text: str, target: str) -> object:
    return parse(f"CAST({text} AS {target})").evaluate(ROW, None)


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("'42'", "BIGINT", 42),
        ("'-007'", "bigint", -7),
        ("2.5", "BIGINT", 3),
        ("-2.5", "BIGINT", -3),
        ("2.5e0", "BIGINT", 2),
        ("3.5e0", "BIGINT", 4),
        ("42", "DOUBLE", 42.0),
        ("'1.5e3'", "DOUBLE PRECISION", 1500.0),
        ("'.5'", "DOUBLE", 0.5),
        ("0.1", "DOUBLE", 0.1),
        ("'12.345'", "DECIMAL(10, 2)", Decimal("12.35")),
        ("12.345", "NUMERIC(10,2)", Decimal("12.35")),
        ("7", "DECIMAL(5, 1)", Decimal("7.0")),
        ("7.6", "DECIMAL(3)", Decimal(8)),
        ("0.1e0", "DECIMAL(20, 18)", Decimal("0.100000000000000000")),
        ("2.675e0", "DECIMAL(5, 2)", Decimal("2.68")),
        ("1.005e0", "DECIMAL(5, 2)", Decimal("1.00")),
        ("-0.001e0", "DECIMAL(5, 2)", Decimal("0.00")),
        ("'1e2'", "DECIMAL(5, 1)", Decimal("100.0")),
        ("TRUE", "VARCHAR", "true"),
        ("1", "TEXT", "1"),
        ("1.50", "VARCHAR", "1.50"),
        ("1e0", "VARCHAR", "1.0"),
        ("1e16", "VARCHAR", "1e+16"),
        ("day", "VARCHAR", "2024-01-31"),
        ("at", "VARCHAR", "2024-01-31 12:30:00.12"),
        ("TIMESTAMP '2024-01-31'", "VARCHAR", "2024-01-31 00:00:00"),
        ("'TRUE'", "BOOLEAN", True),
        ("'f'", "BOOLEAN", False),
        ("FALSE", "BOOLEAN", False),
        ("'2024-02-29'", "DATE", date(2024, 2, 29)),
        ("at", "DATE", date(2024, 1, 31)),
        ("day", "DATE", date(2024, 1, 31)),
        ("day", "TIMESTAMP", datetime(2024, 1, 31)),  # noqa: DTZ001
        ("at", "TIMESTAMP", datetime(2024, 1, 31, 12, 30, 0, 120_000)),  # noqa: DTZ001
        ("'2024-01-31'", "TIMESTAMP", datetime(2024, 1, 31)),  # noqa: DTZ001
        ("'2024-01-31T12:30:00.123456789Z'", "TIMESTAMP", datetime(2024, 1, 31, 12, 30, 0, 123456)),  # noqa: DTZ001
        ("'2024-01-31 12:30:00+00:00'", "TIMESTAMP", datetime(2024, 1, 31, 12, 30)),  # noqa: DTZ001
        ("NULL", "DATE", None),
        ("missing", "BIGINT", None),
    ],
)
def test_values_are_cast(text: str, target: str, expected: object) -> None:
    found = cast(text, target)
    assert found == expected
    assert type(found) is type(expected)
    assert str(found) == str(expected)


@pytest.mark.parametrize(
    ("text", "target", "reason"),
    [
        ("big", "BIGINT", "a number is beyond the range of BIGINT"),
        ("f", "BIGINT", "a number is beyond the range of BIGINT"),
        ("f", "DECIMAL(38, 0)", "a number has more digits than DECIMAL(38, 0)"),
        ("f", "DECIMAL(38, 20)", "a number is beyond the range of DOUBLE"),
        ("huge", "BIGINT", "a number has more digits than DECIMAL(38, 0)"),
        ("huge", "DOUBLE", "a number is beyond the range of DOUBLE"),
        ("huge", "VARCHAR", "a number has more than 400 digits"),
        ("tiny", "VARCHAR", "a number has more than 400 digits"),
        ("big * big", "VARCHAR", "an integer has more than 128 bits"),
        ("digits", "BIGINT", "a text is not an integer"),
        ("digits", "DOUBLE", "a text is not a number"),
        ("'1e999999999'", "DECIMAL(38, 0)", "a text is not a number"),
        ("'1e999'", "DECIMAL(38, 0)", "a number has more digits than DECIMAL(38, 0)"),
        ("'1e999'", "DOUBLE", "a number is beyond the range of DOUBLE"),
        ("'nan'", "DOUBLE", "a text is not a number"),
        ("'inf'", "DOUBLE", "a text is not a number"),
        ("' 1'", "BIGINT", "a text is not an integer"),
        ("'1_000'", "BIGINT", "a text is not an integer"),
        ("'\u0661'", "BIGINT", "a text is not an integer"),
        ("'1.5'", "BIGINT", "a text is not an integer"),
        ("100", "DECIMAL(4, 2)", "a number has more digits than DECIMAL(4, 2)"),
        ("99.995", "DECIMAL(4, 2)", "a number is out of range"),
        ("'yes'", "BOOLEAN", "a text is not a BOOLEAN: it has to be true, t, 1, false, f or 0"),
        ("'2023-02-29'", "DATE", "a text is not a day of the calendar"),
        ("'20240131'", "DATE", "a text is not a DATE like 2024-01-31"),
        (
            "'2024-01-31 10:00:00'",
            "DATE",
            "a text is a TIMESTAMP and not a DATE: CAST it to TIMESTAMP, and that to DATE",
        ),
        ("'2024-01-31 25:00:00'", "TIMESTAMP", "a text is not a time of the calendar"),
        ("'2024-01-31 12:30:00+02:00'", "TIMESTAMP", "a text is not a TIMESTAMP like 2024-01-31 12:30:00.5, in UTC"),
        ("list", "VARCHAR", "an array cannot become text"),
        ("list", "BIGINT", "CAST does not turn an array into BIGINT"),
        ("list", "DOUBLE", "CAST does not turn an array into DOUBLE"),
        ("list", "BOOLEAN", "CAST does not turn an array into BOOLEAN"),
        ("list", "DATE", "CAST does not turn an array into DATE"),
        ("list", "TIMESTAMP", "CAST does not turn an array into TIMESTAMP"),
        ("list", "DECIMAL(1, 0)", "CAST does not turn an array into DECIMAL"),
    ],
)
def test_values_that_cannot_be_cast_are_an_error_of_the_row(text: str, target: str, reason: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        cast(text, target)
    assert raised.value.reason == reason


@pytest.mark.parametrize("target", ["BIGINT", "DOUBLE", "DECIMAL(9, 2)"])
def test_a_truth_value_does_not_become_a_number(target: str) -> None:
    with pytest.raises(EvaluationError, match="CAST does not turn a truth value into"):
        parse(f"CAST(t AS {target})").evaluate({"t": True}, None)
