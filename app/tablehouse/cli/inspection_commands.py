"""Shared by commands that inspect topics: samples, and the registry's schemas."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import click

from tablehouse.cli.broker_commands import run
from tablehouse.config.settings import Settings
from tablehouse.inspection.reading import Reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tablehouse.inspection.sample import TopicSample
    from tablehouse.kafka.client import Connection

#: The settings that have flags in these commands.
FLAGS = ("bootstrap_servers", "schema_registry")

Result = TypeVar("Result")

#: The option of commands that sample topics.
sampled = click.option(
    "--records",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Records to read from each end of a partition.",
)


def look_at(
    settings: Settings,
    topics: Sequence[str],
    per_end: int,
    timeout: float,
    work: Callable[[list["TopicSample"], Reading], Awaitable[Result]],
) -> Result:
    """Sample topics and run `work` with the samples, all within `timeout` seconds.

    Nothing is written, and no group is joined. Raises ClickException and SetupError.
    """
    # Imported here so that `--help` does not load Kafka's clients.
    from tablehouse.kafka.login import check_login  # noqa: PLC0415
    from tablehouse.kafka.sampling import sample_topics  # noqa: PLC0415

    async def look(connection: "Connection") -> Result:
        await check_login(connection)
        async with _reading(settings) as reading:
            return await work(await sample_topics(connection, topics, per_end), reading)

    return run(settings, timeout, look)


@asynccontextmanager
async def _reading(settings: Settings) -> "AsyncIterator[Reading]":
    from tablehouse.registry.setup import schemas_for_commands  # noqa: PLC0415

    schemas = schemas_for_commands(settings.registry, version("tablehouse"))
    await schemas.start()
    try:
        yield Reading(schemas)
    finally:
        await schemas.stop()
