"""Schemas from a registry: fetched once, kept permanently, and waited for while no registry answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import ConfigError
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schema, SchemaName, SchemaNeeded
from tablehouse.registry.answers import NoRegistry, Refusal, Unavailable, Unusable
from tablehouse.registry.lookup import Lookup
from tablehouse.registry.saved import Latest, Saved, Saving
from tablehouse.registry.transport import Access, Transport
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

#: Seconds between attempts: random up to the first limit, which doubles with each attempt up to the maximum.
FIRST_PAUSE = 0.25
MAX_PAUSE = 5.0

#: Seconds between requests to a registry that does not know a schema, until the schema counts as missing: a registry
#: that replicates another gets new schemas later.
DENIED_PAUSE = 1.0

#: Seconds for which a schema then counts as missing. It may be registered in the meantime.
UNKNOWN_SECONDS = 60.0

#: Maximum seconds that the start of a worker waits for a registry that accepts connections but does not answer.
START_TIMEOUT_SECONDS = 5.0

#: Registries use signed 32-bit integers, and do not report greater ids as unknown.
MAX_ID = 2**31 - 1

_T = TypeVar("_T")


class SchemaRegistry:
    """Implements Schemas.

    A schema counts as missing once the registry has not known it for `unknown_after` seconds.
    """

    def __init__(
        self,
        access: Access,
        saved: Saving,
        metrics: Metrics,
        unknown_after: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = access.urls
        self._transport = Transport(access, metrics.schema_registry_requests)
        self._lookup = Lookup(self._transport)
        self._saved = saved
        self._cached = metrics.schemas_cached
        self._unknown_after = unknown_after
        self._sleep = sleep
        self._clock = clock
        self._schemas: dict[SchemaName, Schema] = {}
        #: The order in which schemas were fetched, counted from 0.
        self._places: dict[SchemaName, int] = {}
        self._latest: dict[str, Latest] = {}
        #: Until when some ids and subjects count as unusable, and why.
        self._refused: dict[SchemaName | str, tuple[float, str]] = {}
        #: The registry's messages about unknown ids and subjects that are still being requested.
        self._denied: dict[SchemaName | str, str] = {}
        self._fetching: dict[SchemaName | str, asyncio.Task[None]] = {}
        self._probing: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the registry; None if it answered the last request."""
        return self._transport.trouble

    # Life cycle

    async def start(self) -> None:
        """Load the saved schemas, and check that the URLs lead to a registry.

        Raises ConfigError if another kind of server answers. If none answers, the worker waits once it needs a schema.
        """
        saved = await asyncio.to_thread(self._saved.load)
        for schema in saved.schemas:
            self._remember(schema)
        self._latest.update(saved.latest)
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._probe()
        except NoRegistry as error:
            # If schemas were fetched from these URLs, there is a registry, and its proxy has answered.
            if not self._schemas:
                raise ConfigError(
                    f"schema_registry: {error}. Give the URL below which /subjects is, like http://registry:8081 or "
                    "http://apicurio:8080/apis/ccompat/v7"
                ) from error
        except TimeoutError:
            self._transport.trouble = f"{', '.join(self._urls)}: no answer in time"
        except Unavailable:
            pass
        if self.trouble is not None:
            # The reported state of the registry has to be right even if no schema is needed.
            self._probing = asyncio.get_running_loop().create_task(self._retry(self._probe), name="probe registry")

    async def _probe(self) -> None:
        with suppress(Refusal):
            await self._transport.get("/subjects?limit=1", list[str])

    def require(self, catalog: Catalog) -> None:
        """Do nothing: tables that need a registry have this one."""

    async def stop(self) -> None:
        """Cancel all requests and close the connections."""
        pending = [*self._fetching.values(), *([] if self._probing is None else [self._probing])]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        await self._transport.close()

    # Schemas

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        schema = self._schemas.get(schema_id)
        if schema is not None:
            return schema
        if isinstance(schema_id, int) and schema_id > MAX_ID:
            raise DecodeError(f"{schema_id} is not a schema id: the highest is {MAX_ID}")
        self._raise_if_refused(schema_id)
        raise SchemaNeeded(schema_id)

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        latest = self._latest.get(subject)
        if latest is not None and (writer == latest.id or self._places.get(writer, -1) < latest.after):
            return self._schemas[latest.id]
        self._raise_if_refused(subject)
        raise SchemaNeeded(subject)

    async def fetch(self, needed: SchemaName | str) -> None:
        """See Schemas."""
        fetching = self._fetching.get(needed)
        if fetching is None:
            # One request for all partitions that wait for it; it continues if the first of them moves away.
            work: Coroutine[Any, Any, None] = self._fetch(needed)
            fetching = asyncio.get_running_loop().create_task(work, name=f"fetch {_name(needed)}")
            self._fetching[needed] = fetching
            fetching.add_done_callback(lambda _: self._fetching.pop(needed, None))
        await asyncio.shield(fetching)

    async def fetch_subject(self, subject: str) -> Sequence[SchemaName]:
        """See Schemas."""
        try:
            versions = await self._retry(partial(self._lookup.versions, subject))
        except Refusal:
            return ()
        ids: list[SchemaName] = []
        for version in versions:
            try:
                schema = await self._retry(partial(self._lookup.version, subject, version))
            except Refusal as error:
                log.warning("schema refused", schema=f"{subject}, version {version}", reason=str(error))
            else:
                ids.append(schema.id)
                await self._keep(schema)
        return tuple(ids)

    def describe(self, needed: SchemaName | str) -> str:
        """See Schemas."""
        words = f"{_name(needed)} of the registry {self.trouble or ', '.join(self._urls)}"
        if self.trouble is None and needed in self._denied:
            words += f", which does not know it so far ({self._denied[needed]})"
        return words

    def _raise_if_refused(self, needed: SchemaName | str) -> None:
        until, reason = self._refused.get(needed, (-1.0, ""))
        if self._clock() < until:
            raise DecodeError(f"{_name(needed)} is not available from the schema registry: {reason}")

    # Fetching

    async def _fetch(self, needed: SchemaName | str) -> None:
        after = len(self._schemas)
        look_up: Callable[[], Awaitable[Schema]]
        match needed:
            case str():
                look_up = partial(self._lookup.latest, needed)
            case int():
                look_up = partial(self._lookup.by_id, needed)
            case _:
                look_up = partial(self._lookup.by_guid, needed)
        try:
            schema = await self._find(needed, look_up)
        except Refusal as error:
            now = self._clock()
            self._refused = {known: told for known, told in self._refused.items() if now < told[0]}
            self._refused[needed] = now + UNKNOWN_SECONDS, str(error)
            log.warning("schema refused", schema=str(needed), reason=str(error))
        else:
            self._refused.pop(needed, None)
            await self._keep(schema, (needed, Latest(schema.id, after)) if isinstance(needed, str) else None)

    async def _retry(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat an attempt until the registry answers. Raises Refusal."""
        return await AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=MAX_PAUSE),
            sleep=self._sleep,
        )(attempt)

    async def _find(self, needed: SchemaName | str, look_up: Callable[[], Awaitable[Schema]]) -> Schema:
        """Look a schema up until it is found; raise Refusal once it counts as missing."""
        denied_at: float | None = None

        async def attempt() -> Schema:
            nonlocal denied_at
            try:
                return await look_up()
            except Unavailable:
                # When the registry is available again, its copy of another registry may be older.
                denied_at = None
                raise

        try:
            while True:
                try:
                    return await self._retry(attempt)
                except Unusable:
                    raise
                except Refusal as error:
                    now = self._clock()
                    denied_at = now if denied_at is None else denied_at
                    if now >= denied_at + self._unknown_after:
                        raise
                    self._denied[needed] = str(error)
                await self._sleep(DENIED_PAUSE)
        finally:
            self._denied.pop(needed, None)

    def _remember(self, schema: Schema) -> None:
        self._places.setdefault(schema.id, len(self._places))
        self._schemas[schema.id] = schema
        self._cached.set(len(self._schemas))

    async def _keep(self, schema: Schema, latest: tuple[str, Latest] | None = None) -> None:
        """Keep a schema, and the subject whose latest version it is, and save both.

        If the worker crashes before the schema is saved, or the disk fails, it is fetched again after the restart.
        """
        if schema.id in self._schemas and latest is None:
            return
        self._remember(schema)
        if latest is not None:
            self._latest[latest[0]] = latest[1]
        log.info("schema fetched", schema=str(schema.id), type=schema.kind)
        async with self._saving:
            try:
                await asyncio.to_thread(self._saved.save, Saved(list(self._schemas.values()), dict(self._latest)))
            except OSError as error:
                log.warning("schemas cannot be saved", error=str(error))


def _name(needed: SchemaName | str) -> str:
    return f"the latest schema of subject {needed}" if isinstance(needed, str) else f"schema {needed}"
