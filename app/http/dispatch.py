"""From an aiohttp request to a handler of typed values, and from whatever the handler does to an answer.

This stands directly on aiohttp's low-level server. Its application, router and middlewares decode paths to
text, and cost a third of a point read.
"""

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog
from aiohttp import web
from multidict import CIMultiDictProxy

from app.errors import InternalError, MethodNotAllowed, Overloaded, RequestError
from app.http.answers import EVERY_ANSWER, Streamed
from app.http.bodies import Body
from app.http.freshness import SERVED_BY
from app.http.held import LARGE_BYTES, HeldBytes
from app.http.hosts import Hosts
from app.http.observations import Observations
from app.http.problems import problem
from app.http.proofs import Proven
from app.http.target import query_parameters

REQUEST_ID = "X-Request-Id"

#: The route label of requests whose path belongs to no route.
UNMATCHED = "unmatched"

# Request ids that are made here: random once a process and counted from there, which saves a system call a request.
_PROCESS = secrets.token_hex(4)
_numbers = itertools.count(1)

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request as handlers see it.

    variables are the path's, parameters the query's, both percent-decoded to bytes. deadline is a point on
    the dispatcher's clock.
    """

    variables: Mapping[str, bytes]
    parameters: Mapping[str, bytes]
    headers: CIMultiDictProxy[str]
    body: Body
    request_id: str
    deadline: float


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Operation(NamedTuple):
    """What one method of a route does, and the query parameters that it knows."""

    handler: Handler
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """A path template and its operations by method; whatever answers GET answers HEAD too."""

    template: str
    operations: Mapping[str, Operation]

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that is answered, GET and HEAD first."""
        return tuple(method for name in self.operations for method in (("GET", "HEAD") if name == "GET" else (name,)))

    def operation(self, method: str) -> Operation:
        """Return what a method does; raises MethodNotAllowed."""
        found = self.operations.get("GET" if method == "HEAD" else method)
        if found is None:
            raise MethodNotAllowed(
                f"{method} is not supported here, only {' and '.join(self.methods)}", allow=list(self.methods)
            )
        return found


def reading(template: str, handler: Handler, parameters: frozenset[str] = frozenset()) -> Route:
    """Make a route that can be read and nothing else."""
    return Route(template, {"GET": Operation(handler, parameters)})


class Routes(Protocol):
    """The routes of one listener."""

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route of a raw path and the path's variables; raises RouteNotFound, InvalidParameter."""


class Dispatcher:
    """Answers the requests of one listener.

    clock is monotonic, in seconds; timeout is the time that one request has; held bounds what large answers take;
    hosts are the names that are answered to, None for all. check_caller raises RequestError for a request that is not
    entitled to any answer, and may return how its answer is proven.
    """

    def __init__(
        self,
        routes: Routes,
        observations: Observations,
        clock: Callable[[], float],
        timeout: float,
        held: HeldBytes,
        hosts: Hosts | None = None,
        check_caller: Callable[[web.BaseRequest], Proven | None] | None = None,
    ) -> None:
        self._routes = routes
        self._observations = observations
        self._clock = clock
        self._timeout = timeout
        self._held = held
        self._hosts = hosts
        self._check_caller = check_caller
        self._log = structlog.get_logger("http")
        self._closing = False
        self.idle = asyncio.Event()
        self.in_flight = 0

    def close(self) -> None:
        """Make every answer from here on close its connection; `idle` is set once nothing is in flight."""
        self._closing = True
        if not self.in_flight:
            self.idle.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises for what a client or a handler does."""
        started = self._clock()
        request_id = _request_id(request.headers.get(REQUEST_ID))
        self.in_flight += 1
        proven: Proven | None = None
        response: web.StreamResponse
        try:
            try:
                if self._check_caller is not None:
                    proven = self._check_caller(request)
            except RequestError as error:
                response, template, key = problem(error), UNMATCHED, None
            else:
                response, template, key = await self._answer(request, request_id, started + self._timeout, proven)
            response = await self._bounded(response)
            headers = response.headers
            headers[REQUEST_ID] = request_id
            for name, value in EVERY_ANSWER.items():
                headers[name] = value
            if proven is not None and isinstance(response, web.Response):
                proven.seal(response)
            if self._closing:
                response.force_close()
            if isinstance(response, Streamed):
                await response.send(request)
        finally:
            self.in_flight -= 1
            if self._closing and not self.in_flight:
                self.idle.set()
        self._observations.answered(
            method=request.method if request.method in _KNOWN_METHODS else "other",
            route=template,
            status=response.status,
            seconds=self._clock() - started,
            request_id=request_id,
            key=key,
            served_by=response.headers.get(SERVED_BY),
        )
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
    ) -> tuple[web.StreamResponse, str, bytes | None]:
        """Return the answer, the route's template, and the key that was asked for."""
        template = UNMATCHED
        key: bytes | None = None
        try:
            if self._hosts is not None:
                self._hosts.check(request.headers)
            url = request.rel_url
            route, variables = self._routes.resolve(url.raw_path)
            template = route.template
            operation = route.operation(request.method)
            parameters = query_parameters(url.raw_query_string, operation.parameters)
            key = variables.get("key", parameters.get("key"))
            body = Body(request, lambda: deadline - self._clock(), None if proven is None else proven.body_digest)
            call = Call(variables, parameters, request.headers, body, request_id, deadline)
            return await operation.handler(call), template, key
        except RequestError as error:
            return problem(error), template, key
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the rest
            self._log.exception("request failed", route=template, request_id=request_id)
            fault = InternalError(f"a fault of ours; the log has it under the request id {request_id}")
            return problem(fault), template, key


def _request_id(given: str | None) -> str:
    """Take over a caller's request id when it is fit for a log line, else make one."""
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()


def new_request_id() -> str:
    """Make an id that no other request of any worker has."""
    return f"{_PROCESS}{next(_numbers):08x}"
