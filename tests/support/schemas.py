"""Schemas in memory, from a registry that a test can take away; and a format that needs them."""

import asyncio
from collections.abc import Sequence

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import NoSchemas, Schema, SchemaName, SchemaNeeded, Schemas
from tablehouse.formats.variants import Known

#: What a worker knows without a schema registry.
NO_REGISTRY = Known(NoSchemas())


class MemorySchemas:
    """Implements Schemas: what is in `registered` is fetched once the registry is not `away` any more."""

    def __init__(self, *registered: Schema) -> None:
        self.registered = {schema.id: schema for schema in registered}
        self.subjects: dict[str, list[int]] = {}
        #: The ids that were asked for, in order.
        self.fetches: list[SchemaName | str] = []
        self._fetched: dict[SchemaName, Schema | None] = {}
        #: By subject, the latest version and the ids that were fetched before it.
        self._latest: dict[str, tuple[Schema | None, set[SchemaName]]] = {}
        self._there = asyncio.Event()
        self._there.set()

    def go_away(self) -> None:
        """Let nothing be fetched until come_back()."""
        self._there.clear()

    def come_back(self) -> None:
        """Answer whoever waits."""
        self._there.set()

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        if schema_id not in self._fetched:
            raise SchemaNeeded(schema_id)
        schema = self._fetched[schema_id]
        if schema is None:
            raise DecodeError(f"there is no schema {schema_id}")
        return schema

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        schema, before = self._latest.get(subject, (None, set[SchemaName]()))
        if writer not in before:
            raise SchemaNeeded(subject)
        if schema is None:
            raise DecodeError(f"there is no subject {subject}")
        return schema

    async def fetch(self, needed: SchemaName | str) -> None:
        """See Schemas."""
        self.fetches.append(needed)
        await self._there.wait()
        if isinstance(needed, str):
            ids = self.subjects.get(needed)
            self._latest[needed] = self.registered[ids[-1]] if ids else None, {-1, *self._fetched}
        else:
            self._fetched[needed] = self.registered.get(needed)

    async def fetch_subject(self, subject: str) -> Sequence[int]:
        """See Schemas."""
        await self._there.wait()
        ids = tuple(self.subjects.get(subject, ()))
        self._fetched.update((schema_id, self.registered[schema_id]) for schema_id in ids)
        return ids

    def describe(self, needed: SchemaName | str) -> str:
        """See Schemas."""
        return f"schema {needed} of the registry in memory" + ("" if self._there.is_set() else ": away")


class FetchedSchemas(NoSchemas):
    """Implements Schemas: all that were given have been fetched, and the last given is the latest of every subject."""

    def __init__(self, *schemas: Schema) -> None:
        self._schemas = {schema.id: schema for schema in schemas}

    def add(self, schema: Schema) -> None:
        """Let a schema be known, and the latest."""
        self._schemas[schema.id] = schema

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        if schema_id not in self._schemas:
            raise SchemaNeeded(schema_id)
        return self._schemas[schema_id]

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        del writer
        if not self._schemas:
            raise SchemaNeeded(subject)
        return list(self._schemas.values())[-1]


def framed(schema_id: int, payload: bytes) -> bytes:
    """Put a payload into Confluent's frame."""
    return b"\0" + schema_id.to_bytes(4, "big") + payload


def decode_framed(schemas: Schemas, value: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    """Decode as a format does that needs schemas: the payload, with the schema's text before it."""
    if value[:1] != b"\0":
        raise DecodeError("a value is not framed")
    return schemas.known(int.from_bytes(value[1:5], "big")).text.encode() + b":" + value[5:]
