"""Checks that a large text is strict JSON, in pieces, between which the event loop can do other work.

msgspec decodes a text in one call, holding the interpreter's lock: 10 MiB of objects take 0.2 s. Here the text is cut
after commas outside strings. Each piece is completed with the brackets that are open before and after it, and decoded
by msgspec: for a piece of `{"a":[1,2,3,4],"b":5}`

    {"":[0,     the brackets that are open before the piece, and an element before its first one
    2,3,        the piece
    0]}         an element after its last one, and the closing brackets

So before the piece msgspec is in the same state as after decoding all the text before it, and the closing brackets are
only valid in the state that the next piece begins with. So the pieces are valid JSON exactly if the text is, even if
the cuts were wrong. A piece without a comma to cut at has few values, since commas separate the values of a container.
"""

import re
from collections.abc import Generator
from typing import NamedTuple

import msgspec

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import (
    BRACKETS,
    BRACKETS_AND_COMMAS,
    MAX_DEPTH,
    deepest,
    outside_strings,
    reason,
    too_deep,
)

#: About the size of a piece, in bytes. One takes up to 2 ms.
PIECE_BYTES = 64 * 1024

#: msgspec's error for a word that is cut off depends on how much text follows it. So the last piece has at least this
#: many bytes, and this many blanks follow every other piece.
_MIN_BYTES_BEHIND = 16

#: The most strings of valid JSON without a comma between them: a name and a value in each of the nested objects.
_STRINGS_WITHOUT_COMMA = 2 * MAX_DEPTH + 2

_ARRAY, _COMMA = b"[,"
_OPENING = b"[{"
_CLOSING = bytes.maketrans(_OPENING, b"]}")

_BYTE = re.compile(r"(?<=\(byte )\d+(?=\)$)")

_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder()


class _Failure(NamedTuple):
    """The error of msgspec for a piece, the brackets put in front of it, and where the piece begins and ends."""

    error: Exception
    opening: bytes
    start: int
    end: int


def check_json(text: bytes, piece_bytes: int = PIECE_BYTES) -> Generator[None, None, None]:
    """Raise the same DecodeError as json_text.decode_json for a text, if any, in pieces.

    The text has more than 2 * MAX_DEPTH bytes: decode_json does not check the depth of a shorter one.
    """
    nesting = _Nesting()
    failure: _Failure | None = None
    end, depth, more = 0, 0, True
    while more:
        start, end = end, (yield from _end_of_piece(text, end, piece_bytes))
        more = end < len(text)
        piece = text[start:end]
        brackets = outside_strings(_without_escapes(piece), BRACKETS)
        if deepest(brackets, depth) > MAX_DEPTH:
            raise too_deep()
        if len(piece) > 2 * piece_bytes:
            yield
        depth += sum(map(brackets.count, _OPENING)) - sum(map(brackets.count, b"]}"))
        # After the first mistake only the depth is checked.
        if failure is None:
            opening = nesting.opening()
            nesting.follow(_mostly_unpaired(brackets))
            try:
                _decoder.decode(opening + piece + (nesting.closing() if more else b""))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                failure = _Failure(error, opening, start, end)
        yield
    if failure is not None:
        cause = yield from _in_whole_text(text, failure, piece_bytes)
        raise DecodeError((yield from reason(text, cause))) from cause


class _Nesting:
    """The arrays and objects that are open at a point of a text, and how many commas each of them has."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._commas: list[int] = []

    def follow(self, structure: bytes) -> None:
        """Advance over a text reduced to its brackets, and to its commas if they are to be counted."""
        for character in structure:
            if character == _COMMA:
                if self._commas:
                    self._commas[-1] += 1
            elif character in _OPENING:
                self._open.append(character)
                self._commas.append(0)
            elif self._open:
                self._open.pop()
                self._commas.pop()

    def opening(self) -> bytes:
        """Return text that brings a decoder to the state after a comma at this point."""
        if not self._open:
            return b""
        outer = b"".join([b"[" if opened == _ARRAY else b'{"":' for opened in self._open[:-1]])
        return outer + (b"[0," if self._open[-1] == _ARRAY else b'{"":0,')

    def opening_with_elements(self) -> bytes:
        """Return the same, but with as many elements in the arrays as the text has there."""
        levels = [
            b"[" + b"0," * commas if opened == _ARRAY else b'{"":'
            for opened, commas in zip(self._open, self._commas, strict=True)
        ]
        return b"".join(levels) + (b"0," if self._open[-1:] == b"{" else b"")

    def closing(self) -> bytes:
        """Return text that completes the JSON after a comma at this point."""
        element = b'"":0' if self._open[-1:] == b"{" else b"0"
        return element + self._open[::-1].translate(_CLOSING) + b" " * _MIN_BYTES_BEHIND


def _end_of_piece(text: bytes, start: int, size: int) -> Generator[None, None, int]:
    """Return where the piece that begins at `start` ends: after a comma outside strings, or with the text."""
    while start + size + _MIN_BYTES_BEHIND < len(text):
        length = _up_to_comma(_without_escapes(text[start : start + size]))
        if length:
            return start + length
        size *= 2
        yield
    return len(text)


def _up_to_comma(text: bytes) -> int:
    """Return the length of the text up to the last comma outside strings, with the comma; 0 if none is found."""
    end = len(text)
    if text.count(b'"') % 2:
        end = text.rfind(b'"')
    for _ in range(_STRINGS_WITHOUT_COMMA):
        string_end = text.rfind(b'"', 0, end)
        comma = text.rfind(b",", string_end + 1, end)
        if comma >= 0:
            return comma + 1
        if string_end < 0:
            return 0
        end = text.rfind(b'"', 0, string_end)
    return 0


def _without_escapes(text: bytes) -> bytes:
    """Return a text of the same length in which every quote begins or ends a string."""
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b'\\"' in text else text


def _mostly_unpaired(brackets: bytes) -> bytes:
    """Return brackets without most of the pairs that close each other, of which there can be many."""
    for pair in (b"[]", b"{}", b"[]", b"{}"):
        brackets = brackets.replace(pair, b"")
    return brackets


def _in_whole_text(text: bytes, failure: _Failure, piece_bytes: int) -> Generator[None, None, Exception]:
    """Return the error that decoding the whole text would have raised."""
    error, opening, start, end = failure
    if not isinstance(error, msgspec.ValidationError):
        shift = start - len(opening)
        return msgspec.DecodeError(_BYTE.sub(lambda byte: str(int(byte[0]) + shift), str(error)))
    # The message has the position in the surrounding arrays.
    nesting = _Nesting()
    at = 0
    while at < start:
        behind = yield from _end_of_piece(text, at, piece_bytes)
        nesting.follow(outside_strings(_without_escapes(text[at:behind]), BRACKETS_AND_COMMAS))
        at = behind
        yield
    try:
        _decoder.decode(nesting.opening_with_elements() + text[start:end])
    except msgspec.ValidationError as placed:
        return placed
    return error
