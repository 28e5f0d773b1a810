"""What happens to records that cannot become rows: a dead letter, a skip, or a stop.

It happens before the position moves past the record: a dead letter is acknowledged before the changelog batch that
covers its record is appended.
"""

import time
from typing import assert_never

import structlog

from tablehouse.recurring import Recurring
from tablehouse.tasks.dead_letters import DeadLetter, DeadLetters, LettersUndelivered
from tablehouse.tasks.ingest import BadRecord, RecordRefused, TableCodec
from tablehouse.tasks.log import LogRecord
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

#: At most this many bad records are logged one by one in this many seconds; the others are summarized.
BAD_RECORDS_LOGGED, LINES_SECONDS = 10, 60.0


class BadRecords:
    """The bad records of the batch that a pipeline is folding."""

    def __init__(self, table: str, codec: TableCodec, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._table = table
        self._source = codec.source
        self._place = {"table": table, "topic": codec.source.topic, "partition": codec.source.partition}
        self._on_error = codec.on_error
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._likely_cause = codec.likely_cause
        self._found: list[BadRecord] = []
        self._summary = Recurring(log)
        self._lines_from, self._lines = float("-inf"), 0
        #: A description of the latest bad record.
        self.latest: str | None = None

    def clear(self) -> None:
        """Forget the records found so far, because their batch is folded again."""
        self._found.clear()

    def add(self, record: LogRecord, reason: str, detail: str) -> None:
        """Record a bad record; implements Skips."""
        self._found.append(BadRecord(record, reason, detail))

    def __len__(self) -> int:
        """Return the number of bad records found in the batch."""
        return len(self._found)

    @property
    def stop_at(self) -> BadRecord | None:
        """Return the record before which ingesting has to stop; None when there is none."""
        return self._found[0] if self._found and self._on_error == "stop" else None

    def refusal(self, bad: BadRecord) -> RecordRefused:
        """Return the error to raise once everything before a record is applied."""
        return RecordRefused(self._source, bad)

    async def pass_over(self) -> None:
        """Handle the bad records as `on_error` says. Afterwards the position that covers them may be appended.

        Raises LettersUndelivered, and RecordRefused where `on_error` is stop.
        """
        if not self._found:
            return
        match self._on_error:
            case "dead_letter":
                await self._send()
                self._report("record dead-lettered", "more records dead-lettered")
                counter = self._metrics.dead_letters
            case "skip":
                self._report("record skipped", "more records skipped")
                counter = self._metrics.records_skipped
            case "stop":
                raise self.refusal(self._found[0])
            case other:
                assert_never(other)
        for bad in self._found:
            counter.labels(self._table, bad.reason).inc()
        self.clear()

    async def _send(self) -> None:
        try:
            await self._dead_letters.send([DeadLetter(self._table, self._source, bad) for bad in self._found])
        except LettersUndelivered:
            self._metrics.dead_letter_errors.labels(self._table).inc()
            raise

    def _report(self, one: str, many: str) -> None:
        if time.monotonic() - self._lines_from >= LINES_SECONDS:
            self._lines_from, self._lines = time.monotonic(), 0
        logged = self._found[: BAD_RECORDS_LOGGED - self._lines]
        self._lines += len(logged)
        for bad in logged:
            log.warning(one, **self._place, offset=bad.record.offset, **self._what(bad))
        last = self._found[-1]
        what = self._what(last)
        self.latest = f"offset {last.record.offset} of {self._source}: {'; '.join(what.values())}"
        if len(self._found) > len(logged):
            count = len(self._found) - len(logged)
            self._summary.warn(many, many, **self._place, count=count, last_offset=last.record.offset, **what)

    def _what(self, bad: BadRecord) -> dict[str, str]:
        cause = self._likely_cause(bad.record, bad.reason)
        return {"reason": bad.reason, "detail": bad.detail} | ({} if cause is None else {"likely_cause": cause})
