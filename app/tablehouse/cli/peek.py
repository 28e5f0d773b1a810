"""`tablehouse peek`: show records of a topic, decoded."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tablehouse.cli.broker_commands import broker_options, settings_without_tables
from tablehouse.cli.inspection_commands import FLAGS, look_at
from tablehouse.tasks.log import NO_TIMESTAMP

if TYPE_CHECKING:
    from tablehouse.inspection.reading import Reading
    from tablehouse.inspection.sample import TopicSample
    from tablehouse.inspection.shown import ShownRecord


@click.command(short_help="Show the newest records of a topic.")
@click.argument("topic")
@click.option(
    "--records",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Records to show from the end of each partition.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@broker_options(FLAGS, timeout=60.0)
def peek(*, topic: str, records: int, as_json: bool, timeout: float, **given: Any) -> None:
    """Show the newest records of each partition of a topic, with keys and rows as a table would have them.

    Formats are detected as by `tablehouse init`. Nothing is written, and no group is joined.
    """
    from tablehouse.inspection.shown import shown  # noqa: PLC0415

    async def work(samples: list["TopicSample"], reading: "Reading") -> tuple[list["ShownRecord"], str]:
        return await shown(samples[0], reading, records)

    lines, formats = look_at(settings_without_tables(given), [topic], max(records, 100), timeout, work)
    for line in lines:
        click.echo(_json(line) if as_json else _text(line))
    click.echo(f"{topic}: {formats}", err=True)


def _when(timestamp: int) -> str | None:
    if timestamp == NO_TIMESTAMP:
        return None
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        return str(timestamp)


def _text(line: "ShownRecord") -> str:
    record = line.record
    row = "(deleted)" if line.row is None else _printable(line.row)
    what = row if line.problem is None else f"cannot be a row: {_printable(line.problem)}"
    key = "-" if line.key is None else _printable(line.key)
    return "  ".join([f"{record.place.partition}:{record.offset}", _when(record.timestamp) or "-", key, what])


def _printable(text: str) -> str:
    """Return text for one line of a terminal, without control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json(line: "ShownRecord") -> str:
    record = line.record
    found = {
        "partition": record.place.partition,
        "offset": record.offset,
        "time": _when(record.timestamp),
        "key": line.key,
        "row": line.row,
        "problem": line.problem,
    }
    # JSON does not escape some characters that terminals interpret.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(found, ensure_ascii=False))
