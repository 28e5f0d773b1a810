"""Rows of many keys with one request."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from tablehouse.catalog.spec import STRUCTURED_KEYS, TableSpec
from tablehouse.errors import InvalidBody, InvalidKey, NotAcceptable, RequestError
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_with
from tablehouse.http.answers import JSON_HEADERS, Streamed
from tablehouse.http.conditions import accepts
from tablehouse.http.consistency import asked
from tablehouse.http.dispatch import Call
from tablehouse.http.held import LARGE_BYTES
from tablehouse.http.rendering import partition_member, value_rendering
from tablehouse.routing.batch import Batch, Batches
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.turns import Turns

#: Keys of one request.
MAX_KEYS = 10_000

#: Bytes of a request's body.
MAX_BODY_BYTES = 2 << 20

_JSON = "application/json"

#: Rows rendered in one go, about 1 us each for small ones, and the bytes that are handed to the connection at once.
_ROWS_PER_TURN = 256
_BYTES_PER_WRITE = 64 * 1024


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Any]


class _RawRequest(msgspec.Struct):
    keys: list[msgspec.Raw]


_requests = msgspec.json.Decoder(_Request)
_raw_requests = msgspec.json.Decoder(_RawRequest)


class BatchRoutes:
    """The handler of `/tables/{table}:batch-get`."""

    def __init__(self, tables: Mapping[str, RoutedTable], batches: Batches, turns: Turns) -> None:
        self._tables = tables
        self._batches = batches
        self._turns = turns

    async def batch_get(self, call: Call) -> web.StreamResponse:
        """Answer with the rows of some keys, in the order asked, and with the freshness of their partitions."""
        table = table_named(self._tables, call.table)
        if not accepts(call.headers.get("Accept"), _JSON):
            raise NotAcceptable(f"a batch is {_JSON}, which the Accept header leaves out", available=[_JSON])
        consistency, wait = asked(call.parameters, call.headers, table.spec)
        raw, texts = _keys(table.spec, await call.body.read((_JSON,), MAX_BODY_BYTES))
        batch = self._batches.read(
            table.spec.name,
            texts,
            deadline=call.deadline,
            request_id=call.request_id,
            consistency=consistency,
            wait=wait,
        )
        pieces = self._pieces(batch, raw, value_rendering(table))
        first, second = await anext(pieces), await anext(pieces, None)
        if second is None:
            return web.Response(body=first, headers=JSON_HEADERS)
        return Streamed((first, second), pieces, JSON_HEADERS)

    async def _pieces(
        self, batch: Batch, keys: Sequence[msgspec.Raw], render: Callable[[bytes], bytes]
    ) -> AsyncGenerator[bytes]:
        """Render the answer, in pieces of about _BYTES_PER_WRITE."""
        written = 0
        buffer = bytearray(b'{"rows":[')
        errors: dict[int, bytes] = {}
        async for outcomes in batch.outcomes():
            for start in range(0, len(outcomes), _ROWS_PER_TURN):
                if start:
                    await self._turns.wait()
                for outcome in outcomes[start : start + _ROWS_PER_TURN]:
                    if written:
                        buffer += b","
                    if isinstance(outcome, bytes):
                        value = render(outcome)
                        if len(value) > LARGE_BYTES:
                            # On its own, uncopied.
                            yield b'%b{"key":%b,"value":' % (bytes(buffer), keys[written])
                            yield value
                            buffer[:] = b"}"
                        else:
                            buffer += b'{"key":%b,"value":%b}' % (keys[written], value)
                    else:
                        buffer += b'{"key":%b,"error":%b}' % (keys[written], _error(outcome, errors))
                    written += 1
                    if len(buffer) >= _BYTES_PER_WRITE:
                        yield bytes(buffer)
                        buffer.clear()
            errors.clear()
        answers = [partition_member(number, answer) for number, answer in sorted(batch.partitions.items())]
        yield bytes(buffer) + b'],"partitions":%b}' % msgspec.json.encode(answers)


def _keys(table: TableSpec, body: bytes) -> tuple[Sequence[msgspec.Raw], Sequence[bytes | RequestError]]:
    """Return each key as it is in the body, and as the text that a URL would have, or why it has none.

    Raises InvalidBody.
    """
    try:
        given = decode_with(_requests, body).keys
        raw = decode_with(_raw_requests, body).keys
    except DecodeError as error:
        raise InvalidBody(f'the body has to be JSON like {{"keys": ["a", "b"]}}: {error}') from None
    if len(given) > MAX_KEYS:
        raise InvalidBody(f"the batch has {len(given)} keys, at most {MAX_KEYS} are taken: ask in several batches")
    return raw, [_key_or_error(table, key, text) for key, text in zip(given, raw, strict=True)]


def _key_or_error(table: TableSpec, key: object, raw: msgspec.Raw) -> bytes | RequestError:
    try:
        return key_text(table, key, raw)
    except InvalidKey as error:
        return error


def key_text(table: TableSpec, key: object, raw: msgspec.Raw) -> bytes:
    """Return a key in JSON as the text that a URL would have; raises InvalidKey when it has none."""
    if type(key) is str:
        return key.encode()
    key_format = table.source.key.format
    if key_format in STRUCTURED_KEYS or (type(key) is int and key_format in {"int", "long"}):
        return bytes(raw)
    raise _no_key(table, key)


def _no_key(table: TableSpec, key: object) -> InvalidKey:
    or_else = " or an integer" if table.source.key.format in {"int", "long"} else ""
    return InvalidKey(
        f"The key is {_KINDS.get(type(key), 'a number')} (key format {table.source.key}): use a string as it would "
        f"stand in a URL{or_else}.",
        table=table.name,
    )


_KINDS: Mapping[type, str] = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}


def _error(error: RequestError, rendered: dict[int, bytes]) -> bytes:
    """Render an error once for all the keys that have it."""
    known = rendered.get(id(error))
    if known is None:
        known = rendered[id(error)] = msgspec.json.encode(
            {"code": error.code, "detail": error.detail, "retryable": error.retryable}
        )
    return known
