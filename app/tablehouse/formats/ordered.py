"""Encodes scalars as bytes that compare as the scalars do, for JSON keys.

Each scalar is a tag and a body; several scalars follow each other without a separator:

    0x01                        null
    0x02, 0x03                  false, true
    0x04  double residual kind  a number
    0x05  text 0x00             a string: UTF-8, each 0x00 in it followed by 0xff

so null < false < true < numbers < strings, and no encoding is a prefix of another. A number is encoded as the largest
IEEE 754 double that is not greater (8 bytes, ordered), the difference to the integer (2 bytes), and whether it is an
integer (0) or not (1). This orders 64-bit integers and doubles together without rounding either. 1 and 1.0 are
different keys, next to each other, because producers write them as different bytes.
"""

import math
import struct

from tablehouse.formats.errors import StoredKeyError

Scalar = None | bool | int | float | str

#: The sign bit of 8 bytes; an integer must be from -SIGN to SIGN - 1.
SIGN = 1 << 63
_ALL = (1 << 64) - 1

#: The body of a number: double, residual, kind.
_NUMBER = struct.Struct(">QHB")


def ordered_bytes(value: Scalar) -> bytes:
    """Return the bytes of one scalar; an integer must fit 64 bits, and a float must be finite."""
    match value:
        case None:
            return b"\x01"
        case bool():
            return b"\x03" if value else b"\x02"
        case str():
            return b"\x05" + value.encode().replace(b"\x00", b"\x00\xff") + b"\x00"
        case float():
            return b"\x04" + _ordered(value) + b"\x00\x00\x01"
        case int():
            double = float(value)
            if int(double) > value:
                double = math.nextafter(double, -math.inf)
            # Neighbouring doubles below 2**63 are at most 1024 apart, so the residual fits two bytes.
            return b"\x04" + _ordered(double) + (value - int(double)).to_bytes(2, "big") + b"\x00"


def scalars_of(stored: bytes) -> list[Scalar]:
    """Return the scalars that `ordered_bytes` encoded as these bytes; raises StoredKeyError for any other bytes."""
    found: list[Scalar] = []
    at = 0
    try:
        while at < len(stored):
            scalar, at = _scalar_at(stored, at)
            found.append(scalar)
        is_exact = b"".join(map(ordered_bytes, found)) == stored
    except (ValueError, OverflowError, struct.error):
        is_exact = False
    if not is_exact:
        raise StoredKeyError("a stored key is not made of scalars")
    return found


def _scalar_at(stored: bytes, at: int) -> tuple[Scalar, int]:
    """Return the scalar whose tag is at `at`, and where the next one begins; its errors are caught above."""
    tag, at = stored[at], at + 1
    match tag:
        case 0x01:
            return None, at
        case 0x02:
            return False, at
        case 0x03:
            return True, at
        case 0x04:
            return _number(*_NUMBER.unpack_from(stored, at)), at + _NUMBER.size
        case 0x05:
            end = stored.index(0, at)
            while stored[end + 1 : end + 2] == b"\xff":
                end = stored.index(0, end + 1)
            return stored[at:end].replace(b"\x00\xff", b"\x00").decode(), end + 1
    raise ValueError(tag)


def _number(bits: int, residual: int, kind: int) -> int | float:
    (double,) = struct.unpack(">d", (bits ^ (SIGN if bits & SIGN else _ALL)).to_bytes(8, "big"))
    value = double if kind else int(double) + residual
    if not (math.isfinite(value) if kind else -SIGN <= value < SIGN):
        raise ValueError(value)
    return value


def _ordered(double: float) -> bytes:
    """Return 8 bytes that compare as doubles do: with the sign bit flipped, or every bit of a negative double."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", double))
    return int(bits ^ (_ALL if bits & SIGN else SIGN)).to_bytes(8, "big")
