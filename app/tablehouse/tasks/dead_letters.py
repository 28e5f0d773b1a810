"""Dead letters: copies of records that cannot become rows, with the error in additional headers.

The headers are those of Kafka Connect's dead letter queues, so that tools for these show them, and some of our own.
They follow the record's own headers, whose number is a header too, so a producer may use any header names.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tablehouse.model import TopicPartition
from tablehouse.tasks.ingest import BadRecord, RecordRefused
from tablehouse.tasks.log import LogRecord

CONNECT = "__connect.errors."
OURS = "__tablehouse.errors."

#: The value of `table` in a letter about offsets that every table of the topic skips.
EVERY_TABLE = "*"

#: Reasons why a record could not become a row, or could not be read.
REASONS = ("null_key", "empty_key", "undecodable_key", "undecodable_value", "oversized", "unreadable")

#: The number of the record's own headers. Only the last header of this name counts.
_OWN_HEADERS = f"{OURS}record.headers"

#: The stage of Kafka Connect that corresponds to each reason.
_STAGES = {
    "null_key": "KEY_CONVERTER",
    "empty_key": "KEY_CONVERTER",
    "undecodable_key": "KEY_CONVERTER",
    "oversized": "TASK_PUT",
    "unreadable": "KAFKA_CONSUME",
}
_OTHER_STAGE = "VALUE_CONVERTER"

Headers = Sequence[tuple[str, bytes]]


class LettersUndelivered(Exception):
    """Dead letters were not written, or it is not known whether they were; they have to be written again."""


class DeadLetter(NamedTuple):
    """One bad record of a table's source partition."""

    table: str
    source: TopicPartition
    bad: BadRecord


class DeadLetters(Protocol):
    """Writes dead letters."""

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters of one source partition, and return once all in-sync replicas have each of them.

        Has a timeout of its own. Raises LettersUndelivered; after that, or after a cancellation, some letters may have
        been written.
        """


class Content(NamedTuple):
    """Key, value and headers of a dead letter, or of the original record."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def content_of(letter: DeadLetter, group: str, worker: str, now_ms: int) -> Content:
    """Return what is written for a letter: the record's unchanged key, value and headers, and the error's headers."""
    record = letter.bad.record
    return Content(record.key, record.value, (*record.headers, *_error(letter, group, worker, now_ms)))


def without_value(letter: DeadLetter, group: str, worker: str, now_ms: int) -> Content:
    """Return what is written if the whole record is too large: no value, but its size in a header."""
    record = letter.bad.record
    dropped = (f"{OURS}dropped.value.bytes", b"%d" % len(record.value or b""))
    return Content(record.key, None, (*record.headers, *_error(letter, group, worker, now_ms), dropped))


def without_content(letter: DeadLetter, group: str, worker: str, now_ms: int) -> Content:
    """Return what is written if key and headers are too large as well: only the error's headers."""
    record = letter.bad.record
    own = sum(len(name) + len(value or b"") for name, value in record.headers)
    dropped = (
        (f"{OURS}dropped.value.bytes", b"%d" % len(record.value or b"")),
        (f"{OURS}dropped.key.bytes", b"%d" % len(record.key or b"")),
        (f"{OURS}dropped.headers.bytes", b"%d" % own),
    )
    return Content(None, None, (*_error(letter, group, worker, now_ms, headers=0), *dropped))


def _error(
    letter: DeadLetter, group: str, worker: str, now_ms: int, headers: int | None = None
) -> list[tuple[str, bytes]]:
    record, reason, detail = letter.bad
    connect = {
        "topic": letter.source.topic,
        "partition": letter.source.partition,
        "offset": record.offset,
        "connector.name": group,
        "task.id": letter.source.partition,
        "stage": _STAGES.get(reason, _OTHER_STAGE),
        "class.name": "tablehouse",
        "exception.class.name": RecordRefused.__name__,
        "exception.message": detail,
        "exception.stacktrace": f"{RecordRefused.__name__}: {detail}",
    }
    ours = {
        "table": letter.table,
        "reason": reason,
        "group": group,
        "worker": worker,
        "time": now_ms,
        "record.timestamp": record.timestamp,
        "record.headers": len(record.headers) if headers is None else headers,
    }
    return [
        *((CONNECT + name, str(value).encode()) for name, value in connect.items()),
        *((OURS + name, str(value).encode()) for name, value in ours.items()),
    ]


class LetterRead(NamedTuple):
    """A dead letter as read. Times are in milliseconds; `dropped` has the size of each part that was too large.

    `original` is the record's original content without the dropped parts.
    """

    partition: int
    offset: int
    table: str
    reason: str
    detail: str
    source: TopicPartition
    source_offset: int
    time_ms: int
    timestamp_ms: int
    worker: str
    original: Content
    dropped: Mapping[str, int]


def read_letter(partition: int, record: LogRecord) -> LetterRead | None:
    """Parse a record of the dead-letter topic; return None for one that no worker wrote."""
    try:
        place = max(index for index, (name, _) in enumerate(record.headers) if name == _OWN_HEADERS)
        own = int(record.headers[place][1])
        error = {name: value.decode() for name, value in record.headers[own:]}
        dropped = {
            part: int(error[f"{OURS}dropped.{part}.bytes"])
            for part in ("value", "key", "headers")
            if f"{OURS}dropped.{part}.bytes" in error
        }
        return LetterRead(
            partition=partition,
            offset=record.offset,
            table=error[f"{OURS}table"],
            reason=error[f"{OURS}reason"],
            detail=error[f"{CONNECT}exception.message"],
            source=TopicPartition(error[f"{CONNECT}topic"], int(error[f"{CONNECT}partition"])),
            source_offset=int(error[f"{CONNECT}offset"]),
            time_ms=int(error[f"{OURS}time"]),
            timestamp_ms=int(error[f"{OURS}record.timestamp"]),
            worker=error[f"{OURS}worker"],
            original=Content(record.key, record.value, tuple(record.headers[:own])),
            dropped=dropped,
        )
    except (ValueError, KeyError, AttributeError, IndexError):
        return None
