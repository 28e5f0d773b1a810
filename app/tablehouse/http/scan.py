"""The rows of a table in the order of their keys, a page at a time or as a stream, and their number."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import quote_from_bytes

import msgspec
import structlog
from aiohttp import web

from tablehouse.errors import InternalError, InvalidParameter, NotAcceptable, RequestError
from tablehouse.http.answers import CutShort, Streamed, json_answer, json_body
from tablehouse.http.conditions import accepts, preferred
from tablehouse.http.consistency import asked
from tablehouse.http.cursors import after_cursor, cursor
from tablehouse.http.dispatch import Call
from tablehouse.http.filters import FIELDS, fields_of, where_of
from tablehouse.http.framing import MAX_TARGET_BYTES
from tablehouse.http.held import LARGE_BYTES
from tablehouse.http.ranges import RANGE_PARAMETERS, range_of, require_order, whole_number
from tablehouse.http.rendering import key_rendering, partition_member, value_rendering
from tablehouse.http.target import flag
from tablehouse.routing.counting import Counted, RowCounts
from tablehouse.routing.error_values import document
from tablehouse.routing.ranges import ALL_ROWS, Ranges, Scan
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.counting import CountRange
from tablehouse.tasks.filters import WHERE
from tablehouse.tasks.ranges import KeyedRow, Range
from tablehouse.turns import Turns

REVERSE = "reverse"
LIMIT = "limit"
CURSOR = "cursor"
KEYS_ONLY = "keys_only"
PARTIAL = "partial"

#: The query parameters of a count and of a scan, besides those of every read.
COUNT_PARAMETERS = RANGE_PARAMETERS | {PARTIAL, WHERE}
SCAN_PARAMETERS = COUNT_PARAMETERS | {REVERSE, LIMIT, CURSOR, KEYS_ONLY, FIELDS}

#: The header of pages and counts that says how the rows were found.
PLAN = "Tablehouse-Plan"

#: Rows of a page, if its request does not say and at most.
DEFAULT_ROWS = 100
MAX_ROWS = 10_000

#: What ends a page with fewer rows: the bytes of those it has, rows that were read for it with those that do not match
#: and those that deleted keys have left, and the share of the request's time that has passed.
BYTES_PER_PAGE = 1 << 20
ROWS_READ_PER_PAGE = 100_000
TIME_SHARE = 0.5

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_NDJSON_HEADERS: Mapping[str, str] = {"Content-Type": _NDJSON, "Cache-Control": "no-cache"}

#: Rows rendered in one go, about 2 us each for small ones, and the bytes that are handed to the connection at once.
_ROWS_PER_TURN = 256
_BYTES_PER_WRITE = 64 * 1024


class _Request(NamedTuple):
    """What a caller wants of a table: the whole range, and the part of it that this request is to give.

    is_partial says that partitions that cannot answer may be left out.
    """

    table: RoutedTable
    bounds: Range
    rest: Range
    is_partial: bool
    parameters: Mapping[str, bytes]

    def next_page(self, reached: bytes) -> str:
        """Return the path of the page after a stored key; raises InvalidParameter for one that is too long."""
        given = {name: quote_from_bytes(value, safe="") for name, value in self.parameters.items() if name != CURSOR}
        given[CURSOR] = cursor(self.table, self.bounds, reached)
        query = "&".join(f"{name}={value}" for name, value in given.items())
        path = f"/tables/{self.table.spec.name}:scan?{query}"
        if len(path) > MAX_TARGET_BYTES:
            raise InvalidParameter(
                f"the page would end at a key that is too long for the path of the next one, which has {len(path)} "
                f"bytes, and at most {MAX_TARGET_BYTES} are allowed: use another limit, or a stream without one",
                parameter=LIMIT,
                table=self.table.spec.name,
            )
        return path


class ScanRoutes:
    """The handlers of `/tables/{table}:scan` and `/tables/{table}:count`."""

    def __init__(
        self,
        tables: Mapping[str, RoutedTable],
        ranges: Ranges,
        counts: RowCounts,
        clock: Callable[[], float],
        turns: Turns,
    ) -> None:
        self._tables = tables
        self._ranges = ranges
        self._counts = counts
        self._clock = clock
        self._turns = turns

    async def scan(self, call: Call) -> web.StreamResponse:
        """Answer with a page of rows, or with a stream of all."""
        table = table_named(self._tables, call.table)
        media_type = preferred(call.headers.get("Accept"), (_JSON, _NDJSON))
        if media_type is None:
            raise NotAcceptable(
                f"a scan is {_JSON} or {_NDJSON}, which the Accept header leaves out", available=[_JSON, _NDJSON]
            )
        streams = media_type == _NDJSON
        where = await where_of(call.parameters, self._turns)
        request = _request(table, call.parameters, where, streams=streams)
        consistency, wait = asked(call.parameters, call.headers, table.spec)
        scan = self._ranges.scan(
            table.spec.name,
            request.rest,
            deadline=call.deadline,
            request_id=call.request_id,
            consistency=consistency,
            wait=wait,
            partial=request.is_partial,
            renews=streams,
        )
        if not streams:
            body, rows = await self._page(request, scan, call.deadline)
            return json_body(body, headers=_plan(request.bounds, scan.rows_read, rows))
        lines = self._lines(request, scan)
        # What fails before the first line is an answer with a status of its own.
        first = await anext(lines)
        return Streamed((first,), _ending_with_errors(lines), _NDJSON_HEADERS)

    async def count(self, call: Call) -> web.Response:
        """Answer with the number of rows in a range."""
        table = table_named(self._tables, call.table)
        if not accepts(call.headers.get("Accept"), _JSON):
            raise NotAcceptable(f"a count is {_JSON}, which the Accept header leaves out", available=[_JSON])
        consistency, wait = asked(call.parameters, call.headers, table.spec)
        bounds = CountRange(*range_of(table, call.parameters), await where_of(call.parameters, self._turns))
        counted = await self._counts.count(
            table.spec.name,
            bounds,
            deadline=call.deadline,
            request_id=call.request_id,
            consistency=consistency,
            wait=wait,
            partial=flag(call.parameters, PARTIAL),
        )
        headers = _plan(bounds, counted.rows_read, counted.count)
        return json_answer({"count": counted.count, **_completeness(counted)}, headers=headers)

    async def _page(self, request: _Request, scan: Scan, deadline: float) -> tuple[bytes, int]:
        """Render a page: its rows, and where the next one is. Return it with the number of its rows."""
        now = self._clock()
        until = now + TIME_SHARE * (deadline - now)
        render = _row_rendering(request, on_one_line=False)
        buffer = bytearray(b'{"rows":[')
        reached: bytes | None = None
        rows = 0
        is_full = False
        async with aclosing(scan.parts()) as parts:
            async for part in parts:
                reached = part.reached
                for place, row in enumerate(part.rows):
                    if place % _ROWS_PER_TURN == 0:
                        await self._turns.wait()
                    buffer += render(row)
                    buffer += b","
                    rows += 1
                    is_full = len(buffer) >= BYTES_PER_PAGE
                    if is_full:
                        reached = reached if place + 1 == len(part.rows) else row.stored_key
                        break
                if is_full or scan.rows_read >= ROWS_READ_PER_PAGE or self._clock() >= until:
                    break
        if buffer.endswith(b","):
            buffer.pop()
        following = {"next": None if reached is None else request.next_page(reached), **_completeness(scan)}
        return b"%b],%b" % (bytes(buffer), msgspec.json.encode(following)[1:]), rows

    async def _lines(self, request: _Request, scan: Scan) -> AsyncGenerator[bytes]:
        """Render the rows line by line, in pieces of about _BYTES_PER_WRITE, and what there is to say of all of them.

        What it raises it raises between two lines.
        """
        render = _row_rendering(request, on_one_line=True)
        buffer = bytearray()
        reached: bytes | None = None
        async with aclosing(scan.parts()) as parts:
            async for part in parts:
                reached = part.reached
                for place, row in enumerate(part.rows):
                    if place % _ROWS_PER_TURN == 0:
                        await self._turns.wait()
                    line = render(row)
                    if len(line) > LARGE_BYTES:
                        # On its own, uncopied.
                        if buffer:
                            yield bytes(buffer)
                            buffer.clear()
                        yield line
                        yield b"\n"
                        continue
                    buffer += line
                    buffer += b"\n"
                    if len(buffer) >= _BYTES_PER_WRITE:
                        yield bytes(buffer)
                        buffer.clear()
                if buffer:
                    yield bytes(buffer)
                    buffer.clear()
        following = {"next": None if reached is None else request.next_page(reached), **_completeness(scan)}
        yield msgspec.json.encode(following) + b"\n"


async def _ending_with_errors(lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Go on with lines; an error becomes the last one, and cuts the answer short."""
    try:
        async with aclosing(lines):
            async for piece in lines:
                yield piece
    except RequestError as error:
        failure = error
    except Exception:  # noqa: BLE001 - the client gets a line that says so, and the log the rest
        structlog.get_logger("http").exception("a scan could not be finished")
        failure = InternalError("a fault of ours; the log has it")
    else:
        return
    yield b'{"error":%b}\n' % msgspec.json.encode(document(failure))
    raise CutShort


def _request(table: RoutedTable, parameters: Mapping[str, bytes], where: str | None, *, streams: bool) -> _Request:
    """Read what a caller wants; raises RequestError for what cannot be had."""
    require_order(table)
    start, end = range_of(table, parameters)
    limit = (
        whole_number(parameters, LIMIT, ALL_ROWS, ALL_ROWS)
        if streams
        else whole_number(parameters, LIMIT, DEFAULT_ROWS, MAX_ROWS)
    )
    keys_only = flag(parameters, KEYS_ONLY)
    if keys_only and FIELDS in parameters:
        raise InvalidParameter(f"{FIELDS} has no meaning with {KEYS_ONLY}: leave out one of them", parameter=FIELDS)
    bounds = Range(
        start,
        end,
        reverse=flag(parameters, REVERSE),
        limit=limit,
        keys_only=keys_only,
        where=where,
        fields=fields_of(table, parameters),
    )
    rest = after_cursor(table, bounds, parameters[CURSOR]) if CURSOR in parameters else bounds
    return _Request(table, bounds, rest, flag(parameters, PARTIAL), parameters)


def _row_rendering(request: _Request, *, on_one_line: bool) -> Callable[[KeyedRow], bytes]:
    """Return how a row is written as JSON; values are as they are stored, with the line breaks of their producers."""
    key = key_rendering(request.table)
    if request.bounds.keys_only:
        return lambda row: b'{"key":%b}' % key(row.stored_key)
    value = value_rendering(request.table)
    if on_one_line:
        return lambda row: b'{"key":%b,"value":%b}' % (key(row.stored_key), _without_breaks(value(row.payload)))
    return lambda row: b'{"key":%b,"value":%b}' % (key(row.stored_key), value(row.payload))


def _plan(bounds: Range | CountRange, rows_read: int, rows_returned: int) -> Mapping[str, str]:
    """Return the header that says which rows were read, how many of them, and how many of those were wanted."""
    kind = "key range" if bounds.start or bounds.end is not None else "full scan"
    return {PLAN: f"{kind}; rows_read={rows_read}; rows_returned={rows_returned}"}


def _without_breaks(text: bytes) -> bytes:
    """Return JSON on one line: it has line breaks between tokens only, since those of strings are escaped."""
    if b"\n" in text or b"\r" in text:
        return text.replace(b"\n", b" ").replace(b"\r", b" ")
    return text


def _completeness(read: Scan | Counted) -> dict[str, object]:
    """Return whether all partitions have answered, how fresh what they said is, and which have not, and why."""
    partitions: Sequence[object] = [partition_member(number, one) for number, one in sorted(read.partitions.items())]
    missing = [{"partition": number, "error": document(error)} for number, error in sorted(read.missing.items())]
    told: dict[str, object] = {"complete": not missing, "partitions": partitions}
    return told | {"missing": missing} if missing else told
