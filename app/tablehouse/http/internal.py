"""The listener between workers: reads of this worker's own tasks, and nothing else.

It is built from the local tables alone. It has no query and no way to other workers, so what arrives here
cannot be forwarded again.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from math import inf
from typing import TypeVar

import msgspec
from aiohttp import web

from tablehouse.errors import DeadlineExceeded, InvalidBody, InvalidKey, InvalidParameter, NotOwner, RouteNotFound
from tablehouse.http.answers import json_answer
from tablehouse.http.consistency import asked
from tablehouse.http.dispatch import Call, Operation, Route, reading
from tablehouse.http.forms import (
    PROTOCOL_VERSION,
    ROW_OFFSET,
    ROW_TIMESTAMP_MS,
    ROWS_PREFIX,
    VERSION,
    WRITE_CHECK,
)
from tablehouse.http.freshness import SERVED_BY, freshness_headers
from tablehouse.http.proofs import CHALLENGE_PATH, NONCE, WORKER, Callers
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, TaskStatus
from tablehouse.routing.agreement import Agreement
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.decisions import Decisions
from tablehouse.routing.digests import digest
from tablehouse.routing.ports import Answers, Condition, LocalTables, Terms
from tablehouse.routing.slices import CONTENT_TYPE, decode_wanted, encode_slices
from tablehouse.routing.tables import RoutedTable, table_named
from tablehouse.tasks.questions import Applied, Get, Question

Result = TypeVar("Result")

STATUS_PATH = "/internal/v1/status"
_DIGEST = ":digest"
_WHOLE = re.compile(r"[0-9]{1,15}")
BATCH = ":batch-get"
WRITE = ":write"

#: Bytes of a part of a batch: stored keys can take twice what they take in a URL.
_MAX_BATCH_BYTES = 8 << 20

_NONCE = re.compile("[0-9a-f]{32}")

#: Bytes of a conditional write besides its value: a key in two forms, and the offsets that its tags name.
_MAX_WRITE_OVERHEAD_BYTES = 1 << 20

TABLE_DIGEST = "Tablehouse-Table-Digest"
PARTITIONS = "Tablehouse-Partitions"
GENERATION = "Tablehouse-Generation"
DEADLINE_MS = "Tablehouse-Deadline-Ms"
WRITTEN_OFFSET = "Tablehouse-Written-Offset"


class StatusReport(msgspec.Struct, frozen=True):
    """What a worker says of itself to its peers."""

    worker_id: str
    generation: int
    tasks: list[TaskStatus]


class WriteRequest(msgspec.Struct, frozen=True, array_like=True):
    """A conditional write on its way to the owner of its key."""

    stored_key: bytes
    key: bytes
    value: bytes | None
    condition: Condition


_write_requests = msgspec.msgpack.Decoder(WriteRequest)


class InternalRoutes:
    """The routes of the internal listener, and their handlers.

    limit tells the most bytes that a record of a writable table may have.
    """

    def __init__(
        self,
        tables: Mapping[str, RoutedTable],
        view: ClusterView,
        local: LocalTables,
        here: Answers,
        decisions: Decisions,
        limit: Callable[[str], int],
        worker_id: str,
        clock: Callable[[], float],
        callers: Callers,
    ) -> None:
        self._tables = tables
        self._view = view
        self._local = local
        self._here = here
        self._decisions = decisions
        self._limit = limit
        self._clock = clock
        self._worker_id = worker_id
        self._callers = callers
        self._agreement = Agreement(tables, view)
        self._row = reading("/internal/v1/tables/{table}/{partition}/{stored}", self.row, None)
        self._digest = reading("/internal/v1/tables/{table}/{partition}:digest", self.digest, None)
        self._write_check = reading("/internal/v1/tables/{table}/{partition}:write-check", self.write_check, None)
        self._batch = Route("/internal/v1/tables/{table}:batch-get", {"POST": Operation(self.batch, None)})
        self._write = Route("/internal/v1/tables/{table}/{partition}:write", {"POST": Operation(self.write, None)})
        self._status = reading(STATUS_PATH, self.status, None)
        self._challenge = reading(CHALLENGE_PATH, self.challenge, None)

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route of a raw path; raises RouteNotFound."""
        if raw_path.startswith(ROWS_PREFIX):
            parts = raw_path[len(ROWS_PREFIX) :].split("/")
            if len(parts) == 3:  # noqa: PLR2004 - table, partition, stored key
                table, partition, stored = (part.encode("utf-8", "surrogateescape") for part in parts)
                return self._row, {"table": table, "partition": partition, "stored": stored}
            if len(parts) == 2:  # noqa: PLR2004 - table, partition
                for suffix, route in (
                    (_DIGEST, self._digest),
                    (WRITE_CHECK, self._write_check),
                    (WRITE, self._write),
                ):
                    if parts[1].endswith(suffix):
                        table, partition = (part.encode("utf-8", "surrogateescape") for part in parts)
                        return route, {"table": table, "partition": partition.removesuffix(suffix.encode())}
            if len(parts) == 1 and parts[0].endswith(BATCH):
                return self._batch, {"table": parts[0].removesuffix(BATCH).encode("utf-8", "surrogateescape")}
        if raw_path == STATUS_PATH:
            return self._status, {}
        if raw_path == CHALLENGE_PATH:
            return self._challenge, {}
        raise RouteNotFound("no such route: this is the internal port, which is for other workers; ask the public one")

    async def row(self, call: Call) -> web.Response:
        """Read one key of an own task: 200 with the row, 204 when there is none and the asking worker takes that.

        What the caller asks of an answer is enforced here, whatever the asking worker made of it.
        A miss is a 204 and not a 404, so that another server on a reused address cannot be mistaken for one. It has a
        timestamp where there is a mark of when the key was deleted.
        """
        table, partition = self._agreed(call), _partition(call)
        consistency, terms = self._asked(call, table)
        question = Get(_stored_key(call.variables["stored"]))
        result = await self._answer(call, table, partition, question, consistency, terms)
        headers = freshness_headers(result.freshness, self._worker_id)
        headers[VERSION] = PROTOCOL_VERSION
        if result.row is None:
            if result.deleted_ms is not None:
                headers[ROW_TIMESTAMP_MS] = str(result.deleted_ms)
            return web.Response(status=204, headers=headers)
        headers[ROW_OFFSET] = str(result.row.offset)
        headers[ROW_TIMESTAMP_MS] = str(result.row.timestamp_ms)
        headers["Content-Type"] = "application/octet-stream"
        return web.Response(body=result.row.payload, headers=headers)

    async def batch(self, call: Call) -> web.Response:
        """Read keys of own tasks and return their outcomes, up to a bound in bytes; enforces what row() does."""
        table = self._agreed(call)
        consistency, terms = self._asked(call, table)
        try:
            wanted = decode_wanted(await call.body.read((CONTENT_TYPE,), _MAX_BATCH_BYTES))
        except (ValueError, RecursionError) as error:
            raise InvalidBody(f"what is wanted cannot be understood: {error}") from None
        answered = await self._here.answer_many(table.spec.name, wanted, consistency, terms)
        said = [
            part._replace(outcome=self._agreement.with_generations(part.outcome, call.headers.get(GENERATION)))
            if isinstance(part.outcome, NotOwner)
            else part
            for part in answered.result
        ]
        headers = {VERSION: PROTOCOL_VERSION, SERVED_BY: self._worker_id, "Content-Type": CONTENT_TYPE}
        return web.Response(body=encode_slices(said), headers=headers)

    async def write_check(self, call: Call) -> web.Response:
        """Answer 204 where what is written to an own partition is applied, and else with the reason."""
        table = self._agreed(call)
        self._local.answer(table.spec.name, _partition(call), Applied(), DEFAULT_CONSISTENCY)
        return web.Response(status=204, headers={VERSION: PROTOCOL_VERSION})

    async def write(self, call: Call) -> web.Response:
        """Write a row of an own partition if the one that is there meets a condition."""
        table, partition = self._agreed(call), _partition(call)
        if not table.spec.writable:
            raise NotOwner(f"this worker's definition of table {table.spec.name} does not let callers write")
        seconds = self._bounded(call, inf, _deadline_ms(call))
        limit = self._limit(table.spec.name) + _MAX_WRITE_OVERHEAD_BYTES
        try:
            wanted = _write_requests.decode(await call.body.read((CONTENT_TYPE,), limit))
        except (ValueError, RecursionError) as error:
            raise InvalidBody(f"the write cannot be understood: {error}") from None
        try:
            offset = await self._decisions.write(
                table,
                partition,
                wanted.stored_key,
                key=wanted.key,
                value=wanted.value,
                condition=wanted.condition,
                deadline=self._clock() + seconds,
            )
        except NotOwner as error:
            raise self._agreement.with_generations(error, call.headers.get(GENERATION)) from None
        headers = {VERSION: PROTOCOL_VERSION, SERVED_BY: self._worker_id, WRITTEN_OFFSET: str(offset)}
        return web.Response(status=204, headers=headers)

    async def digest(self, call: Call) -> web.Response:
        """Count and hash the rows of an own partition; needs no header, so that people can ask too."""
        table = table_named(self._tables, call.table).spec.name
        partition = _partition(call)
        found = await digest(self._local, table, partition)
        return json_answer(
            {
                "table": table,
                "partition": partition,
                "state": found.state,
                "rows": found.rows,
                "rows_hash": found.rows_hash,
                "position_before": found.position_before.in_json(partition),
                "position_after": found.position_after.in_json(partition),
                "served_by": self._worker_id,
            }
        )

    async def challenge(self, call: Call) -> web.Response:
        """Prove to an asking worker which one answers here, and tell it what its requests have to be proofs for."""
        nonce = call.headers.get(NONCE, "")
        if not _NONCE.fullmatch(nonce):
            raise InvalidParameter(f"{NONCE} has to be 32 hexadecimal digits")
        return web.Response(status=204, headers=self._callers.introduction(nonce))

    async def status(self, _call: Call) -> web.Response:
        """Say what this worker's tasks are doing."""
        await self._local.count_rows()
        report = StatusReport(self._worker_id, self._view.current.generation, list(self._local.statuses()))
        response = json_answer(report)
        response.headers[VERSION] = PROTOCOL_VERSION
        return response

    async def _answer(
        self,
        call: Call,
        table: RoutedTable,
        partition: int,
        question: Question[Result],
        consistency: Consistency,
        terms: Terms,
    ) -> Result:
        try:
            answered = await self._here.answer(table.spec.name, partition, question, consistency, terms)
        except NotOwner as error:
            raise self._agreement.with_generations(error, call.headers.get(GENERATION)) from None
        return answered.result

    def _asked(self, call: Call, table: RoutedTable) -> tuple[Consistency, Terms]:
        """Read what is asked of an answer, and on which terms; raises DeadlineExceeded and InvalidParameter."""
        deadline_ms = _deadline_ms(call)
        consistency, wait = asked({}, call.headers, table.spec)
        generation = call.headers.get(GENERATION, "")
        return consistency, Terms(
            wait=self._bounded(call, wait, deadline_ms),
            timeout=deadline_ms / 1000,
            table_digest=table.digest,
            partitions=_number(call.headers.get(PARTITIONS, ""), PARTITIONS),
            generation=int(generation) if _WHOLE.fullmatch(generation) else -1,
            request_id=call.request_id,
        )

    def _bounded(self, call: Call, wait: float | None, deadline_ms: int) -> float:
        """Return for how many seconds a position is waited for, whatever the asking worker says."""
        left = max(0.0, call.deadline - self._clock())
        return min(wait or 0.0, deadline_ms / 1000, left)

    def _agreed(self, call: Call) -> RoutedTable:
        """Check that this worker is meant, and both mean the same table by its name; raises NotOwner when not."""
        name = call.table
        meant, called = call.headers.get(WORKER), self._callers.called
        if meant != called:
            raise NotOwner(f"this is worker {called!r} (id and incarnation), and the asking one means {meant!r}")
        version = call.headers.get(VERSION)
        if version != PROTOCOL_VERSION:
            raise NotOwner(f"this worker speaks internal version {PROTOCOL_VERSION}, the asking one {version}")
        return self._agreement.table(
            name, call.headers.get(TABLE_DIGEST), _number(call.headers.get(PARTITIONS, ""), PARTITIONS)
        )


def _partition(call: Call) -> int:
    return _number(call.variables["partition"].decode("ascii", "replace"), "partition")


def _deadline_ms(call: Call) -> int:
    deadline_ms = _number(call.headers.get(DEADLINE_MS, ""), DEADLINE_MS)
    if deadline_ms <= 0:
        raise DeadlineExceeded("the asking worker's time had run out on arrival")
    return deadline_ms


def _number(text: str, name: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise InvalidParameter(f"{name} has to be a whole number of at most 15 digits, not {text[:40]!r}")
    return int(text)


def _stored_key(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise InvalidKey(f"the stored key is no base64url: {error}") from None
