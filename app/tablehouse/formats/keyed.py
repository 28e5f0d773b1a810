"""Keys whose wire bytes have variants: with the id of a schema in front of them, or with a schema in them.

| format       | wire                                             | logical                                          |
|--------------|--------------------------------------------------|--------------------------------------------------|
| avro         | Avro, its schema named as in key_frames.py       | see avro_key_types.py; with fields a JSON object |
| json_sr      | JSON, its schema named as in key_frames.py       | as json                                          |
| json_connect | `{"schema":..,"payload":..}` of Connect's JSON   | as json                                          |

The stored form does not depend on the variant, so a key has at most one row in each partition.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple, TypeVar

import fastavro
import msgspec

from tablehouse.catalog.spec import KeySpec, SourceSpec
from tablehouse.errors import InvalidKey, KeySchemaUnknown
from tablehouse.formats.avro import Resolution, resolution
from tablehouse.formats.avro_key_types import KeyType, Shown, key_type, ordered, text_of, text_of_stored
from tablehouse.formats.avro_schema import Readable, readable
from tablehouse.formats.connect_json import unwrap
from tablehouse.formats.connect_keys import connect_key
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers
from tablehouse.formats.json_text import decode_key_json
from tablehouse.formats.key_frames import framed_key, key_frame, key_in_forms, schema_of
from tablehouse.formats.key_members import KeyMembers, stored_scalars
from tablehouse.formats.keys import Key, KeyFormat, key_format
from tablehouse.formats.ordered import Scalar
from tablehouse.formats.remembered import remembered
from tablehouse.formats.schemas import Schema
from tablehouse.formats.spellings import Member
from tablehouse.formats.variants import KeyVariants, Known

_Variant = TypeVar("_Variant")


def source_keys(source: SourceSpec, known: Known) -> KeyFormat:
    """Return the format of a source's keys."""
    match source.key.format:
        case "avro":
            return AvroKey(source.key, known.keys_of(source.topic))
        case "json_sr":
            return FramedJsonKey(source.key, known.keys_of(source.topic))
        case "json_connect":
            return ConnectJsonKey(source.key, known.keys_of(source.topic, source.key))
    return key_format(source.key)


class _Read(NamedTuple):
    """The content of a record's key.

    Its variant, its value as a URL shows it, its JSON, and whether the value was converted from that.
    """

    variant: bytes
    value: object
    content: bytes
    is_converted: bool


class _JsonVariants(ABC):
    """The common part of the formats whose content is JSON."""

    canonical_wire = False
    enumerable = False
    name: str

    def __init__(self, spec: KeySpec, variants: KeyVariants) -> None:
        self._members = KeyMembers(spec)
        self._variants = variants

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        scalars = self._members.of_text(text)
        return key_in_forms(
            stored_scalars(scalars), _forms_under(self._variants.known, lambda variant: self._wires(variant, scalars))
        )

    def store(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        variant, value, content, _ = self._read(wire, headers)
        scalars = self._members.of_value(value)
        self._variants.learn(variant)
        # A key that can be read but not written is still found, only more slowly.
        with suppress(InvalidKey):
            known = self._variants.spellings
            other = self._members.other_spelling(content, self._written(variant, scalars), known)
            if other is not None:
                self._variants.spellings = (other, *known)
        return stored_scalars(scalars)

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat. No schema is needed: the scalars of the URL are stored."""
        return self._members.text(stored)

    def record_text(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        found = self._read(wire, headers)
        self._members.of_value(found.value)
        return self._members.text_in(msgspec.json.encode(found.value) if found.is_converted else found.content)

    def canonical(self, wire: bytes) -> bytes:
        """See KeyFormat."""
        return wire

    def _forms(self, variant: bytes, scalars: Sequence[Scalar]) -> Iterable[bytes]:
        """Return the JSON of a key under a variant in all spellings; raises as _written does."""
        return self._members.forms(self._written(variant, scalars), self._variants.spellings)

    @abstractmethod
    def _read(self, wire: bytes, headers: Headers) -> _Read:
        """Return the content of a record's key; raises DecodeError and SchemaNeeded."""

    @abstractmethod
    def _written(self, variant: bytes, scalars: Sequence[Scalar]) -> Sequence[Member]:
        """Return a URL's scalars as a record has them; raises InvalidKey if the variant has no such key."""

    @abstractmethod
    def _wires(self, variant: bytes, scalars: Sequence[Scalar]) -> Iterable[tuple[bytes, Headers]]:
        """Return the wire forms of a key under a variant, each with the headers of its record.

        Raises InvalidKey if the variant has no such key.
        """


class FramedJsonKey(_JsonVariants):
    """JSON whose schema is in a registry."""

    name = "json_sr"
    unordered_reason = None

    def _read(self, wire: bytes, headers: Headers) -> _Read:
        found = key_frame(wire, headers)
        schema = self._variants.schemas.known(found.schema)
        if schema.kind != "JSON":
            raise DecodeError(f"schema {found.schema} is of type {schema.kind}, and the keys' format is json_sr")
        content = wire[found.content :]
        return _Read(found.variant, decode_key_json(content), content, is_converted=False)

    def _written(self, _variant: bytes, scalars: Sequence[Scalar]) -> Sequence[Member]:
        return scalars

    def _wires(self, variant: bytes, scalars: Sequence[Scalar]) -> Iterable[tuple[bytes, Headers]]:
        # A subject may have had keys of another kind, and another table of the topic may have such keys.
        with suppress(DecodeError):
            if self._variants.schemas.known(schema_of(variant)).kind == "JSON":
                return [framed_key(variant, content) for content in self._forms(variant, scalars)]
        return ()


class ConnectJsonKey(_JsonVariants):
    """JSON as Kafka Connect writes it with schemas.enable=true; the variant is the text of the schema."""

    name = "json_connect"

    def __init__(self, spec: KeySpec, variants: KeyVariants) -> None:
        super().__init__(spec, variants)
        self._fields = spec.fields

    @property
    def unordered_reason(self) -> str | None:
        """See KeyFormat."""
        if any(connect_key(variant, self._fields).has_decimals for variant in self._variants.known):
            return "keys of format json_connect are stored with decimals as text, and these keys have a decimal"
        return None

    def _read(self, wire: bytes, _headers: Headers) -> _Read:
        wrapped = unwrap(wire)
        if wrapped is None:
            decode_key_json(wire)
            raise DecodeError(
                "it is not an object of schema and payload, as Kafka Connect writes keys with schemas.enable=true; "
                "without that the key's format is json"
            )
        schema, payload = wrapped
        value = decode_key_json(payload)
        shown = connect_key(schema, self._fields).show(value)
        return _Read(schema, shown, payload, is_converted=shown is not value)

    def _written(self, variant: bytes, scalars: Sequence[Scalar]) -> Sequence[Member]:
        return connect_key(variant, self._fields).write(scalars)

    def _wires(self, variant: bytes, scalars: Sequence[Scalar]) -> Iterable[tuple[bytes, Headers]]:
        return [
            (b'{"schema":' + variant + b',"payload":' + content + b"}", ()) for content in self._forms(variant, scalars)
        ]


class AvroKey:
    """A scalar in Avro, or a record of scalars.

    The stored form is made from the text in a URL, whatever the type: it does not depend on which schemas a worker
    knows and in which order. A string "7" and a long 7 are one key, as they are in a URL.
    """

    name = "avro"
    canonical_wire = False
    enumerable = False

    def __init__(self, spec: KeySpec, variants: KeyVariants) -> None:
        self._spec = spec
        self._is_bare = spec.bare or not spec.fields
        self._members = KeyMembers(spec)
        self._variants = variants
        #: The variants of the last call, and those of them that can be used.
        self._seen: tuple[tuple[bytes, ...], tuple[tuple[bytes, _KeySchema], ...]] = ((), ())

    def parse(self, text: bytes) -> Key:
        """See KeyFormat."""
        usable = self._usable(self._variants.known)
        if not usable:
            topic = self._variants.topic
            raise KeySchemaUnknown(
                f"no schema of the keys of {topic} is known yet, so the key cannot be read: no suitable schema is "
                f"registered as {topic}-key, and no record was read"
            )
        texts = self._texts(text)

        def forms(pair: tuple[bytes, _KeySchema]) -> Iterable[tuple[bytes, Headers]]:
            variant, schema = pair
            content = self._encoded(texts, schema)
            return () if content is None else (framed_key(variant, content),)

        return key_in_forms(_stored(texts), _forms_under(usable, forms))

    def store(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        variant, shown = self._read(wire, headers)
        self._variants.learn(variant)
        return _stored([text_of(scalar) for scalar in shown])

    @property
    def unordered_reason(self) -> str | None:
        """See KeyFormat."""
        usable = self._usable(self._variants.known)
        if usable and all(of.is_ordered for _, schema in usable for of in schema.types):
            return None
        why = "a schema of these keys has other types" if usable else "no schema of these keys is known yet"
        return f"keys of format avro are stored as text, which keeps the order of integers and booleans only, and {why}"

    def text(self, stored: bytes) -> bytes:
        """See KeyFormat. Only members of a record need a schema, to tell the number 7 from the string "7".

        If several known schemas have such a key, the newest of them decides.
        """
        texts = [text_of_stored(scalar) for scalar in self._members.of_stored(stored)]
        if self._is_bare:
            return texts[0]
        for _, schema in self._usable(self._variants.known):
            shown = schema.shown(texts)
            if shown is not None:
                return self._text(shown)
        raise KeySchemaUnknown(
            f"no known schema of the keys of {self._variants.topic} has this key, so its text is unknown: the schema "
            "that it was written with is not known yet"
        )

    def record_text(self, wire: bytes, headers: Headers = (), /) -> bytes:
        """See KeyFormat."""
        return self._text(self._read(wire, headers)[1])

    def _read(self, wire: bytes, headers: Headers) -> tuple[bytes, list[Shown]]:
        """Return the variant of a record's key, and its scalars as a URL shows them.

        Raises DecodeError and SchemaNeeded.
        """
        named, fields = key_frame(wire, headers), self._spec.fields
        schema = _key_schema(self._variants.schemas.known(named.schema), fields)
        value = schema.reading.read_framed(wire, named.content)
        scalars = [value[name] for name in fields] if fields else [value]
        return named.variant, [of.show(scalar) for of, scalar in zip(schema.types, scalars, strict=True)]

    def _text(self, shown: Sequence[Shown]) -> bytes:
        """Return the text of a key in a URL."""
        if self._is_bare:
            return text_of(shown[0])
        return msgspec.json.encode(dict(zip(self._spec.fields, shown, strict=True)))

    def canonical(self, wire: bytes) -> bytes:
        """See KeyFormat."""
        return wire

    def _usable(self, known: tuple[bytes, ...]) -> tuple[tuple[bytes, "_KeySchema"], ...]:
        """Return the variants whose schemas fit the table's keys, with the schemas, in the order of `known`."""
        before, usable = self._seen
        if before is not known:
            found = []
            for variant in known:
                # A subject may have had another kind of key, and two tables of a topic may have different fields.
                with suppress(DecodeError):
                    schema = self._variants.schemas.known(schema_of(variant))
                    found.append((variant, _key_schema(schema, self._spec.fields)))
            usable = tuple(found)
            self._seen = known, usable
        return usable

    def _texts(self, text: bytes) -> list[bytes]:
        """Return the text of each of a key's scalars, as in a URL with only this scalar; raises InvalidKey."""
        if self._is_bare:
            return [text]
        try:
            value = decode_key_json(text)
        except DecodeError as error:
            raise self._members.invalid(str(error)) from error
        if not isinstance(value, dict) or set(value) != set(self._spec.fields):
            raise self._members.invalid(f"its members are not exactly {', '.join(self._spec.fields)}")
        return [_member(value[name]) for name in self._spec.fields]

    def _encoded(self, texts: list[bytes], schema: "_KeySchema") -> bytes | None:
        """Return a key in Avro; None if the schema has no such key, such as 2 ** 40 for an int. Raises InvalidKey."""
        scalars = [of.parse(text) for of, text in zip(schema.types, texts, strict=True)]
        if None in scalars:
            return None
        if schema.reading.bare:
            return bytes(scalars[0])
        content = BytesIO()
        value = dict(zip(self._spec.fields, scalars, strict=True)) if self._spec.fields else scalars[0]
        fastavro.schemaless_writer(content, schema.ready.parsed, schema.ready.wrap(value))
        return content.getvalue()


@dataclass(frozen=True, slots=True)
class _KeySchema:
    """A schema of keys, and the types of its scalars."""

    types: tuple[KeyType, ...]
    ready: Readable
    reading: Resolution

    def shown(self, texts: Sequence[bytes]) -> list[Shown] | None:
        """Return the scalars of these texts as a URL shows them; None if the schema has no such key."""
        shown: list[Shown] = []
        for of, text in zip(self.types, texts, strict=True):
            try:
                scalar = of.parse(text)
            except InvalidKey:
                return None
            if scalar is None:
                return None
            shown.append(of.show(scalar))
        return shown


@remembered
def _key_schema(schema: Schema, fields: tuple[str, ...]) -> _KeySchema:
    """Return a schema prepared for keys; raises DecodeError if its values are not scalars, or records of `fields`."""
    ready, shown, number = readable(schema, rendered=False), readable(schema), schema.id
    if not fields:
        types: tuple[KeyType, ...] = (key_type(shown.content, shown.types, f"schema {number}"),)
    elif ready.wrapped:
        raise DecodeError(
            f"its schema {number} is not a record, and the table's keys are records of {', '.join(fields)}"
        )
    else:
        found = {field["name"]: field["type"] for field in shown.content["fields"]}
        if set(found) != set(fields):
            raise DecodeError(
                f"its schema {number} has the fields {', '.join(found)}, and the table's keys have {', '.join(fields)}"
            )
        types = tuple(key_type(found[name], shown.types, f"field {name} of schema {number}") for name in fields)
    return _KeySchema(types, ready, resolution(schema, schema, rendered=False))


def _forms_under(
    variants: Iterable[_Variant], forms: Callable[[_Variant], Iterable[tuple[bytes, Headers]]]
) -> list[tuple[bytes, Headers]]:
    """Return the forms of a key under all variants; raises the first InvalidKey if no variant has a form."""
    found: list[tuple[bytes, Headers]] = []
    refused: InvalidKey | None = None
    for variant in variants:
        try:
            found += forms(variant)
        except InvalidKey as error:
            refused = refused or error
    if refused is not None and not found:
        raise refused
    return found


def _stored(texts: list[bytes]) -> bytes:
    """Return the stored form of a key's texts, which does not depend on their types."""
    return stored_scalars([ordered(text) for text in texts])


def _member(value: object) -> bytes:
    """Return a member of a URL's JSON in the form that a URL with only this member would have."""
    if isinstance(value, Shown):
        return text_of(value)
    raise InvalidKey("The key is not of key format avro: each member is a string, a number, true or false.")
