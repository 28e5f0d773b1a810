"""Errors of expressions, with the place in their text."""

from typing import NamedTuple

#: Characters of the line that an error shows before and after the place it points at.
_CONTEXT = 36
#: Maximum carets below a line.
_MAX_CARETS = 40


class Span(NamedTuple):
    """A part of a text, as the offsets of its first character and of the one after its last."""

    start: int
    end: int


class ExpressionError(ValueError):
    """The text is not an expression, or not a supported one.

    `reason` is a sentence for the author. `line` and `column` count from 1, in characters. `excerpt` is the line, or
    the part of it around the place, with carets below it.
    """

    def __init__(self, reason: str, text: str, span: Span) -> None:
        self.reason = reason
        self.line, self.column = position(text, span.start)
        self.excerpt = excerpt(text, span)
        super().__init__(f"line {self.line}, column {self.column}: {reason}\n{self.excerpt}")


class EvaluationError(ValueError):
    """The expression has no value for a row, for example because a member is text where a number is required.

    `reason` says why and never quotes the row, since errors go into logs. `line` and `column` are those of the failing
    part of the expression, 0 until they are known.
    """

    line = column = 0

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def place(self, text: str, span: Span) -> None:
        """Record the failing part of the expression."""
        self.line, self.column = position(text, span.start)

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.reason}" if self.line else self.reason


def position(text: str, at: int) -> tuple[int, int]:
    """Return the line and the column of an offset, from 1."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def excerpt(text: str, span: Span) -> str:
    """Return the line of a span's start and carets below the span; long lines are cut off around it."""
    begin = text.rfind("\n", 0, span.start) + 1
    end = text.find("\n", span.start)
    end = len(text) if end < 0 else end
    first, last = max(begin, span.start - _CONTEXT), min(end, span.start + _MAX_CARETS + _CONTEXT)
    before, after = "..." * (first > begin), "..." * (last < end)
    line = "".join(character if character.isprintable() else " " for character in text[first:last])
    carets = "^" * max(1, min(span.end, end, span.start + _MAX_CARETS) - span.start)
    return f"  {before}{line}{after}\n  {' ' * (len(before) + span.start - first)}{carets}"
