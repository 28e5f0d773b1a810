"""What needs schemas, for a request that can wait for them until its deadline and no longer."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from app.errors import SchemaUnavailable
from app.formats.schemas import SchemaNeeded, Schemas

Made = TypeVar("Made")


async def with_schemas(schemas: Schemas, make: Callable[[], Made], timeout: float) -> Made:  # noqa: ASYNC109
    """Return what `make` returns, having fetched the schemas that it needs.

    Raises SchemaUnavailable when the registry has not answered within `timeout` seconds, and what else `make` raises.
    """
    needed: int | str = ""
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return make()
                except SchemaNeeded as error:
                    needed = error.needed
                await schemas.fetch(needed)
    except TimeoutError:
        raise SchemaUnavailable(f"{schemas.describe(needed)} could not be had in time") from None
