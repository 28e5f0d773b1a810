"""The order of words and signs in an expression, checked before sqlglot parses them.

sqlglot accepts more than SQL, in many dialects, and recurses at every level of nesting. So one pass over the tokens
checks that operands and operators alternate, that brackets and CASE are closed, and how deeply they are nested. It also
replaces every operand and every name of a function by a numbered name (`v0`, `f1`), and the special forms of CAST,
EXTRACT, POSITION and SUBSTRING by plain calls. What is left to sqlglot is the precedence of operators.
"""

from collections.abc import Callable

from sqlglot import Token, TokenType

from tablehouse.expressions.errors import ExpressionError
from tablehouse.expressions.functions import FUNCTIONS, SPECIAL, why_not
from tablehouse.expressions.kinds import Kind
from tablehouse.expressions.levels import AFTER, WORDS_OF_CASE, Level, Sentence
from tablehouse.expressions.operands import Operands
from tablehouse.expressions.tree import Literal, Node
from tablehouse.expressions.words import message_for, span_of

#: Levels of brackets, CASE and signs. At each of them sqlglot uses about 25 of the 1000 frames that Python allows.
MAX_DEPTH = 20

_OPERATORS = frozenset(
    {
        TokenType.PLUS,
        TokenType.DASH,
        TokenType.STAR,
        TokenType.SLASH,
        TokenType.DIV,
        TokenType.MOD,
        TokenType.DPIPE,
    }
)
_COMPARISONS = frozenset({TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE})
_LIKES = frozenset({TokenType.LIKE, TokenType.ILIKE})
_NEGATED = frozenset({TokenType.IN, TokenType.BETWEEN, *_LIKES})
_CONSTANTS = frozenset({TokenType.NULL, TokenType.TRUE, TokenType.FALSE})
#: After these, and at the beginning, NOT may stand before an operand.
_BEFORE_NOT = frozenset(
    {
        TokenType.AND,
        TokenType.OR,
        TokenType.NOT,
        TokenType.L_PAREN,
        TokenType.COMMA,
        TokenType.CASE,
        TokenType.WHEN,
        TokenType.THEN,
        TokenType.ELSE,
    }
)
_USAGE = {
    "cast": "CAST is written CAST(value AS type)",
    "extract": "EXTRACT is written EXTRACT(field FROM value)",
    "position": "POSITION is written POSITION(part IN text)",
}

_Reader = Callable[[Token], bool]


class Grammar:
    """Reads the tokens of one text."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._operands = Operands(text, tokens)
        self._at = 0
        self._levels = [Level(None, 0)]
        self._signs = 0
        self._sentence = Sentence()
        self._operand_readers: dict[TokenType, _Reader] = {
            TokenType.NOT: self._sign,
            TokenType.DASH: self._sign,
            TokenType.L_PAREN: self._bracket,
            TokenType.R_PAREN: self._end_of_empty_call,
            TokenType.CASE: self._case,
            TokenType.VAR: self._name,
            TokenType.IDENTIFIER: self._path,
            TokenType.STAR: self._refuse_star,
            **dict.fromkeys((TokenType.STRING, TokenType.NUMBER, *_CONSTANTS), self._literal),
        }
        self._operator_readers: dict[TokenType, _Reader] = {
            **dict.fromkeys(_OPERATORS, self._emit),
            **dict.fromkeys(_COMPARISONS, self._condition),
            **dict.fromkeys((TokenType.NOT, TokenType.BETWEEN, *_LIKES), self._worded_condition),
            **dict.fromkeys((TokenType.AND, TokenType.OR), self._connector),
            **dict.fromkeys(WORDS_OF_CASE, self._word_of_case),
            **dict.fromkeys((TokenType.FROM, TokenType.FOR), self._word_of_substring),
            TokenType.IN: self._in,
            TokenType.IS: self._is,
            TokenType.ESCAPE: self._escape,
            TokenType.COMMA: self._comma,
            TokenType.R_PAREN: self._close,
            TokenType.ALIAS: self._cast,
        }

    def read(self) -> Sentence:
        """Return the checked tokens; raises ExpressionError."""
        operand_follows = True
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            operand_follows = self._operand(token) if operand_follows else self._operator(token)
        last = self._tokens[-1]
        if operand_follows:
            raise self._error("the expression ends where a value is expected", last)
        level = self._levels[-1]
        if level.opener is not None:
            raise self._error("CASE has no END" if level.words_of_case else "the bracket is not closed", level.opener)
        self._require_and_of_between(level, last)
        return self._sentence

    # The methods below read one token, or some that belong together, and return whether an operand has to follow.

    def _operand(self, token: Token) -> bool:
        reader = self._operand_readers.get(token.token_type)
        if reader is None:
            raise self._unexpected(token, "a value is expected here")
        return reader(token)

    def _operator(self, token: Token) -> bool:
        reader = self._operator_readers.get(token.token_type, self._refuse_operator)
        return reader(token)

    def _refuse_operator(self, token: Token) -> bool:
        raise self._unexpected(token, "an operator is expected here")

    def _refuse_star(self, token: Token) -> bool:
        raise self._error("* is not supported: an expression is about one row and names its members", token)

    def _sign(self, token: Token) -> bool:
        before = self._before()
        if token.token_type is TokenType.NOT and before is not None and before.token_type not in _BEFORE_NOT:
            raise self._error("put NOT and what it applies to in brackets", token)
        self._signs += 1
        self._require_depth(self._levels[-1].depth + self._signs, token)
        return self._emit(token)

    def _bracket(self, token: Token) -> bool:
        self._open(token)
        return True

    def _case(self, token: Token) -> bool:
        self._open(token).words_of_case = AFTER[TokenType.CASE]
        return not self._operands.is_at(self._at, TokenType.WHEN)

    def _literal(self, token: Token) -> bool:
        return self._value(token, self._operands.literal(self._at - 1))

    def _open(self, token: Token) -> Level:
        depth = self._levels[-1].depth + self._signs + 1
        self._require_depth(depth, token)
        level = Level(token, depth)
        self._levels.append(level)
        self._signs = 0
        self._emit(token)
        return level

    def _end_of_empty_call(self, token: Token) -> bool:
        if self._levels[-1].call is None or self._levels[-1].opener is not self._before():
            raise self._unexpected(token, "a value is expected here")
        return self._close(token)

    def _close(self, token: Token) -> bool:
        level = self._levels[-1]
        if level.opener is None or level.words_of_case:
            raise self._error("this bracket was not opened" if level.opener is None else "CASE has no END", token)
        if level.call in _USAGE and level.commas != 1:
            raise self._error(_USAGE[level.call], token)
        self._require_and_of_between(level, token)
        self._levels.pop()
        self._emit(token)
        if level.takes_commas and level.call is None:
            self._require_no_operator()
        return False

    def _name(self, token: Token) -> bool:
        literal = self._operands.typed_literal(self._at - 1)
        if literal is not None:
            self._at += 1
            return self._value(token, literal)
        if self._operands.is_at(self._at, TokenType.L_PAREN):
            return self._call(token)
        if message_for(token.text) is not None and self._starts_operand(self._at):
            raise self._unexpected(token, "a value is expected here")
        return self._path(token)

    def _path(self, token: Token) -> bool:
        node, self._at = self._operands.path(self._at - 1)
        return self._value(token, node)

    def _call(self, token: Token) -> bool:
        name = token.text.lower()
        if name not in FUNCTIONS and name not in SPECIAL:
            raise self._error(why_not(name), token)
        numbered = f"f{len(self._sentence.calls)}"
        self._sentence.calls[numbered] = (name, span_of(token))
        self._emit(_stand_in(token, TokenType.VAR, numbered))
        self._at += 1
        level = self._open(self._tokens[self._at - 1])
        level.call, level.takes_commas = name, True
        if name == "extract":
            self._field_of_extract(token)
        return True

    def _field_of_extract(self, token: Token) -> None:
        at = self._at
        is_field = self._operands.is_at(at, TokenType.VAR) or self._operands.is_at(at, TokenType.STRING)
        if not is_field or not self._operands.is_at(at + 1, TokenType.FROM):
            raise self._error(_USAGE["extract"], token)
        self._value(self._tokens[at], Literal(span_of(self._tokens[at]), Kind.TEXT, self._tokens[at].text))
        self._at += 2
        self._separate(self._tokens[at + 1])

    def _cast(self, token: Token) -> bool:
        level = self._levels[-1]
        if level.call != "cast" or level.commas:
            return self._refuse_operator(token)
        self._separate(token)
        cast, span, self._at = self._operands.cast_type(self._at)
        if not self._operands.is_at(self._at, TokenType.R_PAREN):
            raise self._error(_USAGE["cast"], token)
        numbered = f"t{len(self._sentence.types)}"
        self._sentence.types[numbered] = (cast, span)
        self._emit(_stand_in(token, TokenType.VAR, numbered))
        return False

    def _value(self, token: Token, node: Node) -> bool:
        numbered = f"v{len(self._sentence.operands)}"
        self._sentence.operands[numbered] = node
        self._emit(_stand_in(token, TokenType.VAR, numbered))
        self._signs = 0
        return False

    def _condition(self, token: Token) -> bool:
        """Read what makes a condition of the operand before it."""
        level = self._levels[-1]
        if level.condition:
            raise self._error("two conditions in a row: put one of them in brackets", token)
        level.condition = True
        return self._emit(token)

    def _worded_condition(self, token: Token) -> bool:
        level = self._levels[-1]
        if token.token_type is TokenType.NOT:
            self._emit(token)
            if self._at == len(self._tokens) or self._tokens[self._at].token_type not in _NEGATED:
                raise self._error("IN, BETWEEN, LIKE or ILIKE is expected after this NOT", token)
            token = self._tokens[self._at]
            self._at += 1
        self._condition(token)
        level.and_of_between = token.token_type is TokenType.BETWEEN
        level.escapable = token.token_type in _LIKES
        if token.token_type is TokenType.IN:
            if not self._operands.is_at(self._at, TokenType.L_PAREN):
                raise self._error("IN is written IN (value, value)", token)
            self._at += 1
            self._open(self._tokens[self._at - 1]).takes_commas = True
        return True

    def _in(self, token: Token) -> bool:
        level = self._levels[-1]
        # That of POSITION(part IN text).
        return self._separate(token) if level.call == "position" and not level.commas else self._worded_condition(token)

    def _is(self, token: Token) -> bool:
        self._condition(token)
        if self._operands.is_at(self._at, TokenType.NOT):
            self._emit(self._tokens[self._at])
            self._at += 1
        if self._operands.is_at(self._at, TokenType.DISTINCT) and self._operands.is_at(self._at + 1, TokenType.FROM):
            self._emit(self._tokens[self._at])
            self._emit(self._tokens[self._at + 1])
            self._at += 2
            return True
        if self._at == len(self._tokens) or self._tokens[self._at].token_type not in _CONSTANTS:
            raise self._error("NULL, TRUE, FALSE or DISTINCT FROM is expected after IS", token)
        self._value(self._tokens[self._at], self._operands.literal(self._at))
        self._at += 1
        self._require_no_operator()
        return False

    def _escape(self, token: Token) -> bool:
        if not self._levels[-1].escapable:
            return self._refuse_operator(token)
        if not self._operands.is_at(self._at, TokenType.STRING) or len(self._tokens[self._at].text) != 1:
            raise self._error("one character in quotes is expected after ESCAPE", token)
        self._levels[-1].escapable = False
        self._emit(token)
        self._emit(self._tokens[self._at])
        self._at += 1
        self._require_no_operator()
        return False

    def _connector(self, token: Token) -> bool:
        level = self._levels[-1]
        if token.token_type is TokenType.AND and level.and_of_between:
            level.and_of_between = False
            return self._emit(token)
        self._require_and_of_between(level, token)
        level.begin_condition()
        return self._emit(token)

    def _comma(self, token: Token) -> bool:
        level = self._levels[-1]
        if not level.takes_commas:
            raise self._unexpected(token, "there is no list here: only the arguments of a function and IN have commas")
        if level.call in _USAGE:
            raise self._error(_USAGE[level.call], token)
        return self._separate(token)

    def _word_of_substring(self, token: Token) -> bool:
        level = self._levels[-1]
        if level.call not in ("substring", "substr"):
            return self._refuse_operator(token)
        if level.commas != (0 if token.token_type is TokenType.FROM else 1):
            raise self._error("SUBSTRING is written SUBSTRING(text FROM start FOR length)", token)
        return self._separate(token)

    def _separate(self, token: Token) -> bool:
        """Read what stands between two arguments."""
        level = self._levels[-1]
        self._require_and_of_between(level, token)
        level.begin_condition()
        level.commas += 1
        return self._emit(_stand_in(token, TokenType.COMMA, ","))

    def _word_of_case(self, token: Token) -> bool:
        level = self._levels[-1]
        if token.token_type not in level.words_of_case:
            raise self._error(f"{token.text.upper()} does not belong here", token)
        self._require_and_of_between(level, token)
        level.begin_condition()
        self._emit(token)
        if token.token_type is TokenType.END:
            self._levels.pop()
            return False
        level.words_of_case = AFTER[token.token_type]
        return True

    def _emit(self, token: Token) -> bool:
        self._sentence.tokens.append(token)
        return True

    def _before(self) -> Token | None:
        return self._tokens[self._at - 2] if self._at > 1 else None

    def _starts_operand(self, at: int) -> bool:
        return at < len(self._tokens) and (
            self._tokens[at].token_type in (TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING, TokenType.NUMBER)
            or self._tokens[at].token_type in (*_CONSTANTS, TokenType.DISTINCT)
        )

    def _require_depth(self, depth: int, token: Token) -> None:
        if depth > MAX_DEPTH:
            raise self._error(f"the expression is nested more than {MAX_DEPTH} deep", token)

    def _require_and_of_between(self, level: Level, token: Token) -> None:
        if level.and_of_between:
            raise self._error("BETWEEN is written BETWEEN low AND high", token)

    def _require_no_operator(self) -> None:
        """Raise ExpressionError if a condition that is complete is followed by an operator on its value."""
        if self._at < len(self._tokens) and self._tokens[self._at].token_type in _OPERATORS:
            raise self._error("put the condition before this operator in brackets", self._tokens[self._at])

    def _unexpected(self, token: Token, expected: str) -> ExpressionError:
        return self._error(message_for(token.text) or expected, token)

    def _error(self, reason: str, token: Token) -> ExpressionError:
        return ExpressionError(reason, self._text, span_of(token))


def _stand_in(token: Token, kind: TokenType, text: str) -> Token:
    """Return a token of another type and text in the place of a token."""
    return Token(kind, text, token.line, token.col, token.start, token.end)
