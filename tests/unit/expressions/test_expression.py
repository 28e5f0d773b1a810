"""What callers learn of an expression, and what they give it."""

from datetime import datetime

import pytest

from tablehouse.expressions.errors import EvaluationError, ExpressionError
from tablehouse.expressions.expression import Origin, parse
from tablehouse.expressions.kinds import Kind

ORIGIN = Origin({"id": 5}, "orders", 3, 1_704_067_200_500, {"x": "abc", "x-id": "1"})


def test_an_expression_names_what_it_reads() -> None:
    expression = parse('a.b > 1 AND "c d" IS NULL OR lower(a.b) = $headers.x AND $partition IN (a, e)')
    assert sorted(expression.members) == [("a",), ("a", "b"), ("c d",), ("e",)]
    assert expression.origins == {"$headers", "$partition"}


def test_a_quoted_name_is_a_member_even_with_a_dollar_sign() -> None:
    expression = parse('"$key"')
    assert expression.members == (("$key",),)
    assert expression.origins == frozenset()
    assert expression.evaluate({"$key": 1}, None) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$key.id", 5),
        ("$key", {"id": 5}),
        ("$key.other", None),
        ("$topic", "orders"),
        ("$partition + 1", 4),
        ("$timestamp", datetime(2024, 1, 1, 0, 0, 0, 500_000)),  # noqa: DTZ001
        ("date_trunc('day', $timestamp) = DATE '2024-01-01'", True),
        ("$headers.x", "abc"),
        ('$headers."x-id"', "1"),
        ("$headers.y", None),
    ],
)
def test_the_record_is_read(text: str, expected: object) -> None:
    assert parse(text).evaluate({}, ORIGIN) == expected


def test_a_record_without_a_timestamp_has_null() -> None:
    assert parse("$timestamp").evaluate({}, ORIGIN._replace(timestamp=None)) is None


def test_an_expression_about_the_record_needs_one() -> None:
    with pytest.raises(EvaluationError, match="line 1, column 10: \\$key is not known here"):
        parse("a = 1 OR $key = 2").evaluate({"a": 1}, None)


def test_a_timestamp_beyond_the_calendar_is_an_error_of_the_row() -> None:
    with pytest.raises(EvaluationError, match="a number is out of range"):
        parse("$timestamp").evaluate({}, ORIGIN._replace(timestamp=2**62))


def test_only_true_matches() -> None:
    matches = parse("a > 1").matches
    assert [matches(row, None) for row in ({"a": 2}, {"a": 1}, {"a": None}, {})] == [True, False, False, False]


def test_a_filter_that_is_neither_true_nor_false_is_an_error_of_the_row() -> None:
    with pytest.raises(EvaluationError, match="line 1, column 1: a truth value is required, not a number"):
        parse("a").matches({"a": 1}, None)


def test_the_kind_of_values_is_known_as_far_as_possible() -> None:
    kinds = {text: parse(text).kind for text in ("a", "a = 1", "length(a)", "a * 2", "a || 'x'", "coalesce(a, 1)")}
    assert list(kinds.values()) == [Kind.ANY, Kind.BOOLEAN, Kind.INTEGER, Kind.NUMBER, Kind.TEXT, Kind.ANY]


def test_an_expression_shows_its_text() -> None:
    assert repr(parse("a = 'x'")) == "Expression(\"a = 'x'\")"


def test_what_a_name_contains_is_never_code() -> None:
    name = "x'); import os; os.abort() #"
    assert parse(f'"{name}" = 1').evaluate({name: 1}, None) is True


def test_what_is_read_of_the_record_can_be_limited() -> None:
    expression = parse("$key = 'a' AND $topic = 'b' AND $headers.c = 'd'")
    expression.require_origins({"$headers", "$key", "$topic"})
    with pytest.raises(ExpressionError) as caught:
        expression.require_origins({"$key"})
    assert (caught.value.column, caught.value.reason) == (16, "$topic is not known here; there are $key")
