"""Rows by key, and where a key is held."""

from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache, partial

from aiohttp import web

from tablehouse.errors import InvalidParameter, KeyNotFound, NotAcceptable
from tablehouse.formats.avro_rows import Encoded
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.values import LARGE_VALUE_BYTES
from tablehouse.http.answers import json_answer
from tablehouse.http.conditions import known_tag, preferred
from tablehouse.http.consistency import asked
from tablehouse.http.dispatch import Call
from tablehouse.http.freshness import freshness_headers, freshness_lines, headers_of
from tablehouse.http.problems import problem
from tablehouse.model import HostInfo
from tablehouse.routing.query import Answer, Query, missing_detail
from tablehouse.routing.schemas import with_schemas, with_schemas_in_turns
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.stores.rows import Row
from tablehouse.turns import Turns

#: The id of the schema that a row in Avro was written with.
SCHEMA_ID = "Tablehouse-Schema-Id"

#: Milliseconds since 1970 that an HTTP date can say, up to the year 9999; others get no Last-Modified.
_DATES = range(253_402_300_800_000)


class RowRoutes:
    """The handlers of `/tables/{table}/{key}`, `/tables/{table}:get` and `/tables/{table}:locate`."""

    def __init__(
        self, tables: Mapping[str, RoutedTable], query: Query, clock: Callable[[], float], turns: Turns
    ) -> None:
        self._tables = tables
        self._query = query
        self._clock = clock
        self._turns = turns

    async def locate(self, call: Call) -> web.Response:
        """Answer with the workers that hold a key."""
        table = call.table
        generation, locations = self._query.locate(table, required_key(call))
        body = {
            "table": table,
            "generation": generation,
            "locations": [
                {
                    "partition": location.partition,
                    "active": None if location.active is None else _host(location.active),
                    "standbys": [_host(host) for host in location.standbys],
                }
                for location in locations
            ],
        }
        return json_answer(body)

    async def row(self, call: Call) -> web.Response:
        """Answer with the row of the key in the path, or in the query, where clients and proxies rewrite no key."""
        name, key = call.table, required_key(call)
        table = table_named(self._tables, name)
        content_type = preferred(call.headers.get("Accept"), table.content_types)
        if content_type is None:
            raise NotAcceptable(
                f"rows of table {name} are {' or '.join(table.content_types)}, which the Accept header leaves out",
                table=name,
                available=list(table.content_types),
            )
        consistency, wait = asked(call.parameters, call.headers, table.spec)
        answer = await self._query.read(
            name, key, deadline=call.deadline, request_id=call.request_id, consistency=consistency, wait=wait
        )
        row = answer.result.row
        if row is None:
            return no_row(answer)
        headers, body = row_headers(answer, row), row.payload
        if content_type != table.content_type:
            encoded = await self._in_avro(table, row, call.deadline)
            body = encoded.content
            headers.update(_avro_headers(encoded, headers["ETag"]))
        known = known_tag(joined(call, "If-None-Match"), headers["ETag"])
        if known is not None:
            # As the caller has it: a cache tells by it which of its answers is still right.
            headers["ETag"] = known
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = content_type
        return web.Response(body=body, headers=headers)

    async def _in_avro(self, table: RoutedTable, row: Row, deadline: float) -> Encoded:
        """Return a row in Avro. Raises SchemaUnavailable, and NotAcceptable for one of before the schema changed."""
        avro, payload = table.avro, row.payload
        if avro is None:
            raise AssertionError("Avro was offered for a table that has none")
        left = max(0.0, deadline - self._clock())
        try:
            if len(payload) > LARGE_VALUE_BYTES:
                in_pieces = partial(avro.encode_in_pieces, payload)
                return await with_schemas_in_turns(avro.schemas, in_pieces, left, self._turns)
            return await with_schemas(avro.schemas, partial(avro.encode, payload), left)
        except DecodeError as error:
            raise NotAcceptable(
                f"the row cannot be had in Avro, since {error}; ask for {table.content_type}",
                table=table.spec.name,
                available=[table.content_type],
            ) from None


def no_row(answer: Answer) -> web.Response:
    """Make the answer that there is no row."""
    name, freshness = answer.table.spec.name, answer.result.freshness
    missing = problem(KeyNotFound(missing_detail(name, freshness), table=name, partition=freshness.partition))
    missing.headers.update(freshness_headers(freshness, answer.served_by))
    return missing


def row_headers(answer: Answer, row: Row) -> dict[str, str]:
    """Make the headers of a row that do not depend on the request; see row_lines."""
    return headers_of(row_lines(answer, row))


def row_lines(answer: Answer, row: Row) -> str:
    """Make the headers of a row that do not depend on the request, as lines, each with its CRLF."""
    lines = (
        f"{freshness_lines(answer.result.freshness, answer.served_by)}"
        f"Cache-Control: no-cache\r\nETag: {entity_tag(answer, row)}\r\n"
    )
    if row.timestamp_ms in _DATES:
        lines += f"Last-Modified: {http_date(row.timestamp_ms // 1000)}\r\n"
    return lines


def entity_tag(answer: Answer, row: Row) -> str:
    """Make the validator of a row."""
    return answer.table.entity_tag(answer.result.freshness.partition, row.offset)


def _avro_headers(encoded: Encoded, etag: str) -> dict[str, str]:
    """Name the schema of a row in Avro; its bytes depend on that, and so does its validator."""
    schema_id = encoded.schema_id
    headers = {"ETag": f'{etag[:-1]}-avro-{"file" if schema_id is None else schema_id}"'}
    return headers if schema_id is None else headers | {SCHEMA_ID: str(schema_id)}


def joined(call: Call, name: str) -> str | None:
    """Return all values of a header as one list; None without the header."""
    if name not in call.headers:
        return None
    return ", ".join(call.headers.getall(name))


def required_key(call: Call) -> bytes:
    """Return the key that is asked for; raises InvalidParameter when there is none in the query, nor in the path."""
    if call.key is None:
        raise InvalidParameter("the query parameter 'key' is missing: ?key=..., percent-encoded", parameter="key")
    return call.key


def _host(host: HostInfo) -> dict[str, str]:
    return {"worker": host.worker_id, "url": host.url}


@lru_cache(maxsize=8192)
def http_date(second: int) -> str:
    """Return the HTTP date of a second since 1970.

    Kept, because rows written together share it and making it takes 9 us (bench/README.md).
    """
    return formatdate(second, usegmt=True)
