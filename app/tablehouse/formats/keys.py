"""Keys in three forms: wire (the producer's bytes), logical (the text in a URL), stored (ordered bytes).

| format | wire                            | logical                     | stored                       |
|--------|---------------------------------|-----------------------------|------------------------------|
| string | UTF-8                           | the same text               | the same bytes               |
| bytes  | any                             | base64url, padding optional | the same bytes               |
| int    | 4 bytes, big-endian, signed     | decimal                     | wire with sign bit flipped   |
| long   | 8 bytes, big-endian, signed     | decimal                     | wire with sign bit flipped   |
| uuid   | its 36 characters, lower case   | the same, in either case    | its 16 bytes                 |
| json   | UTF-8, members in order         | any JSON text of that value | see ordered.py               |

A URL may carry only the value of a key of one member (`bare`): its logical form is then any JSON text of that value.
Formats whose wire bytes depend on more than the key are in keyed.py.

Stored bytes compare as the keys do, so that ranges and scans read neighbours; a format whose stored bytes do not gives
the reason (`unordered_reason`). A logical key has one stored form, which can be converted back, and one canonical wire
form. A producer may write another wire form (an upper-case uuid, or JSON in a spelling that the table does not name),
which is only found if both hash to the same partition.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

import msgspec

from tablehouse.catalog.spec import KeySpec, SpellingName
from tablehouse.errors import InvalidKey
from tablehouse.formats.errors import DecodeError, StoredKeyError
from tablehouse.formats.framing import Headers
from tablehouse.formats.key_members import KeyMembers, stored_scalars

#: The characters of a uuid, in either case.
UUID_TEXT = re.compile(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_UUID_SIZE = 16

_NO_HEADERS: Mapping[bytes, Headers] = MappingProxyType({})


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key that a client asked for.

    `wires` are the forms in which a producer may have written it, the canonical one first: a miss is certain
    only after the partition of each was asked. If `enumerable` is False there may be other forms, and a miss is certain
    only after every partition was asked. `headers` has the headers that a record has with a form, if any.
    """

    stored: bytes
    wires: tuple[bytes, ...]
    enumerable: bool = True
    headers: Mapping[bytes, Headers] = _NO_HEADERS


class KeyFormat(Protocol):
    """Converts between the three forms of a key; stateless, and safe to call from any thread."""

    @property
    def name(self) -> str:
        """The format's name in tables.yaml."""

    @property
    def canonical_wire(self) -> bool:
        """Whether every wire form that can be stored is its own canonical form."""

    @property
    def enumerable(self) -> bool:
        """Whether all wire forms of a key are known; if not, producers may write it in others."""

    @property
    def unordered_reason(self) -> str | None:
        """Why stored keys do not compare as the keys do, so that ranges cannot be read; None if they do.

        For a format with schemas it depends on the known ones, and may change when another is learned.
        """

    def parse(self, text: bytes) -> Key:
        """Return the key that a URL names; `text` is percent-decoded.

        Raises InvalidKey, which names the format and says what is expected, and KeySchemaUnknown while no schema is
        known that says how to read the text.
        """

    def store(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """Return the stored form of a record's key; its headers may name the schema to read it with.

        Raises DecodeError, and SchemaNeeded for a format with schemas.
        """

    def text(self, stored: bytes) -> bytes:
        """Return the text of a stored key in a URL, before percent-encoding; `parse` returns the same key for it.

        If a key has several texts, this is the canonical one. Raises StoredKeyError for bytes that are not a stored
        key of the format, and KeySchemaUnknown if the schema that the text depends on is not known.
        """

    def record_text(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """Return the text of a record's key in a URL; JSON stays as its producer spelled it. Raises as `store` does."""

    def canonical(self, wire: bytes) -> bytes:
        """Return a record's key if `parse` has it among the wire forms, otherwise the first of those.

        Called only if `enumerable` is set. Raises DecodeError.
        """


class StringKey:
    """UTF-8 text, whose byte order is the order of its code points. The empty text is a valid key."""

    name = "string"
    canonical_wire = True
    enumerable = True
    unordered_reason = None

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        try:
            return Key(self.store(text), (text,))
        except DecodeError as error:
            raise InvalidKey("The key is not valid UTF-8 (key format string): percent-encode UTF-8.") from error

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        try:
            wire.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"a string key is not UTF-8 at byte {error.start}") from error
        return wire

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat."""
        try:
            return self.store(stored)
        except DecodeError as error:
            raise StoredKeyError("a stored key of format string is not UTF-8") from error

    record_text = store
    canonical = store


class BytesKey:
    """Any bytes, base64url in a URL (RFC 4648, section 5)."""

    name = "bytes"
    canonical_wire = True
    enumerable = True
    unordered_reason = None

    def parse(self, text: bytes) -> Key:
        """See KeyFormat.

        Accepts only the text that an encoder writes, with or without padding: a decoder accepts several texts for
        the same bytes.
        """
        unpadded = text.rstrip(b"=")
        padding = b"=" * (-len(unpadded) % 4)
        try:
            wire = urlsafe_b64decode(unpadded + padding)
        except ValueError:
            wire = b""
        exact = urlsafe_b64encode(wire)
        if text not in {exact, exact.rstrip(b"=")}:
            raise InvalidKey(
                "The key is not base64url (key format bytes): use A-Z a-z 0-9 - _ as an encoder writes them, "
                "with the padding = or without.",
            )
        return Key(wire, (wire,))

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return wire

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat. There is no padding."""
        return urlsafe_b64encode(stored).rstrip(b"=")

    def record_text(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return self.text(wire)

    canonical = store


class IntegerKey:
    """A signed integer of 4 (int) or 8 (long) bytes, big-endian as Java writes it."""

    canonical_wire = True
    enumerable = True
    unordered_reason = None
    _decimal = re.compile(rb"0|-?[1-9][0-9]{0,18}")

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self._width = width
        self._limit = 1 << (width * 8 - 1)
        # The first byte with its sign bit flipped, by the first byte: a lookup is cheaper than arithmetic.
        self._flipped = [bytes((first ^ 0x80,)) for first in range(256)]

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        number = int(text) if self._decimal.fullmatch(text) else self._limit
        if not -self._limit <= number < self._limit:
            raise InvalidKey(
                f"The key is not an integer of {self._width * 8} bits (key format {self.name}): use decimal "
                f"digits without leading zeros or a plus sign, from {-self._limit} to {self._limit - 1}.",
            )
        wire = number.to_bytes(self._width, "big", signed=True)
        return Key(self.store(wire), (wire,))

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        if len(wire) != self._width:
            raise DecodeError(f"a key of format {self.name} has {self._width} bytes, this one {len(wire)}")
        return self._flipped[wire[0]] + wire[1:]

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat."""
        if len(stored) != self._width:
            raise StoredKeyError(f"a stored key of format {self.name} has {self._width} bytes, this one {len(stored)}")
        return str(int.from_bytes(stored, "big") - self._limit).encode()

    def record_text(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return self.text(self.store(wire))

    def canonical(self, wire: bytes) -> bytes:
        """See KeyFormat."""
        self.store(wire)
        return wire


class UuidKey:
    """The 36 characters of a uuid; 16 bytes when stored."""

    name = "uuid"
    canonical_wire = False
    enumerable = True
    unordered_reason = None

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        try:
            return Key(self.store(text), (self.canonical(text),))
        except DecodeError as error:
            raise InvalidKey(
                "The key is not a uuid (key format uuid): use its 36 characters, like "
                "123e4567-e89b-12d3-a456-426614174000.",
            ) from error

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return bytes.fromhex(self.canonical(wire).replace(b"-", b"").decode())

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat. It is in lower case."""
        if len(stored) != _UUID_SIZE:
            raise StoredKeyError(f"a stored key of format uuid has {_UUID_SIZE} bytes, this one {len(stored)}")
        return str(UUID(bytes=stored)).encode()

    def record_text(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return self.canonical(wire)

    def canonical(self, wire: bytes) -> bytes:
        """See KeyFormat."""
        if not UUID_TEXT.fullmatch(wire):
            raise DecodeError("a uuid key is not the 36 characters of a uuid")
        return wire.lower()


class JsonKey:
    """A scalar if `fields` is empty, otherwise an object of exactly these members; a URL has only the value if `bare`.

    A key has a wire form for each spelling of the spec that writes it differently (spellings.py); the first of them is
    the canonical one. Integers beyond 64 bits and numbers beyond a double's range are refused.
    """

    name = "json"
    canonical_wire = False
    enumerable = True
    unordered_reason = None

    def __init__(self, spec: KeySpec) -> None:
        self._members = KeyMembers(spec)

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        scalars = self._members.of_text(text)
        return Key(stored_scalars(scalars), self._members.forms(scalars))

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return stored_scalars(self._members.of_json(wire))

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat."""
        return self._members.text(stored)

    def record_text(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        self._members.of_json(wire)
        return self._members.text_in(wire)

    def canonical(self, wire: bytes) -> bytes:
        """See KeyFormat."""
        return self._members.canonical(wire)

    def spellings_of(self, wire: bytes) -> frozenset[SpellingName]:
        """Return the spellings that produce exactly a record's key; raises DecodeError."""
        return self._members.spellings_of(wire)


def key_format(spec: KeySpec) -> KeyFormat:
    """Return the format that a key spec names, if it has no variants."""
    match spec.format:
        case "string":
            return StringKey()
        case "bytes":
            return BytesKey()
        case "int":
            return IntegerKey("int", 4)
        case "long":
            return IntegerKey("long", 8)
        case "uuid":
            return UuidKey()
        case "json":
            return JsonKey(spec)
    raise ValueError(f"keys of format {spec.format} have variants: see keyed.py")
