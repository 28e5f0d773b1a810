"""`tablehouse topics`: the commands that create the topics of a group, for an operator to run."""

from typing import TYPE_CHECKING

import click

from tablehouse.catalog.load import load_catalog
from tablehouse.cli.broker_commands import broker_options, run
from tablehouse.config.load import load_settings
from tablehouse.config.settings import Settings

if TYPE_CHECKING:
    from tablehouse.kafka.client import Connection
    from tablehouse.kafka.topic_commands import Commands

#: Settings that have flags here; the others come from the environment or the file, as for a worker.
_FLAGS = ("bootstrap_servers", "tables", "group", "dead_letter_topic", "replication_factor")


@click.command("topics")
@broker_options(_FLAGS, timeout=60.0)
def topics(*, timeout: float, **given: str | None) -> None:
    """Print the commands that create missing topics of a group and correct the settings of existing ones.

    Nothing is created or altered. Settings come from flags, environment and file, as for a worker. The user needs
    Describe and DescribeConfigs on the topics. A line on stderr gives the state of each topic.
    """
    settings = load_settings({name: value for name, value in given.items() if value is not None})
    commands = _ask(settings, timeout)
    for remark in commands.remarks:
        click.echo(remark, err=True)
    for line in commands.lines:
        click.echo(line)


def _ask(settings: Settings, timeout: float) -> "Commands":
    # Imported here so that `--help` does not load Kafka's clients.
    from tablehouse.kafka.login import check_login  # noqa: PLC0415
    from tablehouse.kafka.topic_commands import commands_for  # noqa: PLC0415
    from tablehouse.kafka.topics import Replication  # noqa: PLC0415

    catalog, replication = load_catalog(settings.tables), Replication(settings.replication_factor)

    async def ask(connection: "Connection") -> "Commands":
        await check_login(connection)
        return await commands_for(connection, settings.group, catalog, settings.dead_letter_topic, replication)

    return run(settings, timeout, ask)
