"""Extracts rows from the envelopes of producers: from the JSON text of a value to the JSON text of a row.

| envelope | a value is                                        | its row is        | the row is deleted by      |
|----------|---------------------------------------------------|-------------------|----------------------------|
| debezium | a change event: `op`, `before`, `after`, `source` | `after`           | op `d`, and a tombstone    |
| outbox   | the payload of an event of the outbox             | the payload       | a tombstone                |

Either may be in Kafka Connect's `{"schema": .., "payload": ..}`: connect_json.py describes what a schema changes.
Without a schema a row's members are copied unchanged, so that numbers keep every digit.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5
from typing import Any
from uuid import UUID

import msgspec

from tablehouse.catalog.spec import TableSpec
from tablehouse.formats.connect_json import converter, unwrap
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import Headers
from tablehouse.formats.json_text import decode_json, decode_with
from tablehouse.formats.members import Members

#: Converts the JSON text of a value, given with its record's headers, to that of a row; None for a delete.
Envelope = Callable[[bytes, Headers], bytes | None]

_NULL = msgspec.Raw(b"null")

_encode = msgspec.json.Encoder().encode


def envelope_of(table: TableSpec) -> Envelope:
    """Return the function that extracts a table's rows and columns from its envelope; it raises DecodeError."""
    match table.source.envelope:
        case "debezium":
            return Debezium(table.columns)
        case "outbox":
            return Outbox(table.columns)
        case "none":
            raise ValueError(f"table {table.name} has no envelope")


class _Columns:
    """The columns of a row, some of which come from the envelope around it."""

    def __init__(self, columns: Mapping[str, str], around: str) -> None:
        """Set the columns by their names in rows; `around` is the prefix of members from the envelope."""
        self._columns = [(_encode(name) + b":", member) for name, member in columns.items()]
        self.around = [name.removeprefix(around) for name in columns.values() if name.startswith(around)]
        self.of_row = [name for name in columns.values() if not name.startswith("$")]
        self._members = Members(self.of_row)

    def row(self, text: bytes, around: Mapping[str, bytes]) -> bytes:
        """Return the columns; the members in `around` have their full names."""
        found = {**self._members(text), **around}
        return b"{" + b",".join([name + found[member] for name, member in self._columns]) + b"}"


class _Event(msgspec.Struct):
    """A change event, or Connect's object around one; None for a missing member."""

    op: str | None = None
    after: msgspec.Raw = _NULL
    updateDescription: msgspec.Raw = _NULL  # noqa: N815  MongoDB's, as Debezium calls it
    source: msgspec.Raw = _NULL
    ts_ms: msgspec.Raw = _NULL
    schema: msgspec.Raw = _NULL
    payload: msgspec.Raw = _NULL


_NO_DOCUMENT = (
    "it is an update of MongoDB without the document: set capture.mode=change_streams_update_full in the connector; "
    "if it is set, the document was deleted before it was looked up, and the event of the delete follows"
)


class Debezium:
    """Change events of Debezium: `after` is the row, and an event of op `d` deletes it.

    For MongoDB, `after` is a string with the document in MongoDB's extended JSON, which becomes the row unchanged.

    An incomplete row is refused: an update in PostgreSQL does not carry large values that it did not change, and
    Debezium writes placeholders for them. The event is accepted if no column of the table is taken from one.
    """

    _decoder: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)
    _writes = frozenset("cru")
    _refused: Mapping[str | None, str] = {
        None: "it is not a change event of Debezium, since it has no member op; events that ExtractNewRecordState has "
        "flattened need envelope none",
        "t": "its whole table was truncated (op t), which is not a change of a row",
        "m": "it is a logical decoding message (op m), which is not a row",
    }

    def __init__(self, columns: Mapping[str, str] | None) -> None:
        self._columns = None if columns is None else _Columns(columns, "$source.")
        self._source = Members(self._columns.around) if self._columns and self._columns.around else None

    def __call__(self, text: bytes, headers: Headers) -> bytes | None:  # noqa: ARG002  an envelope's signature
        """See Envelope."""
        event, schema = decode_with(self._decoder, text), b"null"
        if event.op is None and bytes(event.payload).startswith(b"{"):
            schema = bytes(event.schema)
            event = decode_with(self._decoder, bytes(event.payload))
        if event.op == "d":
            return None
        if event.op not in self._writes:
            raise DecodeError(self._refused.get(event.op, "its op is none of c, r, u, d, t and m"))
        row = _converted(bytes(event.after), schema, "after")
        row, members = _expanded(row, decode_json(row))
        if not isinstance(members, dict):
            if members is None and event.updateDescription != _NULL:
                raise DecodeError(_NO_DOCUMENT)
            raise DecodeError(f"it is a change event of op {event.op} whose after is not an object")
        _refuse_unavailable(row, members, None if self._columns is None else self._columns.of_row)
        return row if self._columns is None else self._columns.row(row, self._around(event, schema))

    def _around(self, event: _Event, schema: bytes) -> dict[str, bytes]:
        around = {"$op": _encode(event.op), "$ts_ms": _checked(bytes(event.ts_ms))}
        if self._source is not None:
            source = _checked(_converted(bytes(event.source), schema, "source"))
            members = self._source(b"{}" if source == b"null" else source)
            around |= {f"$source.{name}": member for name, member in members.items()}
        return around


class Outbox:
    """Events of Debezium's outbox event router: the payload is the row.

    Without table.expand.json.payload the payload is a JSON string with JSON in it, which becomes the row if it is an
    object or an array; any other string is itself the row.
    """

    def __init__(self, columns: Mapping[str, str] | None) -> None:
        self._columns = None if columns is None else _Columns(columns, "$headers.")

    def __call__(self, text: bytes, headers: Headers) -> bytes | None:
        """See Envelope."""
        wrapped = unwrap(text)
        payload = text if wrapped is None else _converted(wrapped[1], wrapped[0], None)
        row, value = _expanded(payload, decode_json(payload))
        if self._columns is None:
            return row
        if not isinstance(value, dict):
            raise DecodeError("the payload is not a JSON object, so there are no members to take columns from")
        found = dict(headers)  # of headers with one name the last is used, as in Kafka's own clients
        around = {f"$headers.{name}": _header(name, found.get(name)) for name in self._columns.around}
        return self._columns.row(row, around)


def _converted(text: bytes, schema: bytes, member: str | None) -> bytes:
    convert = converter(schema, member)
    return text if convert is None else convert(text)


def _checked(text: bytes) -> bytes:
    decode_json(text)
    return text


def _expanded(text: bytes, value: object) -> tuple[bytes, object]:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        inside = value.encode()
        try:
            return inside, decode_json(inside)
        except DecodeError:
            return text, value
    return text, value


def _header(name: str, value: bytes | None) -> bytes:
    if value is None:
        return b"null"
    try:
        return _encode(value.decode())
    except UnicodeDecodeError as error:
        raise DecodeError(f"header {name} is not UTF-8 at byte {error.start}") from error


#: Debezium's placeholder for a value that it does not have, unless the connector sets unavailable.value.placeholder;
#: and its forms in other types: bytes, hstore, arrays of uuid.
_PLACEHOLDER = b"__debezium_unavailable_value"
_PLACEHOLDER_BASE64 = b64encode(_PLACEHOLDER)
_PLACEHOLDERS: tuple[object, ...] = (
    _PLACEHOLDER.decode(),
    _PLACEHOLDER_BASE64.decode(),
    {_PLACEHOLDER.decode(): _PLACEHOLDER.decode()},
    _encode({_PLACEHOLDER.decode(): _PLACEHOLDER.decode()}).decode(),
    [_PLACEHOLDER.decode()],
    [_PLACEHOLDER_BASE64.decode()],
    [str(UUID(bytes=md5(_PLACEHOLDER, usedforsecurity=False).digest(), version=3))],
)
#: Arrays of other types have an element for each byte of the placeholder: the byte as a number.
_NUMBERS = list(_PLACEHOLDER)


def _refuse_unavailable(text: bytes, row: Mapping[str, Any], names: Sequence[str] | None) -> None:
    """Raise DecodeError if one of the named members of a row is a placeholder; all members if `names` is None."""
    if _PLACEHOLDER not in text and _PLACEHOLDER_BASE64 not in text and b"[" not in text:
        return
    for name in row if names is None else names:
        value = row.get(name)
        if value in _PLACEHOLDERS or (isinstance(value, list) and _is_placeholder(value)):
            raise DecodeError(
                f"the change event does not have the value of column {name}, which is large and was not changed "
                "(TOAST): set REPLICA IDENTITY FULL for the table in PostgreSQL, and update the row"
            )


def _is_placeholder(array: list[Any]) -> bool:
    return len(array) == len(_NUMBERS) and all(map(_is_number, array, _NUMBERS))


def _is_number(element: Any, number: int) -> bool:
    match element:
        case bool():
            return element
        case int() | float():
            return element == number
        case {"value": str(unscaled)}:
            return unscaled == b64encode(bytes((number,))).decode()
        case str():
            # A decimal; without a schema it is its unscaled value in base64.
            return element in {str(number), b64encode(bytes((number,))).decode()} or _digits(element) == number
    return False


def _digits(decimal: str) -> int | None:
    digits = decimal.replace(".", "", 1)
    return int(digits) if digits.isascii() and digits.isdigit() else None
