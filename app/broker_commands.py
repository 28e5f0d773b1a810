"""What the commands have in common that speak to the brokers without being a worker."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.config import SETTINGS, Settings, load_settings
from app.tasks.log import LogUnavailable

if TYPE_CHECKING:
    from app.kafka.client import Connection

#: Settings that have flags here; the others come from the environment or the file, as a worker's do.
_FLAGS = ("bootstrap_servers", "group", "dead_letter_topic")

Result = TypeVar("Result")


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that settings_of() and on_brokers() take."""
    for setting in reversed(SETTINGS):
        if setting.name in _FLAGS:
            text = f"{setting.description} [{setting.variable}]"
            command = click.option(setting.flag, setting.name, metavar="VALUE", help=text)(command)
    return click.option(
        "--timeout", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds that it may take."
    )(command)


def settings_of(given: dict[str, Any]) -> Settings:
    """Return the settings, with the options that were given."""
    # No table is looked at here, so their file need not be there.
    flags = {name: given[name] for name in _FLAGS if given[name] is not None}
    return load_settings({"tables": "tables.yaml"} | flags)


def on_brokers(
    settings: Settings, timeout: float, work: Callable[["Connection"], Coroutine[Any, Any, Result]]
) -> Result:
    """Run something on a connection to the brokers within `timeout` seconds; raises ClickException and SetupError."""
    # Imported here so that `--help` starts without Kafka's clients.
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.kafka.client import Connection  # noqa: PLC0415
    from app.kafka.security import security_of  # noqa: PLC0415

    connection = Connection(settings.bootstrap_servers, "tablehouse-cli", security=security_of(settings))

    async def run() -> Result:
        async with asyncio.timeout(timeout):
            return await work(connection)

    try:
        return asyncio.run(run())
    except TimeoutError:
        raise click.ClickException(f"not done within {timeout:g} s; --timeout allows for more") from None
    except (KafkaError, LogUnavailable) as error:
        raise click.ClickException(
            f"the brokers of {settings.bootstrap_servers} cannot be used: {str(error) or repr(error)}"
        ) from error
