"""LIKE and ILIKE, against a definition of them that is too slow to use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.expression import parse
from tablehouse.expressions.like import MAX_PATTERN_CHARACTERS, matcher


def matches(text: str, pattern: str) -> bool:
    """Return whether a text matches a pattern, as SQL defines it."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(matches(text[skipped:], pattern[1:]) for skipped in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and matches(text[1:], pattern[1:])


@given(st.text("ab", max_size=8), st.text("ab%_", max_size=7))
def test_a_pattern_matches_what_its_definition_says(text: str, pattern: str) -> None:
    assert matcher(pattern)(text) is matches(text, pattern)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a%c' LIKE 'a!%c' ESCAPE '!'", True),
        ("'abc' LIKE 'a!%c' ESCAPE '!'", False),
        ("'a_c' LIKE 'a!_c' escape '!'", True),
        ("'a!c' LIKE 'a!!c' ESCAPE '!'", True),
        ("'50%' LIKE '%\\%' ESCAPE '\\'", True),
        (r"'a\' LIKE 'a\'", True),
        ("'ABC' LIKE 'abc'", False),
        ("'ABC' ILIKE 'a_c'", True),
        ("'ÄÖ' ILIKE 'äö'", True),
        ("'AxB' ILIKE 'aX!b' ESCAPE '!'", True),
        ("'abc' NOT LIKE 'a%'", False),
        ("'abc' NOT ILIKE 'x%'", True),
        ("'a\nb' LIKE 'a_b'", True),
        ("'🦆' LIKE '_'", True),
        ("NULL LIKE 'a'", None),
        ("'a' LIKE NULL", None),
        ("'a' NOT LIKE NULL", None),
        ("'ab' LIKE 'a' || '%'", True),
        ("'ab' LIKE p", True),
        ("'a%' LIKE 'a!%' || '' ESCAPE '!'", True),
    ],
)
def test_patterns(text: str, expected: object) -> None:
    assert parse(text).evaluate({"p": "a_"}, None) is expected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("x!", "a pattern ends with its escape character"),
        ("x" * (MAX_PATTERN_CHARACTERS + 1), "a pattern has more than 1000 characters"),
    ],
)
def test_a_pattern_of_a_row_can_be_refused(pattern: str, reason: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        parse("'x' LIKE p ESCAPE '!'").evaluate({"p": pattern}, None)
    assert raised.value.reason == reason


def test_patterns_that_make_regular_expressions_slow_are_not() -> None:
    text = "a" * 100_000
    # A regular expression would take years for each of them.
    assert not matcher("%a" * 400 + "b")(text)
    assert not matcher("%a_" * 300 + "%b")(text)
    assert matcher("%a_" * 300 + "%a")(text)
