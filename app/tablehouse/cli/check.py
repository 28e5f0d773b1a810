"""`tablehouse check`: check a tables.yaml, by itself and against its topics."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tablehouse.catalog.load import load_catalog
from tablehouse.cli.broker_commands import broker_options, settings_without_tables
from tablehouse.cli.inspection_commands import FLAGS, look_at, sampled

if TYPE_CHECKING:
    from tablehouse.catalog.spec import Catalog
    from tablehouse.inspection.reading import Reading
    from tablehouse.inspection.sample import TopicSample

#: The exit code if records contradict the file.
EXIT_DISAGREES = 1


@click.command(short_help="Check a tables.yaml, by itself or against its topics.")
@click.argument("file", type=click.Path(path_type=Path))
@sampled
@broker_options(FLAGS, timeout=120.0)
@click.pass_context
def check(ctx: click.Context, /, *, file: Path, records: int, timeout: float, **given: Any) -> None:
    """Check a tables.yaml; with --bootstrap-servers also against the records of its topics.

    Every problem of the file is printed as a line `file:line: field: how to fix it` on stderr, with exit code 2.
    Records that contradict the file are printed as lines `table: field: problem`, with exit code 1. Nothing is written,
    and no group is joined.
    """
    catalog = load_catalog(file)
    count = len(catalog.tables)
    if given["bootstrap_servers"] is not None:
        problems, notes = _against_topics(catalog, records, timeout, given)
        for line in (*notes, *problems):
            click.echo(line, err=True)
        if problems:
            ctx.exit(EXIT_DISAGREES)
    click.echo(f"{file}: {count} {'table' if count == 1 else 'tables'}, ok")


def _against_topics(
    catalog: "Catalog", records: int, timeout: float, given: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Return the contradictions to the file, and notes on the topics."""
    from tablehouse.inspection.agreement import disagreements, notes_of_columns  # noqa: PLC0415
    from tablehouse.inspection.proposal import notes_of  # noqa: PLC0415

    async def work(samples: list["TopicSample"], reading: "Reading") -> tuple[list[str], list[str]]:
        problems = [
            f"{table.name}: {problem}"
            for sample in samples
            for table in catalog.tables_of(sample.topic)
            async for problem in disagreements(table, sample, reading)
        ]
        notes = [f"topic {sample.topic}: {note}" for sample in samples for note in notes_of(sample)]
        for sample in samples:
            if not sample.records:
                notes.append(f"topic {sample.topic}: it has no records, so formats and partitioner are not checked")
            notes += [
                f"{table.name}: {note}"
                for table in catalog.tables_of(sample.topic)
                async for note in notes_of_columns(table, sample, reading)
            ]
        return problems, notes

    return look_at(settings_without_tables(given), catalog.topics, records, timeout, work)
