"""What needs schemas, for a request that can wait for them until its deadline and no longer."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tablehouse.errors import Overloaded, SchemaUnavailable
from tablehouse.formats.schemas import SchemaName, SchemaNeeded, Schemas
from tablehouse.turns import Turns, Work

Made = TypeVar("Made")


async def with_schemas(schemas: Schemas, make: Callable[[], Made], timeout: float) -> Made:  # noqa: ASYNC109
    """Return what `make` returns, having fetched the schemas that it needs.

    Raises SchemaUnavailable when the registry has not answered within `timeout` seconds, and what else `make` raises.
    """
    until = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            return make()
        except SchemaNeeded as error:
            needed = error.needed
        await _fetch(schemas, needed, until)


async def with_schemas_in_turns(
    schemas: Schemas,
    make: Callable[[], Work[Made]],
    timeout: float,  # noqa: ASYNC109
    turns: Turns,
) -> Made:
    """Do what with_schemas does with work in pieces, with turns for others between them.

    Raises Overloaded too, when that takes longer than `timeout` seconds.
    """
    until = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            async with asyncio.timeout_at(until):
                return await turns.finish(make())
        except SchemaNeeded as error:
            needed = error.needed
        except TimeoutError:
            raise Overloaded(
                "the row is large, and its time was over before it was converted; large rows and records are converted "
                "one after the other"
            ) from None
        await _fetch(schemas, needed, until)


async def _fetch(schemas: Schemas, needed: SchemaName | str, until: float) -> None:
    try:
        async with asyncio.timeout_at(until):
            await schemas.fetch(needed)
    except TimeoutError:
        raise SchemaUnavailable(f"{schemas.describe(needed)} could not be had in time") from None
