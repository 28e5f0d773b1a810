"""Made-up histories: the honest one passes, and each lie is found and called by its name."""

import asyncio
import dataclasses
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.checker import Lie, Rules, Span, judge
from tests.chaos.history import Answer, Recording
from tests.chaos.ledger import Ledger
from tests.chaos.recorder import Plan, Recorder, tracing
from tests.support.cluster import client
from tests.support.load import Written
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
        b"later": [Record(1, 2, 1, b"later", b"l2"), Record(1, 4, 1, b"later", None)],
    },
    {0: 10, 1: 5},
)
RULES = Rules(
    request_timeout=5.0,
    slack=1.0,
    outages={URL: [Span(100.0, 110.0)]},
    leaves={URL: [Span(200.0, 210.0)]},
    # The writer knows of some of its records only.
    ledger=Ledger([Written(0, 8, 50.0, 51.0), Written(1, 3, 52.0, 53.0), Written(1, 4, 60.0, 61.0)]),
    floor={0: 1, 1: 4},
    strangers={"zombie": [Span(20.0, 30.0)]},
)


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


#: What a stopping worker does to who asks it.
REFUSED: dict[str, Any] = {"error": "refused", "refused": True, "asked": 205.0, "answered": 205.1}
BROKEN: dict[str, Any] = {"error": "ServerDisconnectedError()", "asked": 205.0, "answered": 205.1}

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
    # What is applied after the label was taken may show, as far as it had been sent.
    miss("later", 1, 3, role="standby", query="read=any", asked=60.0, answered=62.0),
    row("a", 0, 8, 9, query="max_lag=0", lag="0", asked=50.0, answered=50.5),
    miss("absent", 0, 9, query="max_staleness_ms=40", staleness_ms="40", role="standby", asked=60.0, answered=60.5),
    # Lags are counted from a listing that is 3 s old at most, stalenesses from when it was.
    miss("never", 1, 2, lag="0", staleness_ms="1000", role="standby", query="read=any", asked=54.0, answered=54.5),
    miss("never", 1, 2, lag="1", staleness_ms="4500", role="standby", query="read=any", asked=57.0, answered=57.5),
    # A worker that stops: refused, or too late on a connection that idled or was not used at once.
    lack(0, **REFUSED),
    lack(0, **BROKEN),
    lack(0, **BROKEN, cut=0.3),
    miss("absent", 0, 9, asked=201.0, answered=202.0),
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
    "no answer from a worker that is well": (Lie.SILENT, lack(0, error="refused")),
    "no answer from a worker that is back": (Lie.SILENT, lack(0, error="refused", asked=110.5, answered=111.0)),
    "an answer at the second attempt only": (Lie.SILENT, row("a", 0, 4, 5, cut=0.01)),
    "a row after the request's time": (Lie.LATE, row("a", 0, 8, 9, asked=60.0, answered=66.5)),
    "a miss after the request's time": (Lie.LATE, miss("never", 0, 9, asked=60.0, answered=66.5)),
    "a 503 after the request's time": (
        Lie.LATE,
        lack(503, code="owner_unreachable", retry_after="1", answered=7.5),
    ),
    "a 504 after the request's time": (Lie.LATE, lack(504, code="deadline_exceeded", answered=7.5)),
    "a stopping worker that cuts off who has sent at once": (Lie.ABANDONED, lack(0, **BROKEN, cut=0.01)),
    "a stopping worker that answers at the second attempt only": (
        Lie.ABANDONED,
        row("a", 0, 8, 9, asked=205.0, answered=205.1, cut=0.01),
    ),
    "a stopping worker that says nothing": (
        Lie.ABANDONED,
        lack(0, error="TimeoutError()", asked=190.0, answered=205.0),
    ),
    "a stopping worker that runs out of time": (
        Lie.ABANDONED,
        lack(504, code="deadline_exceeded", asked=203.0, answered=207.9),
    ),
    "a miss that only a later delete would make true": (Lie.FALSE_MISS, miss("later", 1, 3, asked=58.0, answered=59.0)),
    "a lag above the bound": (Lie.LOOSE, row("a", 0, 4, 5, query="read=any&max_lag=3", lag="4")),
    "no lag, and a bound": (Lie.LOOSE, row("a", 0, 4, 5, query="max_lag=3")),
    "a staleness above the bound": (Lie.LOOSE, row("a", 0, 4, 5, query="max_staleness_ms=30", staleness_ms="31")),
    "no staleness, and a bound": (Lie.LOOSE, miss("never", 0, 5, query="max_staleness_ms=30&min_position=0:1")),
    "a miss by a standby that was not asked for, within a bound": (
        Lie.FALSE_MISS,
        miss("never", 0, 5, role="standby", query="read=active&max_lag=30", lag="4"),
    ),
    "a lag without what was there for long": (
        Lie.FLATTERED,
        miss("never", 1, 2, lag="0", role="standby", query="read=any", asked=57.0, answered=57.5),
    ),
    "a staleness that something older is missing from": (
        Lie.FLATTERED,
        row("a", 0, 4, 5, staleness_ms="2000", role="standby", asked=54.0, answered=54.5),
    ),
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


def test_a_question_whose_time_runs_out_is_a_lie_where_nobody_hangs() -> None:
    late = lack(504, code="deadline_exceeded", answered=5.5)
    assert kinds(late) == set()
    found = judge([late], EXPECTED, dataclasses.replace(RULES, hangs=False))
    assert [finding.lie for finding in found] == [Lie.LATE]


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


async def test_the_recorder_notes_that_a_connection_of_its_own_was_cut_and_that_one_was_refused() -> None:
    def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def asked(url: str) -> Answer:
        out, stopping = io.BytesIO(), asyncio.Event()
        stopping.set()
        async with client(5.0, [tracing()]) as http:
            await Recorder(Plan([url], ["t"], ["a"], "", 0), http, out).run(stopping)
        return msgspec.json.decode(out.getvalue(), type=Answer)

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        seen = await asked(url)
        assert (seen.status, seen.refused) == (0, False)
        assert 0 <= seen.cut < seen.answered - seen.asked
    seen = await asked(url)
    assert (seen.status, seen.refused, seen.cut) == (0, True, -1.0)
