"""Rows that callers write: PUT and DELETE where a row can be read."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from aiohttp import web

from tablehouse.errors import InvalidBody, InvalidParameter
from tablehouse.http.answers import json_answer
from tablehouse.http.conditions import precondition_of
from tablehouse.http.consistency import TIMEOUT_MS, timeout_of
from tablehouse.http.dispatch import Call
from tablehouse.http.freshness import PARTITION, POSITION
from tablehouse.http.rows import joined, required_key
from tablehouse.routing.writes import Writes

WAIT = "wait"

#: The query parameters of every write.
PARAMETERS = frozenset({WAIT, TIMEOUT_MS})

_WRITING = frozenset({"PUT", "DELETE", "POST"})

_VISIBLE = b"visible"

#: What asks for a write that depends on when the row was written, or for a part of one. Ignoring it would be wrong.
_REFUSED_HEADERS = ("If-Modified-Since", "If-Unmodified-Since", "Content-Range")
_CONDITIONS = ("If-Match", "If-None-Match")


class WriteRoutes:
    """The handlers of PUT and DELETE on `/tables/{table}/{key}` and `/tables/{table}:get`."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    def lacks(self, table: str) -> AbstractSet[str]:
        """Return the methods that routes for writing lack for a table that is not writable."""
        return frozenset() if self._writes.is_writable(table) else _WRITING

    async def put(self, call: Call) -> web.StreamResponse:
        """Write the row of the key in the path or the query."""
        key = required_key(call)
        media_type = self._writes.content_type(call.table).partition(";")[0]
        payload = await call.body.read((media_type,), self._writes.limit(call.table))
        if not payload:
            raise InvalidBody("the body is empty: send the row, or DELETE it", table=call.table)
        return await self._write(call, key, payload)

    async def delete(self, call: Call) -> web.StreamResponse:
        """Delete the row of the key in the path or the query."""
        return await self._write(call, required_key(call), None)

    async def _write(self, call: Call, key: bytes, payload: bytes | None) -> web.StreamResponse:
        _refuse(call, _REFUSED_HEADERS, "a row has no time to go by, and is written as a whole")
        precondition = precondition_of(*(joined(call, name) for name in _CONDITIONS))
        waits, wait = _wait(call)
        written = await self._writes.write(
            call.table,
            key,
            payload,
            deadline=call.deadline,
            request_id=call.request_id,
            precondition=precondition,
        )
        partition, offset, _ = written.records[-1]
        position = written.text
        body: dict[str, object] = {
            "table": written.table,
            "partition": partition,
            "offset": offset,
            "position": position,
        }
        if payload is not None:
            body["etag"] = self._writes.entity_tag(written)
        status = 200
        if waits:
            visible = await self._writes.visible(
                written, key, deadline=call.deadline, request_id=call.request_id, wait=wait
            )
            body["visible"] = visible
            status = 200 if visible else 202
        return json_answer(body, status, {PARTITION: str(partition), POSITION: position})


def refuse_conditions(call: Call) -> None:
    """Raise InvalidParameter for a header that asks for a condition, or for a part of a row."""
    _refuse(call, (*_REFUSED_HEADERS, *_CONDITIONS), "rows of a batch are written unconditionally")


def _refuse(call: Call, names: Iterable[str], why: str) -> None:
    for name in names:
        if name in call.headers:
            raise InvalidParameter(f"{name} is not supported: {why}", parameter=name)


def _wait(call: Call) -> tuple[bool, float | None]:
    """Return whether to wait until the row can be read, and for how many seconds if the caller says so."""
    given = call.parameters.get(WAIT)
    if given not in {None, _VISIBLE}:
        raise InvalidParameter("wait has to be visible, or be left out", parameter=WAIT)
    timeout = timeout_of(call.parameters, call.headers)
    if timeout is not None and given is None:
        raise InvalidParameter(
            f"{TIMEOUT_MS} says how long to wait for the row to be visible: give wait=visible too, or neither",
            parameter=TIMEOUT_MS,
        )
    return given is not None, timeout
