"""Schemas of keys are learnt of at once where tables come."""

import asyncio
from typing import Any

import structlog

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.catalog.view import CatalogView
from tablehouse.recurring import Recurring
from tablehouse.worker.key_schemas import watch_key_schemas
from tests.support.polling import until


class Keys:
    """Notes whose keys were looked at."""

    def __init__(self) -> None:
        self.looked_at: list[str] = []
        self._topic = ""

    def keys_of(self, topic: str) -> "Keys":
        """Stand in for what is known of a topic's keys."""
        self._topic = topic
        return self

    async def refresh(self) -> None:
        """Stand in for the registry."""
        self.looked_at.append(self._topic)


def catalog(**keys: Any) -> Catalog:
    return Catalog(
        {name: TableSpec(name, SourceSpec(name, KeySpec(key), ValueSpec("json"))) for name, key in keys.items()}
    )


async def test_the_keys_of_a_table_that_comes_are_looked_at_with_the_swap() -> None:
    view, keys = CatalogView(catalog(plain="string", old="avro")), Keys()
    known: Any = keys
    work = asyncio.create_task(watch_key_schemas(view, known, Recurring(structlog.get_logger())))

    async def looked_at(*topics: str) -> bool:
        return keys.looked_at == list(topics)

    await until(lambda: looked_at("old"), "the first one is looked at")
    view.swap(catalog(plain="string", new="json_sr"))
    await until(lambda: looked_at("old", "new"), "the new one is looked at")
    work.cancel()
