"""What is open at a place of an expression, and what its grammar makes of it."""

from dataclasses import dataclass, field

from sqlglot import Token, TokenType

from tablehouse.expressions.errors import Span
from tablehouse.expressions.functions import Cast
from tablehouse.expressions.tree import Node

WORDS_OF_CASE = frozenset({TokenType.WHEN, TokenType.THEN, TokenType.ELSE, TokenType.END})
#: What may follow each word of CASE.
AFTER = {
    TokenType.CASE: frozenset({TokenType.WHEN}),
    TokenType.WHEN: frozenset({TokenType.THEN}),
    TokenType.THEN: frozenset({TokenType.WHEN, TokenType.ELSE, TokenType.END}),
    TokenType.ELSE: frozenset({TokenType.END}),
}


@dataclass(slots=True)
class Level:
    """The whole text, or an open bracket, list of IN, call of a function, or CASE.

    `condition` tells whether there was a comparison, LIKE, IN, BETWEEN or IS since the last AND, OR or comma: databases
    disagree on what two of them without brackets mean. `and_of_between` tells whether the next AND belongs to BETWEEN,
    and `escapable` whether ESCAPE may follow.
    """

    opener: Token | None
    depth: int
    call: str | None = None
    takes_commas: bool = False
    words_of_case: frozenset[TokenType] = frozenset()
    condition: bool = False
    and_of_between: bool = False
    escapable: bool = False
    commas: int = 0

    def begin_condition(self) -> None:
        """Forget the condition that ends here."""
        self.condition = self.and_of_between = self.escapable = False


@dataclass(slots=True)
class Sentence:
    """The tokens for sqlglot, and what its numbered names stand for: operands, types, and names of functions."""

    tokens: list[Token] = field(default_factory=list)
    operands: dict[str, Node] = field(default_factory=dict)
    types: dict[str, tuple[Cast, Span]] = field(default_factory=dict)
    calls: dict[str, tuple[str, Span]] = field(default_factory=dict)
