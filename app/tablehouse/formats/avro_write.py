"""Encodes the JSON of a row as Avro: the inverse of avro.py, for rows that clients write.

Each type of a schema becomes a function that walks through the text of a value and writes Avro on the way. So a large
row is never held as Python values, which can take twenty times the memory of its text, and no single step takes long: a
thread can convert it while the event loop goes on.
"""

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

import msgspec

from tablehouse.formats.avro import is_bare
from tablehouse.formats.avro_rendering import VARIABLE_DECIMAL, kind_of, rendered_as
from tablehouse.formats.avro_schema import readable
from tablehouse.formats.avro_values import converter
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import frame
from tablehouse.formats.json_pieces import check_json
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.json_walk import (
    ARRAY,
    OBJECT,
    decode_scalar,
    end_of_scalar,
    skip_blanks,
    walk_array,
    walk_object,
)
from tablehouse.formats.remembered import remembered
from tablehouse.formats.schemas import Schema
from tablehouse.turns import Work

#: The last byte of a varint is less than this.
_ONE_BYTE = 0x80

_SINGLE, _DOUBLE = Struct("<f"), Struct("<d")

_BRACKETS = b"[{"
#: The value of an array or an object where a scalar has to be; no type of scalar accepts it.
_NO_SCALAR: list[Any] = []

#: The types that have names, and the first characters of the JSON of each type that is not rendered.
_NAMED = frozenset({"record", "error", "enum", "fixed"})
_NUMBER = b"-0123456789"
_STARTS = {
    "null": b"n",
    "boolean": b"tf",
    "int": _NUMBER,
    "long": _NUMBER,
    "float": _NUMBER + b'"',
    "double": _NUMBER + b'"',
    "string": b'"',
    "bytes": b'"',
    "fixed": b'"',
    "enum": b'"',
}

#: Writes a value's Avro; takes the JSON text, where the value begins, and the output; returns where the value ends.
_Write = Callable[[bytes, int, bytearray], int]


def to_avro(text: bytes, schema: Schema) -> bytes:
    """Return the Avro of a row's JSON text, without a frame.

    Raises DecodeError, naming the field, for JSON that the schema does not describe.
    """
    decode_json(text)
    return _written(text, schema)


def to_avro_in_pieces(text: bytes, schema: Schema) -> Work[bytes]:
    """Do what `to_avro` does with a large text, in pieces."""
    yield from check_json(text)
    content: bytes = yield partial(_written, text, schema)
    return content


def to_framed_avro(text: bytes, schema: Schema) -> bytes:
    """Return the Avro of a row's JSON text in the frame of a schema registry, where plain bytes have no length."""
    return _framed(to_avro(text, schema), schema)


def to_framed_avro_in_pieces(text: bytes, schema: Schema) -> Work[bytes]:
    """Do what `to_framed_avro` does with a large text, in pieces."""
    return _framed((yield from to_avro_in_pieces(text, schema)), schema)


def _written(text: bytes, schema: Schema) -> bytes:
    """Return the Avro of a text that is known to be JSON."""
    content = bytearray()
    try:
        _writer(schema).write(text, skip_blanks(text, 0), content)
    except _Misfit as error:
        raise DecodeError(str(error)) from None
    return bytes(content)


def _framed(content: bytes, schema: Schema) -> bytes:
    return frame(schema.id, _without_length(content) if is_bare(readable(schema)) else content)


def _without_length(content: bytes) -> bytes:
    start = 1
    while content[start - 1] >= _ONE_BYTE:
        start += 1
    return content[start:]


class _Misfit(Exception):
    """A value does not match its schema. The message is the path of the value, followed by `problem`."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self._problem = problem
        self._path: list[str | int] = []

    def within(self, step: str | int) -> "_Misfit":
        """Put a member or an index in front of the path."""
        self._path.append(step)
        return self

    def __str__(self) -> str:
        path = "it"
        for step in reversed(self._path):
            if isinstance(step, int):
                path += f"[{step}]"
            else:
                path = step if path == "it" else f"{path}.{step}"
        return path + self._problem


class _Writer(NamedTuple):
    """Writes values of a schema; `starts` are the first characters that their JSON may have."""

    write: _Write
    starts: bytes


@remembered
def _writer(schema: Schema) -> _Writer:
    ready = readable(schema)
    if ready.depth is not None:
        # Finding the branches of its unions could take time that doubles with each level of nesting.
        raise DecodeError("a type of the schema contains itself, and such rows can only be read and written as JSON")
    return _Writers(ready.types).of(ready.content)


class _Writers:
    """Makes the writers of a schema, one for each named type."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types
        self._named: dict[str, _Writer] = {}

    def of(self, schema: Any) -> _Writer:
        """Return the writer of values of a schema."""
        if isinstance(schema, str) and schema in self._types:
            schema = self._types[schema]
        if kind_of(schema) not in _NAMED:
            return self._make(schema)
        name = schema["name"]
        if name not in self._named:
            self._named[name] = self._make(schema)
        return self._named[name]

    def _make(self, schema: Any) -> _Writer:
        match schema:
            case list():
                return _union(schema, [self.of(branch) for branch in schema])
            case {"type": "record" | "error", "fields": fields} if rendered_as(schema) != VARIABLE_DECIMAL:
                return _record([_Field.of(field, self.of(field["type"])) for field in fields])
            case {"type": "array", "items": items}:
                return _array(self.of(items).write)
            case {"type": "map", "values": values}:
                return _map(self.of(values).write)
        return _of_scalars(schema)


class _Field(NamedTuple):
    """A field of a record; `default` is its default in JSON, None if it has none."""

    name: str
    write: _Write
    default: bytes | None

    @classmethod
    def of(cls, field: Mapping[str, Any], writer: _Writer) -> "_Field":
        """Return a field of a parsed schema."""
        default = msgspec.json.encode(field["default"]) if "default" in field else None
        return cls(field["name"], writer.write, default)


def _record(fields: list[_Field]) -> _Writer:
    numbers = {field.name: number for number, field in enumerate(fields)}

    def write(text: bytes, at: int, out: bytearray) -> int:
        _require(text, at, OBJECT, "an object")
        parts: list[bytearray | None] = [None] * len(fields)

        def take(name: str, at: int) -> int:
            number = numbers.get(name)
            if number is None:
                raise _Misfit(f" is not a field of the schema: its fields are {', '.join(numbers)}").within(name)
            # Of members with the same name the last is used.
            part = parts[number] = bytearray()
            try:
                return fields[number].write(text, at, part)
            except _Misfit as error:
                raise error.within(name) from None

        end = walk_object(text, at, take)
        for field, part in zip(fields, parts, strict=True):
            if part is not None:
                out += part
            elif field.default is None:
                raise _Misfit(" is missing, and the schema has no default for it").within(field.name)
            else:
                try:
                    field.write(field.default, 0, out)
                except _Misfit as error:
                    raise error.within(field.name) from None
        return end

    return _Writer(write, b"{")


def _array(item: _Write) -> _Writer:
    def write(text: bytes, at: int, out: bytearray) -> int:
        _require(text, at, ARRAY, "an array")
        content, count = bytearray(), 0

        def take(at: int) -> int:
            nonlocal count
            end = item(text, at, content)
            count += 1
            return end

        try:
            end = walk_array(text, at, take)
        except _Misfit as error:
            raise error.within(count) from None
        _put_block(count, content, out)
        return end

    return _Writer(write, b"[")


def _map(value: _Write) -> _Writer:
    def write(text: bytes, at: int, out: bytearray) -> int:
        _require(text, at, OBJECT, "an object")
        # Of members with the same name the last is used.
        entries: dict[str, bytearray] = {}

        def take(name: str, at: int) -> int:
            entry = entries[name] = bytearray()
            try:
                return value(text, at, entry)
            except _Misfit as error:
                raise error.within(name) from None

        end = walk_object(text, at, take)
        content = bytearray()
        for name, entry in entries.items():
            _put_text(name, content)
            content += entry
        _put_block(len(entries), content, out)
        return end

    return _Writer(write, b"{")


def _union(branches: list[Any], writers: list[_Writer]) -> _Writer:
    # A whole number is an integer rather than a double; otherwise the first branch that accepts the value is used.
    ordered: list[tuple[bytes, _Writer]] = []
    for number in sorted(range(len(branches)), key=lambda number: kind_of(branches[number]) in {"float", "double"}):
        index = bytearray()
        _put_integer(number, index)
        ordered.append((bytes(index), writers[number]))
    kinds = ", ".join(rendered_as(branch) or kind_of(branch) for branch in branches)

    def write(text: bytes, at: int, out: bytearray) -> int:
        first, size = text[at], len(out)
        for index, branch in ordered:
            if first in branch.starts:
                out += index
                try:
                    return branch.write(text, at, out)
                except _Misfit:
                    del out[size:]
        raise _Misfit(f" is none of {kinds}")

    return _Writer(write, b"".join(writer.starts for writer in writers))


def _of_scalars(schema: Any) -> _Writer:
    """Return the writer of values of a schema that are strings, numbers or literals in JSON."""
    convert, put, rendered = converter(schema), _put_of(schema), rendered_as(schema)

    def write(text: bytes, at: int, out: bytearray) -> int:
        if text[at] in _BRACKETS:
            end, value = at, _NO_SCALAR
        else:
            end = end_of_scalar(text, at)
            value = decode_scalar(text[at:end])
        try:
            put(convert(value), out)
        except DecodeError as error:
            raise _Misfit(f": {error}") from None
        return end

    return _Writer(write, b'"' if rendered and rendered != "float" else _STARTS[kind_of(schema)])


def _require(text: bytes, at: int, bracket: int, what: str) -> None:
    if text[at] != bracket:
        raise _Misfit(f" has to be {what}")


def _put_block(count: int, content: bytearray, out: bytearray) -> None:
    """Append the items of an array or a map."""
    if count:
        _put_integer(count, out)
        out += content
    out.append(0)


def _put_nothing(_: None, __: bytearray) -> None:
    pass


def _put_boolean(value: bool, out: bytearray) -> None:  # noqa: FBT001  the value to write
    out.append(value)


def _put_integer(value: int, out: bytearray) -> None:
    zigzag = value << 1 ^ value >> 63
    while zigzag >= _ONE_BYTE:
        out.append(zigzag & 0x7F | _ONE_BYTE)
        zigzag >>= 7
    out.append(zigzag)


def _put_float(value: float, out: bytearray) -> None:
    out += _SINGLE.pack(value)


def _put_double(value: float, out: bytearray) -> None:
    out += _DOUBLE.pack(value)


def _put_text(value: str, out: bytearray) -> None:
    _put_bytes(value.encode(), out)


def _put_bytes(value: bytes, out: bytearray) -> None:
    _put_integer(len(value), out)
    out += value


def _put_fixed(value: bytes, out: bytearray) -> None:
    out += value


_PUT: Mapping[str, Callable[[Any, bytearray], None]] = {
    "null": _put_nothing,
    "boolean": _put_boolean,
    "int": _put_integer,
    "long": _put_integer,
    "float": _put_float,
    "double": _put_double,
    "string": _put_text,
    "bytes": _put_bytes,
    "fixed": _put_fixed,
}


def _put_of(schema: Any) -> Callable[[Any, bytearray], None]:
    """Return the function that appends a converted value of a schema."""
    kind = kind_of(schema)
    if kind == "enum":
        numbers = {symbol: number for number, symbol in enumerate(schema["symbols"])}
        return lambda symbol, out: _put_integer(numbers[symbol], out)
    if kind in _PUT:
        return _PUT[kind]
    # A decimal with a scale of its own is a record of that and its unscaled value.
    fields = [(field["name"], _PUT[kind_of(field["type"])]) for field in schema["fields"]]

    def put(parts: Mapping[str, Any], out: bytearray) -> None:
        for name, put_part in fields:
            put_part(parts[name], out)

    return put
