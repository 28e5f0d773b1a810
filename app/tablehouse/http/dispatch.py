"""From an aiohttp request to a handler of typed values, and from whatever the handler does to an answer.

This stands directly on aiohttp's low-level server. Its application, router and middlewares decode paths to
text, and cost a third of a point read.
"""

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog
from aiohttp import web
from multidict import CIMultiDictProxy

from tablehouse.access.policy import OPEN, Policy, Right
from tablehouse.errors import InternalError, MethodNotAllowed, NotWritable, Overloaded, RequestError
from tablehouse.http.answers import Streamed
from tablehouse.http.bodies import Body
from tablehouse.http.content_coding import takes_gzip
from tablehouse.http.cors import NO_ORIGINS, Cors
from tablehouse.http.freshness import SERVED_BY
from tablehouse.http.held import LARGE_BYTES, HeldBytes
from tablehouse.http.hosts import Hosts
from tablehouse.http.observations import Observations
from tablehouse.http.problems import problem
from tablehouse.http.proofs import Proven
from tablehouse.http.shapes import compressed, indented
from tablehouse.http.target import flag, query_parameters
from tablehouse.model import ANONYMOUS, Principal
from tablehouse.turns import Turns

REQUEST_ID = "X-Request-Id"

#: The route label of requests whose path belongs to no route.
UNMATCHED = "unmatched"

# Request ids that are made here: random once a process and counted from there, which saves a system call a request.
_PROCESS = secrets.token_hex(4)
_numbers = itertools.count(1)

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: The query parameter of operations whose JSON can be indented.
PRETTY = "pretty"


@dataclass(frozen=True, slots=True)
class Call:
    """One request as handlers see it.

    table is the one that the path names, empty where it names none. key is the one in the path or in the query, None
    without one. principal is the caller. variables are the path's, parameters the query's, both percent-decoded to
    bytes. deadline is a point on the dispatcher's clock.
    """

    table: str
    key: bytes | None
    principal: Principal
    variables: Mapping[str, bytes]
    parameters: Mapping[str, bytes]
    headers: CIMultiDictProxy[str]
    body: Body
    request_id: str
    deadline: float


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Operation(NamedTuple):
    """What one method of a route does, the right that it takes, and the query parameters that it knows.

    right is None where no caller needs one. An operation that streams answers for as long as its client stays: a drain
    does not wait for it, and its latency is the time until its answer begins.
    """

    handler: Handler
    right: Right | None
    parameters: frozenset[str] = frozenset()
    streams: bool = False


def _no_methods(_table: str) -> AbstractSet[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """A path template and its operations by method; whatever answers GET answers HEAD too.

    lacks tells which of the methods the resource of a table does not have.
    """

    template: str
    operations: Mapping[str, Operation]
    lacks: Callable[[str], AbstractSet[str]] = _no_methods

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that has an operation, GET and HEAD first."""
        return tuple(method for name in self.operations for method in (("GET", "HEAD") if name == "GET" else (name,)))

    def allow(self, table: str) -> list[str]:
        """Return every method that the resource of a table answers; table is empty where the path names none."""
        lacking = self.lacks(table)
        return [method for method in (*self.methods, "OPTIONS") if method not in lacking]

    def operation(self, method: str, table: str) -> Operation:
        """Return what a method does; raises MethodNotAllowed, which says what the resource has instead."""
        found = self.operations.get("GET" if method == "HEAD" else method)
        if found is None:
            allow = self.allow(table)
            raise MethodNotAllowed(f"{method} is not supported here, only {', '.join(allow)}", allow=allow)
        return found


def reading(template: str, handler: Handler, right: Right | None, parameters: frozenset[str] = frozenset()) -> Route:
    """Make a route that can be read and nothing else."""
    return Route(template, {"GET": Operation(handler, right, parameters)})


class Routes(Protocol):
    """The routes of one listener."""

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route of a raw path and the path's variables; raises RouteNotFound, InvalidParameter."""


class _Answered(NamedTuple):
    """An answer, the template of the route that gave it, and the key that was asked for.

    is_indented says whether its JSON is to be, streams whether it is given for as long as the client stays.
    """

    response: web.StreamResponse
    template: str = UNMATCHED
    key: bytes | None = None
    is_indented: bool = False
    streams: bool = False


class Dispatcher:
    """Answers the requests of one listener.

    clock is monotonic, in seconds; timeout is the time that one request has; held bounds what large answers take;
    hosts are the names that are answered to, None for all. policy says what each caller may do. turns are those of
    everything long on the event loop, None for a listener that compresses nothing. check_caller raises RequestError for
    a request that is not entitled to any answer, and may return how its answer is proven.
    """

    def __init__(
        self,
        routes: Routes,
        observations: Observations,
        clock: Callable[[], float],
        timeout: float,
        held: HeldBytes,
        hosts: Hosts | None = None,
        *,
        policy: Policy = OPEN,
        cors: Cors = NO_ORIGINS,
        turns: Turns | None = None,
        check_caller: Callable[[web.BaseRequest], Proven | None] | None = None,
    ) -> None:
        self._routes = routes
        self._observations = observations
        self._clock = clock
        self._timeout = timeout
        self._held = held
        self._hosts = hosts
        self._policy = policy
        self._cors = cors
        self._turns = turns
        self._check_caller = check_caller
        self._log = structlog.get_logger("http")
        self._closing = False
        #: Set once it is closed and nothing is in flight. Streams are not counted.
        self.idle = asyncio.Event()
        self.in_flight = 0

    def close(self) -> None:
        """Make every answer from here on close its connection; `idle` is set once nothing is in flight."""
        self._closing = True
        if not self.in_flight:
            self.idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises for what a client or a handler does."""
        started = self._began_at(request)
        request_id = _request_id(request.headers.get(REQUEST_ID))
        self.in_flight += 1
        is_counted = True
        proven: Proven | None = None
        try:
            try:
                if self._check_caller is not None:
                    proven = self._check_caller(request)
            except RequestError as error:
                answered = _Answered(problem(error))
            else:
                answered = await self._answer(request, request_id, started + self._timeout, proven)
            response = await self._bounded(self._shaped(request, answered))
            headers = response.headers
            headers[REQUEST_ID] = request_id
            for name, value in self._cors.every_answer.items():
                headers[name] = value
            headers.update(self._cors.to_origin(request.headers.get("Origin")))
            if proven is not None and isinstance(response, web.Response):
                proven.seal(response)
            if self._closing:
                response.force_close()
            began = self._clock()
            if answered.streams:
                self._done()
                is_counted = False
            if isinstance(response, Streamed):
                await response.send(request)
        finally:
            if is_counted:
                self._done()
        self._observations.answered(
            method=request.method if request.method in _KNOWN_METHODS else "other",
            route=answered.template,
            status=response.status,
            seconds=(began if answered.streams else self._clock()) - started,
            request_id=request_id,
            key=answered.key,
            served_by=response.headers.get(SERVED_BY),
        )
        return response

    def _began_at(self, request: web.BaseRequest) -> float:
        """Return when a request began: before now where another worker was asked for its answer in vain."""
        protocol = request.protocol
        began_at: float | None = getattr(protocol, "began_at", None)
        if began_at is None:
            return self._clock()
        protocol.began_at = None  # type: ignore[attr-defined] # protocol.py's
        return began_at

    def _done(self) -> None:
        self.in_flight -= 1
        if self._closing and not self.in_flight:
            self.idle.set()

    def _shaped(self, request: web.BaseRequest, answered: _Answered) -> web.StreamResponse:
        """Return the answer indented and compressed as its client asks for."""
        response = answered.response
        if self._turns is None:
            return response
        if answered.is_indented:
            response = indented(response, self._turns)
        accepted = request.headers.getall("Accept-Encoding", ())
        if accepted and takes_gzip(",".join(accepted)):
            response = compressed(response, self._turns)
        return response

    async def _bounded(self, response: web.StreamResponse) -> web.StreamResponse:
        """Return the answer, or a 503 where clients leave no memory for one that large."""
        if self._has_room(response):
            return response
        if isinstance(response, Streamed):
            await response.give_up()
        return problem(Overloaded("answers that clients have not taken yet take all the memory there is"))

    def _has_room(self, response: web.StreamResponse) -> bool:
        if isinstance(response, Streamed):
            size = response.begun_bytes
        else:
            body = response.body if isinstance(response, web.Response) else None
            size = len(body) if type(body) is bytes else 0
        return size <= LARGE_BYTES or self._held.has_room(size)

    async def _answer(
        self, request: web.BaseRequest, request_id: str, deadline: float, proven: Proven | None
    ) -> _Answered:
        template, table, key, is_indented = UNMATCHED, "", None, False
        try:
            if self._hosts is not None:
                self._hosts.check(request.headers)
            url = request.rel_url
            route, variables = self._routes.resolve(url.raw_path)
            template = route.template
            table = variables.get("table", b"").decode("utf-8", "replace")
            if request.method == "OPTIONS":
                return _Answered(self._options(request, route.allow(table)), template)
            operation = route.operation(request.method, table)
            principal = self._authorised(request, operation.right, table)
            parameters = query_parameters(url.raw_query_string, operation.parameters)
            is_indented = flag(parameters, PRETTY)
            key = variables.get("key", parameters.get("key"))
            body = Body(request, lambda: deadline - self._clock(), None if proven is None else proven.body_digest)
            call = Call(table, key, principal, variables, parameters, request.headers, body, request_id, deadline)
            return _Answered(await operation.handler(call), template, key, is_indented, operation.streams)
        except NotWritable as error:
            lacking = NotWritable(error.detail, **{**error.details, "allow": route.allow(table)})
            return _Answered(problem(lacking), template, key, is_indented)
        except RequestError as error:
            return _Answered(problem(error), template, key, is_indented)
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the rest
            self._log.exception("request failed", route=template, request_id=request_id)
            fault = InternalError(f"a fault of ours; the log has it under the request id {request_id}")
            return _Answered(problem(fault), template, key, is_indented)

    def _authorised(self, request: web.BaseRequest, right: Right | None, table: str) -> Principal:
        """Return the caller; raises RequestError for one that lacks the right."""
        if right is None:
            return ANONYMOUS
        principal = self._policy.identify(request.headers.get("Authorization"))
        self._policy.require(principal, right, table)
        return principal

    def _options(self, request: web.BaseRequest, allow: Sequence[str]) -> web.Response:
        """Answer which methods there are, and a browser which of them a page of another origin may use."""
        headers = {"Allow": ", ".join(allow), **self._cors.preflight(request.headers, allow)}
        return web.Response(status=204, headers=headers)


def _request_id(given: str | None) -> str:
    """Take over a caller's request id when it is fit for a log line, else make one."""
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()


def new_request_id() -> str:
    """Make an id that no other request of any worker has."""
    return f"{_PROCESS}{next(_numbers):08x}"
