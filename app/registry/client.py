"""Schemas by id from a registry: fetched once, kept for ever, and waited for while no registry answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, cast, get_args
from urllib.parse import quote

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from app.errors import ConfigError
from app.formats.errors import DecodeError
from app.formats.schemas import Reference, Schema, SchemaKind, SchemaNeeded
from app.registry.answers import NoRegistry, Refusal, Registered, Unavailable, Use
from app.registry.saved import SavedSchemas
from app.registry.transport import Access, Transport
from app.telemetry import Metrics

log = structlog.get_logger(__name__)

#: Pauses between attempts, in seconds: at random up to the first, the double of it, and so on up to the longest.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0

#: A registry that follows another hears of a new schema a little later, so one that says that there is none is asked
#: again after so many seconds before it is believed.
DOUBT = 1.0

#: For so many seconds it is then believed. Somebody may register the schema meanwhile.
UNKNOWN_FOR = 60.0

#: Seconds that the start of a worker waits for the registry at most, should it be there and not answer.
START_PATIENCE = 5.0

#: What one schema may use, and how deep; more is taken for a mistake.
MOST_REFERENCES = 500
DEEPEST_REFERENCE = 50

#: Registries count in 32 bits with a sign, so of a greater id they do not even say that there is none.
HIGHEST_ID = 2**31 - 1

_T = TypeVar("_T")


class SchemaRegistry:
    """Implements Schemas."""

    def __init__(
        self,
        access: Access,
        saved: SavedSchemas,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = access.urls
        self._transport = Transport(access, metrics.schema_registry_requests)
        self._saved = saved
        self._cached = metrics.schemas_cached
        self._sleep = sleep
        self._clock = clock
        self._schemas: dict[int, Schema] = {}
        self._versions: dict[tuple[str, int], Schema] = {}
        #: Why some ids cannot be used, and until when that is believed.
        self._refused: dict[int, tuple[float, str]] = {}
        self._fetching: dict[int, asyncio.Task[None]] = {}
        self._saving = asyncio.Lock()
        #: What is wrong with the registry; None when it has answered last time.
        self.trouble: str | None = None

    # Life cycle

    async def start(self) -> None:
        """Load what was saved, and look whether the URLs lead to a registry.

        Raises ConfigError when something else answers there; one that does not answer is waited for when it is needed.
        """
        for schema in await asyncio.to_thread(self._saved.load):
            self._schemas[schema.id] = schema
        self._cached.set(len(self._schemas))
        try:
            async with asyncio.timeout(START_PATIENCE):
                await self._ask("/subjects?limit=1", list[str])
        except TimeoutError:
            self.trouble = f"{', '.join(self._urls)}: no answer in time"
        except NoRegistry as error:
            # With schemas that came from there, it is a registry whose proxy answers in its place.
            if not self._schemas:
                raise ConfigError(
                    f"schema_registry: {error}. Give the URL below which /subjects is, like http://registry:8081 or "
                    "http://apicurio:8080/apis/ccompat/v7"
                ) from error
        except (Unavailable, Refusal):
            pass

    async def stop(self) -> None:
        """End what is under way."""
        fetching = list(self._fetching.values())
        for task in fetching:
            task.cancel()
        if fetching:
            await asyncio.wait(fetching)
        await self._transport.close()

    # Schemas

    def known(self, schema_id: int) -> Schema:
        """See Schemas."""
        schema = self._schemas.get(schema_id)
        if schema is not None:
            return schema
        if schema_id > HIGHEST_ID:
            raise DecodeError(f"{schema_id} is no id of a schema: they go up to {HIGHEST_ID}")
        until, reason = self._refused.get(schema_id, (-1.0, ""))
        if self._clock() < until:
            raise DecodeError(f"schema {schema_id} cannot be had from the schema registry: {reason}")
        raise SchemaNeeded(schema_id)

    async def fetch(self, schema_id: int) -> None:
        """See Schemas."""
        fetching = self._fetching.get(schema_id)
        if fetching is None:
            # One for all partitions that wait for it, and it goes on when the first of them moves away.
            work: Coroutine[Any, Any, None] = self._fetch(schema_id)
            fetching = asyncio.get_running_loop().create_task(work, name=f"fetch schema {schema_id}")
            self._fetching[schema_id] = fetching
            fetching.add_done_callback(lambda _: self._fetching.pop(schema_id, None))
        await asyncio.shield(fetching)

    async def fetch_subject(self, subject: str) -> Sequence[int]:
        """See Schemas."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        try:
            versions = await self._patiently(partial(self._ask, path, list[int]))
        except Refusal:
            return ()
        ids = []
        for version in sorted(versions):
            try:
                schema = await self._patiently(partial(self._version, subject, version, set(), 0))
            except Refusal as error:
                log.warning(
                    "a version of a subject cannot be used", subject=subject, version=version, reason=str(error)
                )
                continue
            ids.append(schema.id)
            if schema.id not in self._schemas:
                await self._keep(schema)
        return tuple(ids)

    def describe(self, schema_id: int) -> str:
        """See Schemas."""
        return f"schema {schema_id} of the registry {self.trouble or ', '.join(self._urls)}"

    async def _fetch(self, schema_id: int) -> None:
        try:
            schema = await self._patiently(partial(self._by_id, schema_id))
        except Refusal as error:
            now = self._clock()
            self._refused = {known: told for known, told in self._refused.items() if now < told[0]}
            self._refused[schema_id] = now + UNKNOWN_FOR, str(error)
            log.warning("schema refused", schema=schema_id, reason=str(error))
        else:
            await self._keep(schema)

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try until the registry has answered. Raises Refusal."""
        return await AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            sleep=self._sleep,
        )(attempt)

    async def _ask(self, path: str, kind: Any) -> Any:
        try:
            answer = await self._transport.get(path, kind)
        except Unavailable as error:
            self.trouble = str(error)
            raise
        except Refusal:
            self.trouble = None
            raise
        self.trouble = None
        return answer

    async def _by_id(self, schema_id: int) -> Schema:
        path = f"/schemas/ids/{schema_id}"
        try:
            found = await self._ask(path, Registered)
        except Refusal:
            await self._sleep(DOUBT)
            found = await self._ask(path, Registered)
        return await self._whole(schema_id, found, set(), 0)

    async def _version(self, subject: str, version: int, used: set[tuple[str, int]], depth: int) -> Schema:
        """Return a version of a subject, which never changes; `used` are those that the same schema uses already."""
        known = self._versions.get((subject, version))
        if known is not None:
            return known
        path = f"/subjects/{quote(subject, safe='')}/versions/{version}"
        found = await self._ask(path, Registered)
        schema = self._versions[subject, version] = await self._whole(found.id, found, used, depth)
        return schema

    async def _whole(self, schema_id: int, found: Registered, used: set[tuple[str, int]], depth: int) -> Schema:
        kind, uses = found.schema_type or "AVRO", found.references or ()
        if kind not in get_args(SchemaKind):
            raise Refusal(f"it is of type {kind}, and only {', '.join(get_args(SchemaKind))} can be read")
        used.update((use.subject, use.version) for use in uses)
        if len(used) > MOST_REFERENCES or (depth > DEEPEST_REFERENCE and uses):
            raise Refusal(f"it uses more than {MOST_REFERENCES} others, or they are nested too deeply")
        references = [await self._reference(use, used, depth + 1) for use in uses]
        return Schema(schema_id, cast("SchemaKind", kind), found.schema, tuple(references))

    async def _reference(self, use: Use, used: set[tuple[str, int]], depth: int) -> Reference:
        try:
            schema = await self._version(use.subject, use.version, used, depth)
        except Refusal as error:
            raise Refusal(f"it uses version {use.version} of subject {use.subject}: {error}") from error
        return Reference(use.name, use.subject, use.version, schema)

    async def _keep(self, schema: Schema) -> None:
        """Remember a schema, and save it.

        A crash before it is saved costs fetching it again; a disk that fails costs the same after a restart.
        """
        self._schemas[schema.id] = schema
        self._refused.pop(schema.id, None)
        self._cached.set(len(self._schemas))
        log.info("schema fetched", schema=schema.id, type=schema.kind)
        async with self._saving:
            try:
                await asyncio.to_thread(self._saved.save, list(self._schemas.values()))
            except OSError as error:
                log.warning("schemas cannot be saved", error=str(error))
