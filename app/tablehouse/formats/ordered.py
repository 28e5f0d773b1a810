"""Scalars as bytes that compare as the scalars do, for keys that are JSON.

Each is a tag and a body; several of them stand one after the other without anything between:

    0x01                        null
    0x02, 0x03                  false, true
    0x04  double residual kind  a number
    0x05  text 0x00             a string: UTF-8, each 0x00 in it followed by 0xff

so null < false < true < numbers < strings, and no form is the beginning of another. A number is the largest
IEEE 754 double that is not above it (8 bytes, ordered), what is missing to the integer (2 bytes), and whether
it was an integer (0) or not (1): that orders 64-bit integers and doubles together without rounding either.
1 and 1.0 are different, next to each other, because producers write them as different bytes.
"""

import math
import struct

Scalar = None | bool | int | float | str

#: The sign bit of 8 bytes; an integer must be from -SIGN to SIGN - 1.
SIGN = 1 << 63
_ALL = (1 << 64) - 1


def ordered_bytes(value: Scalar) -> bytes:
    """Return the bytes of one scalar; an integer must fit 64 bits, and a float be finite."""
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


def _ordered(double: float) -> bytes:
    """Return 8 bytes that compare as doubles do: the sign bit flipped, of negative ones every bit."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", double))
    return int(bits ^ (_ALL if bits & SIGN else SIGN)).to_bytes(8, "big")
