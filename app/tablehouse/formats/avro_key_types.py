"""Converts the scalars in Avro keys to their text in a URL, and back.

| type                                     | in a URL                                             |
|------------------------------------------|------------------------------------------------------|
| string, enum                             | the text                                             |
| int, long                                | decimal                                              |
| float, double                            | the fewest digits that identify it: 1.5, 5.0         |
| bytes                                    | base64url, without padding                           |
| boolean                                  | true or false                                        |
| decimal, Debezium's VariableScaleDecimal | 12.30, with its scale                                |

A type may also be a union of one of these and null, but a null key is refused. Each value has one text, and no other
text is accepted for it.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from tablehouse.errors import InvalidKey
from tablehouse.formats.avro_rendering import VARIABLE_DECIMAL, float_text, kind_of, rendered_as, rounded, single
from tablehouse.formats.avro_rendering import variable_decimal as shown_variable_decimal
from tablehouse.formats.avro_values import twos_complement
from tablehouse.formats.errors import DecodeError, StoredKeyError
from tablehouse.formats.ordered import SIGN, Scalar
from tablehouse.formats.temporal import decimal_text, unscaled

#: A value as shown in a URL: a number or a boolean of JSON, or a text.
Shown = str | bool | int | float

_INT = 1 << 31

#: The most bytes of a decimal in a key; a schema may declare gigabytes.
_MAX_DECIMAL_BYTES = 8 * 1024
_DECIMAL = re.compile(rb"0|-?[1-9][0-9]{0,18}")

_encode = msgspec.json.Encoder().encode


class KeyType(NamedTuple):
    """A type of scalar.

    `is_ordered` is set if the stored texts of the type compare as the values do.
    `show` raises DecodeError for a value that cannot be a key. `parse` returns the value of a text, or None if this
    schema has no such value, such as a number beyond an int; it raises InvalidKey, which says what is expected.
    """

    show: Callable[[Any], Shown]
    parse: Callable[[bytes], Any]
    is_ordered: bool = False


def key_type(schema: Any, types: Mapping[str, Any], what: str) -> KeyType:
    """Return the type of a scalar by its rendered schema; `what` names it in the DecodeError if it is not a scalar."""
    if isinstance(schema, str) and schema in types:
        schema = types[schema]
    kind, rendered = kind_of(schema), rendered_as(schema)
    if kind == "union":
        branches = [branch for branch in schema if kind_of(branch) != "null"]
        if len(branches) == 1 < len(schema):
            return _not_null(key_type(branches[0], types, what), what)
    if rendered == "decimal":
        if schema.get("size", 0) > _MAX_DECIMAL_BYTES:
            raise DecodeError(f"{what} is a decimal of more than {_MAX_DECIMAL_BYTES} bytes, too large for a key")
        return decimal_key(schema["scale"], schema.get("size"))
    if rendered == VARIABLE_DECIMAL:
        return VARIABLE_DECIMAL_KEY
    if kind == "enum":
        return _enum(frozenset(schema["symbols"]))
    if kind not in _TYPES:
        raise DecodeError(
            f"{what} is of type {kind}, and a key is a string, enum, int, long, float, double, decimal, bytes or "
            "boolean, or one of these and null"
        )
    return _TYPES[kind]


def text_of(shown: Shown) -> bytes:
    """Return the text of a key's value in a URL."""
    return shown.encode() if isinstance(shown, str) else _encode(shown)


def ordered(text: bytes) -> int | str:
    """Return the scalar under which a text is stored: integers in the order of their values. Raises InvalidKey."""
    number = int(text) if _DECIMAL.fullmatch(text) else SIGN
    return number if -SIGN <= number < SIGN else _string(text)


def text_of_stored(scalar: Scalar) -> bytes:
    """Return the text that is stored as a scalar; raises StoredKeyError if no text is."""
    if isinstance(scalar, str) or type(scalar) is int:
        text = str(scalar).encode()
        if ordered(text) == scalar:
            return text
    raise StoredKeyError("a stored key of format avro has a scalar that no text is stored as")


def _not_null(of: KeyType, what: str) -> KeyType:
    def show(value: Any) -> Shown:
        if value is None:
            raise DecodeError(f"{what} is null, and a key is not")
        return of.show(value)

    return KeyType(show, of.parse, of.is_ordered)


def _string(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidKey("The key is not valid UTF-8 (an Avro string): percent-encode UTF-8.") from error


def _enum(symbols: frozenset[str]) -> KeyType:
    def parse(text: bytes) -> str | None:
        symbol = _string(text)
        return symbol if symbol in symbols else None

    return KeyType(str, parse)


def _long(text: bytes) -> int:
    number = int(text) if _DECIMAL.fullmatch(text) else SIGN
    if not -SIGN <= number < SIGN:
        raise InvalidKey(
            "The key is not an integer of 64 bits (an Avro int or long): use decimal digits without leading zeros or a "
            "plus sign."
        )
    return number


def _int(text: bytes) -> int | None:
    number = _long(text)
    return number if -_INT <= number < _INT else None


def _bytes(text: bytes) -> bytes:
    try:
        found = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        found = b""
    if text != _base64(found).encode():
        raise InvalidKey("The key is not base64url (Avro bytes): use A-Z a-z 0-9 - _, without padding.")
    return found


def _base64(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _boolean(text: bytes) -> bool:
    if text not in {b"true", b"false"}:
        raise InvalidKey("The key is not a boolean (an Avro boolean): use true or false.")
    return text == b"true"


def _double(value: float) -> Shown:
    return float_text(value) if value - value else value  # 0 unless it is infinite or not a number


def _floating(show: Callable[[float], Shown], fit: Callable[[float], float]) -> KeyType:
    def parse(text: bytes) -> float:
        try:
            value = fit(float(text))
            exact = text_of(show(value)) == text
        except (ValueError, OverflowError):
            exact = False
        if not exact:
            raise InvalidKey(
                "The key is not a number (an Avro float or double): use the fewest digits that identify it, as in "
                "rows, like 1.5, 5.0 or 1e100."
            )
        return value

    return KeyType(show, parse)


def decimal_key(scale: int, size: int | None) -> KeyType:
    """Return the type of decimals of a scale, whose unscaled values have `size` bytes; None for any number of bytes."""

    def show(value: bytes) -> str:
        return decimal_text(int.from_bytes(value, "big", signed=True), scale)

    def parse(text: bytes) -> bytes | None:
        try:
            number = unscaled(_string(text), scale)
            exact = decimal_text(number, scale).encode() == text
        except DecodeError:
            exact = False
        if not exact:
            raise InvalidKey(
                f"The key is not a decimal: use all {max(scale, 0)} digits after the point and no leading zeros."
            )
        try:
            return twos_complement(number) if size is None else number.to_bytes(size, "big", signed=True)
        except OverflowError:
            return None

    return KeyType(show, parse)


def _variable_decimal(text: bytes) -> dict[str, Any]:
    scale = len(text.partition(b".")[2])
    try:
        number = unscaled(_string(text), scale)
        exact = decimal_text(number, scale).encode() == text
    except DecodeError:
        exact = False
    if not exact:
        raise InvalidKey("The key is not a decimal (Debezium's VariableScaleDecimal): use its digits, like 12.30.")
    return {"scale": scale, "value": twos_complement(number)}


VARIABLE_DECIMAL_KEY = KeyType(shown_variable_decimal, _variable_decimal)

_TYPES: dict[str, KeyType] = {
    "string": KeyType(str, _string),
    "int": KeyType(int, _int, is_ordered=True),
    "long": KeyType(int, _long, is_ordered=True),
    "float": _floating(single, rounded),
    "double": _floating(_double, float),
    "bytes": KeyType(_base64, _bytes),
    "boolean": KeyType(bool, _boolean, is_ordered=True),
}
