"""Limits the nesting of values whose types contain themselves: fastavro recurses without checking its stack."""

from collections.abc import Callable, Mapping
from typing import Any

from tablehouse.formats.avro_rendering import kind_of
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import MAX_TYPES_NESTED

#: Returns where a value ends; takes the data, where the value begins, and how many types it is nested in.
_Skip = Callable[[bytes, int, int], int]

_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class DepthCheck:
    """Walks through the Avro of a value and raises DecodeError if it is nested too deeply."""

    def __init__(self, schema: Any, types: Mapping[str, Any]) -> None:
        self._types = types
        self._named: dict[str, _Skip] = {}
        self._skip = self._of(schema)

    def __call__(self, data: bytes, start: int) -> None:
        """Raise DecodeError for a value that is nested more than MAX_TYPES_NESTED deep, or that has no end."""
        try:
            self._skip(data, start, 0)
        except IndexError as error:
            raise DecodeError("it ends before its schema says, or has a branch that a union lacks") from error

    def _of(self, schema: Any) -> _Skip:
        if isinstance(schema, str) and schema in self._types:
            schema = self._types[schema]
        match schema:
            case {"type": "record" | "error", "name": str(name)}:
                return self._record(name, schema)
            case list():
                return _union([self._of(branch) for branch in schema])
            case {"type": "array", "items": items}:
                return _blocks(self._of(items))
            case {"type": "map", "values": values}:
                value = self._of(values)
                return _blocks(lambda data, at, depth: value(data, _text(data, at, depth), depth))
        return _scalar(schema)

    def _record(self, name: str, schema: Any) -> _Skip:
        if name not in self._named:
            # A field may be of this same type, so the type is registered before its fields.
            fields: list[_Skip] = []
            self._named[name] = _fields(fields)
            fields += [self._of(field["type"]) for field in schema["fields"]]
        return self._named[name]


def _scalar(schema: Any) -> _Skip:
    kind = kind_of(schema)
    if kind in {"bytes", "string"}:
        return _text
    if kind in {"int", "long", "enum"}:
        return _integer
    return _fixed(schema["size"] if kind == "fixed" else _SIZES[kind])


def _one_deeper(depth: int) -> int:
    if depth == MAX_TYPES_NESTED:
        raise DecodeError(f"its records, arrays and maps are more than {MAX_TYPES_NESTED} deep in each other")
    return depth + 1


def _fields(fields: list[_Skip]) -> _Skip:
    def skip(data: bytes, at: int, depth: int) -> int:
        depth = _one_deeper(depth)
        for field in fields:
            at = field(data, at, depth)
        return at

    return skip


def _blocks(item: _Skip) -> _Skip:
    """Return the function that skips an array or a map: blocks of a count and that many items, the last one empty."""

    def skip(data: bytes, at: int, depth: int) -> int:
        depth = _one_deeper(depth)
        while True:
            count, at = _varint(data, at)
            if count < 0:
                count, at = -count, _varint(data, at)[1]
            if not count:
                return at
            for _ in range(count):
                at = item(data, at, depth)

    return skip


def _union(branches: list[_Skip]) -> _Skip:
    def skip(data: bytes, at: int, depth: int) -> int:
        index, at = _varint(data, at)
        if index < 0:
            raise IndexError
        return branches[index](data, at, depth)

    return skip


def _fixed(size: int) -> _Skip:
    return lambda data, at, depth: _within(data, at + size)  # noqa: ARG005  of the signature


def _text(data: bytes, at: int, _: int) -> int:
    size, at = _varint(data, at)
    if size < 0:
        raise IndexError
    return _within(data, at + size)


def _integer(data: bytes, at: int, _: int) -> int:
    return _varint(data, at)[1]


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in zig-zag encoding, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  the highest bit says that more follow
            return (number >> 1) ^ -(number & 1), at
        shift += 7
        if shift > 63:  # noqa: PLR2004  the bits of a long
            raise IndexError
