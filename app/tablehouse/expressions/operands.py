"""Operands and types, as they are written in an expression."""

import re
from decimal import Decimal

from sqlglot import Token, TokenType

from tablehouse.expressions import casts
from tablehouse.expressions.arithmetic import MAX_DIGITS, MAX_INTEGER, bounded, finite
from tablehouse.expressions.errors import EvaluationError, ExpressionError, Span
from tablehouse.expressions.functions import CHANGING_NAMES, DECIMALS, TYPE_NAMES, TYPES, Cast, decimal_type, why_not
from tablehouse.expressions.kinds import Kind
from tablehouse.expressions.tree import Literal, Member, Node, OriginMember
from tablehouse.expressions.words import is_name, is_number, span_of, why_no_name

#: Names in a path such as a.b.c.
MAX_PATH = 16

#: The parameters of a type: the digits of a decimal.
_SMALL_NUMBER = re.compile("[0-9]{1,2}")
_MAX_PARAMETERS = 2

_MAX_INTEGER_DIGITS = len(str(MAX_INTEGER))

#: The values of the record that a row comes from which an expression may read.
ORIGIN_MEMBERS = ("$headers", "$key", "$partition", "$timestamp", "$topic")

_CONSTANTS = {TokenType.NULL: None, TokenType.TRUE: True, TokenType.FALSE: False}

#: The literals of a type and a string, such as DATE '2024-01-31'.
_TYPED_LITERALS = {"date": (Kind.DATE, casts.to_date), "timestamp": (Kind.TIMESTAMP, casts.to_timestamp)}


class Operands:
    """Reads operands and types from the tokens of one text."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text = text
        self._tokens = tokens

    def literal(self, at: int) -> Literal:
        """Return a text in single quotes, a number, NULL, TRUE or FALSE."""
        token = self._tokens[at]
        if token.token_type is TokenType.STRING:
            return Literal(span_of(token), Kind.TEXT, token.text)
        if token.token_type is TokenType.NUMBER:
            return self._number(token)
        value = _CONSTANTS[token.token_type]
        return Literal(span_of(token), Kind.NULL if value is None else Kind.BOOLEAN, value)

    def _number(self, token: Token) -> Literal:
        """Return an integer, a decimal if the number has a point, or a float if it has an exponent."""
        digits = token.text
        if not is_number(token):
            raise self._error(f"{digits} is not a number", span_of(token))
        try:
            if "e" in digits.lower():
                return Literal(span_of(token), Kind.NUMBER, finite(float(digits)))
            if "." not in digits:
                # Python converts integers of up to 4300 digits only.
                value = int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else MAX_INTEGER + 1
                return Literal(span_of(token), Kind.INTEGER, bounded(value))
        except EvaluationError as error:
            raise ExpressionError(error.reason, self._text, span_of(token)) from error
        if len(digits) > MAX_DIGITS + 1:
            raise self._error(f"a decimal has more than {MAX_DIGITS} digits", span_of(token))
        return Literal(span_of(token), Kind.NUMBER, Decimal(digits))

    def typed_literal(self, at: int) -> Literal | None:
        """Return the literal of a type's name and the string after it; None if there is none."""
        token = self._tokens[at]
        kind_and_cast = _TYPED_LITERALS.get(token.text.lower())
        if kind_and_cast is None or not self.is_at(at + 1, TokenType.STRING):
            return None
        kind, cast = kind_and_cast
        span = Span(token.start, span_of(self._tokens[at + 1]).end)
        try:
            return Literal(span, kind, cast(self._tokens[at + 1].text))
        except EvaluationError as error:
            raise ExpressionError(error.reason, self._text, span_of(self._tokens[at + 1])) from error

    def path(self, at: int) -> tuple[Node, int]:
        """Return a member, or a value of the record that the row comes from, and where the tokens go on."""
        first = self._tokens[at]
        names = [first.text]
        end = at + 1
        while self.is_at(end, TokenType.DOT):
            names.append(self._name_after_dot(end))
            end += 2
        span = Span(first.start, span_of(self._tokens[end - 1]).end)
        if len(names) > MAX_PATH:
            raise self._error(f"a path has more than {MAX_PATH} names", span)
        if first.token_type is TokenType.IDENTIFIER:
            return Member(span, Kind.ANY, tuple(names)), end
        if not is_name(first):
            raise self._error(why_no_name(first), span_of(first))
        if names[0].startswith("$"):
            return self._origin_member(span, names[0], tuple(names[1:])), end
        if names[0].lower() in CHANGING_NAMES and len(names) == 1:
            raise self._error(f'{why_not(names[0].lower())}. A member is "{names[0]}", in quotes', span)
        return Member(span, Kind.ANY, tuple(names)), end

    def _name_after_dot(self, at: int) -> str:
        if at + 1 < len(self._tokens):
            token = self._tokens[at + 1]
            # Keywords are names after a point.
            quoted = token.token_type is TokenType.IDENTIFIER
            if quoted or (token.token_type is not TokenType.STRING and is_name(token)):
                return token.text
        raise self._error("a name is expected after the point", span_of(self._tokens[at]))

    def _origin_member(self, span: Span, name: str, path: tuple[str, ...]) -> OriginMember:
        kinds = {"$partition": Kind.INTEGER, "$timestamp": Kind.TIMESTAMP, "$topic": Kind.TEXT}
        if name not in ORIGIN_MEMBERS:
            raise self._error(f"there is no {name[:40]}; there are {', '.join(ORIGIN_MEMBERS)}", span)
        if name in kinds and path:
            raise self._error(f"{name} has no members", span)
        if name == "$headers" and len(path) != 1:
            raise self._error("one header is $headers.name", span)
        return OriginMember(span, kinds.get(name, Kind.ANY), name, path)

    def cast_type(self, at: int) -> tuple[Cast, Span, int]:
        """Return the type after AS, its place, and where the tokens go on."""
        end = at
        words = []
        while self.is_at(end, TokenType.VAR):
            words.append(self._tokens[end].text.upper())
            end += 1
        name = " ".join(words)
        parameters: list[int] = []
        if self.is_at(end, TokenType.L_PAREN):
            end, parameters = self._parameters(end)
        span = Span(self._tokens[at - 1].start, self._tokens[end - 1].end + 1)
        cast = TYPES.get(name) if not parameters else None
        if name in DECIMALS and parameters:
            precision, scale = (*parameters, 0)[:2]
            cast = decimal_type(precision, scale)
        if cast is not None:
            return cast, span, end
        if name in DECIMALS:
            reason = f"a decimal has 1 to {MAX_DIGITS} digits: write DECIMAL(digits, digits after the point)"
            raise self._error(reason, span)
        raise self._error(f"CAST to {name[:40] or 'this'} is not supported; the types are {TYPE_NAMES}", span)

    def _parameters(self, at: int) -> tuple[int, list[int]]:
        """Return where the tokens go on after the numbers in brackets that follow a type's name, and the numbers."""
        numbers: list[int] = []
        end = at
        while not numbers or self.is_at(end, TokenType.COMMA):
            token = self._tokens[min(end + 1, len(self._tokens) - 1)]
            if token.token_type is not TokenType.NUMBER or not _SMALL_NUMBER.fullmatch(token.text):
                raise self._error("the digits of a decimal are one or two small numbers", span_of(token))
            numbers.append(int(token.text))
            end += 2
        if not self.is_at(end, TokenType.R_PAREN) or len(numbers) > _MAX_PARAMETERS:
            raise self._error("the digits of a decimal are one or two small numbers", span_of(token))
        return end + 1, numbers

    def is_at(self, at: int, kind: TokenType) -> bool:
        """Return whether a token is of a type."""
        return at < len(self._tokens) and self._tokens[at].token_type is kind

    def _error(self, reason: str, span: Span) -> ExpressionError:
        return ExpressionError(reason, self._text, span)
