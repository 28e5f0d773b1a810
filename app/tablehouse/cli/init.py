"""`tablehouse init`: propose a tables.yaml for topics."""

from typing import TYPE_CHECKING, Any

import click

from tablehouse.cli.broker_commands import broker_options, settings_without_tables
from tablehouse.cli.inspection_commands import FLAGS, look_at, sampled

if TYPE_CHECKING:
    from tablehouse.inspection.proposal import Proposal
    from tablehouse.inspection.reading import Reading
    from tablehouse.inspection.sample import TopicSample

#: The exit code if something is undecided.
EXIT_UNDECIDED = 1


@click.command("init", short_help="Print a tables.yaml for topics that exist.")
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC...")
@sampled
@broker_options(FLAGS, timeout=120.0)
@click.pass_context
def init(ctx: click.Context, /, *, topics: tuple[str, ...], records: int, timeout: float, **given: Any) -> None:
    """Print a tables.yaml for topics, derived from their records.

    Records from both ends of every partition are inspected. Nothing is written, and no group is joined. Comments give
    the reasons. What the records do not decide is UNDECIDED in the file, which workers refuse; it is also printed to
    stderr, and the exit code is 1.
    """
    from tablehouse.inspection.definition import tables_yaml  # noqa: PLC0415
    from tablehouse.inspection.proposal import propose  # noqa: PLC0415

    async def work(samples: list["TopicSample"], reading: "Reading") -> list["Proposal"]:
        found: list[Proposal] = []
        for sample in samples:
            found.append(await propose(sample, reading, [other.name for other in found]))
        return found

    proposals = look_at(settings_without_tables(given), list(dict.fromkeys(topics)), records, timeout, work)
    click.echo(tables_yaml(proposals), nl=False)
    for proposal in proposals:
        for problem in proposal.problems:
            click.echo(f"{proposal.sample.topic}: {problem}", err=True)
    if any(proposal.problems for proposal in proposals):
        ctx.exit(EXIT_UNDECIDED)
