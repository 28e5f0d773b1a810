"""Conditions on rows: which rows of a partition a question is about."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import msgspec

from tablehouse.errors import ExpressionFailed, InvalidExpression
from tablehouse.expressions.errors import EvaluationError, ExpressionError
from tablehouse.expressions.expression import Matches, Origin, parse_condition
from tablehouse.formats.row_form import RowForm
from tablehouse.formats.selected import selected
from tablehouse.turns import Work

#: The query parameter whose text a condition is.
WHERE = "where"

#: Conditions that are kept ready.
CONDITIONS_KEPT = 32

#: Characters of a text that takes up to about 10 ms to parse and compile; longer ones take up to 100 ms.
SHORT_CHARACTERS = 200

#: What a condition can read of the record that a row comes from.
ORIGINS = frozenset({"$key", "$partition", "$timestamp"})

#: Characters of a key that an error shows.
_KEY_SHOWN = 200

_NO_MEMBERS: Mapping[str, object] = {}

#: (stored key, payload, timestamp in milliseconds) to whether the row matches; raises ExpressionFailed.
RowMatches = Callable[[bytes, bytes, int], bool]


class Rows(Protocol):
    """The partition of a table whose rows are read: a Task."""

    table: str
    partition: int

    @property
    def form(self) -> RowForm:
        """How expressions read the rows."""


class Condition(NamedTuple):
    """An expression that is ready to be used on rows.

    `members` returns the members of a row's JSON that it reads; None if it reads none.
    """

    matches: Matches
    members: Callable[[bytes], Mapping[str, Any]] | None
    reads_key: bool


@lru_cache(maxsize=CONDITIONS_KEPT)
def condition(text: str) -> Condition:
    """Return the condition of a text; raises InvalidExpression."""
    try:
        expression = parse_condition(text)
        expression.require_origins(ORIGINS)
    except ExpressionError as error:
        raise InvalidExpression(
            f"{WHERE} is not a valid expression: {error}", parameter=WHERE, line=error.line, column=error.column
        ) from None
    names = [path[0] for path in expression.members]
    return Condition(
        expression.matches, selected(names, object) if names else None, reads_key="$key" in expression.origins
    )


def prepared(text: str) -> Work[None]:
    """Keep the condition of a text ready, for which a long one is compiled in the thread; raises InvalidExpression."""
    if len(text) > SHORT_CHARACTERS:
        yield partial(condition, text)
    else:
        condition(text)


def row_filter(text: str, form: RowForm, table: str, partition: int) -> RowMatches:
    """Return the condition of a text as a function of the rows of a partition; raises InvalidExpression."""
    matches, members, reads_key = condition(text)
    if not form.is_json:
        members = None

    def is_match(stored_key: bytes, payload: bytes, timestamp_ms: int) -> bool:
        origin = Origin(
            form.key(stored_key) if reads_key else None, "", partition, None if timestamp_ms < 0 else timestamp_ms, {}
        )
        try:
            return matches(_NO_MEMBERS if members is None else members(payload), origin)
        except EvaluationError as error:
            raise _failed(error, form.key(stored_key), table, partition) from None

    return is_match


def matches_of(where: str | None, rows_of: Rows) -> RowMatches | None:
    """Return the condition on the rows of a task, None without one; raises InvalidExpression."""
    return None if where is None else row_filter(where, rows_of.form, rows_of.table, rows_of.partition)


def _failed(error: EvaluationError, key: object, table: str, partition: int) -> ExpressionFailed:
    shown = msgspec.json.encode(key).decode()
    if len(shown) > _KEY_SHOWN:
        shown = f"{shown[:_KEY_SHOWN]}..."
    return ExpressionFailed(
        f"{WHERE} has no value for the row with key {shown}: {error}",
        parameter=WHERE,
        table=table,
        partition=partition,
        key=key,
        line=error.line,
        column=error.column,
    )
