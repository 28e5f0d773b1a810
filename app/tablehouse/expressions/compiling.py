"""A checked tree to a function of a row: Python's source with one statement a node, compiled once.

Statements instead of nested expressions, since Python's compiler and its stack limit nesting, but not length. The
source has generated names only: the names and values of the text are globals of the compiled function. Every value is
in a variable of its own; what SQL does not evaluate (the rest of an AND, other branches of a CASE) is under an `if`. A
position is kept for every line, so that an error finds its place in the text by the line it was raised in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, NoReturn

from tablehouse.expressions import arithmetic, casts
from tablehouse.expressions.comparison import COMPARISONS, distinct
from tablehouse.expressions.dates import instant
from tablehouse.expressions.errors import EvaluationError, Span
from tablehouse.expressions.kinds import CLASSES, Kind, family, name_of
from tablehouse.expressions.like import matcher, matches_pattern
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
    Member,
    Negation,
    Node,
    Not,
    Operation,
    OriginMember,
    nodes_of,
)

Compiled = Callable[..., Any]

_OPERATIONS: Mapping[str, Callable[[Any, Any], object]] = {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "//": arithmetic.divide_integers,
    "%": arithmetic.remainder,
    "||": casts.concatenate,
}

#: Classes whose values Python compares with an int or float as SQL does.
_PLAIN_NUMBERS = frozenset({int, float})


class _Value(NamedTuple):
    """The variable or constant in which a value is, its kind, and the node itself if it is a literal."""

    code: str
    kind: Kind
    literal: Literal | None = None

    @property
    def may_be_null(self) -> bool:
        return self.literal is None or self.literal.value is None


def compile_value(tree: Node, text: str) -> Compiled:
    """Return a function of a row and its origin that returns the value, or raises EvaluationError."""
    return _Source(text).function(tree, truth=False)


def compile_truth(tree: Node, text: str) -> Compiled:
    """Return a function of a row and its origin that returns whether a condition is true, or raises EvaluationError."""
    return _Source(text).function(tree, truth=True)


class _Source:
    """Writes the source of one function."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[str] = []
        #: The part of the text for each line.
        self._spans: list[Span] = []
        self._span = Span(0, len(text))
        self._indent = 0
        self._names: dict[str, object] = {}
        self._variables = 0
        #: The variables of members and values of the origin, which are read before anything else.
        self._members: dict[tuple[str, ...], _Value] = {}
        self._writers: dict[type[Node], Callable[[Any], _Value]] = {
            Literal: self._literal,
            Member: self._member,
            OriginMember: self._member,
            Not: self._not,
            Connected: self._connected,
            Comparison: self._comparison,
            Distinct: self._distinct,
            Is: self._is,
            In: self._in,
            Between: self._between,
            Like: self._like,
            Case: self._case,
            Coalesce: self._coalesce,
            Operation: self._operations,
            Negation: self._negation,
            CastTo: self._cast,
            Call: self._call,
        }

    def function(self, tree: Node, *, truth: bool) -> Compiled:
        """Return the function; `truth` for one that returns whether the value is true."""
        self._names["EvaluationError"] = EvaluationError
        with self._block("def evaluate(row, origin=None):"):
            with self._block("try:"):
                self._read_members(tree)
                value = self._value(tree)
                self._span = tree.span
                if truth:
                    self._require_truth(value)
                self._line(f"return {value.code}{' is True' * truth}")
            with self._block("except (EvaluationError, ArithmeticError) as error:"):
                self._line(f"raise {self._constant(self._placed)}(error) from None")
        source = "\n".join(self._lines)
        # The source has names made here only: v1, k2. What the author of the expression wrote is in the constants.
        exec(compile(source, "<expression>", "exec"), self._names)  # noqa: S102
        compiled: Compiled = self._names["evaluate"]  # type: ignore[assignment]
        return compiled

    def _placed(self, error: Exception) -> EvaluationError:
        """Return an error of a function as one with its place in the text."""
        placed = error if isinstance(error, EvaluationError) else EvaluationError("a number is out of range")
        if error.__traceback__ is not None:
            # The first frame is that of the function itself, in which the error was caught.
            placed.place(self._text, self._spans[error.__traceback__.tb_lineno - 1])
        return placed

    def _line(self, code: str) -> None:
        self._lines.append(" " * self._indent + code)
        self._spans.append(self._span)

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._line(head)
        self._indent += 1
        yield
        self._indent -= 1

    def _constant(self, value: object) -> str:
        name = f"k{len(self._names)}"
        self._names[name] = value
        return name

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _assigned(self, code: str, kind: Kind) -> _Value:
        """Return the value of some code in a new variable."""
        name = self._variable()
        self._line(f"{name} = {code}")
        return _Value(name, kind)

    def _unless_null(self, operands: list[_Value], code: str, kind: Kind) -> _Value:
        """Return the value of some code that is null if one of its operands is."""
        nulls = " or ".join(f"{operand.code} is None" for operand in operands if operand.may_be_null)
        return self._assigned(f"None if {nulls} else {code}" if nulls else code, kind)

    def _value(self, node: Node) -> _Value:
        """Write the statements for a node and return its value."""
        around = self._span
        self._span = node.span
        found = self._writers[type(node)](node)
        self._span = around
        return found

    def _literal(self, node: Literal) -> _Value:
        code = repr(node.value) if node.value is None or isinstance(node.value, bool) else self._constant(node.value)
        return _Value(code, node.kind, node)

    def _member(self, node: Member | OriginMember) -> _Value:
        return self._members[_key(node)]

    def _not(self, node: Not) -> _Value:
        operand = self._truth(node.operand)
        return self._unless_null([operand], f"not {operand.code}", Kind.BOOLEAN)

    def _comparison(self, node: Comparison) -> _Value:
        return self._compared(node.symbol, self._value(node.left), self._value(node.right))

    def _distinct(self, node: Distinct) -> _Value:
        left, right = self._value(node.left), self._value(node.right)
        return self._assigned(f"{self._constant(distinct)}({left.code}, {right.code})", Kind.BOOLEAN)

    def _is(self, node: Is) -> _Value:
        operand = self._value(node.operand) if node.value is None else self._truth(node.operand)
        return self._assigned(f"{operand.code} is {node.value}", Kind.BOOLEAN)

    def _negation(self, node: Negation) -> _Value:
        operand = self._value(node.operand)
        return self._unless_null([operand], f"{self._constant(arithmetic.negate)}({operand.code})", node.kind)

    def _cast(self, node: CastTo) -> _Value:
        operand = self._value(node.operand)
        return self._unless_null([operand], f"{self._constant(node.cast.call)}({operand.code})", node.kind)

    def _read_members(self, tree: Node) -> None:
        for node in sorted(nodes_of(tree), key=lambda node: node.span):
            if not isinstance(node, Member | OriginMember) or _key(node) in self._members:
                continue
            self._span = node.span
            if isinstance(node, Member):
                code, names = f"row.get({self._constant(node.path[0])})", node.path[1:]
            else:
                code, names = self._of_origin(node)
            found = self._assigned(code, node.kind)
            for name in names:
                outer = found.code
                member = f"{outer}.get({self._constant(name)})"
                found = self._assigned(f"{member} if type({outer}) is dict else None", node.kind)
            self._members[_key(node)] = found

    def _of_origin(self, node: OriginMember) -> tuple[str, tuple[str, ...]]:
        """Return the code for a value of the origin, and the names of the path that remain."""
        with self._block("if origin is None:"):
            self._line(f"{self._constant(_fail)}({self._constant(f'{node.name} is not known here')})")
        code = f"origin.{node.name[1:]}"
        if node.name == "$timestamp":
            return f"{self._constant(instant)}({code})", ()
        if node.name == "$headers":
            return f"{code}.get({self._constant(node.path[0])})", ()
        return code, node.path

    def _truth(self, node: Node) -> _Value:
        """Return the value of an operand that has to be true, false or null."""
        found = self._value(node)
        self._require_truth(found)
        return found

    def _require_truth(self, value: _Value) -> None:
        if value.kind is Kind.ANY:
            with self._block(f"if not ({value.code} is True or {value.code} is False or {value.code} is None):"):
                self._line(f"{self._constant(_refuse)}({value.code}, {self._constant(Kind.BOOLEAN.value)})")

    def _connected(self, node: Connected) -> _Value:
        """Return AND or OR of the operands, of which the rest is not evaluated once the result is certain."""
        return self._joined(node.word, [partial(self._truth, operand) for operand in node.operands])

    def _joined(self, word: str, operands: Sequence[Callable[[], _Value]]) -> _Value:
        decided, neutral = ("False", "True") if word == "AND" else ("True", "False")
        result = self._variable()
        self._line(f"{result} = {operands[0]().code}")
        for operand in operands[1:]:
            with self._block(f"if {result} is not {decided}:"):
                value = operand().code
                self._line(f"if {value} is not {neutral}: {result} = {value}")
        return _Value(result, Kind.BOOLEAN)

    def _operations(self, node: Operation) -> _Value:
        """Return the value of a chain such as a + b + c, which is as deep as it is long, without recursion."""
        chain = [node]
        while isinstance(chain[-1].left, Operation):
            chain.append(chain[-1].left)
        found = self._value(chain[-1].left)
        for part in reversed(chain):
            right = self._value(part.right)
            self._span = part.span
            code = f"{self._constant(_OPERATIONS[part.symbol])}({found.code}, {right.code})"
            found = self._unless_null([found, right], code, part.kind)
        return found

    def _compared(self, symbol: str, left: _Value, right: _Value) -> _Value:
        operator, function = COMPARISONS[symbol]
        plain = f"{left.code} {operator} {right.code}"
        general = f"{self._constant(function)}({left.code}, {right.code})"
        if left.kind is right.kind and left.kind in (Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN, Kind.DATE, Kind.TIMESTAMP):
            return self._unless_null([left, right], plain, Kind.BOOLEAN)
        for value, other in ((left, right), (right, left)):
            constant = other.literal.value if other.literal is not None else None
            if isinstance(constant, str):
                code = f"{plain} if type({value.code}) is str else {general}"
            elif type(constant) in _PLAIN_NUMBERS:
                code = f"{plain} if type({value.code}) in {self._constant(_PLAIN_NUMBERS)} else {general}"
            elif isinstance(constant, Decimal):
                # A float is compared with the float nearest to the decimal.
                names = {value.code: value.code, other.code: self._constant(float(constant))}
                rounded = f"{names[left.code]} {operator} {names[right.code]}"
                code = f"{rounded} if type({value.code}) is float else {general}"
            else:
                continue
            return self._unless_null([left, right], f"({code})", Kind.BOOLEAN)
        return self._unless_null([left, right], general, Kind.BOOLEAN)

    def _in(self, node: In) -> _Value:
        operand = self._value(node.operand)
        values = [choice.value for choice in node.choices if isinstance(choice, Literal)]
        classes = {type(value) for value in values}
        if len(values) < len(node.choices) or classes not in ({str}, {int}):
            choices = [partial(self._equality, operand, choice) for choice in node.choices]
            return self._joined("OR", choices)
        wanted = Kind.TEXT if classes == {str} else Kind.NUMBER
        fits = self._constant(CLASSES[wanted])
        self._require_class(operand, fits, wanted)
        return self._unless_null([operand], f"{operand.code} in {self._constant(frozenset(values))}", Kind.BOOLEAN)

    def _equality(self, operand: _Value, choice: Node) -> _Value:
        return self._compared("=", operand, self._value(choice))

    def _require_class(self, value: _Value, classes: str, wanted: Kind) -> None:
        if value.kind is Kind.ANY:
            with self._block(f"if {value.code} is not None and type({value.code}) not in {classes}:"):
                self._line(f"{self._constant(_refuse)}({value.code}, {self._constant(wanted.value)})")

    def _between(self, node: Between) -> _Value:
        operand, low, high = map(self._value, (node.operand, node.low, node.high))
        bounds = [partial(self._compared, ">=", operand, low), partial(self._compared, "<=", operand, high)]
        return self._joined("AND", bounds)

    def _like(self, node: Like) -> _Value:
        operand, pattern = self._value(node.operand), self._value(node.pattern)
        if pattern.literal is not None and isinstance(pattern.literal.value, str):
            self._require_class(operand, self._constant(CLASSES[Kind.TEXT]), Kind.TEXT)
            matches = self._constant(matcher(pattern.literal.value, node.escape, fold=node.fold))
            return self._unless_null([operand], f"{matches}({operand.code})", Kind.BOOLEAN)
        rest = f"{self._constant(node.escape)}, fold={node.fold}"
        code = f"{self._constant(matches_pattern)}({operand.code}, {pattern.code}, {rest})"
        return self._unless_null([operand, pattern], code, Kind.BOOLEAN)

    def _case(self, node: Case) -> _Value:
        operand = self._value(node.operand) if node.operand is not None else None
        result, decided = self._variable(), self._variable()
        self._line(f"{decided} = False")
        for condition, branch in node.branches:
            with self._block(f"if {decided} is not True:"):
                found = self._truth(condition) if operand is None else self._equality(operand, condition)
                self._line(f"{decided} = {found.code}")
                with self._block(f"if {decided} is True:"):
                    self._line(f"{result} = {self._value(branch).code}")
        with self._block(f"if {decided} is not True:"):
            self._line(f"{result} = {self._value(node.default).code}")
        return _Value(result, node.kind)

    def _coalesce(self, node: Coalesce) -> _Value:
        result = self._variable()
        self._line(f"{result} = {self._value(node.operands[0]).code}")
        for operand in node.operands[1:]:
            with self._block(f"if {result} is None:"):
                self._line(f"{result} = {self._value(operand).code}")
        return _Value(result, node.kind)

    def _call(self, node: Call) -> _Value:
        function = node.function
        operands = [self._value(operand) for operand in node.operands]
        for index, operand in enumerate(operands):
            wanted = function.parameter(index)
            if wanted not in (Kind.ANY, operand.kind, family(operand.kind)):
                # A number may not be an integer, so not only a value of any kind is tested.
                self._require_class(operand._replace(kind=Kind.ANY), self._constant(CLASSES[wanted]), wanted)
        arguments = ", ".join(operand.code for operand in operands)
        code = f"{self._constant(function.call)}({arguments})"
        return self._assigned(code, node.kind) if function.takes_nulls else self._unless_null(operands, code, node.kind)


def _key(node: Member | OriginMember) -> tuple[str, ...]:
    """Return what tells a member or a value of the origin apart from all others."""
    return ("", *node.path) if isinstance(node, Member) else (node.name, *node.path)


def _refuse(value: object, wanted: str) -> NoReturn:
    raise EvaluationError(f"{wanted} is required, not {name_of(value)}")


def _fail(reason: str) -> NoReturn:
    raise EvaluationError(reason)
