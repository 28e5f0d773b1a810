"""`tablehouse skip`: have workers pass over offsets that cannot be read."""

from typing import TYPE_CHECKING, Any

import click

from tablehouse.cli.broker_commands import FLAGS_WITHOUT_TABLES, connected, run, settings_without_tables
from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import LettersUndelivered

if TYPE_CHECKING:
    from tablehouse.kafka.client import Connection
    from tablehouse.kafka.skipping import Decided

_OFFSET = click.IntRange(0)


@click.command()
@click.option("--topic", required=True, help="The source topic.")
@click.option("--partition", required=True, type=click.IntRange(0), help="Its partition.")
@click.option("--from", "first", required=True, type=_OFFSET, help="The first offset to pass over.")
@click.option("--to", "last", required=True, type=_OFFSET, help="The last offset to pass over.")
@connected(FLAGS_WITHOUT_TABLES, timeout=300.0)
def skip(*, topic: str, partition: int, first: int, last: int, timeout: float, **given: Any) -> None:
    """Pass over offsets of a source that cannot be read.

    A worker that waits at such offsets names them in /readyz and in its log. They are passed over in every table of
    the group that reads the topic, and a dead letter says so. Refused when one of them can be read; nothing is done
    where that was decided before. This cannot be taken back; records that can be read after all are read by tables
    that are built after that.
    """
    if first > last:
        raise click.BadParameter(f"{first} is greater than --to, which is {last}", param_hint="--from")
    settings = settings_without_tables(given)

    async def work(connection: "Connection") -> "Decided":
        # Imported here so that `--help` starts without Kafka's clients.
        from tablehouse.kafka.skipping import SkipRefused  # noqa: PLC0415
        from tablehouse.kafka.skipping import skip as decide  # noqa: PLC0415

        source = TopicPartition(topic, partition)
        try:
            return await decide(connection, settings.group, settings.dead_letter_topic, source, first, last)
        except SkipRefused as error:
            raise click.ClickException(str(error)) from error
        except LettersUndelivered as error:
            raise click.ClickException(
                f"nothing is passed over, since the dead letter cannot be written: {error}"
            ) from error

    decision, is_new = run(settings, timeout, work)
    said = f"{topic}:{partition} offsets {decision.first} to {decision.last} are passed over: {decision.problem}"
    click.echo(said if is_new else f"already decided: {said}")
