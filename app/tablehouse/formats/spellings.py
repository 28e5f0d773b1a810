r"""How producers spell a JSON key: Kafka hashes the bytes, so each spelling may be in another partition.

| spelling       | after , and : | escapes beyond what JSON requires                     | numbers beyond a size       |
|----------------|---------------|-------------------------------------------------------|-----------------------------|
| compact        | nothing       | none                                                  | 1e22, 1.5e-7                |
| jackson        | nothing       | characters beyond 16 bits; upper-case digits          | 1.0E22, 1.5E-7, from 1.0E7  |
| gson           | nothing       | < > & = ', U+2028 and U+2029                          | as jackson                  |
| go             | nothing       | < > &, U+2028 and U+2029                              | 1e+22, 1.5e-7               |
| python         | a blank       | all but ASCII                                         | 1e+22, 1.5e-07              |
| python_compact | nothing       | all but ASCII                                         | 1e+22, 1.5e-07              |
| php            | nothing       | all but ASCII; / as \/                                | 1.0e+22, 1.5e-7             |

Members are in the order of the table's `fields` in all of them.
"""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache

import msgspec

from tablehouse.catalog.spec import SpellingName
from tablehouse.formats.ordered import Scalar

#: A member of a key in a record: a scalar, a number with all its digits, or a decimal with its scale as Debezium writes
#: it.
Member = Scalar | msgspec.Raw | Mapping[str, int | str]

#: Writes the members of a key in the order of its fields, or the only member if there are no fields.
Write = Callable[[Sequence[Member], tuple[str, ...]], bytes]

#: The characters that JSON requires to be escaped, as a set of a regular expression, and the short escapes.
_DEMANDED = r'\x00-\x1f"\\'
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def compact(members: Sequence[Member], fields: tuple[str, ...]) -> bytes:
    """Return the canonical spelling."""
    return msgspec.json.encode(dict(zip(fields, members, strict=True)) if fields else members[0])


def _spelling(
    escaped: str, number: Callable[[float], str], *, blank: str = "", digits: str = "x", slash: str = "/"
) -> Write:
    """Return a spelling, given the characters that it escapes beyond those JSON requires, and how it writes a double.

    `blank` follows commas and colons, `digits` is the format of an escape's hexadecimal digits, `slash` replaces a `/`.
    """
    pattern = re.compile(f"[{_DEMANDED}{escaped}]")
    short = {**_SHORT, "/": slash}

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        if character in short:
            return short[character]
        units = struct.iter_unpack(">H", character.encode("utf-16-be"))
        return "".join(f"\\u{unit:04{digits}}" for (unit,) in units)

    def text(member: Member) -> str:
        if isinstance(member, str):
            return f'"{pattern.sub(escape, member)}"'
        if isinstance(member, float):
            return number(member)
        return msgspec.json.encode(member).decode()

    @cache
    def pieces(fields: tuple[str, ...]) -> list[str]:
        """Return the text before the value of each member."""
        return [f"{f',{blank}' if index else '{'}{text(name)}:{blank}" for index, name in enumerate(fields)]

    def write(members: Sequence[Member], fields: tuple[str, ...]) -> bytes:
        if not fields:
            return text(members[0]).encode()
        written = ""
        for piece, member in zip(pieces(fields), members, strict=True):
            written += piece + text(member)
        return f"{written}}}".encode()

    return write


def _is_plain(number: float, least: float, end: float) -> bool:
    """Return whether a number is written without an exponent: serialisers use one below `least` and from `end` on."""
    return number == 0 or least <= abs(number) < end


def _plain(number: float) -> str:
    """Return a number without an exponent."""
    return format(Decimal(repr(number)), "f")


def _scientific(number: float) -> tuple[str, int]:
    """Return the shortest digits of a number with a point after the first, and the power of ten to multiply them by."""
    decimal = Decimal(repr(number)).normalize()
    sign, (first, *rest), _ = decimal.as_tuple()
    return f"{'-' * sign}{first}.{''.join(map(str, rest)) or 0}", decimal.adjusted()


def _of_go(number: float) -> str:
    if _is_plain(number, 1e-6, 1e21):
        return _plain(number).removesuffix(".0")
    mantissa, exponent = _scientific(number)
    return f"{mantissa.removesuffix('.0')}e{exponent:+d}"


def _of_java(number: float) -> str:
    if _is_plain(number, 1e-3, 1e7):
        return _plain(number)
    mantissa, exponent = _scientific(number)
    return f"{mantissa}E{exponent}"


def _of_php(number: float) -> str:
    if _is_plain(number, 1e-4, 1e17):
        return _plain(number).removesuffix(".0")
    mantissa, exponent = _scientific(number)
    return f"{mantissa}e{exponent:+d}"


#: Characters that some spellings escape in addition, as sets of a regular expression.
_BEYOND_ASCII = r"\x7f-\U0010ffff"
_BEYOND_16_BITS = r"\U00010000-\U0010ffff"
_OF_HTML = r"<>&\u2028\u2029"

SPELLINGS: Mapping[SpellingName, Write] = {
    "compact": compact,
    "jackson": _spelling(_BEYOND_16_BITS, _of_java, digits="X"),
    "gson": _spelling(_OF_HTML + "='", _of_java),
    "go": _spelling(_OF_HTML, _of_go),
    "python": _spelling(_BEYOND_ASCII, repr, blank=" "),
    "python_compact": _spelling(_BEYOND_ASCII, repr),
    "php": _spelling(r"/\x80-\U0010ffff", _of_php, slash="\\/"),
}
