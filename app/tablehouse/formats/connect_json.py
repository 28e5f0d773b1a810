"""JSON as Kafka Connect's JsonConverter writes it with schemas.enable=true: `{"schema": .., "payload": ..}`.

A member of the payload whose type JSON lacks becomes a readable JSON string; every other member is copied unchanged.

| type, by the name in its schema                        | in the payload         | in the row                  |
|--------------------------------------------------------|------------------------|-----------------------------|
| connect.data.Decimal                                   | base64, or a number    | `"12.30"`                   |
| debezium.data.VariableScaleDecimal                     | its scale, and base64  | `"12.30"`                   |
| connect.data.Date, debezium.time.Date                  | days since 1970        | `"2013-01-31"`              |
| connect.data.Time                                      | since midnight         | `"05:17:00.123"`            |
| debezium.time.Time, Micro-, NanoTime                   | any length, signed     | `"-26:30:00.123"`           |
| connect.data.Timestamp                                 | ms since 1970          | `"2013-01-31T05:17:00.123Z"` |
| debezium.time.Timestamp, Micro-, NanoTimestamp         | since 1970, no zone    | `"2013-01-31T05:17:00.123"` |

The fraction of a second has as many digits as the type: 3, 6 or 9.
Types of strings (ZonedTimestamp, Uuid, Enum, Json and so on), and bytes, which are base64, stay as they are.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from functools import lru_cache

import msgspec

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_json, decode_with
from tablehouse.formats.members import Members
from tablehouse.formats.schemas import MAX_TYPES_NESTED
from tablehouse.formats.temporal import date_text, decimal_text, duration_text, plain_decimal, time_text, timestamp_text

#: Converts the text of a payload to the text of a row's member; None if it is copied unchanged.
Converter = Callable[[bytes], bytes] | None

#: The number of schemas whose converters are kept; a schema with its converter takes about 20 KB.
_SCHEMAS_KEPT = 256

_NULL = b"null"

#: The names of the schemas of decimals.
DECIMAL, VARIABLE_SCALE_DECIMAL = "org.apache.kafka.connect.data.Decimal", "io.debezium.data.VariableScaleDecimal"

#: The first integer that does not fit 64 bits.
_LONG = 1 << 63

_list: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_map: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Schema(msgspec.Struct):
    """A schema of Kafka Connect, as JsonConverter writes it."""

    type: str
    name: str | None = None
    field: str | None = None
    parameters: dict[str, str] | None = None
    fields: list["Schema"] = []
    items: "Schema | None" = None
    keys: "Schema | None" = None
    values: "Schema | None" = None


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    schema: msgspec.Raw
    payload: msgspec.Raw


_wrapped: msgspec.json.Decoder[_Wrapped] = msgspec.json.Decoder(_Wrapped)
_schema: msgspec.json.Decoder[Schema | None] = msgspec.json.Decoder(Schema | None)


def unwrap(text: bytes) -> tuple[bytes, bytes] | None:
    """Return the texts of schema and payload; None if `text` is not an object of exactly these two, in this order.

    Raises DecodeError if it is not JSON.
    """
    if not text.startswith(b'{"schema":'):
        return None
    try:
        wrapped = decode_with(_wrapped, text)
        parsed(bytes(wrapped.schema))
    except DecodeError:
        decode_json(text)
        return None
    return bytes(wrapped.schema), bytes(wrapped.payload)


def payload_of(text: bytes) -> bytes:
    """Return a value's payload as a row's text; raises DecodeError if it is not an object of schema and payload."""
    try:
        wrapped = decode_with(_wrapped, text)
    except DecodeError:
        decode_json(text)
        raise DecodeError(
            "it is not an object of schema and payload, as Kafka Connect writes values with schemas.enable=true; "
            "without that the value's format is json"
        ) from None
    convert = converter(bytes(wrapped.schema))
    payload = bytes(wrapped.payload)
    return payload if convert is None else convert(payload)


@lru_cache(_SCHEMAS_KEPT)
def parsed(schema: bytes) -> Schema | None:
    """Return the schema with this text, None for `null`; raises DecodeError."""
    return decode_with(_schema, schema)


@lru_cache(_SCHEMAS_KEPT)
def converter(schema: bytes, member: str | None = None) -> Converter:
    """Return the converter from payloads of the schema with this text, or from a member of them, to a row's text.

    Its DecodeError names the member that does not match the schema. This function raises DecodeError for a text that
    is not a schema, and for a schema whose types are nested beyond MAX_TYPES_NESTED.
    """
    read = parsed(schema)
    if read is None:
        return None
    if member is None:
        return converter_of(read)
    return next((converter_of(field) for field in read.fields if field.field == member), None)


def converter_of(schema: Schema, depth: int = 1) -> Converter:
    """Return the converter from payloads of this schema, which is nested in `depth` - 1 others, to a row's text."""
    if depth > MAX_TYPES_NESTED:
        raise DecodeError(f"its schema has types nested more than {MAX_TYPES_NESTED} deep")
    if schema.name in _NAMED:
        return _unless_null(_NAMED[schema.name](schema))
    match schema.type:
        case "struct":
            return _struct(schema, depth)
        case "array" if schema.items is not None:
            return _array(converter_of(schema.items, depth + 1))
        case "map" if schema.keys is not None and schema.values is not None:
            # The names of JSON's members are strings; a map with other keys is an array of pairs.
            value = converter_of(schema.values, depth + 1)
            if schema.keys.type == "string":
                return _object(value)
            return _array(_pair(converter_of(schema.keys, depth + 1), value))
    return None


def _unless_null(convert: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda text: text if text == _NULL else convert(text)


def _struct(schema: Schema, depth: int) -> Converter:
    converters = {field.field or "": converter_of(field, depth + 1) for field in schema.fields}
    if not any(converters.values()):
        return None
    members = Members(converters)
    names = {name: _encode(name) + b":" for name in converters}

    def convert(text: bytes) -> bytes:
        parts = []
        for name, member in members(text).items():
            of_member = converters[name]
            try:
                parts.append(names[name] + (member if of_member is None else of_member(member)))
            except DecodeError as error:
                raise DecodeError(f"member {name}: {error}") from error
        return b"{" + b",".join(parts) + b"}"

    return _unless_null(convert)


def _array(item: Converter) -> Converter:
    if item is None:
        return None
    return _unless_null(lambda text: b"[" + b",".join([item(bytes(one)) for one in decode_with(_list, text)]) + b"]")


def _object(value: Converter) -> Converter:
    if value is None:
        return None

    def convert(text: bytes) -> bytes:
        members = decode_with(_map, text).items()
        return b"{" + b",".join([_encode(name) + b":" + value(bytes(one)) for name, one in members]) + b"}"

    return _unless_null(convert)


def _pair(key: Converter, value: Converter) -> Converter:
    if key is None and value is None:
        return None

    def convert(text: bytes) -> bytes:
        parts = [bytes(one) for one in decode_with(_list, text)]
        if len(parts) != 2:  # noqa: PLR2004  a pair
            raise DecodeError("an entry of a map is not a pair")
        both = [part if convert is None else convert(part) for convert, part in zip((key, value), parts, strict=True)]
        return b"[" + b",".join(both) + b"]"

    return convert


def scale_of(schema: Schema) -> int:
    """Return the scale of a Decimal's schema; raises DecodeError."""
    given = (schema.parameters or {}).get("scale", "0")
    try:
        return int(given)
    except ValueError as error:
        raise DecodeError(f"the scale of a Decimal is {given!r}, but it must be an integer") from error


def _decimal(schema: Schema) -> Callable[[bytes], bytes]:
    scale = scale_of(schema)

    def convert(text: bytes) -> bytes:
        match decode_json(text):
            case str(value):
                return _encode(_base64_decimal(value, scale))
            case int() | float() as value if not isinstance(value, bool):
                # As decimal.format=NUMERIC writes it, with every digit. Jackson writes small numbers with an exponent.
                return _encode(plain_decimal(text.decode().strip()))
        raise DecodeError("a Decimal is neither base64 nor a number")

    return convert


def _variable_scale(_: Schema) -> Callable[[bytes], bytes]:
    def convert(text: bytes) -> bytes:
        match decode_json(text):
            case {"scale": int(scale), "value": str(value)}:
                return _encode(_base64_decimal(value, scale))
        raise DecodeError("a VariableScaleDecimal has no scale and value")

    return convert


def _base64_decimal(text: str, scale: int) -> str:
    """Return the digits of a decimal whose unscaled value is given as base64 of a big-endian two's complement."""
    return decimal_text(int.from_bytes(bytes_of_decimal(text), "big", signed=True), scale)


def bytes_of_decimal(text: str) -> bytes:
    """Return the bytes of a decimal's unscaled value from base64; raises DecodeError."""
    try:
        return a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise DecodeError("a decimal is not base64") from error


def _date(_: Schema) -> Callable[[bytes], bytes]:
    return lambda text: _encode(date_text(_integer(text)))


def _time(digits: int) -> Callable[[Schema], Callable[[bytes], bytes]]:
    """Return the converter of times of a day, counted in units of 10 ** -digits seconds."""
    return lambda _: lambda text: _encode(time_text(_integer(text), digits))


def _duration(digits: int) -> Callable[[Schema], Callable[[bytes], bytes]]:
    """Return the converter of times that may be negative or longer than a day, such as MySQL's, in the same units."""
    return lambda _: lambda text: _encode(duration_text(_integer(text), digits))


def _timestamp(digits: int, zone: str) -> Callable[[Schema], Callable[[bytes], bytes]]:
    """Return the converter of timestamps, counted in units of 10 ** -digits seconds."""
    return lambda _: lambda text: _encode(timestamp_text(_integer(text), digits, zone))


def _integer(text: bytes) -> int:
    value = decode_json(text)
    if isinstance(value, bool) or not isinstance(value, int) or not -_LONG <= value < _LONG:
        raise DecodeError("a date or time is not an integer of 64 bits")
    return value


#: The converters of types that have a name, by the name of their schema.
_NAMED: dict[str | None, Callable[[Schema], Callable[[bytes], bytes]]] = {
    DECIMAL: _decimal,
    VARIABLE_SCALE_DECIMAL: _variable_scale,
    "org.apache.kafka.connect.data.Date": _date,
    "io.debezium.time.Date": _date,
    "org.apache.kafka.connect.data.Time": _time(3),
    "io.debezium.time.Time": _duration(3),
    "io.debezium.time.MicroTime": _duration(6),
    "io.debezium.time.NanoTime": _duration(9),
    "org.apache.kafka.connect.data.Timestamp": _timestamp(3, "Z"),
    "io.debezium.time.Timestamp": _timestamp(3, ""),
    "io.debezium.time.MicroTimestamp": _timestamp(6, ""),
    "io.debezium.time.NanoTimestamp": _timestamp(9, ""),
}
