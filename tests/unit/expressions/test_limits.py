"""Hostile expressions are refused or cost little, and nothing but ExpressionError comes out of parsing."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.expressions.errors import EvaluationError, ExpressionError
from tablehouse.expressions.expression import parse
from tablehouse.expressions.grammar import MAX_DEPTH
from tablehouse.expressions.words import MAX_CHARACTERS, MAX_TOKENS


def test_a_long_text_is_refused_before_it_is_read() -> None:
    for text in ("(" * 1_000_000, "'" * 10_001, "a" * 10_000, " " * (MAX_CHARACTERS + 1)):
        with pytest.raises(ExpressionError, match="the limit is 8,000"):
            parse(text)
    assert parse("a" * MAX_CHARACTERS).evaluate({}, None) is None


def test_many_tokens_are_refused() -> None:
    with pytest.raises(ExpressionError, match="more than 1,000 words and signs") as raised:
        parse("a+" * MAX_TOKENS + "a")
    assert raised.value.column == MAX_TOKENS + 1


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("(", ")"),
        ("lower(", ")"),
        ("coalesce(1, ", ")"),
        ("CAST(", " AS VARCHAR)"),
        ("CASE WHEN a THEN ", " END"),
        ("a IN (", ")"),
        ("NOT ", ""),
        ("- ", ""),
        ("NOT (", ")"),
        ("-(", ")"),
    ],
)
def test_deep_nesting_is_refused_with_its_place(opening: str, closing: str) -> None:
    with pytest.raises(ExpressionError, match="the expression is nested more than 20 deep") as raised:
        parse(opening * (MAX_DEPTH + 1) + "a" + closing * (MAX_DEPTH + 1))
    assert (raised.value.column - 1) // len(opening) in (MAX_DEPTH // 2, MAX_DEPTH)
    with pytest.raises(ExpressionError, match=r"nested more than|characters; the limit|words and signs"):
        parse(opening * 500 + "a" + closing * 500)


NESTED = {
    "brackets": ("(", "a", ")"),
    "conditions": ("CASE WHEN a OR b AND c BETWEEN 1 AND CASE WHEN a THEN 2 ELSE ", "c", " END THEN 1 ELSE 2 END"),
    "indentation": ("CASE WHEN b THEN a OR b AND ", "a", " END"),
    "lists": ("a OR b AND c IN (c, coalesce(c, ", "2", "))"),
    "branches": ("CASE WHEN b OR a AND b THEN 1 ELSE ", "2", " END"),
    "operands of CASE": ("CASE ", "c", " WHEN 1 THEN 2 ELSE c END"),
    "signs": ("-(1 + ", "c", ")"),
}


@pytest.mark.parametrize(("opening", "inner", "closing"), NESTED.values(), ids=NESTED)
def test_what_is_as_deep_as_allowed_is_parsed_and_compiled(opening: str, inner: str, closing: str) -> None:
    levels = MAX_DEPTH // (opening.count("(") + opening.count("CASE") + opening.startswith("-"))
    expression = parse(opening * levels + inner + closing * levels)
    with suppress(EvaluationError):
        expression.evaluate({"a": False, "b": True, "c": 2}, None)
    expression.matches  # noqa: B018  it is compiled here


@pytest.mark.parametrize(
    ("operand", "separator", "count", "expected"),
    [
        ("1", " + ", 500, 500),
        ("1", " * ", 500, 1),
        ("'x'", " || ", 500, "x" * 500),
        ("a", " AND ", 500, True),
        ("a", " OR ", 500, True),
        ("a = TRUE", " AND ", 250, True),
    ],
)
def test_long_chains_are_parsed_and_evaluated(operand: str, separator: str, count: int, expected: object) -> None:
    assert parse(separator.join([operand] * count)).evaluate({"a": True}, None) == expected


def test_a_chain_of_alternating_operators_is_deep_only_on_its_left() -> None:
    text = "a = 1 AND b = 1 OR " * 100 + "a = 2"
    assert parse(text).evaluate({"a": 2, "b": 1}, None) is True


def test_many_branches_and_values() -> None:
    branches = " ".join(f"WHEN a = {number} THEN {number}" for number in range(150))
    assert parse(f"CASE {branches} END").evaluate({"a": 149}, None) == 149
    assert parse(f"a IN ({', '.join(map(str, range(480)))})").evaluate({"a": 479}, None) is True
    assert parse(f"a IN ({', '.join(['b'] * 480)}, 5)").evaluate({"a": 5, "b": 1}, None) is True
    assert parse(f"coalesce({', '.join(['n'] * 480)}, 5)").evaluate({}, None) == 5


TOKENS = r"""
a b $key $headers.x 1 1.5 1e3 'x' "q" ( ) , . + - * / // % || = <> < <= AND OR NOT IS NULL TRUE IN BETWEEN LIKE ILIKE
ESCAPE CASE WHEN THEN ELSE END CAST AS DATE DECIMAL lower coalesce extract year FROM FOR substring position DISTINCT
SELECT OVER INTERVAL [ ] { } ; : :: ? @ # ~ ^ & | ! ` \ -- /* */ ' " $ N' E' any all if symmetric interval
"""


@given(st.lists(st.sampled_from(TOKENS.split()), max_size=25).map(" ".join))
def test_words_in_any_order_are_an_expression_or_an_expression_error(text: str) -> None:
    with suppress(ExpressionError):
        expression = parse(text)
        with suppress(EvaluationError):
            expression.evaluate({"a": 1, "b": "x"}, None)


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    with suppress(ExpressionError):
        parse(text)
