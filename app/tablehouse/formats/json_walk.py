"""Finds where values begin and end in valid JSON, without decoding all of it."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

#: The greatest blank character; outside strings, all other characters of JSON are greater.
BLANK = ord(" ")

ARRAY, ARRAY_END, OBJECT, OBJECT_END, COMMA = b"[]{},"
_QUOTE, _BACKSLASH = b'"\\'

_BLANKS = re.compile(rb"[ \t\n\r]*")
_END_OF_PLAIN = re.compile(rb"[ \t\n\r,\]}]")

#: Returns the value of the text of a string, a number or a literal.
decode_scalar: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def skip_blanks(text: bytes, at: int) -> int:
    """Return the position of the next character from `at` on that is not blank."""
    blanks = _BLANKS.match(text, at)
    return at if blanks is None else blanks.end()


def end_of_scalar(text: bytes, at: int) -> int:
    """Return the end of the string, number or literal that begins at `at`."""
    if text[at] == _QUOTE:
        return end_of_string(text, at)
    following = _END_OF_PLAIN.search(text, at)
    return len(text) if following is None else following.start()


def end_of_string(text: bytes, at: int) -> int:
    """Return the end of the string that begins at `at`."""
    end = text.index(_QUOTE, at + 1)
    while text[end - 1] == _BACKSLASH:
        first = end - 1
        while text[first - 1] == _BACKSLASH:
            first -= 1
        if (end - first) % 2 == 0:
            break
        end = text.index(_QUOTE, end + 1)
    return end + 1


def walk_array(text: bytes, at: int, take: Callable[[int], int]) -> int:
    """Call `take` with where each item of the array at `at` begins, and return the array's end.

    `take` returns where the item ends.
    """
    at = skip_blanks(text, at + 1)
    while text[at] != ARRAY_END:
        at = take(at)
        if text[at] <= BLANK:
            at = skip_blanks(text, at)
        if text[at] == COMMA:
            at += 1
            if text[at] <= BLANK:
                at = skip_blanks(text, at)
    return at + 1


def walk_object(text: bytes, at: int, take: Callable[[str, int], int]) -> int:
    """Call `take` with the name of each member of the object at `at` and where its value begins.

    Returns the object's end. `take` returns where the value ends.
    """
    at = skip_blanks(text, at + 1)
    while text[at] != OBJECT_END:
        end = end_of_string(text, at)
        name = decode_scalar(text[at:end])
        at = end + 1 if text[end] > BLANK else skip_blanks(text, end) + 1
        at = take(name, skip_blanks(text, at) if text[at] <= BLANK else at)
        if text[at] <= BLANK:
            at = skip_blanks(text, at)
        if text[at] == COMMA:
            at = skip_blanks(text, at + 1)
    return at + 1
