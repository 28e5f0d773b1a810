"""`tablehouse dead-letters`: show the records that could not become rows, and put them back into their topics."""

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tablehouse.cli.broker_commands import FLAGS_WITHOUT_TABLES, broker_options, run, settings_without_tables
from tablehouse.config.settings import Settings
from tablehouse.tasks.dead_letters import EVERY_TABLE, REASONS, Content, LetterRead
from tablehouse.tasks.log import NO_TIMESTAMP

if TYPE_CHECKING:
    from tablehouse.kafka.client import Connection
    from tablehouse.kafka.letter_topic import LetterTopic

#: Seconds between progress messages.
_PROGRESS_INTERVAL = 2.0

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Result = TypeVar("Result")


@click.group("dead-letters")
def dead_letters() -> None:
    """Show and replay dead letters.

    Settings come from flags, environment and file, as for a worker.
    """


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter for letters; None matches all. `since_ms` is in milliseconds since 1970."""

    table: str | None
    reason: str | None
    since_ms: int | None

    def __bool__(self) -> bool:
        """Return whether any filter is set."""
        return (self.table, self.reason, self.since_ms) != (None, None, None)

    def has(self, letter: LetterRead) -> bool:
        """Return whether a letter matches."""
        return (
            self.table in {None, letter.table}
            and self.reason in {None, letter.reason}
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
        )


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--since", help="Only letters since this time: 90m, 12h, 7d, or 2026-01-31T12:00.")(command)
    command = click.option("--reason", type=click.Choice(REASONS), help="Only letters with this reason.")(command)
    return click.option("--table", help="Only letters of this table.")(command)


def _since(text: str | None) -> int | None:
    """Return milliseconds since 1970; raises click.BadParameter."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    try:
        if match:
            when = datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        else:
            when = datetime.fromisoformat(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "must be a duration like 90m, 12h or 7d, or a time like 2026-01-31T12:00 (UTC unless it has an offset)",
            param_hint="--since",
        ) from None
    return int(when.timestamp() * 1000)


def _run(settings: Settings, timeout: float, work: Callable[["LetterTopic"], Coroutine[Any, Any, Result]]) -> Result:
    """Run `work` with the dead-letter topic within `timeout` seconds; raises ClickException and SetupError."""
    # Imported here so that `--help` does not load Kafka's clients.
    from tablehouse.kafka.letter_topic import LetterTopic  # noqa: PLC0415

    async def with_topic(connection: "Connection") -> Result:
        async with LetterTopic(connection, settings.dead_letter_topic, settings.group) as topic:
            return await work(topic)

    return run(settings, timeout, with_topic)


class _Progress:
    """Prints progress to stderr at intervals."""

    def __init__(self) -> None:
        self._printed_at = monotonic()

    def __call__(self, read: int, total: int) -> None:
        """Print progress if the interval has passed."""
        if monotonic() - self._printed_at >= _PROGRESS_INTERVAL:
            self._printed_at = monotonic()
            click.echo(f"{read} of {total} records read", err=True)


async def _selected(topic: "LetterTopic", selection: Selection) -> AsyncIterator[LetterRead]:
    """Yield the matching letters; raises BadParameter for a table that neither the group nor any letter has."""
    tables = {EVERY_TABLE}
    async for letter in topic.letters(_Progress()):
        tables.add(letter.table)
        if selection.has(letter):
            yield letter
    if topic.foreign:
        click.echo(
            f"{topic.foreign} records of topic {topic.name} are not dead letters: check dead_letter_topic", err=True
        )
    if selection.table is not None and selection.table not in tables:
        tables |= await topic.tables()
        if selection.table not in tables:
            known = ", ".join(sorted(tables - {EVERY_TABLE})) or "none"
            raise click.BadParameter(
                f"there is no table {selection.table}; those of the group and of the letters: {known}",
                param_hint="--table",
            )


@dead_letters.command("list")
@_selecting
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum letters to list, the newest ones."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@broker_options(FLAGS_WITHOUT_TABLES, timeout=300.0)
def list_letters(
    *, table: str | None, reason: str | None, since: str | None, limit: int, as_json: bool, timeout: float, **given: Any
) -> None:
    """List letters, one per line: letter, time, table, reason, record, problem."""
    selection = Selection(table, reason, _since(since))

    async def collect(topic: "LetterTopic") -> tuple[int, deque[LetterRead]]:
        count, newest = 0, deque[LetterRead](maxlen=limit)
        async for letter in _selected(topic, selection):
            count += 1
            newest.append(letter._replace(original=Content(None, None, ())))
        return count, newest

    count, newest = _run(settings_without_tables(given), timeout, collect)
    for letter in newest:
        click.echo(json.dumps(_summary(letter)) if as_json else _line(letter))
    click.echo(f"{len(newest)} of {count} dead letters", err=True)


@dead_letters.command("show")
@click.argument("place", metavar="PARTITION:OFFSET")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@broker_options(FLAGS_WITHOUT_TABLES, timeout=300.0)
def show(*, place: str, as_json: bool, timeout: float, **given: Any) -> None:
    """Show a letter: the problem, and the record's headers, key and value as text, or in hexadecimal if not UTF-8."""
    partition, offset = _place(place)

    async def find(topic: "LetterTopic") -> LetterRead:
        return await topic.letter(partition, offset)

    letter = _run(settings_without_tables(given), timeout, find)
    key, value, headers = letter.original
    if as_json:
        content = {
            "headers": [[name, _shown(text)] for name, text in headers],
            "key": _shown(key),
            "value": _shown(value),
            "dropped_bytes": dict(letter.dropped),
        }
        click.echo(json.dumps(_summary(letter) | content, indent=2))
        return
    for name, text in _summary(letter).items():
        click.echo(f"{name + ':':<12}{text}")
    for name, size in letter.dropped.items():
        click.echo(f"dropped:    {name}, {size} bytes, too large for the dead-letter topic")
    for name, data in headers:
        click.echo(f"header:     {_text(name.encode())} = {_text(data)}")
    click.echo(f"key:        {_text(key)}")
    click.echo(f"value:      {_text(value)}")


@dead_letters.command("replay")
@click.argument("places", nargs=-1, metavar="[PARTITION:OFFSET]...")
@_selecting
@click.option("--all", "everything", is_flag=True, help="All letters of the topic.")
@click.option("--dry-run", is_flag=True, help="Only print the records that would be replayed.")
@click.option("--force", is_flag=True, help="Also records whose key has a newer record in the source topic.")
@broker_options(FLAGS_WITHOUT_TABLES, timeout=300.0)
def replay(
    *,
    places: tuple[str, ...],
    table: str | None,
    reason: str | None,
    since: str | None,
    everything: bool,
    dry_run: bool,
    force: bool,
    timeout: float,
    **given: Any,
) -> None:
    """Append records unchanged to the topic and partition that they came from.

    A replayed record becomes the newest of its key. A record whose key has a newer record is therefore left alone,
    unless --force is given. A record with several letters is replayed once.
    """
    selection, wanted = Selection(table, reason, _since(since)), [_place(place) for place in places]
    if bool(selection) + bool(wanted) + everything != 1:
        raise click.UsageError("select letters: as PARTITION:OFFSET, with --table, --reason or --since, or --all")

    async def select(topic: "LetterTopic") -> list[LetterRead]:
        if wanted:
            return [await topic.letter(*place) for place in dict.fromkeys(wanted)]
        return [letter async for letter in _selected(topic, selection)]

    async def work(topic: "LetterTopic") -> _Replay:
        work = _Replay(topic, dry_run=dry_run, force=force)
        await work.run(await select(topic))
        return work

    done = _run(settings_without_tables(given), timeout, work)
    for why, count in done.left_alone.items():
        click.echo(f"{count} left alone: {why}", err=True)
    click.echo(f"{done.count} {'record' if done.count == 1 else 'records'} {'to replay' if dry_run else 'replayed'}")
    if done.failed:
        raise click.exceptions.Exit(1)


class _Replay:
    """One run: what was replayed, what was left alone and why."""

    def __init__(self, topic: "LetterTopic", *, dry_run: bool, force: bool) -> None:
        self._topic = topic
        self._dry_run = dry_run
        self._force = force
        self.count = 0
        self.left_alone: dict[str, int] = {}
        self.failed = False

    async def run(self, letters: Iterable[LetterRead]) -> None:
        from tablehouse.kafka.letter_topic import NotTaken  # noqa: PLC0415

        records = {(letter.source, letter.source_offset): letter for letter in letters}
        whole = [letter for letter in records.values() if self._is_whole(letter)]
        newest = {} if self._force else await self._newest(whole)
        for letter in sorted(whole, key=lambda letter: (letter.source, letter.source_offset)):
            key = letter.original.key
            newer = None if key is None else newest.get((letter.source, key))
            if newer is not None and newer > letter.source_offset:
                self._leave(letter, "its key has a newer record in the source topic (--force)", f"at offset {newer}")
                continue
            try:
                to = "" if self._dry_run else f" as offset {await self._topic.put_back(letter)}"
            except NotTaken as error:
                self.failed = True
                self._leave(letter, "the source topic does not accept it", str(error))
                continue
            self.count += 1
            click.echo(f"{_origin(letter)}{to}")

    def _is_whole(self, letter: LetterRead) -> bool:
        if letter.reason == "unreadable":
            self.failed = True
            self._leave(letter, "it cannot be read", letter.detail)
            return False
        if letter.dropped:
            self.failed = True
            self._leave(
                letter, "it was too large for the dead-letter topic", f"without its {', '.join(letter.dropped)}"
            )
        return not letter.dropped

    async def _newest(self, letters: Iterable[LetterRead]) -> dict[tuple[Any, bytes], int]:
        """Return the newest offset of each key that has a record after the first of its letters."""
        keys: dict[Any, dict[bytes, int]] = {}
        for letter in letters:
            if letter.original.key is not None:
                of_source = keys.setdefault(letter.source, {})
                known = of_source.get(letter.original.key, letter.source_offset)
                of_source[letter.original.key] = min(known, letter.source_offset)
        found = {source: await self._topic.newest(source, wanted) for source, wanted in keys.items()}
        return {(source, key): offset for source, newest in found.items() for key, offset in newest.items()}

    def _leave(self, letter: LetterRead, why: str, detail: str) -> None:
        self.left_alone[why] = self.left_alone.get(why, 0) + 1
        click.echo(f"{_origin(letter)} left alone: {why}, {detail}", err=True)


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", text)
    if match is None:
        raise click.BadParameter(f"{text} is not PARTITION:OFFSET, like 0:17", param_hint="PARTITION:OFFSET")
    return int(match[1]), int(match[2])


def _summary(letter: LetterRead) -> dict[str, str]:
    return {
        "letter": f"{letter.partition}:{letter.offset}",
        "time": _time(letter.time_ms),
        "table": letter.table,
        "reason": letter.reason,
        "record": _origin(letter),
        "timestamp": _time(letter.timestamp_ms),
        "worker": letter.worker,
        "detail": letter.detail,
    }


def _line(letter: LetterRead) -> str:
    parts = _summary(letter)
    return "  ".join(parts[name] for name in ("letter", "time", "table", "reason", "record", "detail"))


def _origin(letter: LetterRead) -> str:
    return f"{letter.source.topic}:{letter.source.partition}:{letter.source_offset}"


def _time(milliseconds: int) -> str:
    if milliseconds == NO_TIMESTAMP:
        return "none"
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"


def _shown(data: bytes | None) -> dict[str, str] | None:
    """Return bytes for a JSON document: as text if they are UTF-8, otherwise in hexadecimal."""
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def _text(data: bytes | None) -> str:
    """Return bytes as text for a terminal, without control characters."""
    shown = _shown(data)
    if data is None or shown is None:
        return "null"
    text = shown.get("text")
    printable = text is not None and all(letter.isprintable() or letter in "\n\t" for letter in text)
    return text if text is not None and printable else f"0x{data.hex()}"
