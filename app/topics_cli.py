"""`tablehouse topics`: the commands that create the topics of a group, for the person who may create them."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from app.catalog.load import load_catalog
from app.config import SETTINGS, Settings, load_settings

if TYPE_CHECKING:
    from app.kafka.topic_commands import Commands

#: Settings that have flags here; the others come from the environment or the file, as a worker's do.
_FLAGS = ("bootstrap_servers", "tables", "group", "dead_letter_topic", "replication_factor")


def _connected(command: Callable[..., None]) -> Callable[..., None]:
    for setting in reversed(SETTINGS):
        if setting.name in _FLAGS:
            text = f"{setting.description} [{setting.variable}]"
            command = click.option(setting.flag, setting.name, metavar="VALUE", help=text)(command)
    return click.option(
        "--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds that it may take."
    )(command)


@click.command("topics")
@_connected
def topics(*, timeout: float, **given: str | None) -> None:
    """Print commands that create the topics a group lacks, and that correct the settings of those it has.

    Nothing is created or altered. Settings come from flags, environment and file, as a worker's do; the user needs
    Describe and DescribeConfigs on the topics. A line on stderr says what each topic is.
    """
    settings = load_settings({name: value for name, value in given.items() if value is not None})
    commands = _ask(settings, timeout)
    for remark in commands.remarks:
        click.echo(remark, err=True)
    for line in commands.lines:
        click.echo(line)


def _ask(settings: Settings, timeout: float) -> "Commands":
    # Imported here so that `--help` starts without Kafka's clients.
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.kafka.client import Connection  # noqa: PLC0415
    from app.kafka.login import check_login  # noqa: PLC0415
    from app.kafka.security import security_of  # noqa: PLC0415
    from app.kafka.topic_commands import commands_for  # noqa: PLC0415
    from app.kafka.topics import Replication  # noqa: PLC0415

    catalog = load_catalog(settings.tables)
    connection = Connection(settings.bootstrap_servers, "tablehouse-cli", security=security_of(settings))

    async def ask() -> "Commands":
        async with asyncio.timeout(timeout):
            await check_login(connection)
            return await commands_for(
                connection,
                settings.group,
                catalog,
                settings.dead_letter_topic,
                Replication(settings.replication_factor),
            )

    try:
        return asyncio.run(ask())
    except TimeoutError:
        raise click.ClickException(f"not done within {timeout:g} s; --timeout allows for more") from None
    except KafkaError as error:
        raise click.ClickException(
            f"the brokers of {settings.bootstrap_servers} cannot be used: {str(error) or repr(error)}"
        ) from error
