"""`tablehouse skip`: make workers skip unreadable offsets."""

from typing import TYPE_CHECKING, Any

import click

from tablehouse.cli.broker_commands import FLAGS_WITHOUT_TABLES, broker_options, run, settings_without_tables
from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import LettersUndelivered

if TYPE_CHECKING:
    from tablehouse.kafka.client import Connection
    from tablehouse.kafka.skipping import Decided

_OFFSET = click.IntRange(0)


@click.command()
@click.option("--topic", required=True, help="The source topic.")
@click.option("--partition", required=True, type=click.IntRange(0), help="Its partition.")
@click.option("--from", "first", required=True, type=_OFFSET, help="The first offset to skip.")
@click.option("--to", "last", required=True, type=_OFFSET, help="The last offset to skip.")
@broker_options(FLAGS_WITHOUT_TABLES, timeout=300.0)
def skip(*, topic: str, partition: int, first: int, last: int, timeout: float, **given: Any) -> None:
    """Skip unreadable offsets of a source.

    A worker that is blocked by such offsets names them in /readyz and in its log. They are skipped in every table of
    the group that reads the topic, and a dead letter records it. The command refuses offsets that can be read, and does
    nothing if they are already skipped. This cannot be undone; if skipped records become readable later, only tables
    built after that have them.
    """
    if first > last:
        raise click.BadParameter(f"{first} is greater than --to, which is {last}", param_hint="--from")
    settings = settings_without_tables(given)

    async def work(connection: "Connection") -> "Decided":
        # Imported here so that `--help` does not load Kafka's clients.
        from tablehouse.kafka.skipping import SkipRefused  # noqa: PLC0415
        from tablehouse.kafka.skipping import skip as decide  # noqa: PLC0415

        source = TopicPartition(topic, partition)
        try:
            return await decide(connection, settings.group, settings.dead_letter_topic, source, first, last)
        except SkipRefused as error:
            raise click.ClickException(str(error)) from error
        except LettersUndelivered as error:
            raise click.ClickException(
                f"nothing is skipped, because the dead letter cannot be written: {error}"
            ) from error

    decision, is_new = run(settings, timeout, work)
    said = f"{topic}:{partition} offsets {decision.first} to {decision.last} are skipped: {decision.problem}"
    click.echo(said if is_new else f"already decided: {said}")
