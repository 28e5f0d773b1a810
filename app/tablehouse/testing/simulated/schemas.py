"""A schema registry that is sometimes unavailable, and values that need its schemas.

A value that begins with `?` has a schema: `?7:anything` has schema 7. All schemas exist.
"""

import asyncio
from collections.abc import Sequence

from tablehouse.formats.schemas import Schema, SchemaName, SchemaNeeded, Schemas
from tablehouse.testing.simulated.world import World

FRAMED = b"?"

#: Seconds between a worker's attempts to reach the registry.
_PAUSE = 0.5


class SimulatedSchemas:
    """Implements Schemas for one process, with its cache."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fetched: set[int] = set()

    def known(self, schema_id: SchemaName) -> Schema:
        """See Schemas."""
        if schema_id not in self._fetched:
            raise SchemaNeeded(schema_id)
        return Schema(schema_id, "AVRO", "")

    def latest(self, subject: str, writer: SchemaName) -> Schema:
        """See Schemas."""
        raise AssertionError(f"unexpected request for {subject}, {writer}")

    async def fetch(self, needed: SchemaName | str) -> None:
        """See Schemas."""
        await self._world.hop("schema.asked")
        while self._world.registry_away():
            self._world.paths["no schema registry"] += 1
            await asyncio.sleep(_PAUSE)
            await self._world.hop("schema.asked")
        await self._world.hop("schema.answered")
        self._fetched.add(int(needed))

    async def fetch_subject(self, subject: str) -> Sequence[int]:
        """See Schemas."""
        del subject
        return ()

    def describe(self, needed: SchemaName | str) -> str:
        """See Schemas."""
        return f"schema {needed}"


def decode(schemas: Schemas, value: bytes) -> bytes:
    """Return a value unchanged, once its schema is known."""
    if value.startswith(FRAMED):
        schemas.known(int(value[1:].partition(b":")[0]))
    return value
