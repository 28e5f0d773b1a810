"""Expressions that are ready for rows."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import NamedTuple, Protocol

from tablehouse.expressions.compiling import compile_truth, compile_value
from tablehouse.expressions.errors import ExpressionError
from tablehouse.expressions.kinds import Kind, accepts
from tablehouse.expressions.parsing import tree_of
from tablehouse.expressions.tree import Member, Node, OriginMember, nodes_of

Row = Mapping[str, object]


class Origin(NamedTuple):
    """The record that a row comes from, which an expression reads as $key, $topic, $partition, $timestamp and $headers.

    `timestamp` is in milliseconds since 1970, None if the record has none. `headers` has a value for each name.
    """

    key: object
    topic: str
    partition: int
    timestamp: int | None
    headers: Mapping[str, object]


class Evaluate(Protocol):
    """A function of a row and the record it comes from, which may be None for an expression that reads none of it."""

    def __call__(self, row: Row, origin: Origin | None = None, /) -> object:
        """Return the value: a str, int, float, Decimal, bool, date, datetime or None; raises EvaluationError.

        If the whole expression is a member, its value may also be an array or object.
        """


class Matches(Protocol):
    """A condition as a function of a row and the record it comes from, as Evaluate."""

    def __call__(self, row: Row, origin: Origin | None = None, /) -> bool:
        """Return whether the condition is true, not false or null; raises EvaluationError."""


class Expression:
    """A checked expression.

    `members` are the paths of names that it reads from a row, each once, so that callers decode only those: ("a", "b")
    is a.b, for which the row needs its member "a". `origins` are what it reads from the record, such as $key.
    `kind` is the type of its values as far as it is known without a row.
    """

    def __init__(self, text: str, tree: Node) -> None:
        self.text = text
        self.kind = tree.kind
        nodes = nodes_of(tree)
        self.members = tuple(dict.fromkeys(node.path for node in nodes if isinstance(node, Member)))
        self.origins = frozenset(node.name for node in nodes if isinstance(node, OriginMember))
        self._tree = tree

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def require_origins(self, known: AbstractSet[str]) -> None:
        """Raise ExpressionError if the expression reads anything else of the record, at the first place."""
        unknown = [node for node in nodes_of(self._tree) if isinstance(node, OriginMember) and node.name not in known]
        if unknown:
            first = min(unknown, key=lambda node: node.span)
            reason = f"{first.name} is not known here; there are {', '.join(sorted(known))}"
            raise ExpressionError(reason, self.text, first.span)

    @cached_property
    def evaluate(self) -> Evaluate:
        """The function for the value; compiled at the first use."""
        return compile_value(self._tree, self.text)

    @cached_property
    def matches(self) -> Matches:
        """The function of a filter; compiled at the first use."""
        return compile_truth(self._tree, self.text)


def parse(text: str) -> Expression:
    """Return the expression of a text; raises ExpressionError."""
    return Expression(text, tree_of(text))


def parse_condition(text: str) -> Expression:
    """Return an expression that is used as a filter; raises ExpressionError also if it cannot be true or false."""
    tree = tree_of(text)
    if not accepts(Kind.BOOLEAN, tree.kind):
        raise ExpressionError(f"a condition is required here, and this is {tree.kind.value}", text, tree.span)
    return Expression(text, tree)
