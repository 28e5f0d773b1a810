"""The tokens of an expression, as sqlglot reads them, and limits that hold before it parses them."""

import re
from typing import ClassVar

from sqlglot import Token, Tokenizer, TokenType
from sqlglot.errors import SqlglotError

from tablehouse.expressions.errors import ExpressionError, Span

#: Limits of a text. Parsing and compiling takes up to 0.1 ms a token.
MAX_CHARACTERS = 8000
MAX_TOKENS = 1000

#: What is said about words and signs that are not part of expressions, and about unquoted words after an operand.
_SUBQUERY = "an expression is about one row: subqueries are not supported"
_WINDOW = "an expression is about one row: window functions are not supported"
_REGULAR = "regular expressions are not supported, as they can take very long: use LIKE"
_MESSAGES = {
    "SELECT": _SUBQUERY,
    "WITH": _SUBQUERY,
    "VALUES": _SUBQUERY,
    "EXISTS": _SUBQUERY,
    "UNION": _SUBQUERY,
    "FROM": _SUBQUERY,
    "AS": "an expression has no name: leave out AS",
    "OVER": _WINDOW,
    "FILTER": _WINDOW,
    "WITHIN": _WINDOW,
    "INTERVAL": "intervals are not supported: a number of days can be added to a date",
    "ARRAY": "arrays are not supported",
    "COLLATE": "collations are not supported: texts are compared by the numbers of their characters",
    "AT": "time zones are not supported: timestamps are in UTC",
    "SIMILAR": _REGULAR,
    "REGEXP": _REGULAR,
    "RLIKE": _REGULAR,
    "GLOB": "GLOB is not supported: use LIKE",
    "ISNULL": "use IS NULL",
    "NOTNULL": "use IS NOT NULL",
    "BOTH": "use trim(text, characters)",
    "LEADING": "use ltrim(text, characters)",
    "TRAILING": "use rtrim(text, characters)",
    "TIME": "TIME is not supported: use DATE or TIMESTAMP",
    "==": "== is not supported: use =",
    "=<": "=< is not supported: use <=",
    "=>": "=> is not supported: use >=",
    "->": "-> is not supported: members are written as a.b",
    "->>": "->> is not supported: members are written as a.b",
    "~": _REGULAR,
    "?": "parameters are not supported: write the value",
    ":": "parameters and :: are not supported: write the value, or CAST(x AS type)",
    "::": ":: is not supported: write CAST(x AS type)",
    "@": "@ is not supported",
    "#": "# is not supported",
    "[": "arrays are not supported: there is no access to their elements",
    "{": "objects are not supported: members are written as a.b",
    ";": "an expression is no statement: leave out the semicolon",
    "`": 'names that are not plain are written in double quotes, like "odd name"',
    "\\": "a backslash has no meaning outside quotes",
    "^": "^ is not supported: use power(x, y)",
    "!": "! is not supported: use NOT or <>",
    "&": "operators on bits are not supported: use AND",
    "|": "operators on bits are not supported: use OR, or || for texts",
}

#: Quotes that text editors put in the place of the straight ones.
_CURLY_QUOTES = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u00b4")

#: Strings and quoted names, in which the quote is doubled.
_QUOTED = re.compile(r"""'(?:[^']|'')*+'|"(?:[^"]|"")*+"|[^'"]++""")

_NAME = re.compile(r"\$?[^\W\d]\w*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


class _Tokenizer(Tokenizer):
    """sqlglot's tokenizer with the few keywords of expressions, so that all other words are names."""

    KEYWORDS: ClassVar = {
        "AND": TokenType.AND,
        "AS": TokenType.ALIAS,
        "BETWEEN": TokenType.BETWEEN,
        "CASE": TokenType.CASE,
        "DISTINCT": TokenType.DISTINCT,
        "ELSE": TokenType.ELSE,
        "END": TokenType.END,
        "ESCAPE": TokenType.ESCAPE,
        "FALSE": TokenType.FALSE,
        "FOR": TokenType.FOR,
        "FROM": TokenType.FROM,
        "ILIKE": TokenType.ILIKE,
        "IN": TokenType.IN,
        "IS": TokenType.IS,
        "LIKE": TokenType.LIKE,
        "NOT": TokenType.NOT,
        "NULL": TokenType.NULL,
        "OR": TokenType.OR,
        "THEN": TokenType.THEN,
        "TRUE": TokenType.TRUE,
        "WHEN": TokenType.WHEN,
        "!=": TokenType.NEQ,
        "//": TokenType.DIV,
        "->": TokenType.UNKNOWN,
        "->>": TokenType.UNKNOWN,
        "::": TokenType.DCOLON,
        "<=": TokenType.LTE,
        "<>": TokenType.NEQ,
        "=<": TokenType.UNKNOWN,
        "==": TokenType.UNKNOWN,
        "=>": TokenType.UNKNOWN,
        ">=": TokenType.GTE,
        "||": TokenType.DPIPE,
    }
    # sqlglot takes the sign for NOT.
    SINGLE_TOKENS: ClassVar = {**Tokenizer.SINGLE_TOKENS, "!": TokenType.UNKNOWN}
    COMMANDS: ClassVar[set[TokenType]] = set()


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text; raises ExpressionError for a text that is too long or not made of tokens."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}", text, Span(0, 1)
        )
    end = 0
    while (quoted := _QUOTED.match(text, end)) is not None:
        end = quoted.end()
    if end < len(text):
        raise ExpressionError(f"the quote {text[end]} is not closed", text, Span(end, end + 1))
    try:
        tokens = _Tokenizer().tokenize(text)
    except SqlglotError as error:
        raise ExpressionError("the text is not an expression", text, Span(0, 1)) from error
    if not tokens:
        raise ExpressionError("the expression is empty", text, Span(0, 1))
    if len(tokens) > MAX_TOKENS:
        span = span_of(tokens[MAX_TOKENS])
        raise ExpressionError(f"the expression has more than {MAX_TOKENS:,} words and signs", text, span)
    _require_only_blanks_between(text, tokens)
    return tokens


def span_of(token: Token) -> Span:
    """Return where a token is."""
    return Span(token.start, token.end + 1)


def _require_only_blanks_between(text: str, tokens: list[Token]) -> None:
    """Raise ExpressionError for comments, which the tokenizer leaves out."""
    at = 0
    for token in tokens:
        _require_blank(text, at, token.start)
        at = token.end + 1
    _require_blank(text, at, len(text))


def _require_blank(text: str, start: int, end: int) -> None:
    gap = text[start:end]
    if not gap.isspace() and gap:
        begin = start + len(gap) - len(gap.lstrip())
        raise ExpressionError("comments are not supported (-- begins one)", text, Span(begin, begin + 2))


def is_name(token: Token) -> bool:
    """Return whether a word is a plain name, perhaps with a $ in front."""
    return _NAME.fullmatch(token.text) is not None


def why_no_name(token: Token) -> str:
    """Return why a word is not a plain name."""
    if _CURLY_QUOTES.isdisjoint(token.text):
        return 'names that are not plain are written in double quotes, like "odd name"'
    return "this is not a straight quote: texts are written in '...', and names that are not plain in \"...\""


def is_number(token: Token) -> bool:
    """Return whether a number is complete, which the tokenizer does not check: it accepts 1e."""
    return _NUMBER.fullmatch(token.text) is not None


def message_for(word: str) -> str | None:
    """Return why a word or sign is not part of expressions; None if there is nothing special about it."""
    return _MESSAGES.get(word.upper())
