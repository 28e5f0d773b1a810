"""Strict JSON (RFC 8259); every mistake is a DecodeError.

Whether a text is accepted depends only on the text, and not on the interpreter or the version of msgspec, which differ
in how deeply a decoder can recurse and how it reports bad UTF-8.
"""

import re
from array import array
from collections.abc import Generator
from itertools import accumulate
from math import isinf
from typing import TypeVar

import msgspec

from tablehouse.formats.errors import DecodeError
from tablehouse.turns import finish

#: The limit of how deeply arrays and objects are nested. CPython 3.11 lets a decoder recurse some 900 times from where
#: a worker decodes, later versions at least 1500 times.
MAX_DEPTH = 500

#: Significant digits that tell any two doubles apart (IEEE 754, binary64).
_MAX_DIGITS_OF_DOUBLES = 17

_Decoded = TypeVar("_Decoded")

_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder()

BRACKETS = b"[]{}"
BRACKETS_AND_COMMAS = b"[]{},"
#: All bytes except some characters and the quote.
_EXCEPT = {kept: bytes(set(range(256)) - set(kept + b'"')) for kept in (BRACKETS, BRACKETS_AND_COMMAS)}
#: Opening brackets as 1 and closing ones as -1.
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")

#: Bytes that are searched for an error without a pause, at up to 0.1 us each.
_BYTES_PER_PIECE = 32 * 1024

#: An escape in JSON; `alone` is half of a surrogate pair, whose other half is not next to it.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<alone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
#: The bytes of the longest escape, a pair.
_ESCAPE_BYTES = 12


def decode_json(text: bytes) -> object:
    """Return the value of a JSON text; integers keep every digit, and of members with the same name the last is used.

    Raises DecodeError for anything that is not JSON in UTF-8, and for four things that are: a number beyond a double's
    range, an integer of more than 4,300 digits, an escaped half of a surrogate pair without the other half, and
    nesting beyond MAX_DEPTH.
    """
    return decode_with(_decoder, text)


def decode_key_json(text: bytes) -> object:
    """Do what decode_json does for a key; raises DecodeError for numbers with more digits than doubles have.

    Two numbers with more digits can be the same double, but are different keys to their producers.
    """
    return decode_with(_key_decoder, text)


def _number_of_key(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number is out of range")
    digits = re.split("[eE]", text)[0].replace(".", "").lstrip("-0").rstrip("0")
    if len(digits) > _MAX_DIGITS_OF_DOUBLES:
        raise ValueError(
            f"a number has more than the {_MAX_DIGITS_OF_DOUBLES} digits that tell doubles apart: write it as a "
            "string to keep them all"
        )
    return number


_key_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(float_hook=_number_of_key)


def decode_with(decoder: msgspec.json.Decoder[_Decoded], text: bytes) -> _Decoded:
    """Return the result of a decoder for a JSON text; raises DecodeError.

    The decoder skips `msgspec.Raw` and unknown members: it does not notice bad UTF-8 and numbers beyond a double's
    range there.
    """
    _require_depth(text)
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(finish(reason(text, error))) from error


def too_deep() -> DecodeError:
    """Return the error for a text that is nested beyond MAX_DEPTH."""
    return DecodeError(f"its JSON is nested more than {MAX_DEPTH} deep")


def outside_strings(text: bytes, kept: bytes) -> bytes:
    """Return the characters outside strings that are in `kept`: some of `[]{},`. The text has no escaped quotes."""
    structure = text.translate(None, _EXCEPT[kept]).replace(b'""', b"")
    # Every second piece was in a string.
    return b"".join(structure.split(b'"')[::2])


def deepest(brackets: bytes, depth: int) -> int:
    """Return the greatest depth that some brackets reach from `depth` on, at up to 20 ns a bracket."""
    return max(accumulate(array("b", brackets.translate(_STEPS)), initial=depth))


def reason(text: bytes, error: Exception) -> Generator[None, None, str]:
    """Return the reason why a text is refused for which a decoder raised `error`; works in pieces."""
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        return f"its JSON is not UTF-8 at byte {bad.start}"
    at = text.find(b"\\")
    while at >= 0:
        end = at + _BYTES_PER_PIECE
        for escape in _ESCAPE.finditer(text, at, end + _ESCAPE_BYTES):
            if escape.start() >= end:
                break
            if escape["alone"]:
                return (
                    "a JSON string has half of a surrogate pair without the other half at byte "
                    f"{escape.start()}, which is not a character: was the text cut off in the middle of a pair?"
                )
            at = escape.end()
        at = text.find(b"\\", max(at, end))
        yield
    if isinstance(error, msgspec.ValidationError):
        return f"its JSON has an unexpected form: {error}"
    return f"it is not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def _require_depth(text: bytes) -> None:
    """Raise DecodeError if a JSON text is nested beyond MAX_DEPTH; may also raise for text that is not JSON."""
    size = len(text)
    if size <= 2 * MAX_DEPTH:
        return
    # Removing bytes is by far the fastest way to count them up to a limit: it uses memchr.
    openings = 2 * size - len(text.replace(b"{", b"", MAX_DEPTH + 1)) - len(text.replace(b"[", b"", MAX_DEPTH + 1))
    if openings > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise too_deep()


def _depth(text: bytes) -> int:
    """Return how deeply arrays and objects are nested."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return deepest(outside_strings(text, BRACKETS), 0)
