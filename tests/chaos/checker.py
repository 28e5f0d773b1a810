"""The judgement of a whole history against the replay of the source topic: every lie in it, by its kind."""

import enum
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.history import Answer
from tests.chaos.ledger import Ledger
from tests.support.monotone import Said, regressions
from tests.support.oracle import Expected, Record

#: What a hop leaves of the caller's time for saying that it failed.
_HOP_SHARE = 0.9

#: Seconds that the listing of the source's end may be old from which a lag is counted.
_LISTED = 3.0

#: A staleness is rounded down to milliseconds.
_MILLISECOND = 0.001

#: Seconds from the attempt to connect within which a request has to be sent so that a stopping worker surely answers:
#: a little less than it gives connected clients when it stops listening (LAST_CALL in tablehouse.http.server).
_PROMPT = 0.04


class Lie(enum.StrEnum):
    """What can be wrong with an answer."""

    FALSE_MISS = "a 404 for a key that has a row, or from a copy that cannot prove it"
    MADE_UP = "a row that the topic never had"
    OLDER = "a value older than the position it is labelled with"
    MIXED = "a value, an ETag and a position that do not belong together"
    BACK = "a position before the one asked for with min_position, or before one this client has seen when it asked so"
    WRONG_COPY = "an answer of another role to read=active"
    TAKEN_BACK = "an active that knows less than an active said before"
    UNMARKED = "an answer from a worker that is not the owner, without a mark"
    BEYOND = "a position past the topic's end"
    UNEXPECTED = "a status, code or header that is no answer"
    EARLY = "a 504 before the deadline"
    LATE = "an answer after the request's time"
    SILENT = "no answer from a worker that was well"
    ABANDONED = "a question that a stopping worker had taken and has not answered in time, or at all"
    LOOSE = "an answer that does not say that it is within the bound that was asked for"
    FLATTERED = "a lag or a staleness below what it was"


class Span(NamedTuple):
    """A time, in seconds of the monotonic clock."""

    begin: float
    end: float = math.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """What the test knows about its faults.

    request_timeout is the workers' setting, in seconds, and slack how much longer an answer may take on a machine that
    has other work. outages are, by URL, when connections may fail; leaves when a worker was stopping, from the signal
    until it had ended, so that connections may be refused. floor is, by partition, the end of the topic that every
    worker had applied before the history began. strangers are, by worker id, when a worker surely owned nothing,
    because others were seen to own everything. hangs says whether a worker may hang, so that time runs out for who asks
    for its rows. ledger is what the writer knows.
    """

    request_timeout: float = 5.0
    slack: float = 3.0
    outages: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    leaves: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    floor: Mapping[int, int] = field(default_factory=dict)
    strangers: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    hangs: bool = True
    ledger: Ledger = field(default_factory=Ledger)

    def leaving(self, answer: Answer) -> bool:
        """Say whether the worker that was asked was stopping at any moment of a question."""
        return _touches(answer, self.leaves.get(answer.url, ()))

    def out(self, answer: Answer) -> bool:
        """Say whether the worker that was asked may have been gone at any moment of a question."""
        return _touches(answer, self.outages.get(answer.url, ()))


def _touches(answer: Answer, spans: Iterable[Span]) -> bool:
    return any(span.begin <= answer.answered and answer.asked <= span.end for span in spans)


@dataclass(frozen=True, slots=True)
class Finding:
    """One lie, the answer that is it, and what speaks against it."""

    lie: Lie
    answer: Answer
    against: object = None

    def __str__(self) -> str:
        return f"{self.lie}: {self.answer}; against it: {self.against}"


def judge(history: Sequence[Answer], expected: Expected, rules: Rules) -> list[Finding]:
    """Return every lie in a history."""
    found = [finding for answer in history for finding in _judge_one(answer, expected, rules)]
    found += _judge_partitions(history)
    found += _judge_actives(history)
    found += _judge_own_positions(history)
    return found


def _judge_one(answer: Answer, expected: Expected, rules: Rules) -> Iterator[Finding]:
    yield from _judge_connection(answer, rules)
    if answer.status == 0:
        return
    if answer.answered - answer.asked > rules.request_timeout + rules.slack and not rules.out(answer):
        yield Finding(Lie.LATE, answer, f"a request has {rules.request_timeout} s")
    if answer.status == 503:
        if not answer.code or not answer.retry_after.isdigit() or int(answer.retry_after) < 1:
            yield Finding(Lie.UNEXPECTED, answer, "a 503 has a code and Retry-After")
        if answer.code == "position_not_reached" and not answer.token:
            yield Finding(Lie.UNEXPECTED, answer, "no position was asked for")
    elif answer.status == 504:
        yield from _judge_end_of_time(answer, rules)
    elif answer.status == 200 or (answer.status == 404 and answer.code == "key_not_found"):
        yield from _judge_labels(answer, expected, rules)
        yield from _judge_figures(answer, rules.ledger)
        records = expected.history.get(answer.key.encode(), [])
        yield from _judge_miss(answer, records, rules) if answer.status == 404 else _judge_row(answer, records)
    else:
        yield Finding(Lie.UNEXPECTED, answer, "200, 404 key_not_found, 503 or 504")


def _judge_end_of_time(answer: Answer, rules: Rules) -> Iterator[Finding]:
    if answer.answered - answer.asked < _HOP_SHARE * rules.request_timeout:
        yield Finding(Lie.EARLY, answer, f"the deadline is {rules.request_timeout} s")
    if rules.leaving(answer):
        yield Finding(Lie.ABANDONED, answer, rules.leaves[answer.url])
    elif not rules.hangs:
        yield Finding(Lie.LATE, answer, "nobody hangs")


def _judge_connection(answer: Answer, rules: Rules) -> Iterator[Finding]:
    """Check that a question was taken and answered.

    A worker that stops answers everybody until it ceases to listen, and refuses then. Whoever has connected by then and
    sends at once is answered as well; not so a client that is slow, or one that sends on a connection that idles. That
    one may be told by the closing of it, and is not judged.
    """
    if rules.leaving(answer):
        if 0 <= answer.cut <= _PROMPT or "Timeout" in answer.error:
            yield Finding(Lie.ABANDONED, answer, rules.leaves[answer.url])
    elif (answer.status == 0 or answer.cut >= 0) and not rules.out(answer):
        yield Finding(Lie.SILENT, answer, list(rules.outages.get(answer.url, ())))


def _judge_figures(answer: Answer, ledger: Ledger) -> Iterator[Finding]:
    """Check lag and staleness against the bounds that were asked for, and against what had been acknowledged."""
    for what, figure in (("max_lag", answer.lag), ("max_staleness_ms", answer.staleness_ms)):
        bound = _bound(answer, what)
        if bound is not None and (not figure or int(figure) > bound):
            yield Finding(Lie.LOOSE, answer, f"{what} of {figure or 'nothing'}")
    if answer.lag:
        known = ledger.highest(answer.partition, answer.asked - _LISTED) - answer.position
        if known > int(answer.lag):
            yield Finding(Lie.FLATTERED, answer, f"{known} records are not applied")
    if answer.staleness_ms:
        fresh_at = answer.asked - int(answer.staleness_ms) / 1000 - _MILLISECOND
        known = ledger.highest(answer.partition, fresh_at)
        if known > answer.position:
            yield Finding(Lie.FLATTERED, answer, f"offset {known} was there before that and is not applied")


def _bound(answer: Answer, what: str) -> int | None:
    found = [part for part in answer.query.split("&") if part.startswith(f"{what}=")]
    return int(found[0].partition("=")[2]) if found else None


def _judge_labels(answer: Answer, expected: Expected, rules: Rules) -> Iterator[Finding]:
    if answer.role not in {"active", "standby", "suspended"} or not answer.served_by or answer.partition < 0:
        yield Finding(
            Lie.UNMARKED, answer, "every row and every miss says who answered, in which role, at which position"
        )
    for span in rules.strangers.get(answer.served_by, ()):
        if answer.role == "active" and span.begin <= answer.asked and answer.answered <= span.end:
            yield Finding(Lie.UNMARKED, answer, span)
    if answer.position >= expected.ends.get(answer.partition, 0):
        yield Finding(Lie.BEYOND, answer, expected.ends.get(answer.partition))
    if answer.position < answer.least:
        yield Finding(Lie.BACK, answer, answer.token)
    if answer.role != "active" and _asks_for(answer, "read=active"):
        yield Finding(Lie.WRONG_COPY, answer, answer.query)


def _asks_for(answer: Answer, what: str) -> bool:
    return what in answer.query.split("&")


def _judge_miss(answer: Answer, records: Sequence[Record], rules: Rules) -> Iterator[Finding]:
    bounded = any(_bound(answer, what) is not None for what in ("max_lag", "max_staleness_ms"))
    takes_standbys = _asks_for(answer, "read=any") or (bounded and not _asks_for(answer, "read=active"))
    if answer.role == "suspended" or (answer.role == "standby" and not takes_standbys):
        yield Finding(Lie.FALSE_MISS, answer, "only an active says that a key does not exist")
    position = answer.position
    if answer.role == "active":
        # No active came to be without having applied what there was.
        position = max(position, rules.floor.get(answer.partition, 0) - 1)
    possible = [
        record
        for record in _from(records, position)
        if record.offset <= position or rules.ledger.may_be_there(record.partition, record.offset, answer.answered)
    ]
    # What is applied after the label is taken may show, so a later delete makes the miss true.
    if possible and all(record.value is not None for record in possible) and possible[0].offset <= position:
        yield Finding(Lie.FALSE_MISS, answer, possible[0])


def _judge_row(answer: Answer, records: Sequence[Record]) -> Iterator[Finding]:
    partition, offset = answer.etag.strip('"').split("-")[-2:] if answer.etag.count("-") >= 2 else ("", "")
    labelled = [record for record in records if str(record.offset) == offset and str(record.partition) == partition]
    if not any(record.value == answer.body.encode() for record in records):
        yield Finding(Lie.MADE_UP, answer, f"{len(records)} records have the key")
    elif not labelled or labelled[0].value != answer.body.encode() or labelled[0].partition != answer.partition:
        yield Finding(Lie.MIXED, answer, labelled)
    else:
        possible = _from(records, answer.position)
        if labelled[0].offset < possible[0].offset:
            yield Finding(Lie.OLDER, answer, possible[0])


def _from(records: Sequence[Record], position: int) -> Sequence[Record]:
    """Return the record of a key that counts at a position, and those after it."""
    before = sum(record.offset <= position for record in records)
    return records[max(0, before - 1) :]


def _judge_partitions(history: Iterable[Answer]) -> Iterator[Finding]:
    """Check that every answer for a key is labelled with the same partition."""
    first: dict[tuple[str, str], Answer] = {}
    for answer in history:
        if answer.partition >= 0:
            known = first.setdefault((answer.table, answer.key), answer)
            if known.partition != answer.partition:
                yield Finding(Lie.MIXED, answer, known)


def _judge_own_positions(history: Iterable[Answer]) -> Iterator[Finding]:
    """Check that a question with min_position gets no position before any that its client had seen, of any copy."""
    said = [
        Said(answer.asked, answer.answered, answer.partition, answer.position, answer)
        for answer in history
        if answer.role and answer.status in {200, 404}
    ]
    for answer, earlier in regressions(said):
        if answer.token:
            yield Finding(Lie.BACK, answer, earlier)


def _judge_actives(history: Iterable[Answer]) -> Iterator[Finding]:
    """Check that no active takes back what an active has said before the question."""
    said = [
        Said(answer.asked, answer.answered, (answer.table, answer.partition), answer.position, answer)
        for answer in history
        if answer.role == "active" and answer.status in {200, 404}
    ]
    rows = [
        Said(answer.asked, answer.answered, (answer.table, answer.key), int(offset), answer)
        for answer in history
        if answer.role == "active"
        and answer.status == 200
        and (offset := answer.etag.strip('"').rpartition("-")[2]).isdigit()
    ]
    for answer, earlier in [*regressions(said), *regressions(rows)]:
        yield Finding(Lie.TAKEN_BACK, answer, earlier)
