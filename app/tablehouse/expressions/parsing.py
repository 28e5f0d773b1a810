"""Text to a checked tree: the precedence of operators by sqlglot, and the types that are known without a row."""

from collections.abc import Callable
from typing import Any
from typing import Literal as OneOf

from sqlglot import expressions as sql
from sqlglot.errors import SqlglotError
from sqlglot.parser import Parser

from tablehouse.expressions.arithmetic import negate
from tablehouse.expressions.errors import EvaluationError, ExpressionError, Span
from tablehouse.expressions.functions import FUNCTIONS, Function, field_function, fields_of
from tablehouse.expressions.grammar import Grammar
from tablehouse.expressions.kinds import Kind, accepts, common, family
from tablehouse.expressions.levels import Sentence
from tablehouse.expressions.like import matcher
from tablehouse.expressions.tree import (
    Between,
    Call,
    Case,
    CastTo,
    Coalesce,
    Comparison,
    Connected,
    Distinct,
    In,
    Is,
    Like,
    Literal,
    Negation,
    Node,
    Not,
    Operation,
)
from tablehouse.expressions.words import tokens_of

_COMPARISONS: dict[type[sql.Expr], str] = {
    sql.EQ: "=",
    sql.NEQ: "<>",
    sql.LT: "<",
    sql.LTE: "<=",
    sql.GT: ">",
    sql.GTE: ">=",
}
_OPERATIONS: dict[type[sql.Expr], str] = {
    sql.Add: "+",
    sql.Sub: "-",
    sql.Mul: "*",
    sql.Div: "/",
    sql.IntDiv: "//",
    sql.Mod: "%",
    sql.DPipe: "||",
}
_CONNECTORS: dict[type[sql.Expr], OneOf["AND", "OR"]] = {sql.And: "AND", sql.Or: "OR"}

_Reader = Callable[[Any], Node]


def tree_of(text: str) -> Node:
    """Return the checked tree of an expression; raises ExpressionError."""
    sentence = Grammar(text, tokens_of(text)).read()
    whole = Span(0, len(text))
    try:
        found = Parser().parse_into(sql.Condition, sentence.tokens, text)
        if len(found) == 1 and found[0] is not None:
            return _Checker(text, sentence).node(found[0])
    except SqlglotError as error:
        raise ExpressionError("the text is not an expression", text, whole) from error
    except RecursionError as error:
        raise ExpressionError("the expression is nested too deeply", text, whole) from error
    raise ExpressionError("the text is not an expression", text, whole)


class _Checker:
    """Turns sqlglot's tree into that of this package, and checks the types of operands."""

    def __init__(self, text: str, sentence: Sentence) -> None:
        self._text = text
        self._sentence = sentence
        self._readers: dict[type[sql.Expr], _Reader] = {
            **dict.fromkeys(_COMPARISONS, self._comparison),
            **dict.fromkeys((sql.NullSafeEQ, sql.NullSafeNEQ), self._distinct),
            **dict.fromkeys((sql.Like, sql.ILike, sql.Escape), self._like),
            sql.Column: self._operand,
            sql.Paren: self._paren,
            sql.Not: self._not,
            sql.Neg: self._negation,
            sql.Is: self._is,
            sql.In: self._in,
            sql.Between: self._between,
            sql.Case: self._case,
            sql.Anonymous: self._call,
        }

    def node(self, tree: sql.Expr) -> Node:
        """Return the node of a part of sqlglot's tree.

        A chain such as a + b + c is as deep as it is long on its left side, so it is followed without recursion.
        """
        chain = []
        while type(tree) in _OPERATIONS or type(tree) in _CONNECTORS:
            chain.append(tree)
            tree = tree.this
        found = self._single(tree)
        for parent in reversed(chain):
            right = self.node(parent.expression)
            word = _CONNECTORS.get(type(parent))
            if word is None:
                found = self._operation(_OPERATIONS[type(parent)], found, right)
            else:
                found = self._connected(word, found, right)
        return found

    def _single(self, tree: sql.Expr) -> Node:
        reader = self._readers.get(type(tree))
        if reader is None:
            raise self._error("the text is not an expression", Span(0, len(self._text)))
        return reader(tree)

    def _operand(self, tree: sql.Column) -> Node:
        return self._sentence.operands[tree.name]

    def _paren(self, tree: sql.Paren) -> Node:
        return self.node(tree.this)

    def _not(self, tree: sql.Not) -> Node:
        operand = self._require_truth(self.node(tree.this), "NOT")
        return Not(operand.span, Kind.BOOLEAN, operand)

    def _distinct(self, tree: sql.NullSafeEQ | sql.NullSafeNEQ) -> Node:
        left, right = self._comparable(self.node(tree.this), self.node(tree.expression))
        found = Distinct(_around(left, right), Kind.BOOLEAN, left, right)
        return found if isinstance(tree, sql.NullSafeNEQ) else Not(found.span, Kind.BOOLEAN, found)

    def _between(self, tree: sql.Between) -> Node:
        operand, low = self._comparable(self.node(tree.this), self.node(tree.args["low"]))
        _, high = self._comparable(operand, self.node(tree.args["high"]))
        self._comparable(low, high)
        return Between(_around(operand, high), Kind.BOOLEAN, operand, low, high)

    def _comparison(self, tree: sql.Binary) -> Node:
        left, right = self._comparable(self.node(tree.this), self.node(tree.expression))
        return Comparison(_around(left, right), Kind.BOOLEAN, _COMPARISONS[type(tree)], left, right)

    def _require_truth(self, node: Node, word: str) -> Node:
        if not accepts(Kind.BOOLEAN, node.kind):
            raise self._error(f"{word} takes a condition, not {node.kind.value}", node.span)
        return node

    def _connected(self, word: OneOf["AND", "OR"], left: Node, right: Node) -> Node:
        self._require_truth(left, word)
        self._require_truth(right, word)
        before = left.operands if isinstance(left, Connected) and left.word == word else (left,)
        return Connected(_around(left, right), Kind.BOOLEAN, word, (*before, right))

    def _comparable(self, left: Node, right: Node) -> tuple[Node, Node]:
        families = {family(left.kind), family(right.kind)} - {Kind.ANY, Kind.NULL}
        if len(families) > 1:
            hint = ""
            if families == {Kind.CALENDAR, Kind.TEXT}:
                hint = ": write DATE '2024-01-31' or TIMESTAMP '2024-01-31 12:30:00', or CAST the text"
            reason = f"{left.kind.value} cannot be compared with {right.kind.value}{hint}"
            raise self._error(reason, _around(left, right))
        return left, right

    def _negation(self, tree: sql.Neg) -> Node:
        operand = self.node(tree.this)
        if not accepts(Kind.NUMBER, operand.kind):
            raise self._error(f"- does not take {operand.kind.value}", operand.span)
        if isinstance(operand, Literal) and operand.value is not None:
            return Literal(operand.span, operand.kind, negate(operand.value))
        kind = Kind.INTEGER if operand.kind is Kind.INTEGER else Kind.NUMBER
        return Negation(operand.span, kind, operand)

    def _operation(self, symbol: str, left: Node, right: Node) -> Node:
        span = _around(left, right)
        kind = _concatenated(left.kind, right.kind) if symbol == "||" else _computed(symbol, left.kind, right.kind)
        if kind is None:
            hint = "; texts are joined with ||" if symbol == "+" and Kind.TEXT in (left.kind, right.kind) else ""
            raise self._error(f"{symbol} does not take {left.kind.value} and {right.kind.value}{hint}", span)
        return Operation(span, kind, symbol, left, right)

    def _is(self, tree: sql.Is) -> Node:
        operand, value = self.node(tree.this), self.node(tree.expression)
        if not isinstance(value, Literal) or not (value.value is None or isinstance(value.value, bool)):
            raise self._error("NULL, TRUE or FALSE is expected after IS", value.span)
        if value.value is not None:
            self._require_truth(operand, "IS")
        found = Is(_around(operand, value), Kind.BOOLEAN, operand, value.value)
        return Not(found.span, Kind.BOOLEAN, found) if tree.args.get("negate") else found

    def _in(self, tree: sql.In) -> Node:
        operand = self.node(tree.this)
        choices = tuple(self._comparable(operand, self.node(choice))[1] for choice in tree.expressions)
        if common(family(node.kind) for node in (operand, *choices)) is None:
            raise self._error("the values of IN are of different types", _around(*choices))
        return In(_around(operand, *choices), Kind.BOOLEAN, operand, choices)

    def _like(self, tree: sql.Expr) -> Node:
        escape = None
        if isinstance(tree, sql.Escape):
            escape, tree = tree.expression.name, tree.this
        operand, pattern = self.node(tree.this), self.node(tree.expression)
        word = "ILIKE" if isinstance(tree, sql.ILike) else "LIKE"
        for node in (operand, pattern):
            if not accepts(Kind.TEXT, node.kind):
                raise self._error(f"{word} takes two texts, not {node.kind.value}", node.span)
        if isinstance(pattern, Literal) and isinstance(pattern.value, str):
            try:
                matcher(pattern.value, escape)
            except EvaluationError as error:
                raise self._error(error.reason, pattern.span) from error
        found = Like(_around(operand, pattern), Kind.BOOLEAN, operand, pattern, escape, word == "ILIKE")
        return Not(found.span, Kind.BOOLEAN, found) if tree.args.get("negate") else found

    def _case(self, tree: sql.Case) -> Node:
        operand = self.node(tree.this) if tree.this is not None else None
        branches = []
        for branch in tree.args["ifs"]:
            condition = self.node(branch.this)
            if operand is None:
                self._require_truth(condition, "WHEN")
            else:
                self._comparable(operand, condition)
            branches.append((condition, self.node(branch.args["true"])))
        results = [result for _, result in branches]
        default = tree.args.get("default")
        results.append(Literal(results[-1].span, Kind.NULL, None) if default is None else self.node(default))
        kind = self._common("CASE", results)
        span = _around(*(node for branch in branches for node in branch), results[-1])
        return Case(span, kind, operand, tuple(branches), results[-1])

    def _common(self, name: str, nodes: list[Node]) -> Kind:
        kind = common(node.kind for node in nodes)
        if kind is None:
            names = " or ".join(dict.fromkeys(node.kind.value for node in nodes if node.kind is not Kind.NULL))
            raise self._error(f"the value of {name} would be {names}: CAST it to one type", _around(*nodes))
        return kind

    def _call(self, tree: sql.Anonymous) -> Node:
        name, place = self._sentence.calls[tree.name]
        if name == "cast":
            return self._cast(tree, place)
        operands = [self.node(argument) for argument in tree.expressions]
        span = _joined(place, *(node.span for node in operands))
        match name:
            case "coalesce":
                self._require_count(name, place, operands, 1, None)
                return Coalesce(span, self._common(name, operands), tuple(operands))
            case "position":
                return self._plain_call(FUNCTIONS["strpos"], place, operands[::-1])
            case "extract" | "date_part" | "date_trunc":
                self._require_count(name, place, operands, 2, 2)
                return self._plain_call(self._field_function(name, operands[0]), place, operands[1:])
        return self._plain_call(FUNCTIONS[name], place, operands)

    def _field_function(self, name: str, field: Node) -> Function:
        if isinstance(field, Literal) and isinstance(field.value, str):
            function = field_function(name, field.value)
            if function is not None:
                return function
        raise self._error(f"{name} takes one of {fields_of(name)}", field.span)

    def _plain_call(self, function: Function, place: Span, operands: list[Node]) -> Node:
        self._require_count(function.name, place, operands, function.required, function.most)
        for index, operand in enumerate(operands):
            wanted = function.parameter(index)
            if not accepts(wanted, operand.kind):
                raise self._error(f"{function.name} takes {wanted.value} here, not {operand.kind.value}", operand.span)
        kind = self._common(function.name, operands) if function.of_one_kind else function.result
        return Call(_joined(place, *(node.span for node in operands)), kind, function, tuple(operands))

    def _require_count(self, name: str, place: Span, operands: list[Node], least: int, most: int | None) -> None:
        if len(operands) >= least and (most is None or len(operands) <= most):
            return
        count = f"{least} or more" if most is None else f"{least} to {most}" if most > least else str(least)
        raise self._error(f"{name} takes {count} argument{'s' * (count != '1')}, not {len(operands)}", place)

    def _cast(self, tree: sql.Anonymous, place: Span) -> Node:
        operand = self.node(tree.expressions[0])
        cast, target = self._sentence.types[tree.expressions[1].name]
        if operand.kind not in (Kind.ANY, Kind.NULL, *cast.accepts):
            allowed = ", ".join(kind.value for kind in Kind if kind in cast.accepts)
            raise self._error(f"CAST to this type takes {allowed}, not {operand.kind.value}", target)
        return CastTo(_joined(place, operand.span, target), cast.kind, operand, cast)

    def _error(self, reason: str, span: Span) -> ExpressionError:
        return ExpressionError(reason, self._text, span)


def _concatenated(left: Kind, right: Kind) -> Kind | None:
    """Return the kind of left || right; None if they are not concatenated."""
    return Kind.TEXT if {left, right} & {Kind.TEXT, Kind.ANY, Kind.NULL} else None


def _computed(symbol: str, left: Kind, right: Kind) -> Kind | None:
    """Return the kind of an arithmetic operation; None if it does not exist."""
    if Kind.DATE in (left, right):
        return _computed_with_date(symbol, left, right)
    wanted = Kind.INTEGER if symbol == "//" else Kind.NUMBER
    if not accepts(wanted, left) or not accepts(wanted, right):
        return None
    if symbol in "+-" and Kind.ANY in (left, right):
        # A member may turn out to be a date.
        return Kind.ANY
    return wanted


def _computed_with_date(symbol: str, left: Kind, right: Kind) -> Kind | None:
    other = right if left is Kind.DATE else left
    if symbol == "-" and left is Kind.DATE and right in (Kind.DATE, Kind.ANY):
        return Kind.INTEGER if right is Kind.DATE else Kind.ANY
    if symbol == "+" or (symbol == "-" and left is Kind.DATE):
        return Kind.DATE if accepts(Kind.INTEGER, other) else None
    return Kind.ANY if symbol == "-" and left is Kind.ANY else None


def _joined(*spans: Span) -> Span:
    """Return the part of the text from the first to the last of some parts."""
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def _around(*nodes: Node) -> Span:
    return _joined(*(node.span for node in nodes))
