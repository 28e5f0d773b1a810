"""Real HTTP servers on loopback over tables held in dictionaries, and requests whose bytes nobody rewrites."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic import SecretStr

from tablehouse.access.policy import OPEN, Policy
from tablehouse.catalog.spec import Catalog, TableSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.row_form import RowForm, row_form
from tablehouse.formats.values import value_format
from tablehouse.formats.variants import Known
from tablehouse.http.public import PublicRoutes
from tablehouse.http.server import HttpServer
from tablehouse.routing.cluster import ClusterView
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tablehouse.worker.http_side import ServerOptions, http_server
from tests.support.cluster_fakes import CATALOG, FakeOwner, FakeSource, FakeTables, Placed, snapshot
from tests.support.schemas import NO_REGISTRY

_DEADLINE = 120.0  # seconds, for each part of an answer


@dataclass
class FakeHealth:
    """What a test says of the worker."""

    is_joined: bool = True
    reachable: bool = True
    is_draining: bool = False
    why: list[str] = field(default_factory=list)

    def joined(self) -> bool:
        """Return what the test said."""
        return self.is_joined

    def broker_reachable(self) -> bool:
        """Return what the test said."""
        return self.reachable

    def draining(self) -> bool:
        """Return what the test said."""
        return self.is_draining

    def generation(self) -> int:
        """Return a generation."""
        return 7

    def reasons(self) -> Sequence[str]:
        """Return what the test said."""
        return self.why


@dataclass
class Reply:
    """One parsed answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


async def send(url: str, request: bytes) -> Reply:
    """Send these bytes on a connection of their own and read the answer to its end."""
    async with connected(url) as (reader, writer):
        writer.write(request)
        return await read_reply(reader, to_head=request.startswith(b"HEAD "))


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_reply(reader: asyncio.StreamReader, *, to_head: bool = False) -> Reply:
    """Read one answer, and not a byte more."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _DEADLINE)
    status_line, *lines = head.decode("latin1").rstrip("\r\n").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    status = int(status_line.split(" ")[1])
    bodiless = to_head or status in {204, 304}
    if headers.get("transfer-encoding") == "chunked" and not bodiless:
        return Reply(status, headers, await asyncio.wait_for(_chunks(reader), _DEADLINE))
    length = 0 if bodiless else int(headers.get("content-length", "0"))
    return Reply(status, headers, await asyncio.wait_for(reader.readexactly(length), _DEADLINE))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return bytes(body)


async def ask(url: str, target: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
    """Send a request with exactly this target."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: test",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return await send(url, "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))


@dataclass
class Worker:
    """One worker's HTTP server and what stands behind it."""

    name: str
    server: HttpServer
    local: FakeTables
    source: FakeSource
    owner: FakeOwner
    view: ClusterView
    health: FakeHealth
    metrics: Metrics
    turns: Turns
    catalog: CatalogView

    @property
    def url(self) -> str:
        """The public URL."""
        return self.server.bound.public_url

    @property
    def internal(self) -> str:
        """The internal URL."""
        return self.server.bound.internal_url

    async def get(self, target: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """Ask the public listener."""
        return await ask(self.url, target, headers, method)


def form_of(table: TableSpec, known: Known) -> RowForm:
    """Return how expressions read the rows of a table."""
    return row_form(source_keys(table.source, known), table.source.key, value_format(table, known.schemas).content_type)


def public_routes() -> PublicRoutes:
    """Return the routes of the public listener, without handlers."""
    nothing: Any = type("Nothing", (), {"__getattr__": lambda _self, _name: None})()
    return PublicRoutes(nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing)


async def start_worker(
    name: str,
    catalog: Catalog = CATALOG,
    timeout: float = 5.0,  # noqa: ASYNC109
    secrets: Sequence[str] = (),
    probe_port: int | None = None,
    connections: int = 1_000,
    held: int = 16 << 20,
    known: Known = NO_REGISTRY,
    cors_origins: Sequence[str] = (),
    policy: Policy = OPEN,
    internal_port: int = 0,
) -> Worker:
    """Start one worker, on free ports unless one is given; the caller stops its server."""
    tables, view, local, health, metrics = (
        CatalogView(catalog),
        ClusterView(),
        FakeTables(forms={table.name: form_of(table, known) for table in catalog.tables.values()}),
        FakeHealth(),
        Metrics("1.2.3"),
    )
    source, turns = FakeSource(), Turns()
    owner = FakeOwner(local, source)
    options = ServerOptions(
        host="127.0.0.1",
        port=0,
        internal_port=internal_port,
        probe_port=probe_port,
        advertised_url=None,
        request_timeout=timeout,
        version="1.2.3",
        group="g",
        internal_secrets=[SecretStr(secret) for secret in secrets],
        connections=connections,
        held_bytes=held,
        cors_origins=cors_origins,
    )
    server = http_server(
        options,
        worker_id=name,
        incarnation=1,
        catalog=tables,
        view=view,
        local=local,
        source=source,
        owner=owner,
        health=health,
        metrics=metrics,
        turns=turns,
        known=known,
        policy=policy,
    )
    await server.start()
    return Worker(name, server, local, source, owner, view, health, metrics, turns, tables)


def share(
    workers: Sequence[Worker],
    actives: Mapping[str, Sequence[int]],
    generation: int = 7,
    standbys: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Give each worker, by name, these partitions of every topic, and tell all of them."""
    follow = standbys or {}

    def of_every_topic(partitions: Sequence[int]) -> dict[str, Sequence[int]]:
        return {f"{table}-topic": list(partitions) for table in CATALOG.tables}

    members = [
        Placed(
            worker.name,
            worker.internal,
            of_every_topic(actives.get(worker.name, ())),
            of_every_topic(follow.get(worker.name, ())),
        )
        for worker in workers
    ]
    for worker in workers:
        worker.local.held = {*actives.get(worker.name, ()), *follow.get(worker.name, ())}
        worker.view.swap(snapshot(*members, generation=generation))


@contextlib.asynccontextmanager
async def two_workers(timeout: float = 5.0) -> AsyncIterator[tuple[Worker, Worker]]:  # noqa: ASYNC109
    """Run workers `a`, with partitions 0 and 1, and `b`, with 2 and 3."""
    workers = [await start_worker(name, timeout=timeout) for name in "ab"]
    share(workers, {"a": [0, 1], "b": [2, 3]})
    try:
        yield workers[0], workers[1]
    finally:
        for worker in workers:
            await worker.server.stop(1.0)


@contextlib.asynccontextmanager
async def one_worker(timeout: float = 5.0, probe_port: int | None = None) -> AsyncIterator[Worker]:  # noqa: ASYNC109
    """Run one worker that holds everything."""
    worker = await start_worker("a", timeout=timeout, probe_port=probe_port)
    share([worker], {"a": range(4)})
    try:
        yield worker
    finally:
        await worker.server.stop(1.0)
