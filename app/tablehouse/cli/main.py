"""The command line: `tablehouse worker`, `init`, `check`, `peek`, `topics`, `dead-letters` and `skip`."""

from typing import Any

import click

from tablehouse.cli.check import check
from tablehouse.cli.dead_letters import dead_letters
from tablehouse.cli.init import init
from tablehouse.cli.peek import peek
from tablehouse.cli.skip import skip
from tablehouse.cli.topics import topics
from tablehouse.cli.worker import worker
from tablehouse.errors import SetupError

#: The exit code of a process that cannot start as configured; click also uses it for usage errors.
EXIT_SETUP = 2


class _Group(click.Group):
    """Prints the message of a SetupError to stderr and exits with EXIT_SETUP, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SetupError as error:
            click.echo(str(error), err=True)
            ctx.exit(EXIT_SETUP)


@click.group(cls=_Group)
@click.version_option(package_name="tablehouse", message="%(prog)s %(version)s")
def main() -> None:
    """Kafka topics as tables: the latest row for a key, over HTTP, from any worker."""


for _command in (worker, init, check, peek, topics, dead_letters, skip):
    main.add_command(_command)
