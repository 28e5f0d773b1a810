"""LIKE in time proportional to the text, whatever the pattern is.

A pattern is cut at its `%` into segments. The first and the last are compared at the ends of the text. Those between
are searched from left to right, each at its first occurrence after the one before, which never has to be taken back. A
segment without `_` is found by str.find, one with it by Shift-And (Baeza-Yates and Gonnet, "A new approach to text
searching", 1992), whose state is one integer with a bit for each character of the segment.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from tablehouse.expressions.errors import EvaluationError
from tablehouse.expressions.kinds import name_of
from tablehouse.expressions.texts import lower

#: Characters of a pattern, so that the states of a search are small integers.
MAX_PATTERN_CHARACTERS = 1000

#: Where a segment accepts any character.
_ANY = None

_Segment = tuple[str | None, ...]


def matcher(pattern: str, escape: str | None = None, *, fold: bool = False) -> Callable[[str], bool]:
    """Return a function that returns whether a text matches a pattern of LIKE, or with `fold` of ILIKE.

    Raises EvaluationError for a pattern that is too long, or ends with the escape character.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise EvaluationError(f"a pattern has more than {MAX_PATTERN_CHARACTERS} characters")
    matches = _matcher_of(_segments(pattern, escape, fold=fold))
    return (lambda text: matches(lower(text))) if fold else matches


@lru_cache(maxsize=128)
def _cached(pattern: str, escape: str | None, *, fold: bool) -> Callable[[str], bool]:
    return matcher(pattern, escape, fold=fold)


def matches_pattern(text: object, pattern: object, escape: str | None, *, fold: bool) -> bool:
    """Return whether a text matches a pattern that is only known with the row; raises EvaluationError."""
    if type(text) is not str or type(pattern) is not str:
        raise EvaluationError(f"LIKE takes two texts, not {name_of(text)} and {name_of(pattern)}")
    return _cached(pattern, escape, fold=fold)(text)


def _segments(pattern: str, escape: str | None, *, fold: bool) -> list[_Segment]:
    """Return the characters between the `%` of a pattern."""
    segments: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal is None:
                raise EvaluationError("a pattern ends with its escape character")
            segments[-1].extend(lower(literal) if fold else literal)
        elif character == "%":
            segments.append([])
        elif character == "_":
            segments[-1].append(_ANY)
        else:
            segments[-1].extend(lower(character) if fold else character)
    return [tuple(segment) for segment in segments]


def _matcher_of(segments: Sequence[_Segment]) -> Callable[[str], bool]:
    if len(segments) == 1:
        fits, size = _fits(segments[0]), len(segments[0])
        return lambda text: len(text) == size and fits(text, 0)
    # Empty segments between the first and the last come from `%%` and match everywhere.
    first, last = segments[0], segments[-1]
    finders = [_finder(segment) for segment in segments[1:-1] if segment]
    fits_first, fits_last = _fits(first), _fits(last)
    shortest = len(first) + len(last)

    def matches(text: str) -> bool:
        end = len(text) - len(last)
        if len(text) < shortest or not fits_first(text, 0) or not fits_last(text, end):
            return False
        at = len(first)
        for find in finders:
            at = find(text, at, end)
            if at < 0:
                return False
        return True

    return matches


def _fits(segment: _Segment) -> Callable[[str, int], bool]:
    """Return a function that returns whether a text has the segment at a position, where it is long enough for it."""
    if _ANY not in segment:
        literal = _literal(segment)
        return lambda text, at: text.startswith(literal, at)
    wanted = [(offset, character) for offset, character in enumerate(segment) if character is not _ANY]
    return lambda text, at: all(text[at + offset] == character for offset, character in wanted)


def _finder(segment: _Segment) -> Callable[[str, int, int], int]:
    """Return a function for the end of the segment's first occurrence in text[start:end], -1 if there is none."""
    size = len(segment)
    if _ANY not in segment:
        literal = _literal(segment)

        def find(text: str, start: int, end: int) -> int:
            at = text.find(literal, start, end)
            return at + size if at >= 0 else -1

        return find

    anywhere = sum(1 << bit for bit, character in enumerate(segment) if character is _ANY)
    masks: dict[str, int] = {}
    for bit, character in enumerate(segment):
        if character is not _ANY:
            masks[character] = masks.get(character, anywhere) | 1 << bit
    found = 1 << (size - 1)

    def search(text: str, start: int, end: int) -> int:
        state = 0
        for at in range(start, end):
            state = (state << 1 | 1) & masks.get(text[at], anywhere)
            if state & found:
                return at + 1
        return -1

    return search


def _literal(segment: _Segment) -> str:
    return "".join(character for character in segment if character is not _ANY)
