"""Converts a record's value to the payload of its row, and checks it, so that reads only return bytes."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import msgspec

from tablehouse.catalog.spec import TableSpec
from tablehouse.formats.avro import AvroReader
from tablehouse.formats.connect_json import payload_of
from tablehouse.formats.envelopes import Envelope, envelope_of
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers, frame_of
from tablehouse.formats.json_pieces import check_json
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.members import Members
from tablehouse.formats.protobuf import ProtobufReader
from tablehouse.formats.schemas import Schemas
from tablehouse.turns import Work

#: Larger values are decoded in pieces. Decoding this many bytes at once takes up to 30 ms, for an array of integers in
#: Avro that a client writes; for ingested values up to 12 ms, for Protobuf.
LARGE_VALUE_BYTES = 64 * 1024

_BLANKS = b" \t\r\n"
_NULL = b"null"


class ValueFormat(Protocol):
    """Converts a record's value to a payload; stateless, and safe to call from any thread."""

    @property
    def content_type(self) -> str:
        """The media type of every payload, as HTTP writes it."""

    def decode(self, value: bytes, headers: Headers = ()) -> bytes | None:
        """Return the payload to store, or None for a delete.

        Raises DecodeError if the value is not in the format, and SchemaNeeded if a schema has to be fetched first.
        """

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes | None]:
        """Do what decode does with a value of more than LARGE_VALUE_BYTES, yielding every few milliseconds.

        Formats that cannot be decoded in pieces use the thread of Turns.
        """


class JsonValue:
    """JSON that is kept byte for byte, including blanks; json_text.py describes what is refused."""

    content_type = "application/json"

    def decode(self, value: bytes, headers: Headers = ()) -> bytes:  # noqa: ARG002  a row without an envelope
        """See ValueFormat."""
        decode_json(value)
        return value

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:  # noqa: ARG002
        """See ValueFormat."""
        yield from check_json(value)
        return value


class JsonColumns:
    """A JSON object; some of its members are kept under new names, compact and in the order of `columns`.

    Each member's text is copied unchanged, so a number keeps every digit. A missing member becomes null, so that every
    row has the same members.
    """

    content_type = "application/json"

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._members = Members(columns.values())
        self._columns = [(msgspec.json.encode(name) + b":", member) for name, member in columns.items()]

    def decode(self, value: bytes, headers: Headers = ()) -> bytes:  # noqa: ARG002  a row without an envelope
        """See ValueFormat."""
        # The second pass skips the content of members: only the first finds bad UTF-8 there.
        if not isinstance(decode_json(value), dict):
            raise _no_object()
        return self._row(self._members(value))

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:  # noqa: ARG002
        """See ValueFormat."""
        yield from check_json(value)
        if not value.lstrip(_BLANKS).startswith(b"{"):
            raise _no_object()
        return self._row(self._members.of_checked(value))

    def _row(self, members: Mapping[str, bytes]) -> bytes:
        return b"{" + b",".join([name + members[member] for name, member in self._columns]) + b"}"


class EnvelopedJson:
    """JSON with an envelope around the row."""

    content_type = "application/json"

    def __init__(self, envelope: Envelope) -> None:
        self._open = envelope

    def decode(self, value: bytes, headers: Headers = ()) -> bytes | None:
        """See ValueFormat."""
        return self._open(value, headers)

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes | None]:
        """See ValueFormat."""
        row: bytes | None = yield partial(self.decode, value, headers)
        return row


class ConnectJsonValue:
    """JSON as Kafka Connect writes it with schemas.enable=true; `rest` converts the payload to a row.

    A payload of null is a record without a value, as in Connect, and deletes the row.
    """

    content_type = "application/json"

    def __init__(self, rest: ValueFormat) -> None:
        self._rest = rest

    def decode(self, value: bytes, headers: Headers = ()) -> bytes | None:
        """See ValueFormat."""
        payload = payload_of(value)
        return None if payload == _NULL else self._rest.decode(payload, headers)

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes | None]:
        """See ValueFormat."""
        payload: bytes = yield partial(payload_of, value)
        return None if payload == _NULL else (yield from self._rest.decode_in_pieces(payload, headers))


class StringValue:
    """UTF-8 text, kept as it is."""

    content_type = "text/plain; charset=utf-8"

    def decode(self, value: bytes, headers: Headers = ()) -> bytes:  # noqa: ARG002  a row without an envelope
        """See ValueFormat."""
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"a string value is not UTF-8 at byte {error.start}") from error
        return value

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:
        """See ValueFormat."""
        yield from ()
        return self.decode(value, headers)


class BytesValue:
    """Any bytes, kept as they are."""

    content_type = "application/octet-stream"

    def decode(self, value: bytes, headers: Headers = ()) -> bytes:  # noqa: ARG002  a row without an envelope
        """See ValueFormat."""
        return value

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes]:
        """See ValueFormat."""
        yield from ()
        return self.decode(value, headers)


class Convert(Protocol):
    """Converts a value in another format to JSON text. Raises DecodeError and SchemaNeeded."""

    def __call__(self, value: bytes, headers: Headers) -> bytes:
        """Return the text."""

    def in_pieces(self, value: bytes, headers: Headers) -> Work[bytes]:
        """Do what a call does as ValueFormat.decode_in_pieces does it."""


class ConvertedToJson:
    """Another format: `convert` makes JSON text of it, and `rest`, if given, makes a row of the text."""

    content_type = "application/json"

    def __init__(self, convert: Convert, rest: ValueFormat | None) -> None:
        self._convert = convert
        self._rest = rest

    def decode(self, value: bytes, headers: Headers = ()) -> bytes | None:
        """See ValueFormat."""
        text = self._convert(value, headers)
        return text if self._rest is None else self._rest.decode(text, headers)

    def decode_in_pieces(self, value: bytes, headers: Headers = ()) -> Work[bytes | None]:
        """See ValueFormat."""
        text = yield from self._convert.in_pieces(value, headers)
        return text if self._rest is None else (yield from self._rest.decode_in_pieces(text, headers))


def _no_object() -> DecodeError:
    return DecodeError("it is not a JSON object, so there are no members to take columns from")


def value_format(table: TableSpec, schemas: Schemas) -> ValueFormat:
    """Return the format of a table's source, with its envelope and the table's columns applied."""
    source = table.source
    match source.value.format:
        case "string":
            return StringValue()
        case "bytes":
            return BytesValue()
        case "json" | "json_connect" as name:
            rest = _of_json(table) or JsonValue()
            # Envelopes unwrap json_connect themselves, and convert the row.
            return ConnectJsonValue(rest) if name == "json_connect" and source.envelope == "none" else rest
        case "json_sr":
            return ConvertedToJson(FramedJson(schemas), _of_json(table) or JsonValue())
        case "avro":
            return ConvertedToJson(AvroReader(source.value, source.topic, schemas), _of_json(table))
        case "protobuf":
            return ConvertedToJson(ProtobufReader(schemas), _of_json(table))


def _of_json(table: TableSpec) -> ValueFormat | None:
    """Return the format that extracts rows from JSON text; None if the whole text is the row."""
    if table.source.envelope != "none":
        return EnvelopedJson(envelope_of(table))
    return None if table.columns is None else JsonColumns(table.columns)


class FramedJson:
    """JSON that names its schema; a value that names none is refused, because it is probably not of this topic."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def __call__(self, value: bytes, headers: Headers) -> bytes:
        """Return a value's JSON text, unchecked; raises DecodeError and SchemaNeeded."""
        frame = frame_of(value, headers)
        schema = self._schemas.known(frame.schema)
        if schema.kind != "JSON":
            raise DecodeError(f"schema {frame.schema} is of type {schema.kind}, and the values' format is json_sr")
        return value[frame.content :]

    def in_pieces(self, value: bytes, headers: Headers) -> Work[bytes]:
        """See Convert."""
        yield from ()
        return self(value, headers)
