"""Checks for messages that Protobuf's parser accepts, but that its JSON mapping cannot represent.

| in a message                                               | without the check it would be                  |
|------------------------------------------------------------|------------------------------------------------|
| a string of proto2 that is not UTF-8                       | a string in Python's notation for bytes        |
| a required field of proto2 that is missing                 | a row without it                               |
| a google.protobuf.Any of a type that the schema lacks      | an error without a name                        |
| messages in Any in messages, beyond what the parser counts | an error in some interpreters, a row in others |
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2, message, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import MAX_TYPES_NESTED

_ANY = "google.protobuf.Any"

#: Names of types; other text is not repeated in errors.
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,200}")

Check = Callable[[message.Message], None]


def check_of(kind: Descriptor, pool: DescriptorPool) -> Check:
    """Return the check of messages of a type; its DecodeError names the field. Most types of proto3 need no check."""
    look = _Look(kind, pool)

    def check(found: message.Message) -> None:
        _require_fields(found, "")
        if look.is_needed(kind):
            look.into(found, "", 1)

    return check


def _require_fields(found: Any, path: str) -> None:
    if not found.IsInitialized():
        missing = ", ".join(path + name for name in found.FindInitializationErrors())
        raise DecodeError(f"it lacks {missing}, which its schema requires")


class _Look:
    """Walks through the fields of messages of the types that have to be checked."""

    def __init__(self, kind: Descriptor, pool: DescriptorPool) -> None:
        self._pool = pool
        #: The names of these types, and the full names of their fields that are maps.
        self._types: set[str] = set()
        self._maps: set[str] = set()
        self._add(kind, whole=False)

    def is_needed(self, kind: Descriptor) -> bool:
        """Return whether messages of a type have to be checked."""
        return kind.full_name in self._types or bool(kind.is_extendable)

    def _add(self, kind: Descriptor, *, whole: bool) -> None:
        """Add a type and the types in it; all of them if `whole` or if one is Any, so that depths are counted."""
        types = {found.full_name: found for found in _reachable(kind)}
        wanted = set(types) if whole or _ANY in types else {name for name, found in types.items() if _is_lax(found)}
        grown = True
        while grown:
            holding = {
                name for name, found in types.items() if any(_type_of(field) in wanted for field in found.fields)
            }
            grown = not holding <= wanted
            wanted |= holding
        self._types |= wanted
        self._maps |= {field.full_name for name in wanted for field in types[name].fields if _is_map(field)}

    def into(self, found: message.Message, path: str, depth: int) -> None:
        """Check a message; raises DecodeError. The names of its fields begin with `path`."""
        if depth > MAX_TYPES_NESTED:
            raise DecodeError(f"its messages are nested more than {MAX_TYPES_NESTED} deep")
        if found.DESCRIPTOR.full_name == _ANY:
            self._into_any(found, path.removesuffix("."), depth)
            return
        for field, value in found.ListFields():
            is_map = field.full_name in self._maps
            if not (is_map or _is_text(field) or (field.message_type and self.is_needed(field.message_type))):
                continue
            name = path + field.name
            for one in _values(value, name, is_map=is_map):
                if isinstance(one, bytes) and not (is_map and _holds_bytes(field)):
                    raise _no_text(name)
                if isinstance(one, message.Message):
                    self.into(one, f"{name}.", depth + 1)

    def _into_any(self, found: Any, path: str, depth: int) -> None:
        name = found.type_url.rpartition("/")[2]
        if not found.ListFields():
            return
        try:
            kind = self._pool.FindMessageTypeByName(name)
        except KeyError:
            named = f"of type {name}" if _TYPE_NAME.fullmatch(name) else "of a type that is no name"
            raise DecodeError(
                f"{path or 'it'} is a {_ANY} {named}, which its schema does not have: import the file with that type"
            ) from None
        if kind.full_name not in self._types:
            self._add(kind, whole=True)
        try:
            inside = message_factory.GetMessageClass(kind).FromString(found.value)
        except message.DecodeError as error:
            raise DecodeError(f"{path or 'it'} does not have the {name} that it says") from error
        _require_fields(inside, f"{path}." if path else "")
        self.into(inside, f"{path}." if path else "", depth + 1)


def _values(value: Any, name: str, *, is_map: bool) -> Iterator[Any]:
    """Yield the values of a field, of a map both its keys and values; strings that are not UTF-8 as bytes."""
    if isinstance(value, str | bytes | message.Message):
        yield value
        return
    try:
        for one in value:
            yield one
            if is_map:
                yield value[one]
    except UnicodeDecodeError:
        raise _no_text(name) from None


def _no_text(name: str) -> DecodeError:
    return DecodeError(f"{name} is a string that is not UTF-8: let its producer write UTF-8, or declare it as bytes")


def _reachable(kind: Descriptor) -> Iterator[Descriptor]:
    """Yield a type and all types of fields in it, each once."""
    known, left = {kind.full_name}, [kind]
    while left:
        found = left.pop()
        yield found
        for field in found.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in known:
                known.add(inner.full_name)
                left.append(inner)


def _is_lax(kind: Descriptor) -> bool:
    """Return whether a type has a string field for which the parser accepts bytes that are not UTF-8."""
    return any(map(_is_text, kind.fields)) and not _is_proto3(kind.file)


def _holds_bytes(map_field: FieldDescriptor) -> bool:
    entry = map_field.message_type
    return entry is not None and bool(entry.fields_by_name["value"].type == FieldDescriptor.TYPE_BYTES)


def _is_text(field: FieldDescriptor) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_STRING)


def _type_of(field: FieldDescriptor) -> str | None:
    return None if field.message_type is None else str(field.message_type.full_name)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_proto3(file: FileDescriptor) -> bool:
    """Return whether the parser is certain to reject strings that are not UTF-8 in a file's messages."""
    content = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(content)
    return content.syntax == "proto3"
