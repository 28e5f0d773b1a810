"""The messages between workers, byte for byte: a rolling upgrade has workers of two versions on one link."""

import msgspec
import pytest

from tablehouse.link.messages import (
    Agreed,
    Answer,
    Ask,
    AskMany,
    Cancel,
    Ping,
    Pong,
    Question,
    Refused,
    Reply,
    Slices,
    Write,
    Written,
    decode_questions,
    decode_replies,
    encode,
)
from tablehouse.model import Consistency, Freshness, ReadMode, Role
from tablehouse.positions import Position
from tablehouse.routing.error_values import ErrorValue
from tablehouse.routing.ports import Condition, Wanted
from tablehouse.stores.rows import Row
from tablehouse.tasks.counting import CountRange, CountResult
from tablehouse.tasks.questions import Applied, Get
from tablehouse.tasks.ranges import KeyedRow, Range, RangeResult
from tablehouse.tasks.reads import ReadResult

AGREED = Agreed("t", "d", 4, 7)
POSITION = Position(("2",), (99,))
FRESHNESS = Freshness(2, POSITION, Role.STANDBY, 1, None)

QUESTIONS: list[tuple[Question, object]] = [
    (
        Ask(1, AGREED, 2, Get(b"k"), 0.5),
        [1, 1, ["t", "d", 4, 7], 2, ["get", b"k"], 0.5, None, 0.0],
    ),
    (
        Ask(1, AGREED, 2, Applied(), 0.5, Consistency(ReadMode.ANY, 5, 6, Position(("2",), (7,))), 0.25),
        [1, 1, ["t", "d", 4, 7], 2, ["applied"], 0.5, ["any", 5, 6, [["2"], [7]]], 0.25],
    ),
    (
        Ask(1, AGREED, 2, Range(b"a", b"z", reverse=True, limit=3, keys_only=True), 0.5),
        [1, 1, ["t", "d", 4, 7], 2, ["range", b"a", b"z", True, 3, True, None, []], 0.5, None, 0.0],
    ),
    (
        Ask(1, AGREED, 2, Range(b"a", where="x = 1", fields=(("a",), ("b", "c"))), 0.5),
        [
            1,
            1,
            ["t", "d", 4, 7],
            2,
            ["range", b"a", None, False, 1, False, "x = 1", [["a"], ["b", "c"]]],
            0.5,
            None,
            0.0,
        ],
    ),
    (
        Ask(1, AGREED, 2, CountRange(b"a"), 0.5),
        [1, 1, ["t", "d", 4, 7], 2, ["count", b"a", None, None], 0.5, None, 0.0],
    ),
    (
        Ask(1, AGREED, 2, CountRange(b"a", where="x = 1"), 0.5),
        [1, 1, ["t", "d", 4, 7], 2, ["count", b"a", None, "x = 1"], 0.5, None, 0.0],
    ),
    (
        AskMany(1, AGREED, [Wanted(2, [b"a", b"b"])], 0.5),
        [2, 1, ["t", "d", 4, 7], [[2, [b"a", b"b"]]], 0.5, None, 0.0],
    ),
    (
        Write(1, AGREED, 2, b"s", b"k", None, Condition((1, 2), exists=True), 0.5),
        [3, 1, ["t", "d", 4, 7], 2, b"s", b"k", None, [[1, 2], True], 0.5],
    ),
    (Cancel(1), [4, 1]),
    (Ping(), [5]),
]

REPLIES: list[tuple[Reply, object]] = [
    (
        Answer(1, ReadResult(Row(b"v", 5, 41), FRESHNESS)),
        [1, 1, ["row", [b"v", 5, 41, False], [2, [["2"], [99]], "standby", 1, None, 0], None]],
    ),
    (Answer(1, ReadResult(None, FRESHNESS, 5)), [1, 1, ["row", None, [2, [["2"], [99]], "standby", 1, None, 0], 5]]),
    (Answer(1, None), [1, 1, None]),
    (
        Answer(1, RangeResult([KeyedRow(b"k", b"v", 5, 41)], FRESHNESS, Range(b"l", limit=2), 9)),
        [
            1,
            1,
            [
                "range",
                [[b"k", b"v", 5, 41, False]],
                [2, [["2"], [99]], "standby", 1, None, 0],
                ["range", b"l", None, False, 2, False, None, []],
                9,
            ],
        ],
    ),
    (
        Answer(1, CountResult(7, FRESHNESS, CountRange(b"l", b"z"), 9)),
        [1, 1, ["count", 7, [2, [["2"], [99]], "standby", 1, None, 0], ["count", b"l", b"z", None], 9]],
    ),
    (Slices(1, b"s"), [2, 1, b"s"]),
    (Written(1, 41), [3, 1, 41]),
    (Refused(1, ErrorValue(b"{}", 7)), [4, 1, [b"{}", 7]]),
    (Pong(), [5]),
]


@pytest.mark.parametrize(("message", "written"), [*QUESTIONS, *REPLIES], ids=repr)
def test_a_message_has_these_members_in_this_order(message: Question | Reply, written: object) -> None:
    assert msgspec.msgpack.decode(encode(message)) == written


def test_messages_are_read_as_they_were_written() -> None:
    questions, replies = [message for message, _ in QUESTIONS], [message for message, _ in REPLIES]
    assert decode_questions(encode(questions)) == questions
    assert decode_replies(encode(replies)) == replies


def test_members_that_a_later_version_adds_at_the_end_are_passed_over() -> None:
    assert decode_questions(encode([[4, 1, "later"]])) == [Cancel(1)]
    assert decode_replies(encode([[3, 1, 41, "later"]])) == [Written(1, 41)]


def test_a_range_of_a_worker_that_knows_fewer_members_is_read() -> None:
    [ask] = decode_questions(encode([[1, 1, ["t", "d", 4, 7], 2, ["range", b"a", b"z", True, 3], 0.5]]))
    assert ask == Ask(1, AGREED, 2, Range(b"a", b"z", reverse=True, limit=3), 0.5)


def test_results_of_a_worker_that_does_not_know_conditions_have_no_rows_read() -> None:
    freshness = [2, [["2"], [99]], "standby", 1, None, 0]
    answers = [[1, 1, ["range", [[b"k", b"v", 5, 41, False]], freshness, None]], [1, 2, ["count", 7, freshness, None]]]
    assert decode_replies(encode(answers)) == [
        Answer(1, RangeResult([KeyedRow(b"k", b"v", 5, 41)], FRESHNESS)),
        Answer(2, CountResult(7, FRESHNESS)),
    ]
