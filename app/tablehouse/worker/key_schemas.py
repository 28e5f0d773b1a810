"""Fetches new schemas of keys from the registry."""

import asyncio
from contextlib import suppress

from tablehouse.catalog.spec import REGISTRY_FORMATS
from tablehouse.catalog.view import CatalogView
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.variants import Known
from tablehouse.recurring import Recurring

#: Seconds between checks for new schemas of keys.
_INTERVAL = 30.0


async def watch_key_schemas(catalog: CatalogView, known: Known, recurring: Recurring) -> None:
    """Fetch all schemas of keys, so that lookups also find keys that were written with a new one."""
    changed = asyncio.Event()
    catalog.subscribe(lambda _: changed.set())
    while True:
        changed.clear()
        sources = [table.source for table in catalog.current.tables.values()]
        for topic in {source.topic for source in sources if source.key.format in REGISTRY_FORMATS}:
            try:
                await known.keys_of(topic).refresh()
            except DecodeError as error:
                recurring.error(topic, "not every schema of a topic's keys can be used", topic=topic, reason=str(error))
            else:
                recurring.end(topic, "every schema of a topic's keys can be used again", topic=topic)
        with suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await changed.wait()
