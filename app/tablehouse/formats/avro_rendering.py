"""How Avro values look in JSON, by their type and logical type.

fastavro calls a function for each value whose schema has a logical type. Here every schema whose values JSON cannot
show unchanged gets a logical type of our own, whose function returns text. An invalid logical type, such as a decimal
with a scale greater than its precision, is ignored, as Avro's specification requires: the value is shown by its type.
"""

from collections.abc import Callable, Mapping
from math import floor, isfinite, log10
from struct import Struct
from typing import Any
from uuid import UUID

from fastavro.read import LOGICAL_READERS

from tablehouse.formats.temporal import date_text, decimal_text, duration_text, time_text, timestamp_text

#: Returns the text of a value. fastavro passes the value, and the schemas it was written with and is read with.
Render = Callable[..., str | float]

#: The rendering of a record that is a decimal with its own scale.
VARIABLE_DECIMAL = "variable-decimal"

#: The prefix of our own logical types.
PREFIX = "tablehouse-"

_CONNECT_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_UUID_SIZE = 16
_SINGLE = Struct("<f")
_MIN_NORMAL_SINGLE = 2.0**-126
_DIGITS = range(6, 9)
_pack = _SINGLE.pack


def _decimal(value: bytes, schema: Mapping[str, Any], _: object = None) -> str:
    return decimal_text(int.from_bytes(value, "big", signed=True), schema["scale"])


def variable_decimal(value: Mapping[str, Any], *_: object) -> str:
    """Return the text of a decimal that has its own scale."""
    return decimal_text(int.from_bytes(value["value"], "big", signed=True), value["scale"])


def float_text(value: float) -> str:
    """Return the text of a float that is not finite, for which JSON has no number."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124  NaN is not itself


def _double(value: float, *_: object) -> str | float:
    return value if isfinite(value) else float_text(value)


def single(value: float, _: object = None, wanted: object = None) -> str | float:
    """Return the double with the shortest text that identifies this float of 32 bits: 0.1, not 0.10000000149011612.

    If the type is double in the schema that it is read with, the float was already converted, with all these digits.
    """
    if not isfinite(value):
        return float_text(value)
    if isinstance(wanted, Mapping) and wanted.get("type") == "double":
        return value
    packed = _pack(value)
    # Starting at six digits finds every shorter text too, except for subnormal floats.
    for digits in _DIGITS if abs(value) >= _MIN_NORMAL_SINGLE else range(1, 9):
        short = float(f"{value:.{digits}g}")
        if _pack(short) == packed:
            return short
    return float(f"{value:.9g}")


def rounded(value: float) -> float:
    """Return the float of 32 bits that is closest to a double; raises OverflowError beyond the range of floats."""
    found: float = _SINGLE.unpack(_pack(value))[0]
    return found


def _timestamp(digits: int, zone: str) -> Render:
    return lambda value, *_: timestamp_text(value, digits, zone)


def _time(digits: int) -> Render:
    return lambda value, *_: time_text(value, digits)


def _duration(digits: int) -> Render:
    return lambda value, *_: duration_text(value, digits)


#: Which values are rendered, and how: by type and logical type (Avro specification) or name (Kafka Connect).
_RENDERED: dict[tuple[str, str], tuple[str, Render]] = {
    ("bytes", "decimal"): ("decimal", _decimal),
    ("bytes", _CONNECT_DECIMAL): ("decimal", _decimal),
    ("fixed", "decimal"): ("decimal", _decimal),
    ("fixed", "uuid"): ("uuid", lambda value, *_: str(UUID(bytes=value))),
    ("int", "date"): ("date", lambda value, *_: date_text(value)),
    ("int", "time-millis"): ("time-3", _time(3)),
    ("long", "time-micros"): ("time-6", _time(6)),
    **{
        ("long", f"{prefix}timestamp-{name}"): (f"{prefix}timestamp-{digits}", _timestamp(digits, zone))
        for name, digits in (("millis", 3), ("micros", 6), ("nanos", 9))
        for prefix, zone in (("", "Z"), ("local-", ""))
    },
    ("int", "io.debezium.time.Date"): ("date", lambda value, *_: date_text(value)),
    # MySQL's TIME is one of these, and may be negative or longer than a day.
    ("int", "io.debezium.time.Time"): ("duration-3", _duration(3)),
    ("long", "io.debezium.time.MicroTime"): ("duration-6", _duration(6)),
    ("long", "io.debezium.time.NanoTime"): ("duration-9", _duration(9)),
    ("long", "io.debezium.time.Timestamp"): ("local-timestamp-3", _timestamp(3, "")),
    ("long", "io.debezium.time.MicroTimestamp"): ("local-timestamp-6", _timestamp(6, "")),
    ("long", "io.debezium.time.NanoTimestamp"): ("local-timestamp-9", _timestamp(9, "")),
    ("record", "io.debezium.data.VariableScaleDecimal"): (VARIABLE_DECIMAL, variable_decimal),
    ("float", ""): ("float", single),
    ("double", ""): ("float", _double),
}
_RENDERS: dict[tuple[str, str], Render] = {}
for (_kind, _), (_name, _render) in _RENDERED.items():
    _RENDERS[_kind, _name] = _render
    LOGICAL_READERS[f"{_kind}-{PREFIX}{_name}"] = _render


def kind_of(schema: Any) -> str:
    """Return the type of a schema: `union` for a union, the name for a named type."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"] if isinstance(schema, dict) else schema)


def rendered_as(schema: Any) -> str:
    """Return how a schema's values are rendered, like `decimal` or `timestamp-3`; empty if they are shown unchanged."""
    if not isinstance(schema, dict) or not isinstance(schema.get("logicalType"), str):
        return ""
    logical: str = schema["logicalType"]
    return logical.removeprefix(PREFIX) if logical.startswith(PREFIX) else ""


def render(value: Any, schema: Mapping[str, Any]) -> str | float:
    """Return how a row shows a value of a rendered schema."""
    return _RENDERS[kind_of(schema), rendered_as(schema)](value, schema)


def mark(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that make fastavro render a schema's values; none if they are shown unchanged."""
    for name in (str(schema.get("logicalType", "")), str(schema.get("connect.name", "")), ""):
        if (schema["type"], name) not in _RENDERED:
            continue
        found = _RENDERED[schema["type"], name][0]
        if found == "decimal":
            bounds = _connect_decimal(schema) if name == _CONNECT_DECIMAL else _avro_decimal(schema)
            if bounds is not None:
                return {"logicalType": PREFIX + found, "scale": bounds[0], "precision": bounds[1]}
        elif found != "uuid" or schema["size"] == _UUID_SIZE:
            return {"logicalType": PREFIX + found}
    return {}


def is_invalid_decimal(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema has an invalid logical type decimal."""
    return schema.get("logicalType") == "decimal" and _avro_decimal(schema) is None


def _avro_decimal(schema: Mapping[str, Any]) -> tuple[int, int | None] | None:
    """Return the scale and the precision of a decimal; None if they are invalid by Avro's specification."""
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or not precision:
        return None
    if schema["type"] == "fixed" and precision > floor(log10(2) * (8 * schema["size"] - 1)):
        return None
    return scale, precision


def _connect_decimal(schema: Mapping[str, Any]) -> tuple[int, int | None] | None:
    """Return the scale of Kafka Connect's Decimal, which may be one that Avro's decimals cannot have.

    Oracle's NUMBER has 127, with a precision of 64 that Confluent's converter invents. Digits are unlimited.
    """
    parameters = schema.get("connect.parameters")
    try:
        return (int(parameters["scale"]), None) if isinstance(parameters, Mapping) else None
    except (LookupError, TypeError, ValueError):
        return None
