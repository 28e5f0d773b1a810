"""Fetches schemas with all their references, with one attempt per request."""

from typing import Literal, cast, get_args
from urllib.parse import quote
from uuid import UUID

from tablehouse.formats.schemas import Reference, Schema, SchemaKind, SchemaName
from tablehouse.registry.answers import NoRegistry, Refusal, Registered, Unusable, Use
from tablehouse.registry.transport import Transport

#: Maximum references of a schema, and their maximum depth; a schema with more is unusable.
MAX_REFERENCES = 500
MAX_REFERENCE_DEPTH = 50


class Lookup:
    """Requests schemas; each method raises Refusal and Unavailable. Versions of subjects never change, and are kept."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._versions: dict[tuple[str, int], Schema] = {}

    async def by_id(self, schema_id: int) -> Schema:
        """Return the schema of an id."""
        found = await self._transport.get(f"/schemas/ids/{schema_id}", Registered)
        return await self._whole(schema_id, found, set(), 0)

    async def by_guid(self, guid: UUID) -> Schema:
        """Return the schema of a GUID."""
        try:
            found = await self._transport.get(f"/schemas/guids/{guid}", Registered)
        except NoRegistry:
            # Registries without GUIDs answer as for any unknown path, and a proxy may do so for all paths.
            await self._transport.get("/subjects?limit=1", list[str])
            raise Refusal(
                "it cannot look up schemas by GUID, unlike Confluent Schema Registry 8: configure the producers to "
                "write ids in front of the data"
            ) from None
        return await self._whole(guid, found, set(), 0)

    async def latest(self, subject: str) -> Schema:
        """Return the latest version of a subject."""
        found = await self._transport.get(_versions(subject, "latest"), Registered)
        return await self._whole(found.id, found, set(), 0)

    async def versions(self, subject: str) -> list[int]:
        """Return the numbers of a subject's versions, the oldest first."""
        return sorted(await self._transport.get(_versions(subject), list[int]))

    async def version(self, subject: str, version: int) -> Schema:
        """Return a version of a subject."""
        return await self._version(subject, version, set(), 0)

    async def _version(self, subject: str, version: int, used: set[tuple[str, int]], depth: int) -> Schema:
        known = self._versions.get((subject, version))
        if known is not None:
            return known
        found = await self._transport.get(_versions(subject, version), Registered)
        schema = self._versions[subject, version] = await self._whole(found.id, found, used, depth)
        return schema

    async def _whole(self, schema_id: SchemaName, found: Registered, used: set[tuple[str, int]], depth: int) -> Schema:
        """Return a schema with its references; `used` are the references of the outermost schema so far."""
        kind, uses = found.schema_type or "AVRO", found.references or ()
        if kind not in get_args(SchemaKind):
            raise Unusable(f"it is of type {kind}, and only {', '.join(get_args(SchemaKind))} can be read")
        used.update((use.subject, use.version) for use in uses)
        if len(used) > MAX_REFERENCES or (depth > MAX_REFERENCE_DEPTH and uses):
            raise Unusable(f"it uses more than {MAX_REFERENCES} others, or they are nested too deeply")
        references = [await self._reference(use, used, depth + 1) for use in uses]
        return Schema(schema_id, cast("SchemaKind", kind), found.schema, tuple(references))

    async def _reference(self, use: Use, used: set[tuple[str, int]], depth: int) -> Reference:
        try:
            schema = await self._version(use.subject, use.version, used, depth)
        except Refusal as error:
            raise type(error)(f"it uses version {use.version} of subject {use.subject}: {error}") from error
        return Reference(use.name, use.subject, use.version, schema)


def _versions(subject: str, version: int | Literal["latest"] | None = None) -> str:
    path = f"/subjects/{quote(subject, safe='')}/versions"
    return path if version is None else f"{path}/{version}"
