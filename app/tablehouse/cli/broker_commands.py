"""Shared by commands that connect to brokers: the flags of settings, the connection, and error handling."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tablehouse.config.load import load_settings
from tablehouse.config.settings import SETTINGS, Settings
from tablehouse.logs import warnings_to_stderr
from tablehouse.tasks.log import LogUnavailable

if TYPE_CHECKING:
    from tablehouse.kafka.client import Connection

#: The settings that have flags in commands that need no tables.
FLAGS_WITHOUT_TABLES = ("bootstrap_servers", "group", "dead_letter_topic")

#: Log lines that commands hide: they check whether numbers are schema ids, and report the result themselves.
_HIDDEN_LINES = ("schema refused",)

Result = TypeVar("Result")
_Command = Callable[..., None]


def broker_options(flags: Collection[str], timeout: float) -> Callable[[_Command], _Command]:
    """Add flags for these settings to a command, and --timeout with a default in seconds.

    Other settings come from the environment or the file, as for a worker.
    """

    def decorate(command: _Command) -> _Command:
        for setting in reversed(SETTINGS):
            if setting.name in flags:
                text = f"{setting.description} [{setting.variable}]"
                command = click.option(setting.flag, setting.name, metavar="VALUE", help=text)(command)
        return click.option(
            "--timeout",
            type=click.FloatRange(1),
            default=timeout,
            show_default=True,
            help="Time limit of the command in seconds.",
        )(command)

    return decorate


def settings_without_tables(given: dict[str, Any]) -> Settings:
    """Return the settings for a command that needs no tables, so that tables.yaml may be missing."""
    flags = {name: text for name, text in given.items() if text is not None}
    return load_settings({"tables": "tables.yaml"} | flags)


def run(settings: Settings, timeout: float, work: Callable[["Connection"], Awaitable[Result]]) -> Result:
    """Run `work` with a broker connection within `timeout` seconds; raises ClickException and SetupError."""
    # Imported here so that `--help` does not load Kafka's clients.
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from tablehouse.kafka.client import Connection  # noqa: PLC0415
    from tablehouse.kafka.outages import explain_outage  # noqa: PLC0415
    from tablehouse.kafka.security import security_of  # noqa: PLC0415

    connection = Connection(settings.bootstrap_servers, "tablehouse-cli", security=security_of(settings.kafka))

    async def bounded() -> Result:
        try:
            async with asyncio.timeout(timeout):
                return await work(connection)
        except TimeoutError:
            symptom = f"not done within {timeout:g} s; allow more with --timeout"
        except (KafkaError, LogUnavailable) as error:
            symptom = str(error) or repr(error)
        reason = await explain_outage(connection, symptom)
        raise click.ClickException(f"requests to the brokers of {settings.bootstrap_servers} failed: {reason}")

    with warnings_to_stderr(_HIDDEN_LINES):
        return asyncio.run(bounded())
