"""Writes of many rows with one request: a line of JSON for each."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from tablehouse.catalog.spec import TableSpec
from tablehouse.errors import InvalidBody, PayloadTooLarge, RequestError
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with
from tablehouse.http.answers import json_body
from tablehouse.http.batch import key_text
from tablehouse.http.dispatch import Call
from tablehouse.http.writes import refuse_conditions
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.routing.write_batch import Entry, Outcome, WriteBatches
from tablehouse.routing.writes import Writes
from tablehouse.routing.written import Written, WrittenRecord
from tablehouse.turns import Turns

#: Lines of one request, and bytes of all of them and of one.
MAX_LINES = 10_000
MAX_BODY_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 20

NDJSON = "application/x-ndjson"

#: Outcomes rendered in one go, at some 2 us each.
_OUTCOMES_PER_TURN = 256


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    key: Any
    value: msgspec.Raw = msgspec.Raw()
    delete: bool | UnsetType = UNSET


class _RawKey(msgspec.Struct):
    key: msgspec.Raw


_lines = msgspec.json.Decoder(_Line)
_raw_keys = msgspec.json.Decoder(_RawKey)
_strings = msgspec.json.Decoder(str)
_binaries = msgspec.json.Decoder(bytes)


class BatchPutRoutes:
    """The handler of `/tables/{table}:batch-put`."""

    def __init__(self, tables: Mapping[str, RoutedTable], writes: Writes, batches: WriteBatches, turns: Turns) -> None:
        self._tables = tables
        self._writes = writes
        self._batches = batches
        self._turns = turns

    async def batch_put(self, call: Call) -> web.StreamResponse:
        """Write and delete the rows of the lines, and answer with the outcome of each, in their order."""
        refuse_conditions(call)
        table = table_named(self._tables, call.table)
        payload_of = _payloads(self._writes.content_type(table.spec.name))
        body = await call.body.read((NDJSON,), MAX_BODY_BYTES)
        lines = body.count(b"\n") + (not body.endswith(b"\n") and bool(body))
        if lines > MAX_LINES:
            raise InvalidBody(f"the batch has {lines} lines, at most {MAX_LINES} are taken: write in several batches")
        entries = _entries(table.spec, body, payload_of)
        outcomes = await self._batches.write(
            table.spec.name, entries, deadline=call.deadline, request_id=call.request_id
        )
        return json_body(b"".join([piece async for piece in self._pieces(outcomes)]))

    async def _pieces(self, outcomes: Sequence[Outcome]) -> AsyncGenerator[bytes]:
        yield b'{"results":['
        ends: dict[int, WrittenRecord] = {}
        for start in range(0, len(outcomes), _OUTCOMES_PER_TURN):
            await self._turns.wait()
            some = outcomes[start : start + _OUTCOMES_PER_TURN]
            yield (b"," if start else b"") + b",".join([_rendered(outcome) for outcome in some])
            for outcome in some:
                for record in outcome.records if isinstance(outcome, Written) else ():
                    ends[record.partition] = max(record, ends.get(record.partition, record))
        position = ",".join(str(record) for _, record in sorted(ends.items()))
        yield b'],"position":%b}' % msgspec.json.encode(position or None)


def _rendered(outcome: Outcome) -> bytes:
    if isinstance(outcome, Written):
        return b'{"status":200,"position":"%b"}' % outcome.text.encode()
    error = {"code": outcome.code, "detail": outcome.detail, "retryable": outcome.retryable}
    return msgspec.json.encode({"status": outcome.status, "error": error})


def _entries(table: TableSpec, body: bytes, payload_of: Callable[[bytes], bytes]) -> Iterator[Entry | RequestError]:
    """Go through the lines of a body, and say of each what it writes, or why it writes nothing."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        try:
            yield _entry(table, body[start:end], payload_of)
        except RequestError as error:
            yield error
        start = end + 1


def _entry(table: TableSpec, line: bytes, payload_of: Callable[[bytes], bytes]) -> Entry:
    """Read a line; raises InvalidBody, PayloadTooLarge and InvalidKey."""
    if len(line) > MAX_LINE_BYTES:
        raise PayloadTooLarge(
            f"the line has {len(line)} bytes, at most {MAX_LINE_BYTES} are taken: write this row with PUT",
            limit=MAX_LINE_BYTES,
        )
    try:
        given = decode_with(_lines, line)
        raw = decode_with(_raw_keys, line).key
    except DecodeError as error:
        hint = " (curl needs --data-binary: -d leaves out line breaks)" if "trailing characters" in str(error) else ""
        raise InvalidBody(
            f'the line has to be JSON like {{"key": "a", "value": 1}} or {{"key": "a", "delete": true}}: {error}{hint}'
        ) from None
    value = bytes(given.value)
    if given.delete is UNSET and value:
        return Entry(key_text(table, given.key, raw), _payload(value, payload_of))
    if given.delete is not True or value:
        raise InvalidBody('the line needs either a value or "delete": true')
    return Entry(key_text(table, given.key, raw), None)


def _payload(value: bytes, payload_of: Callable[[bytes], bytes]) -> bytes:
    try:
        payload = payload_of(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidBody(f'the value is no row: {error}; to delete the row give "delete": true') from None
    if not payload:
        raise InvalidBody('the value is empty: give the row, or "delete": true')
    return payload


def _payloads(content_type: str) -> Callable[[bytes], bytes]:
    """Return how a JSON text becomes the payload that batches show as that text."""
    match content_type.partition(";")[0]:
        case "application/json":
            return _as_it_is
        case "text/plain":
            return _of_string
    return _of_base64


def _as_it_is(value: bytes) -> bytes:
    return value


def _of_string(value: bytes) -> bytes:
    return _strings.decode(value).encode()


def _of_base64(value: bytes) -> bytes:
    return _binaries.decode(value)
