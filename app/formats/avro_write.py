"""From the JSON of a row to Avro: the way back of avro.py, for rows that callers write."""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro

from app.formats.avro import is_bare
from app.formats.avro_rendering import VARIABLE_DECIMAL, kind_of, rendered_as
from app.formats.avro_schema import Readable, readable
from app.formats.errors import DecodeError
from app.formats.framing import frame
from app.formats.json_text import decode_json
from app.formats.schemas import Schema
from app.formats.temporal import days, duration_units, time_units, timestamp_units, unscaled

_BITS = {"int": 31, "long": 63}
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
#: From where on numbers are rounded to infinity.
_TOO_GREAT = {"float": (2**25 - 1) << 103, "double": (2**54 - 1) << 970}


def to_avro(text: bytes, schema: Schema) -> bytes:
    """Return the Avro of a row's JSON text, without a frame.

    Raises DecodeError, naming the field, for JSON that the schema does not describe.
    """
    ready = readable(schema)
    content = BytesIO()
    fastavro.schemaless_writer(content, ready.parsed, ready.wrap(_value(text, ready)))
    return content.getvalue()


def to_framed_avro(text: bytes, schema: Schema) -> bytes:
    """Return the same behind the frame of a schema registry, where bytes alone have no length; see Resolution."""
    ready = readable(schema)
    return frame(schema.id, _value(text, ready) if is_bare(ready) else to_avro(text, schema))


def _value(text: bytes, ready: Readable) -> Any:
    return _Values(ready).of(decode_json(text), ready.content, "it")


class _Values:
    """From JSON values to those that fastavro writes."""

    def __init__(self, ready: Readable) -> None:
        self._types = ready.types

    def of(self, value: Any, schema: Any, path: str) -> Any:
        """Return a value of a schema; `path` names it in errors."""
        if isinstance(schema, str) and schema in self._types:
            schema = self._types[schema]
        match schema:
            case list():
                return self._of_union(value, schema, path)
            case {"type": "record" | "error", "fields": fields} if rendered_as(schema) != VARIABLE_DECIMAL:
                return self._of_record(value, fields, path)
            case {"type": "array", "items": items}:
                if not isinstance(value, list):
                    raise _wrong(path, "an array")
                return [self.of(item, items, f"{path}[{index}]") for index, item in enumerate(value)]
            case {"type": "map", "values": values}:
                if not isinstance(value, dict):
                    raise _wrong(path, "an object")
                return {name: self.of(member, values, _member(path, name)) for name, member in value.items()}
        try:
            return _scalar(value, schema)
        except DecodeError as error:
            raise DecodeError(f"{path}: {error}") from None

    def _of_record(self, value: Any, fields: list[Any], path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(path, "an object")
        known = {field["name"]: field for field in fields}
        for name in value:
            if name not in known:
                raise DecodeError(
                    f"{_member(path, name)} is not a field of the schema: its fields are {', '.join(known)}"
                )
        written = {}
        for name, field in known.items():
            if name not in value and "default" not in field:
                raise DecodeError(f"{_member(path, name)} is missing, and the schema has no default for it")
            given = value[name] if name in value else field["default"]
            written[name] = self.of(given, field["type"], _member(path, name))
        return written

    def _of_union(self, value: Any, branches: list[Any], path: str) -> Any:
        # A whole number is an integer before it is a double; else the first branch that takes it counts.
        for branch in sorted(branches, key=lambda branch: kind_of(branch) in {"float", "double"}):
            try:
                written = self.of(value, branch, path)
            except DecodeError:
                continue
            named = isinstance(branch, dict) and "name" in branch
            return (branch["name"] if named else kind_of(branch), written)
        kinds = ", ".join(rendered_as(branch) or kind_of(branch) for branch in branches)
        raise DecodeError(f"{path} is none of {kinds}")


def _scalar(value: Any, schema: Any) -> Any:
    kind, rendered = kind_of(schema), rendered_as(schema)
    if rendered and rendered != "float":
        if not isinstance(value, str):
            raise DecodeError(f"it has to be a {rendered.rstrip('-0123456789')} in a string")
        written = _from_text(value, rendered, schema)
        return _integer(written, schema) if kind in _BITS else written
    return _PLAIN[kind](value, schema)


def _from_text(text: str, rendered: str, schema: Mapping[str, Any]) -> Any:
    if rendered == "decimal":
        return _decimal(text, schema)
    if rendered == VARIABLE_DECIMAL:
        scale = len(text.partition(".")[2])
        return {"scale": scale, "value": _twos_complement(unscaled(text, scale))}
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
    if schema["precision"] is not None and abs(number) >= 10 ** schema["precision"]:
        raise DecodeError(f"it has more than the {schema['precision']} digits of the schema's decimal")
    # fastavro has seen to it that so many digits fit.
    return number.to_bytes(schema["size"], "big", signed=True) if "size" in schema else _twos_complement(number)


def _twos_complement(number: int) -> bytes:
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def _null(value: Any, _: Any) -> None:
    if value is not None:
        raise DecodeError("it has to be null")


def _boolean(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise DecodeError("it has to be true or false")
    return value


def _integer(value: Any, schema: Any) -> int:
    limit = 1 << _BITS[kind_of(schema)]
    if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
        raise DecodeError(f"it has to be an integer from {-limit} to {limit - 1}")
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


def _string(value: Any, _: Any) -> str:
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


_PLAIN: Mapping[str, Callable[[Any, Any], Any]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "string": _string,
    "bytes": _bytes,
    "fixed": _bytes,
    "enum": _symbol,
}


def _wrong(path: str, what: str) -> DecodeError:
    return DecodeError(f"{path} has to be {what}")


def _member(path: str, name: str) -> str:
    return name if path == "it" else f"{path}.{name}"
