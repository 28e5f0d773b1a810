"""What a dead letter says of its record, and that the record can be had back from it."""

from typing import NamedTuple

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import (
    Content,
    DeadLetter,
    content_of,
    read_letter,
    without_content,
    without_value,
)
from tablehouse.tasks.ingest import BadRecord
from tablehouse.testing.simulated.broker import Record

SOURCE = TopicPartition("orders", 3)
HEADERS = (("trace", b"\x00\xff"), ("trace", b"2"), ("empty", b""))
BAD = Record(41, 1_700_000_000_000, b"\x00key", b"\xffvalue", HEADERS)


def letter(record: Record = BAD, reason: str = "undecodable_value", detail: str = "not JSON") -> DeadLetter:
    return DeadLetter("planes", SOURCE, BadRecord(record, reason, detail))


class Read(NamedTuple):
    """A record of the dead-letter topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def written(content: Content, offset: int = 7) -> Read:
    return Read(offset, 1, content.key, content.value, tuple(content.headers))


def test_a_letter_is_the_record_as_it_was_with_the_error_in_headers_behind_its_own() -> None:
    content = content_of(letter(), "shop", "w1", 1_700_000_000_999)
    assert (content.key, content.value) == (BAD.key, BAD.value)
    assert tuple(content.headers[:3]) == HEADERS
    assert {name: value.decode() for name, value in content.headers[3:]} == {
        "__connect.errors.topic": "orders",
        "__connect.errors.partition": "3",
        "__connect.errors.offset": "41",
        "__connect.errors.connector.name": "shop",
        "__connect.errors.task.id": "3",
        "__connect.errors.stage": "VALUE_CONVERTER",
        "__connect.errors.class.name": "tablehouse",
        "__connect.errors.exception.class.name": "RecordRefused",
        "__connect.errors.exception.message": "not JSON",
        "__connect.errors.exception.stacktrace": "RecordRefused: not JSON",
        "__tablehouse.errors.table": "planes",
        "__tablehouse.errors.reason": "undecodable_value",
        "__tablehouse.errors.group": "shop",
        "__tablehouse.errors.worker": "w1",
        "__tablehouse.errors.time": "1700000000999",
        "__tablehouse.errors.record.timestamp": "1700000000000",
        "__tablehouse.errors.record.headers": "3",
    }


@pytest.mark.parametrize(
    ("reason", "stage"),
    [("null_key", "KEY_CONVERTER"), ("undecodable_key", "KEY_CONVERTER"), ("oversized", "TASK_PUT")],
)
def test_the_stage_is_the_one_of_kafka_connect(reason: str, stage: str) -> None:
    headers = dict(content_of(letter(reason=reason), "shop", "w1", 1).headers)
    assert headers["__connect.errors.stage"] == stage.encode()


def test_what_is_read_is_what_was_written() -> None:
    found = read_letter(0, written(content_of(letter(), "shop", "w1", 5)))
    assert found is not None
    assert (found.partition, found.offset, found.table, found.reason, found.detail) == (
        0,
        7,
        "planes",
        "undecodable_value",
        "not JSON",
    )
    assert (found.source, found.source_offset, found.worker) == (SOURCE, 41, "w1")
    assert (found.time_ms, found.timestamp_ms) == (5, BAD.timestamp)
    assert found.original == Content(BAD.key, BAD.value, HEADERS)
    assert found.dropped == {}


@pytest.mark.parametrize("key", [None, b"", b"k"])
@pytest.mark.parametrize("value", [None, b"", b"v"])
def test_a_missing_key_or_value_is_no_empty_one(key: bytes | None, value: bytes | None) -> None:
    found = read_letter(0, written(content_of(letter(Record(1, 2, key, value)), "g", "w", 5)))
    assert found is not None
    assert found.original == Content(key, value, ())


def test_a_record_that_was_a_dead_letter_itself_gets_its_own_headers_back() -> None:
    before = content_of(letter(), "other", "w0", 1)
    again = Record(9, 10, before.key, before.value, tuple(before.headers))
    found = read_letter(0, written(content_of(letter(again, detail="second"), "shop", "w1", 5)))
    assert found is not None
    assert (found.detail, found.worker, found.source_offset) == ("second", "w1", 9)
    assert found.original == before._replace(headers=tuple(before.headers))


def test_what_was_too_large_is_told_by_its_size() -> None:
    valueless = read_letter(0, written(without_value(letter(), "g", "w", 5)))
    assert valueless is not None
    assert (valueless.original, valueless.dropped) == (Content(BAD.key, None, HEADERS), {"value": 6})
    bare = read_letter(0, written(without_content(letter(), "g", "w", 5)))
    assert bare is not None
    assert bare.original == Content(None, None, ())
    assert bare.dropped == {"value": 6, "key": 4, "headers": 18}
    assert (bare.source, bare.source_offset) == (SOURCE, 41)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("__tablehouse.errors.record.headers", b"x"),),
        (("__tablehouse.errors.record.headers", b"0"),),
        (("a", b"\xff"), ("__tablehouse.errors.record.headers", b"0")),
        (("__connect.errors.topic", b"of another"), ("__connect.errors.offset", b"1")),
    ],
)
def test_what_somebody_else_wrote_is_no_letter(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert read_letter(0, Read(0, 0, b"k", b"v", headers)) is None
