"""Converts decimals in keys of Kafka Connect's JSON: digits in a URL and in stored keys, base64 in a record.

| type, by the name in its schema   | in the payload                  | in a URL  |
|-----------------------------------|---------------------------------|-----------|
| connect.data.Decimal              | `"BM4="`, or the number 12.30   | `"12.30"`, or a number |
| debezium.data.VariableScaleDecimal | `{"scale":2,"value":"BM4="}`   | `"12.30"` |

A URL has all other types as the payload has them.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import NamedTuple

import msgspec

from tablehouse.errors import InvalidKey
from tablehouse.formats.avro_key_types import VARIABLE_DECIMAL_KEY, decimal_key
from tablehouse.formats.connect_json import DECIMAL, VARIABLE_SCALE_DECIMAL, Schema, bytes_of_decimal, parsed, scale_of
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.ordered import Scalar
from tablehouse.formats.remembered import remembered
from tablehouse.formats.spellings import Member

#: A double that is a decimal has at most 17 digits, and zeros up to its scale. More digits than this, or digits beyond
#: the scale, are errors.
_EXACT = Context(prec=400, traps=[InvalidOperation, Inexact])


class _Type(NamedTuple):
    """Converts a value from the payload to the URL, and back; the latter raises InvalidKey, which says what to use."""

    show: Callable[[object], object]
    write: Callable[[Scalar], Member]


@remembered
def connect_key(schema: bytes, fields: tuple[str, ...]) -> "ConnectKey":
    """Return how keys with the schema of this text are shown and written; raises DecodeError."""
    found = parsed(schema)
    if found is None:
        return ConnectKey((None,) * max(1, len(fields)), fields)
    if not fields:
        return ConnectKey((_type(found),), fields)
    types = {field.field: _type(field) for field in found.fields}
    return ConnectKey(tuple(types.get(name) for name in fields), fields)


class ConnectKey:
    """Keys of one schema; `types` are those of the fields in their order, None for a field that is shown unchanged."""

    def __init__(self, types: Sequence[_Type | None], fields: tuple[str, ...]) -> None:
        self._types = types if any(types) else None
        self._fields = fields

    @property
    def has_decimals(self) -> bool:
        """Whether any of the scalars is a decimal."""
        return self._types is not None

    def show(self, payload: object) -> object:
        """Return a payload as a URL has it; raises DecodeError for an invalid decimal."""
        if self._types is None:
            return payload
        if not self._fields:
            of = self._types[0]
            return payload if of is None else of.show(payload)
        if not isinstance(payload, Mapping):
            return payload
        shown = dict(payload)
        for name, of in zip(self._fields, self._types, strict=True):
            if of is not None and name in shown:
                shown[name] = of.show(shown[name])
        return shown

    def write(self, scalars: Sequence[Scalar]) -> Sequence[Member]:
        """Return a URL's scalars as a payload has them; raises InvalidKey."""
        if self._types is None:
            return scalars
        return [scalar if of is None else of.write(scalar) for of, scalar in zip(self._types, scalars, strict=True)]


def _type(schema: Schema) -> _Type | None:
    if schema.name == DECIMAL:
        return _decimal(scale_of(schema))
    return _VARIABLE if schema.name == VARIABLE_SCALE_DECIMAL else None


def _decimal(scale: int) -> _Type:
    of = decimal_key(scale, None)

    def show(value: object) -> object:
        # With decimal.format=NUMERIC it is a number and stays one.
        return of.show(bytes_of_decimal(value)) if isinstance(value, str) else value

    def write(scalar: Scalar) -> Member:
        if isinstance(scalar, float):
            return _with_all_digits(scalar, scale)
        return _base64(of.parse(scalar.encode())) if isinstance(scalar, str) else scalar

    return _Type(show, write)


def _with_all_digits(number: float, scale: int) -> Member:
    """Return a number as Java writes a decimal of a scale: 12.3 as 12.30; unchanged if it does not fit the scale."""
    decimal = Decimal(repr(number))
    try:
        written = str(decimal.quantize(Decimal((0, (1,), -scale)), context=_EXACT))
    except (InvalidOperation, Inexact):
        return number
    # 12.0 and 12 are different keys.
    return msgspec.Raw(written.encode()) if "." in written or "E" in written else number


def _show_variable(value: object) -> object:
    match value:
        case None:
            return None
        case {"scale": int(scale), "value": str(unscaled)}:
            return VARIABLE_DECIMAL_KEY.show({"scale": scale, "value": bytes_of_decimal(unscaled)})
    raise DecodeError("a VariableScaleDecimal has no scale and value")


def _write_variable(scalar: Scalar) -> Member:
    if scalar is None:
        return None
    if not isinstance(scalar, str):
        raise InvalidKey("The key is not a decimal (Debezium's VariableScaleDecimal): use its digits in a string.")
    found = VARIABLE_DECIMAL_KEY.parse(scalar.encode())
    return {"scale": found["scale"], "value": _base64(found["value"])}


_VARIABLE = _Type(_show_variable, _write_variable)


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
