"""Keeps up with the schemas that the registry has for keys."""

import asyncio

from tablehouse.catalog.spec import REGISTRY_FORMATS, Catalog
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.variants import Known
from tablehouse.recurring import Recurring

#: Seconds between two checks which schemas the registry has for keys.
_INTERVAL = 30.0


async def watch_key_schemas(catalog: Catalog, known: Known, recurring: Recurring) -> None:
    """Learn of each schema that keys may have, so that lookups go where they are written with it."""
    sources = [table.source for table in catalog.tables.values()]
    topics = {source.topic for source in sources if source.key.format in REGISTRY_FORMATS}
    while topics:
        for topic in topics:
            try:
                await known.keys_of(topic).refresh()
            except DecodeError as error:
                recurring.error(topic, "not every schema of a topic's keys can be used", topic=topic, reason=str(error))
            else:
                recurring.end(topic, "every schema of a topic's keys can be used again", topic=topic)
        await asyncio.sleep(_INTERVAL)
