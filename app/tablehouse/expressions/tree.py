"""The checked form of an expression, independent of the parser."""

from dataclasses import dataclass, fields
from typing import Literal as OneOf

from tablehouse.expressions.errors import Span
from tablehouse.expressions.functions import Cast, Function
from tablehouse.expressions.kinds import Kind


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression, its place in the text, and the kind of its value."""

    span: Span
    kind: Kind


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A value in the text."""

    value: object


@dataclass(frozen=True, slots=True)
class Member(Node):
    """A member of the row, or of an object in it; null if there is none."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OriginMember(Node):
    """A value of the record that the row comes from, such as $key, and the path of a member of it."""

    name: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """NOT operand."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Connected(Node):
    """Operands connected by AND or by OR."""

    word: OneOf["AND", "OR"]
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """Two operands with one of = <> < <= > >= between them."""

    symbol: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Distinct(Node):
    """Whether two operands differ (IS DISTINCT FROM), where null is a value like others."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Is(Node):
    """Whether the operand is null, true or false; never null itself."""

    operand: Node
    value: bool | None


@dataclass(frozen=True, slots=True)
class In(Node):
    """Whether the operand equals one of the choices."""

    operand: Node
    choices: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Between(Node):
    """Whether the operand is in a closed range."""

    operand: Node
    low: Node
    high: Node


@dataclass(frozen=True, slots=True)
class Like(Node):
    """Whether the operand matches a pattern; `fold` for ILIKE."""

    operand: Node
    pattern: Node
    escape: str | None
    fold: bool


@dataclass(frozen=True, slots=True)
class Case(Node):
    """CASE with conditions, or with an operand that is compared with each of them."""

    operand: Node | None
    branches: tuple[tuple[Node, Node], ...]
    default: Node


@dataclass(frozen=True, slots=True)
class Coalesce(Node):
    """The first of the operands that is not null."""

    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation(Node):
    """Two operands with an arithmetic operator or || between them."""

    symbol: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Negation(Node):
    """The operand with the other sign."""

    operand: Node


@dataclass(frozen=True, slots=True)
class CastTo(Node):
    """CAST of the operand."""

    operand: Node
    cast: Cast


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A call of a function."""

    function: Function
    operands: tuple[Node, ...]


def nodes_of(tree: Node) -> list[Node]:
    """Return a tree's nodes in no particular order; without recursion, since chains of operations are deep."""
    found = []
    left: list[object] = [tree]
    while left:
        item = left.pop()
        if isinstance(item, tuple):
            left.extend(item)
        elif isinstance(item, Node):
            found.append(item)
            left.extend(getattr(item, field.name) for field in fields(item))
    return found
