"""What is no expression is refused with a reason and its place."""

import pytest

from tablehouse.expressions.errors import ExpressionError
from tablehouse.expressions.expression import parse, parse_condition


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", "", "the expression is empty"),
        ("  \n ", "", "the expression is empty"),
        ("a =", "=", "the expression ends where a value is expected"),
        ("a = = b", "= b", "a value is expected here"),
        ("a == b", "== b", "== is not supported: use ="),
        ("a=>5", "=>", "=> is not supported: use >="),
        ("a =< 5", "=<", "=< is not supported: use <="),
        ("a->b", "->", "-> is not supported: members are written as a.b"),
        ("a->>'b'", "->>", "->> is not supported: members are written as a.b"),
        ("= a", "= a", "a value is expected here"),
        ("a b", "b", "an operator is expected here"),
        ("a 'b'", "'b'", "an operator is expected here"),
        ("'a' 'b'", "'b'", "an operator is expected here"),
        ("1 2", "2", "an operator is expected here"),
        ("12ab", "ab", "an operator is expected here"),
        ("0x10", "x10", "an operator is expected here"),
        ("(a", "(a", "the bracket is not closed"),
        ("a)", ")", "this bracket was not opened"),
        ("a, b", ", b", "there is no list here: only the arguments of a function and IN have commas"),
        ("(a, b)", ", b", "there is no list here: only the arguments of a function and IN have commas"),
        ("()", ")", "a value is expected here"),
        ("lower(a,)", ")", "a value is expected here"),
        ("a IN ()", ")", "a value is expected here"),
        ("a IN b", "IN b", "IN is written IN (value, value)"),
        ("a IN (1, 2", "(1", "the bracket is not closed"),
        ("a NOT b", "NOT", "IN, BETWEEN, LIKE or ILIKE is expected after this NOT"),
        ("a NOT", "NOT", "IN, BETWEEN, LIKE or ILIKE is expected after this NOT"),
        ("a = NOT b", "NOT", "put NOT and what it applies to in brackets"),
        ("a IS b", "IS", "NULL, TRUE, FALSE or DISTINCT FROM is expected after IS"),
        ("a IS", "IS", "NULL, TRUE, FALSE or DISTINCT FROM is expected after IS"),
        ("a IS NULL + 1", "+ 1", "put the condition before this operator in brackets"),
        ("a BETWEEN 1", "1", "BETWEEN is written BETWEEN low AND high"),
        ("a BETWEEN 1 OR 2", "OR", "BETWEEN is written BETWEEN low AND high"),
        ("(a BETWEEN 1)", ")", "BETWEEN is written BETWEEN low AND high"),
        ("a = b = c", "= c", "two conditions in a row: put one of them in brackets"),
        ("a < b IS NULL", "IS", "two conditions in a row: put one of them in brackets"),
        ("a LIKE 'x' IN ('y')", "IN", "two conditions in a row: put one of them in brackets"),
        ("a ESCAPE '!'", "ESCAPE", "an operator is expected here"),
        ("a LIKE 'b' ESCAPE '!!'", "ESCAPE", "one character in quotes is expected after ESCAPE"),
        ("a LIKE 'b' ESCAPE c", "ESCAPE", "one character in quotes is expected after ESCAPE"),
        ("a LIKE 'b!' ESCAPE '!'", "'b!'", "a pattern ends with its escape character"),
        ("CASE END", "END", "a value is expected here"),
        ("CASE WHEN a 1 END", "1", "an operator is expected here"),
        ("CASE WHEN a END", "END", "END does not belong here"),
        ("CASE WHEN a THEN 1", "CASE", "CASE has no END"),
        ("(CASE WHEN a THEN 1)", ")", "CASE has no END"),
        ("CASE a THEN 1 END", "THEN", "THEN does not belong here"),
        ("CASE WHEN a THEN 1 ELSE 2 ELSE 3 END", "ELSE 3", "ELSE does not belong here"),
        ("a END", "END", "END does not belong here"),
        ("CAST(a)", ")", "CAST is written CAST(value AS type)"),
        ("CAST(a, b)", ", b", "CAST is written CAST(value AS type)"),
        ("CAST(a AS DATE + 1)", "AS", "CAST is written CAST(value AS type)"),
        ("EXTRACT(year, a)", "EXTRACT", "EXTRACT is written EXTRACT(field FROM value)"),
        ("extract(a + 1 FROM b)", "extract", "EXTRACT is written EXTRACT(field FROM value)"),
        ("position('a', b)", ", b", "POSITION is written POSITION(part IN text)"),
        ("substring(a FOR 2)", "FOR", "SUBSTRING is written SUBSTRING(text FROM start FOR length)"),
        ("a.", ".", "a name is expected after the point"),
        ("a.1", ".1", "a name is expected after the point"),
        ("a.'b'", ".", "a name is expected after the point"),
        ("(a).b", ".b", "an operator is expected here"),
        ("a.lower(b)", "(b", "an operator is expected here"),
        (".5", ".5", "a value is expected here"),
        ("1e", "1e", "1e is not a number"),
        ("'abc", "'abc", "the quote ' is not closed"),
        ('a = "abc', '"abc', 'the quote " is not closed'),
        ("a -- b", "-- b", "comments are not supported (-- begins one)"),
        ("a /* b */ = 1", "/* b", "comments are not supported (-- begins one)"),
        ("1 {# b #}", "{#", "comments are not supported (-- begins one)"),
        ("a::date", "::", ":: is not supported: write CAST(x AS type)"),
        ("a = ?", "?", "parameters are not supported: write the value"),
        ("a = :b", ":b", "parameters and :: are not supported: write the value, or CAST(x AS type)"),
        ("a[1]", "[1", "arrays are not supported: there is no access to their elements"),
        ("[1]", "[1", "arrays are not supported: there is no access to their elements"),
        ("{'a': 1}", "{", "objects are not supported: members are written as a.b"),
        ("a;", ";", "an expression is no statement: leave out the semicolon"),
        ("a ^ 2", "^", "^ is not supported: use power(x, y)"),
        ("a ~ 'b'", "~", "regular expressions are not supported, as they can take very long: use LIKE"),
        ("a & b", "&", "operators on bits are not supported: use AND"),
        ("a | b", "|", "operators on bits are not supported: use OR, or || for texts"),
        ("!a", "!", "! is not supported: use NOT or <>"),
        ("`a`", "`", 'names that are not plain are written in double quotes, like "odd name"'),
        ("a§b", "a§b", 'names that are not plain are written in double quotes, like "odd name"'),
        (
            "a = \u2018b\u2019",
            "\u2018b\u2019",
            "this is not a straight quote: texts are written in '...', and names that are not plain in \"...\"",
        ),
        ("N'a'", "N'a'", "a value is expected here"),
        ("+a", "+a", "a value is expected here"),
        ("*", "*", "* is not supported: an expression is about one row and names its members"),
        ("(SELECT 1)", "SELECT", "an expression is about one row: subqueries are not supported"),
        ("a IN (SELECT b FROM c)", "SELECT", "an expression is about one row: subqueries are not supported"),
        ("INTERVAL '1 day'", "INTERVAL", "intervals are not supported: a number of days can be added to a date"),
        ("a AT TIME ZONE 'UTC'", "AT", "time zones are not supported: timestamps are in UTC"),
        ("lower(a) OVER (b)", "OVER", "an expression is about one row: window functions are not supported"),
        (
            "a COLLATE b",
            "COLLATE",
            "collations are not supported: texts are compared by the numbers of their characters",
        ),
        ("lower(DISTINCT a)", "DISTINCT", "a value is expected here"),
        ("a AS b", "AS", "an expression has no name: leave out AS"),
        ("trim(BOTH 'x' FROM a)", "BOTH", "use trim(text, characters)"),
        ("$topi", "$topi", "there is no $topi; there are $headers, $key, $partition, $timestamp, $topic"),
        ("$topic.a", "$topic.a", "$topic has no members"),
        ("$headers", "$headers", "one header is $headers.name"),
        ("$headers.a.b", "$headers.a.b", "one header is $headers.name"),
        ("lower()", "lower", "lower takes 1 argument, not 0"),
        ("nullif(a)", "nullif", "nullif takes 2 arguments, not 1"),
        ("substring(a, 1, 2, 3)", "substring", "substring takes 2 to 3 arguments, not 4"),
        ("coalesce()", "coalesce", "coalesce takes 1 or more arguments, not 0"),
        ("extract(century FROM a)", "century", None),
        ("date_trunc(a, b)", "a, b", None),
        ("date_trunc('day')", "date_trunc", "date_trunc takes 2 arguments, not 1"),
        ("DATE '2024-02-30'", "'2024-02-30'", "a text is not a day of the calendar"),
        ("TIMESTAMP 'x'", "'x'", "a text is not a TIMESTAMP like 2024-01-31 12:30:00.5, in UTC"),
        ("170141183460469231731687303715884105728", "1701", "an integer has more than 128 bits"),
        ("9" * 5000, "9", "an integer has more than 128 bits"),
        ("0." + "9" * 50, "0.", "a decimal has more than 38 digits"),
        ("1e999", "1e999", "a number is beyond the range of DOUBLE"),
        (".".join("a" * 17), "a", "a path has more than 16 names"),
    ],
)
def test_syntax(text: str, place: str, reason: str | None) -> None:
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    assert raised.value.line == 1
    assert text[raised.value.column - 1 :].startswith(place)
    if reason is not None:
        assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a = 1 AND 'x' + 1 > 2", "'x'", "+ does not take text and an integer; texts are joined with ||"),
        ("'a' * 2", "'a'", "* does not take text and an integer"),
        ("TRUE + 1", "TRUE", "+ does not take a truth value and an integer"),
        ("-'a'", "'a'", "- does not take text"),
        ("1 || 2", "1", "|| does not take an integer and an integer"),
        ("1 = 'a'", "1", "an integer cannot be compared with text"),
        ("lower(a) > 1", "lower", "text cannot be compared with an integer"),
        ("a IN (1, 'b')", "1", "the values of IN are of different types"),
        ("1 IN (a, 'b')", "1", "an integer cannot be compared with text"),
        ("'a' BETWEEN 1 AND b", "'a'", "text cannot be compared with an integer"),
        ("a BETWEEN 1 AND 'x'", "1", "an integer cannot be compared with text"),
        ("1 AND b", "1", "AND takes a condition, not an integer"),
        ("a OR 'x'", "'x'", "OR takes a condition, not text"),
        ("NOT 1", "1", "NOT takes a condition, not an integer"),
        ("1 IS TRUE", "1", "IS takes a condition, not an integer"),
        ("CASE WHEN 1 THEN 2 END", "1", "WHEN takes a condition, not an integer"),
        ("CASE 1 WHEN 'a' THEN 2 END", "1", "an integer cannot be compared with text"),
        ("CASE WHEN a THEN 1 ELSE 'x' END", "1", "the value of CASE would be an integer or text: CAST it to one type"),
        ("coalesce(a, 1, 'x')", "a", None),
        ("greatest(1, 'x')", "1", "the value of greatest would be an integer or text: CAST it to one type"),
        ("nullif(1, 'x')", "1", "the value of nullif would be an integer or text: CAST it to one type"),
        ("1 LIKE 'a'", "1", "LIKE takes two texts, not an integer"),
        ("a ILIKE 1", "1", "ILIKE takes two texts, not an integer"),
        ("lower(1)", "1", "lower takes text here, not an integer"),
        ("left(a, 'b')", "'b'", "left takes an integer here, not text"),
        ("extract(year FROM 'a')", "'a'", "extract takes a date or timestamp here, not text"),
        ("CAST(TRUE AS BIGINT)", "AS", None),
        ("CAST(DATE '2024-01-01' AS BIGINT)", "AS", None),
        ("CAST(a AS INTERVAL)", "AS", None),
        ("CAST(a AS VARCHAR(10))", "AS", None),
        ("CAST(a AS DECIMAL)", "AS", "a decimal has 1 to 38 digits: write DECIMAL(digits, digits after the point)"),
        ("CAST(a AS DECIMAL(39, 1))", "AS", None),
        ("CAST(a AS DECIMAL(3, 4))", "AS", None),
        ("CAST(a AS DECIMAL(3, 2, 1))", "1))", None),
        ("CAST(a AS DECIMAL(x))", "x", None),
        ("CAST(a AS DECIMAL(3", "3", None),
        ("CAST(a AS)", "AS", None),
        ("CAST(a AS 'x')", "AS", None),
        ("TIMESTAMP '2024-01-01' + 1", "TIMESTAMP", "+ does not take a timestamp and an integer"),
        ("1 - DATE '2024-01-01'", "1", "- does not take an integer and a date"),
        ("a - DATE '2024-01-01' > 'x'", "a", None),
    ],
)
def test_types(text: str, place: str, reason: str | None) -> None:
    if text.startswith("a - DATE"):
        # A member may be a date as well as a number of days, so what becomes of it is only known with the row.
        parse(text)
        return
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    assert text[raised.value.column - 1 :].startswith(place)
    if reason is not None:
        assert raised.value.reason == reason


def test_a_date_is_not_compared_with_text() -> None:
    with pytest.raises(ExpressionError, match="write DATE '2024-01-31' or TIMESTAMP"):
        parse("CAST(a AS DATE) > '2024-01-01'")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lenght(a)", "there is no function lenght, did you mean length?"),
        ("frobnicate(a)", "there is no function frobnicate. The functions are abs, cast, ceil"),
        ("count(*)", "count is a function of many rows"),
        ("SUM(a)", "sum is a function of many rows"),
        ("year(a)", "year is not supported: use extract(year FROM x)"),
        ("len(a)", "len is not supported: use length"),
        ("contains(a, 'b')", "contains is not supported: use x LIKE '%part%'"),
        ("isnull(a)", "isnull is not supported: use IS NULL"),
        ("now()", "now gives another value each time"),
        ("current_date", "current_date gives another value each time"),
        ("regexp_matches(a, 'b')", "regexp_matches takes a regular expression"),
        ("row_number()", "row_number is a function of the order of many rows"),
        ("EXISTS (a)", "exists belongs to queries"),
        ("try_cast(a AS DATE)", "try_cast is not supported: use CAST"),
        ("CAST(a AS INTEGER)", "CAST to INTEGER is not supported; the types are BIGINT, BOOLEAN, DATE"),
        ("extract(millennium FROM a)", "extract takes one of year, quarter, month, week"),
        ("date_trunc('decade', a)", "date_trunc takes one of year, quarter, month, week"),
        ("CAST(1 AS DATE)", "CAST to this type takes text, a date, a timestamp, not an integer"),
    ],
)
def test_what_is_refused_is_named_with_what_there_is(text: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    assert hint in raised.value.reason


def test_an_error_shows_the_line_with_carets() -> None:
    with pytest.raises(ExpressionError) as raised:
        parse("dep_delay > 15\n  AND lowr(origin) = 'jfk'")
    assert (raised.value.line, raised.value.column) == (2, 7)
    assert str(raised.value).startswith("line 2, column 7: there is no function lowr, did you mean lower?")
    assert raised.value.excerpt.splitlines() == ["    AND lowr(origin) = 'jfk'", "        ^^^^"]


def test_a_long_line_is_shown_around_the_place() -> None:
    text = "a = 1 AND " * 20 + "\tfrob(x)" + " AND a = 1" * 20
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    line, carets = raised.value.excerpt.splitlines()
    assert len(line) < 130
    assert line.strip().startswith("...")
    assert line.endswith("...")
    assert line[carets.index("^") : carets.rindex("^") + 1] == "frob"


def test_carets_stay_below_their_line() -> None:
    with pytest.raises(ExpressionError) as raised:
        parse("'a' +\n\n 1")
    assert raised.value.excerpt.splitlines() == ["  'a' +", "  ^^^^^"]


def test_a_filter_has_to_be_a_condition() -> None:
    assert parse_condition("a = 1").matches({"a": 1}, None)
    assert parse_condition("a").matches({"a": True}, None)
    assert not parse_condition("NULL").matches({}, None)
    with pytest.raises(ExpressionError, match="a condition is required here, and this is a number"):
        parse_condition("a * 2")
