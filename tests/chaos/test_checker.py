"""Made-up histories: the honest one passes, and each lie is found and called by its name."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.checker import Lie, Rules, Span, by_partition, judge
from tests.chaos.history import Answer, Recording
from tests.support.load import Acknowledged
from tests.support.oracle import Expected, Record

URL = "http://one"
EXPECTED = Expected(
    {
        b"a": [
            Record(0, 0, 1, b"a", b"a0"),
            Record(0, 4, 1, b"a", b"a4"),
            Record(0, 8, 1, b"a", b"a8"),
        ],
        b"b": [Record(1, 3, 1, b"b", b"b3")],
        b"gone": [Record(0, 2, 1, b"gone", b"g2"), Record(0, 6, 1, b"gone", None)],
    },
    {0: 10, 1: 5},
)
RULES = Rules(
    request_timeout=5.0,
    outages={URL: [Span(100.0, 110.0)]},
    floor={0: 1, 1: 4},
    strangers={"zombie": [Span(20.0, 30.0)]},
    stops={URL: [Span(200.0, 210.0)]},
    acknowledged=by_partition([Acknowledged(300.0, 0, 8), Acknowledged(301.0, 0, 9), Acknowledged(300.5, 1, 4)]),
)

REFUSED = "ClientConnectorError('Cannot connect to host')"


def row(key: str, partition: int, offset: int, position: int, *, sent: str = "", **other: Any) -> Answer:
    """Make a right row as an active gives it, but for what is said otherwise; `sent` is a position asked for."""
    values: dict[str, Any] = {
        "asked": 1.0,
        "answered": 2.0,
        "url": URL,
        "table": "t",
        "key": key,
        "status": 200,
        "role": "active",
        "partition": partition,
        "position": position,
        "served_by": "one",
        "etag": f'"5f1c-{partition}-{offset}"',
        "body": f"{key[0]}{offset}",
        "token": sent,
    }
    return msgspec.convert(values | other, Answer)


def miss(key: str, partition: int, position: int, **other: Any) -> Answer:
    values: dict[str, Any] = {"status": 404, "code": "key_not_found", "etag": "", "body": ""}
    return row(key, partition, 0, position, **values | other)


def lack(status: int, **other: Any) -> Answer:
    values = {"asked": 1.0, "answered": 2.0, "url": URL, "table": "t", "key": "a", "status": status}
    return msgspec.convert(values | other, Answer)


HONEST = [
    row("a", 0, 0, 2),
    row("a", 0, 4, 5, asked=3.0, answered=4.0),
    # A row may be newer than its label, and overlapping questions may be answered in any order.
    row("a", 0, 8, 6, asked=5.0, answered=6.0),
    row("a", 0, 4, 5, asked=3.5, answered=6.5),
    row("a", 0, 0, 1, asked=7.0, answered=8.0, role="suspended"),
    row("a", 0, 4, 5, asked=9.0, answered=9.5, role="standby"),
    miss("gone", 0, 6, asked=9.0, answered=9.5),
    miss("gone", 0, 3, role="standby", query="read=any", asked=9.0, answered=9.5),
    row("gone", 0, 2, 5, asked=3.0, answered=4.0),
    miss("never", 1, 3, asked=3.0, answered=4.0),
    row("b", 1, 3, 4, sent="1:4", asked=5.0, answered=6.0),
    # Other partitions than the key's say nothing about it.
    row("a", 0, 4, 5, sent="1:9,0:5", role="standby", query="read=any&min_position=1:9,0:5&timeout_ms=200"),
    row("a", 0, 8, 8, query="read=active", asked=15.0, answered=16.0),
    # At the label's position the key was not there yet.
    miss("b", 1, 2, role="standby", query="read=any", asked=9.0, answered=9.5),
    lack(503, code="position_not_reached", retry_after="1", token="0:9"),  # noqa: S106 - a position
    lack(503, code="partition_restoring", retry_after="1"),
    lack(504, code="deadline_exceeded", answered=5.9),
    lack(0, error="refused", asked=99.0, answered=100.5),
    # The zombie may answer for what it can prove to be old, and may be an active again later.
    row("a", 0, 4, 5, asked=21.0, answered=22.0, served_by="zombie", role="suspended"),
    row("a", 0, 8, 9, asked=29.0, answered=31.0, served_by="zombie"),
    miss("never", 1, 3, role="standby", query="max_lag=3", lag="3", asked=9.0, answered=9.5),
    row("a", 0, 4, 5, role="standby", query="max_staleness_ms=90", staleness_ms="90", asked=9.0, answered=9.5),
    lack(0, error=REFUSED, asked=205.0, answered=205.1),
    row("a", 0, 8, 9, asked=100.5, answered=115.0),
    # What was acknowledged a moment ago need not have been listed yet, and who knows no lag says none.
    row("a", 0, 8, 8, role="standby", lag="0", staleness_ms="2500", asked=303.0, answered=303.1),
    row("a", 0, 4, 7, role="standby", asked=309.0, answered=309.1),
    row("a", 0, 4, 7, role="standby", lag="2", staleness_ms="10000", asked=309.0, answered=309.1),
]

LIES = {
    "a miss of a key that has a row": (Lie.FALSE_MISS, miss("a", 0, 5)),
    "a miss by an active that has applied nothing, of a key that was there from the start": (
        Lie.FALSE_MISS,
        miss("b", 1, -1),
    ),
    "a miss before the delete": (Lie.FALSE_MISS, miss("b", 1, 3, role="standby", query="read=any")),
    "a miss by a suspended copy": (Lie.FALSE_MISS, miss("never", 0, 5, role="suspended")),
    "a miss by a standby nobody asked for": (Lie.FALSE_MISS, miss("never", 0, 5, role="standby")),
    "a row of a key that never was": (Lie.MADE_UP, row("never", 0, 4, 5)),
    "a value that was never written": (Lie.MADE_UP, row("a", 0, 4, 5, body="else")),
    "a row after its delete": (Lie.OLDER, row("gone", 0, 2, 6)),
    "a value older than its label": (Lie.OLDER, row("a", 0, 0, 4)),
    "a suspended copy's value older than its label": (Lie.OLDER, row("a", 0, 0, 4, role="suspended")),
    "a value with the ETag of another": (Lie.MIXED, row("a", 0, 4, 5, body="a0")),
    "a value without an ETag": (Lie.MIXED, row("a", 0, 4, 5, etag="")),
    "a value with the position of another partition": (Lie.MIXED, row("a", 1, 4, 4, etag='"5f1c-0-4"')),
    "a position before the one asked for": (Lie.BACK, row("a", 0, 4, 5, sent="0:6")),
    "a miss before the position asked for": (Lie.BACK, miss("never", 1, 3, sent="1:4")),
    "a position before the one asked for, among others": (Lie.BACK, row("a", 0, 4, 5, sent="1:1,0:6")),
    "a standby's position before the one asked for": (
        Lie.BACK,
        row("a", 0, 4, 5, sent="0:6", role="standby", query="read=any&min_position=0:6"),
    ),
    "a standby that answers read=active": (
        Lie.WRONG_COPY,
        row("a", 0, 4, 5, role="standby", query="read=active"),
    ),
    "a suspended copy that answers read=active": (
        Lie.WRONG_COPY,
        row("a", 0, 4, 5, role="suspended", query="read=active&min_position=0:1"),
    ),
    "a miss by a standby that was asked for, past the key's write": (
        Lie.FALSE_MISS,
        miss("a", 0, 5, role="standby", query="read=any"),
    ),
    "a miss by a standby, with a position alone asked for": (
        Lie.FALSE_MISS,
        miss("never", 0, 5, role="standby", sent="0:5", query="min_position=0:5"),
    ),
    "a standby's value older than its label": (Lie.OLDER, row("a", 0, 0, 4, role="standby", query="read=any")),
    "a position not reached that nobody asked for": (
        Lie.UNEXPECTED,
        lack(503, code="position_not_reached", retry_after="1"),
    ),
    "a row without a role": (Lie.UNMARKED, row("a", 0, 4, 5, role="")),
    "a row without the worker that gave it": (Lie.UNMARKED, row("a", 0, 4, 5, served_by="")),
    "a miss without a position": (Lie.UNMARKED, miss("never", -2, -2)),
    "a zombie that says it is active": (
        Lie.UNMARKED,
        row("a", 0, 4, 5, served_by="zombie", asked=21.0, answered=22.0),
    ),
    "a position past the topic's end": (Lie.BEYOND, row("a", 0, 8, 10)),
    "a 503 without Retry-After": (Lie.UNEXPECTED, lack(503, code="draining")),
    "a 503 that says to retry at once": (Lie.UNEXPECTED, lack(503, code="draining", retry_after="0")),
    "a 503 without a code": (Lie.UNEXPECTED, lack(503, retry_after="1")),
    "a 421": (Lie.UNEXPECTED, lack(421, code="not_owner")),
    "a 500": (Lie.UNEXPECTED, lack(500, code="internal")),
    "a 404 for the table": (Lie.UNEXPECTED, lack(404, code="table_not_found")),
    "a 504 before its time": (Lie.EARLY, lack(504, code="deadline_exceeded", answered=3.0)),
    "no answer to what was asked of a worker that stops": (
        Lie.CUT_OFF,
        lack(0, error="ServerDisconnectedError()", asked=205.0, answered=205.1),
    ),
    "a 503 long after the deadline": (
        Lie.LATE,
        lack(503, code="draining", retry_after="1", asked=1.0, answered=11.5),
    ),
    "more lag than was asked for": (Lie.BOUND, row("a", 0, 8, 9, query="max_lag=3", lag="4")),
    "more staleness than was asked for": (
        Lie.BOUND,
        row("a", 0, 8, 9, query="max_staleness_ms=3", staleness_ms="4"),
    ),
    "a bound that nobody knows to be kept": (Lie.BOUND, row("a", 0, 8, 9, query="max_lag=3")),
    "a lag below what it was": (
        Lie.FRESHER,
        row("a", 0, 4, 7, role="standby", lag="1", asked=309.0, answered=309.1),
    ),
    "a staleness below what it was": (
        Lie.FRESHER,
        row("a", 0, 4, 7, role="standby", staleness_ms="5000", asked=309.0, answered=309.1),
    ),
    "no answer from a worker that is well": (Lie.SILENT, lack(0, error="refused")),
    "no answer from a worker that is back": (Lie.SILENT, lack(0, error="refused", asked=110.5, answered=111.0)),
}

#: Each of these answers is right by itself.
CONTRADICTIONS = {
    "an active's position goes back": (
        Lie.TAKEN_BACK,
        [miss("never", 0, 5), miss("other", 0, 4, asked=3.0, answered=4.0)],
    ),
    "an active's value goes back": (
        Lie.TAKEN_BACK,
        [row("a", 0, 8, 5), row("a", 0, 4, 5, asked=3.0, answered=4.0)],
    ),
    "a position goes back for a client that asked it not to": (
        Lie.BACK,
        [
            row("a", 0, 8, 9, role="standby"),
            row("a", 0, 4, 5, sent="0:3", role="standby", query="read=any", asked=3.0, answered=4.0),
        ],
    ),
    "a key changes its partition": (
        Lie.MIXED,
        [miss("never", 0, 5), miss("never", 1, 3)],
    ),
}


def kinds(*history: Answer) -> set[Lie]:
    return {finding.lie for finding in judge(history, EXPECTED, RULES)}


def test_an_honest_history_has_no_lie() -> None:
    assert [str(finding) for finding in judge(HONEST, EXPECTED, RULES)] == []


@pytest.mark.parametrize(("lie", "answer"), LIES.values(), ids=LIES)
def test_a_lie_is_found(lie: Lie, answer: Answer) -> None:
    assert lie in kinds(answer)


@pytest.mark.parametrize(("lie", "history"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_answers_that_contradict_each_other_are_found(lie: Lie, history: list[Answer]) -> None:
    assert kinds(*history) == {lie}
    assert [kinds(answer) for answer in history] == [set()] * len(history)


def test_every_kind_of_lie_is_told_here() -> None:
    assert {lie for lie, _ in [*LIES.values(), *CONTRADICTIONS.values()]} == set(Lie)


def test_a_recording_gives_whole_lines_only_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "history"
    recording = Recording(path)
    assert recording.refresh() == []
    first, second = (msgspec.json.encode(answer) for answer in HONEST[:2])
    path.write_bytes(first + b"\n" + second[:20])
    assert recording.refresh() == HONEST[:1]
    with path.open("ab") as file:
        file.write(second[20:] + b"\n")
    assert recording.refresh() == HONEST[:2]
