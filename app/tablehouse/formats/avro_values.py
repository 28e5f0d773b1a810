"""Converts the scalars of a row's JSON to the values that Avro writes: the inverse of avro_rendering.py."""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from tablehouse.formats.avro_rendering import VARIABLE_DECIMAL, kind_of, rendered_as
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.temporal import days, duration_units, time_units, timestamp_units, unscaled

_BITS = {"int": 31, "long": 63}
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
#: The smallest numbers that are rounded to infinity.
_TOO_GREAT = {"float": (2**25 - 1) << 103, "double": (2**54 - 1) << 970}


def converter(schema: Any) -> Callable[[Any], Any]:
    """Return the converter from a value in JSON to the value in Avro; it raises DecodeError."""
    kind, rendered = kind_of(schema), rendered_as(schema)
    if rendered and rendered != "float":
        return partial(_rendered, schema=schema, kind=kind, rendered=rendered)
    return _integers(kind) if kind in _BITS else partial(_PLAIN[kind], schema=schema)


def _rendered(value: Any, schema: Any, kind: str, rendered: str) -> Any:
    if not isinstance(value, str):
        raise DecodeError(f"it has to be a {rendered.rstrip('-0123456789')} in a string")
    written = _from_text(value, rendered, schema)
    return _integers(kind)(written) if kind in _BITS else written


def _from_text(text: str, rendered: str, schema: Mapping[str, Any]) -> Any:
    if rendered == "decimal":
        return _decimal(text, schema)
    if rendered == VARIABLE_DECIMAL:
        scale = len(text.partition(".")[2])
        return {"scale": scale, "value": twos_complement(unscaled(text, scale))}
    if rendered == "uuid":
        return _uuid(text)
    if rendered == "date":
        return days(text)
    name, _, digits = rendered.rpartition("-")
    if name in _TIMES:
        return _TIMES[name](text, int(digits))
    return timestamp_units(text, int(digits), "Z" if name == "timestamp" else "")


_TIMES: Mapping[str, Callable[[str, int], int]] = {"time": time_units, "duration": duration_units}


def _uuid(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise DecodeError("it has to be a uuid") from None


def _decimal(text: str, schema: Mapping[str, Any]) -> bytes:
    number = unscaled(text, schema["scale"])
    if schema["precision"] is not None and len(str(abs(number)) if number else "") > schema["precision"]:
        raise DecodeError(f"it has more than the {schema['precision']} digits of the schema's decimal")
    # fastavro has checked that this number of digits fits.
    return number.to_bytes(schema["size"], "big", signed=True) if "size" in schema else twos_complement(number)


def twos_complement(number: int) -> bytes:
    """Return a number in the fewest bytes that hold it with its sign, big-endian."""
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def _integers(kind: str) -> Callable[[Any], int]:
    limit = 1 << _BITS[kind]

    def convert(value: Any) -> int:
        if type(value) is not int or not -limit <= value < limit:
            raise DecodeError(f"it has to be an integer from {-limit} to {limit - 1}")
        return value

    return convert


def _null(value: Any, schema: Any) -> None:
    del schema
    if value is not None:
        raise DecodeError("it has to be null")


def _boolean(value: Any, schema: Any) -> bool:
    del schema
    if not isinstance(value, bool):
        raise DecodeError("it has to be true or false")
    return value


def _float(value: Any, schema: Any) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DecodeError('it has to be a number, "NaN", "Infinity" or "-Infinity"')
    kind = kind_of(schema)
    if abs(value) >= _TOO_GREAT[kind]:
        raise DecodeError(f"it is beyond the range of a {kind}")
    return float(value)


def _string(value: Any, schema: Any) -> str:
    del schema
    if not isinstance(value, str):
        raise DecodeError("it has to be a string")
    return value


def _bytes(value: Any, schema: Any) -> bytes:
    try:
        found = a2b_base64(_string(value, schema), strict_mode=True)
    except (Base64Error, ValueError):
        raise DecodeError("it has to be base64 in a string") from None
    if kind_of(schema) == "fixed" and len(found) != schema["size"]:
        raise DecodeError(f"it has to be {schema['size']} bytes in base64, and is {len(found)}")
    return found


def _symbol(value: Any, schema: Any) -> str:
    if value not in schema["symbols"]:
        raise DecodeError(f"it has to be one of {', '.join(schema['symbols'])}")
    return str(value)


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "null": _null,
    "boolean": _boolean,
    "float": _float,
    "double": _float,
    "string": _string,
    "bytes": _bytes,
    "fixed": _bytes,
    "enum": _symbol,
}
