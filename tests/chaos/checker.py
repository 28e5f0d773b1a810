"""The judgement of a whole history against the replay of the source topic: every lie in it, by its kind."""

import bisect
import enum
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.history import Answer
from tests.support.load import Acknowledged
from tests.support.monotone import Said, regressions
from tests.support.oracle import Expected, Record

#: What a hop leaves of the caller's time for saying that it failed.
_HOP_SHARE = 0.9

#: Seconds that an answer may be late on a machine that has more to do than it can.
_SLACK = 5.0

#: Seconds that the listing may be old by which a lag is counted.
_LISTED = 3.0

#: Seconds between what a worker does and what its client knows of it.
_SEEN = 0.5


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
    SILENT = "no answer from a worker that was well"
    CUT_OFF = "no answer to what was asked on a connection to a worker that was told to stop"
    LATE = "an answer long after the deadline"
    BOUND = "an answer beyond a bound that was asked for, or one that does not say where it is within it"
    FRESHER = "a lag or a staleness below what it was"


class Span(NamedTuple):
    """A time, in seconds of the monotonic clock."""

    begin: float
    end: float = math.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """What the test knows about its faults.

    request_timeout is the workers' setting, in seconds. outages are, by URL, when connections may fail. floor is, by
    partition, the end of the topic that every worker had applied before the history began. strangers are, by worker id,
    when a worker surely owned nothing, because others were seen to own everything. stops are, by URL, when a worker was
    told to stop and might not listen. acknowledged are by_partition().
    """

    request_timeout: float = 5.0
    outages: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    floor: Mapping[int, int] = field(default_factory=dict)
    strangers: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    stops: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    acknowledged: Mapping[int, Sequence[tuple[float, int]]] = field(default_factory=dict)


def by_partition(records: Iterable[Acknowledged]) -> dict[int, list[tuple[float, int]]]:
    """Return times, and the highest offset that was acknowledged by then, in order."""
    known: dict[int, list[tuple[float, int]]] = {}
    for at, partition, offset in sorted(records):
        times = known.setdefault(partition, [])
        times.append((at, max(offset, times[-1][1] if times else -1)))
    return known


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
    if not _during(answer, rules.outages):
        yield from _judge_time(answer, rules)
    if answer.status == 0:
        return
    if answer.status == 503:
        if not answer.code or not answer.retry_after.isdigit() or int(answer.retry_after) < 1:
            yield Finding(Lie.UNEXPECTED, answer, "a 503 has a code and Retry-After")
        if answer.code == "position_not_reached" and not answer.token:
            yield Finding(Lie.UNEXPECTED, answer, "no position was asked for")
    elif answer.status == 504:
        if answer.answered - answer.asked < _HOP_SHARE * rules.request_timeout:
            yield Finding(Lie.EARLY, answer, f"the deadline is {rules.request_timeout} s")
    elif answer.status == 200 or (answer.status == 404 and answer.code == "key_not_found"):
        yield from _judge_labels(answer, expected, rules)
        yield from _judge_freshness(answer, rules)
        records = expected.history.get(answer.key.encode(), [])
        yield from _judge_miss(answer, records, rules) if answer.status == 404 else _judge_row(answer, records)
    else:
        yield Finding(Lie.UNEXPECTED, answer, "200, 404 key_not_found, 503 or 504")


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


def _judge_time(answer: Answer, rules: Rules) -> Iterator[Finding]:
    """Check that a worker that was well has answered, in time."""
    if answer.status:
        if answer.answered - answer.asked > rules.request_timeout + _SLACK:
            yield Finding(Lie.LATE, answer, f"the deadline is {rules.request_timeout} s")
    elif not _during(answer, rules.stops):
        yield Finding(Lie.SILENT, answer, list(rules.outages.get(answer.url, ())))
    elif not answer.error.startswith("ClientConnectorError"):
        yield Finding(Lie.CUT_OFF, answer, list(rules.stops[answer.url]))


def _during(answer: Answer, times: Mapping[str, Sequence[Span]]) -> bool:
    """Say whether a worker was asked, or answered, in one of these times."""
    return any(span.begin <= answer.answered and answer.asked <= span.end for span in times.get(answer.url, ()))


def _judge_freshness(answer: Answer, rules: Rules) -> Iterator[Finding]:
    """Check the bounds that were asked for, and both figures against what the broker had acknowledged."""
    for name, figure in (("max_staleness_ms", answer.staleness_ms), ("max_lag", answer.lag)):
        bound = _value_of(answer, name)
        if bound is not None and (not figure or int(figure) > bound):
            yield Finding(Lie.BOUND, answer, f"{name}={bound}")
    if answer.lag:
        there = _acknowledged(rules, answer.partition, answer.asked - _LISTED - _SEEN)
        if answer.position + int(answer.lag) < there:
            yield Finding(Lie.FRESHER, answer, f"offset {there} was acknowledged, and it counts {answer.lag} records")
    if answer.staleness_ms:
        there = _acknowledged(rules, answer.partition, answer.asked - int(answer.staleness_ms) / 1000 - _SEEN)
        if answer.position < there:
            yield Finding(Lie.FRESHER, answer, f"offset {there} had been acknowledged for {answer.staleness_ms} ms")


def _acknowledged(rules: Rules, partition: int, at: float) -> int:
    """Return the highest offset that was acknowledged at a time; -1 when none was."""
    times = rules.acknowledged.get(partition, ())
    index = bisect.bisect_right(times, (at, -1))
    return times[index - 1][1] if index else -1


def _asks_for(answer: Answer, what: str) -> bool:
    return what in answer.query.split("&")


def _value_of(answer: Answer, name: str) -> int | None:
    values = [part.removeprefix(f"{name}=") for part in answer.query.split("&") if part.startswith(f"{name}=")]
    return int(values[0]) if values else None


def _judge_miss(answer: Answer, records: Sequence[Record], rules: Rules) -> Iterator[Finding]:
    bounded = any(_value_of(answer, name) is not None for name in ("max_staleness_ms", "max_lag"))
    asked_for_copies = bounded or _asks_for(answer, "read=any")
    if answer.role == "suspended" or (answer.role == "standby" and not asked_for_copies):
        yield Finding(Lie.FALSE_MISS, answer, "only an active says that a key does not exist")
    position = answer.position
    if answer.role == "active":
        # No active came to be without having applied what there was.
        position = max(position, rules.floor.get(answer.partition, 0) - 1)
    possible = _from(records, position)
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
