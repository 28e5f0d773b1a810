"""What expressions are worth, rule by rule."""

from datetime import date, datetime
from decimal import Decimal

import pytest

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.expression import parse

ROW = {
    "a": {"b": 7, "odd name": "x", "end": True},
    "i": 7,
    "f": 2.5,
    "dec": Decimal("1.10"),
    "s": "text",
    "t": True,
    "n": None,
    "list": [1],
    "day": date(2024, 1, 31),
    "at": datetime(2024, 1, 31, 12, 30),  # noqa: DTZ001
    "Größe": 3,
    "case": 1,
    'say "hi"': 2,
}


def value(text: str) -> object:
    return parse(text).evaluate(ROW, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i", 7),
        ("a.b", 7),
        ('a."odd name"', "x"),
        ("a.end", True),
        ("a.missing.deeper", None),
        ("i.b", None),
        ("list.b", None),
        ("missing", None),
        ("list", [1]),
        ("Größe", 3),
        ("I", None),
        ('"case"', 1),
        ('"say ""hi"""', 2),
        ("'it''s'", "it's"),
        ("''", ""),
        (r"'\n'", r"\n"),
        ("12", 12),
        ("1.50", Decimal("1.50")),
        ("1.", Decimal(1)),
        ("1e3", 1000.0),
        ("1.5E-1", 0.15),
        ("TRUE", True),
        ("null", None),
        ("DATE '2024-01-31'", date(2024, 1, 31)),
        ("timestamp '2024-01-31 12:30:00.5'", datetime(2024, 1, 31, 12, 30, 0, 500_000)),  # noqa: DTZ001
    ],
)
def test_members_are_found_by_their_exact_names_and_literals_are_values(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 3 - 2", 5),
        ("2 * 7 % 4", 2),
        ("-i", -7),
        ("- (1 - 2)", 1),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("-7.5 % 2", Decimal("-1.5")),
        ("-7e0 % 2", -1.0),
        ("7 / 2", 3.5),
        ("6 / 3", 2.0),
        ("1.5 / 2", 0.75),
        ("7 // 2", 3),
        ("-7 // 2", -3),
        ("0.1 + 0.2", Decimal("0.3")),
        ("0.1e0 + 0.2e0", 0.1 + 0.2),
        ("1.10 * 1.1", Decimal("1.210")),
        ("dec + 1", Decimal("2.10")),
        ("f + 1", 3.5),
        ("f + dec", 3.6),
        ("9007199254740993 + 0", 9007199254740993),
        ("170141183460469231731687303715884105726 + 1", 2**127 - 1),
        ("day + 1", date(2024, 2, 1)),
        ("1 + day", date(2024, 2, 1)),
        ("day - 31", date(2023, 12, 31)),
        ("DATE '2024-03-01' - day", 30),
        ("day - i", date(2024, 1, 24)),
        ("'a' || 'b'", "ab"),
        ("s || 1 + 1", "text2"),
        ("i || '-' || f || '-' || t || '-' || day", "7-2.5-true-2024-01-31"),
        ("1 || '-' || 1.50", "1-1.50"),
        ("i + n", None),
        ("s || n", None),
        ("-n", None),
    ],
)
def test_arithmetic_follows_the_precedence_and_the_kinds_of_sql(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i = 7", True),
        ("i = 7.0", True),
        ("i = 7e0", True),
        ("i <> 7", False),
        ("i != 8", True),
        ("f > 2", True),
        ("f = 2.5", True),
        ("dec = 1.1", True),
        ("dec < i", True),
        ("0.1e0 = 0.1", True),
        ("s = 'text'", True),
        ("s < 'tf'", True),
        ("'a' < 'é'", True),
        ("'Z' < 'a'", True),
        ("t = TRUE", True),
        ("FALSE < t", True),
        ("day = DATE '2024-01-31'", True),
        ("day < at", True),
        ("at = TIMESTAMP '2024-01-31 12:30:00'", True),
        ("9007199254740993 > 9007199254740992e0", True),
        ("n = 1", None),
        ("n = n", None),
        ("1 < missing", None),
        ("NULL = NULL", None),
        ("n IS NULL", True),
        ("i IS NOT NULL", True),
        ("NULL IS NULL", True),
        ("t IS TRUE", True),
        ("n IS TRUE", False),
        ("n IS NOT TRUE", True),
        ("t IS FALSE", False),
        ("(i = 7) IS TRUE", True),
        ("n IS DISTINCT FROM 1", True),
        ("n IS NOT DISTINCT FROM NULL", True),
        ("i IS DISTINCT FROM 7", False),
        ("i BETWEEN 7 AND 8", True),
        ("i BETWEEN 8 AND 7", False),
        ("i NOT BETWEEN 8 AND 9", True),
        ("i BETWEEN n AND 6", False),
        ("i BETWEEN n AND 8", None),
        ("i BETWEEN 1 AND 2 + 5 AND t", True),
        ("i IN (1, 7)", True),
        ("i IN (1, 7.0, 8e0)", True),
        ("i IN (1, 2)", False),
        ("dec IN (1, 1.1)", True),
        ("i IN (1, NULL)", None),
        ("i IN (7, NULL)", True),
        ("i NOT IN (1, NULL)", None),
        ("i NOT IN (1, 2)", True),
        ("n IN (1)", None),
        ("s IN ('x', 'text')", True),
        ("s IN (n, s)", True),
        ("i IN (i + 1, i)", True),
    ],
)
def test_comparisons_with_null_are_null(text: str, expected: object) -> None:
    assert value(text) is expected


@pytest.mark.parametrize("word", ["AND", "OR"])
def test_and_and_or_have_three_values(word: str) -> None:
    for left in (True, False, None):
        for right in (True, False, None):
            certain = word == "OR"
            if certain in (left, right):
                expected: bool | None = certain
            else:
                expected = None if None in (left, right) else not certain
            assert parse(f"x {word} y").evaluate({"x": left, "y": right}, None) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NOT t", False),
        ("NOT NOT t", True),
        ("NOT n", None),
        ("NOT i = 8", True),
        ("NOT i IS NULL", True),
        ("t OR t AND FALSE", True),
        ("(t OR t) AND FALSE", False),
        ("NOT FALSE AND FALSE", False),
        ("t AND i > 5 AND s LIKE 'te%' AND f < 3", True),
    ],
)
def test_conditions_are_connected(text: str, expected: object) -> None:
    assert value(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "FALSE AND s > 1",
        "n = 1 AND FALSE AND s > 1",
        "TRUE OR s > 1",
        "i IN (7, s)",
        "CASE WHEN i = 7 THEN TRUE ELSE s > 1 END",
        "CASE WHEN i = 7 THEN TRUE WHEN s > 1 THEN FALSE END",
        "coalesce(t, s > 1)",
    ],
)
def test_what_does_not_matter_is_not_evaluated(text: str) -> None:
    assert value(text) in (True, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CASE WHEN i > 7 THEN 'more' WHEN i = 7 THEN 'seven' ELSE 'less' END", "seven"),
        ("CASE WHEN n = 1 THEN 'x' END", None),
        ("CASE WHEN n THEN 1 ELSE 2 END", 2),
        ("CASE i WHEN 1 THEN 'one' WHEN 7 THEN 'seven' END", "seven"),
        ("CASE n WHEN NULL THEN 1 ELSE 2 END", 2),
        ("case when t then i else f end + 1", 8),
        ("CASE CASE WHEN t THEN 1 END WHEN 1 THEN CASE WHEN TRUE THEN 'in' END END", "in"),
        ("coalesce(n, missing, i, 1)", 7),
        ("coalesce(n)", None),
        ("nullif(i, 7)", None),
        ("nullif(i, n)", 7),
        ("nullif(n, 7)", None),
        ("greatest(1, n, f, i)", 7),
        ("least(1, n, f, i)", 1),
        ("greatest(n, n)", None),
        ("least('b', s, 'a')", "a"),
    ],
)
def test_branches_and_defaults(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s + 1", "+ does not take text and a number"),
        ("t + 1", "+ does not take a truth value and a number"),
        ("list || 's'", "an array cannot become text"),
        ("i || f", "|| takes a text on one side at least, not a number and a number"),
        ("a || 's'", "an object cannot become text"),
        ("-s", "- does not take text"),
        ("s * 2", "* does not take text and a number"),
        ("s / 2", "/ does not take text and a number"),
        ("f // 2", "// takes two integers, not a number with a fraction and an integer"),
        ("dec // 2", "// takes two integers, not a decimal and an integer"),
        ("day + f", "+ does not take a date and a number"),
        ("1 - day", "- does not take a number and a date"),
        ("at + 1", "+ does not take a timestamp and a number"),
        ("i > 'a'", "a number cannot be compared with text"),
        ("s > 1", "text cannot be compared with a number"),
        ("t = 1", "a truth value cannot be compared with a number"),
        ("s = 1.5", "text cannot be compared with a number"),
        ("list = list", "an array cannot be compared with an array"),
        ("a = 'x'", "an object cannot be compared with text"),
        ("day = s", "a date cannot be compared with text: CAST the text"),
        ("s < at", "text cannot be compared with a timestamp: CAST the text"),
        ("s IN (1, 2)", "a number is required, not text"),
        ("t IN (1)", "a number is required, not a truth value"),
        ("i IN ('a')", "text is required, not a number"),
        ("i AND TRUE", "a truth value is required, not a number"),
        ("TRUE OR FALSE AND s", None),
        ("NOT s", "a truth value is required, not text"),
        ("CASE WHEN s THEN 1 END", "a truth value is required, not text"),
        ("s IS TRUE", "a truth value is required, not text"),
        ("i LIKE 'a%'", "text is required, not a number"),
        ("s LIKE i", "LIKE takes two texts, not text and a number"),
        ("1 / (i - 7)", "division by zero"),
        ("1 % (i - 7)", "division by zero"),
        ("1 // (i - 7)", "division by zero"),
        ("f / 0", "division by zero"),
        ("1.5 % 0", "division by zero"),
        ("170141183460469231731687303715884105727 + i", "an integer has more than 128 bits"),
        ("170141183460469231731687303715884105727 * i", "an integer has more than 128 bits"),
        ("f * 1e308 * 10", "a number is beyond the range of DOUBLE"),
        ("9999999999999999999999999999999999999.0 + dec", "a number is out of range"),
        ("12345678901234567890.5 * 12345678901234567890.5", "a number is out of range"),
        ("DATE '9999-12-31' + i", "a number is out of range"),
        ("lower(i)", "text is required, not a number"),
        ("left(s, f)", "an integer is required, not a number"),
        ("left(s, i / 1)", "an integer is required, not a number"),
        ("abs(s)", "a number is required, not text"),
        ("extract(year FROM s)", "a date or timestamp is required, not text"),
        ("greatest(i, s)", "a number cannot be compared with text"),
    ],
)
def test_types_that_do_not_fit_are_an_error_of_the_row(text: str, reason: str | None) -> None:
    if reason is None:
        assert value(text) is True
        return
    with pytest.raises(EvaluationError) as raised:
        value(text)
    assert raised.value.reason == reason
    assert raised.value.line == 1


def test_an_error_of_a_row_names_the_place_in_the_text_and_no_value() -> None:
    with pytest.raises(EvaluationError) as raised:
        value("i > 1 AND\n  (f < 3 OR t) AND i + s > 2")
    assert str(raised.value) == "line 2, column 20: + does not take a number and text"
