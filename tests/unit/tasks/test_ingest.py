"""From source records to rows: what is decoded, what is passed over and why, and in which order rows are made."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest

from tablehouse.catalog.spec import KeySpec, SourceSpec, ValueSpec
from tablehouse.folds.fold import Decoded, Lookup, Slice
from tablehouse.folds.upsert import Upsert
from tablehouse.formats.errors import DecodeError
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import LAYOUT_VERSION, pack_head
from tablehouse.tasks.ingest import Folding, TableCodec
from tablehouse.tasks.log import LogRecord
from tablehouse.testing.simulated.broker import Record
from tablehouse.turns import finish

SOURCE = TopicPartition("source", 2)
SPEC = SourceSpec("source", KeySpec("bytes"), ValueSpec("bytes"))


def store_key(wire: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    if wire == b"bad":
        raise DecodeError("no key at all")
    return wire.upper()


def decode_value(value: bytes, _: Sequence[tuple[str, bytes]]) -> bytes:
    if value == b"bad":
        raise DecodeError("no value at all")
    return b"<" + value + b">"


def misplaced(wires: Sequence[bytes]) -> int | None:
    return next((index for index, wire in enumerate(wires) if wire.startswith(b"~")), None)


CODEC = TableCodec(SOURCE, store_key, decode_value, misplaced, Upsert(), SPEC, 4)


def row(payload: bytes, offset: int, timestamp: int = 1000) -> bytes:
    return pack_head(LAYOUT_VERSION, 0, timestamp, offset) + payload


def record(offset: int, key: bytes | None, value: bytes | None, timestamp: int = 1000) -> Record:
    return Record(offset, timestamp, key, value)


def never(key: bytes) -> bytes | None:
    raise AssertionError(f"a plain table has no use for the earlier row of {key!r}")


def no_skip(record: LogRecord, reason: str, detail: str) -> None:
    raise AssertionError(f"{reason} at {record.offset}: {detail}")


class Folded(NamedTuple):
    """What came of some slices."""

    rows: dict[bytes, bytes | None]
    misplaced_at: int | None
    stream_time: int


def folded(*slices: Sequence[Record]) -> tuple[Folded, list[tuple[int, str, str]]]:
    skipped: list[tuple[int, str, str]] = []

    def skip(record: LogRecord, reason: str, detail: str) -> None:
        skipped.append((record.offset, reason, detail))

    folding = Folding(CODEC, skip, never)
    for records in slices:
        folding.add(records)
    return Folded(folding.rows, folding.misplaced_at, folding.stream_time), skipped


def test_a_row_lies_under_its_prefixed_stored_key_with_the_time_and_offset_of_its_record() -> None:
    found, skipped = folded([record(7, b"a", b"1", 1234)])
    assert found == Folded({b"\x01A": row(b"<1>", 7, 1234)}, misplaced_at=None, stream_time=1234)
    assert skipped == []


def test_the_last_record_of_a_key_is_its_row() -> None:
    found, _ = folded([record(0, b"a", b"1"), record(1, b"b", b"2"), record(2, b"a", b"3")])
    assert found.rows == {b"\x01A": row(b"<3>", 2), b"\x01B": row(b"<2>", 1)}


def test_wire_keys_with_one_stored_form_are_one_key() -> None:
    found, _ = folded([record(0, b"a", b"1"), record(1, b"A", b"2")])
    assert found.rows == {b"\x01A": row(b"<2>", 1)}


def test_a_tombstone_deletes_and_is_not_decoded() -> None:
    found, skipped = folded([record(0, b"a", b"1"), record(1, b"a", None)])
    assert (found.rows, skipped) == ({b"\x01A": None}, [])


def test_a_record_after_a_tombstone_makes_the_row_anew() -> None:
    found, _ = folded([record(0, b"a", None), record(1, b"a", b"2")])
    assert found.rows == {b"\x01A": row(b"<2>", 1)}


def test_an_empty_key_and_an_empty_value_are_a_row() -> None:
    found, skipped = folded([record(0, b"", b"")])
    assert (found.rows, skipped) == ({b"\x01": row(b"<>", 0)}, [])


@pytest.mark.parametrize("keys", list(product([None, b"", b"a", b"bad"], repeat=2)))
def test_where_empty_keys_have_no_partition_they_are_skipped_and_never_misplaced(
    keys: tuple[bytes | None, ...],
) -> None:
    def all_misplaced(wires: Sequence[bytes]) -> int | None:
        assert b"" not in wires
        return 0 if wires else None

    skipped: list[tuple[int, str]] = []
    codec = replace(CODEC, misplaced=all_misplaced, empty_keys=False)
    found = Folding(codec, lambda record, reason, _detail: skipped.append((record.offset, reason)), never)
    found.add([record(offset, key, b"1") for offset, key in enumerate(keys)])
    reasons = {None: "null_key", b"": "empty_key", b"bad": "undecodable_key"}
    assert skipped == [(offset, reasons[key]) for offset, key in enumerate(keys) if key in reasons]
    assert set(found.rows) == {b"\x01" + key.upper() for key in keys if key is not None and key not in reasons}


@pytest.mark.parametrize(
    ("key", "value", "reason", "detail"),
    [
        (None, b"1", "null_key", "a row needs a key"),
        (None, None, "null_key", "a row needs a key"),
        (b"bad", b"1", "undecodable_key", "no key at all"),
        (b"bad", None, "undecodable_key", "no key at all"),
        (b"a", b"bad", "undecodable_value", "no value at all"),
    ],
)
def test_what_cannot_be_a_row_is_skipped_with_its_reason_and_the_rest_goes_on(
    key: bytes | None, value: bytes | None, reason: str, detail: str
) -> None:
    found, skipped = folded([record(4, b"x", b"1"), record(5, key, value), record(6, b"y", b"2")])
    assert skipped == [(5, reason, detail)]
    assert list(found.rows) == [b"\x01X", b"\x01Y"]


def test_a_value_that_cannot_be_decoded_leaves_the_earlier_row_of_its_key() -> None:
    found, _ = folded([record(0, b"a", b"1"), record(1, b"a", b"bad")])
    assert found.rows == {b"\x01A": row(b"<1>", 0)}


def test_skipped_records_move_the_stream_time_too() -> None:
    found, _ = folded([record(0, b"a", b"1", 500), record(1, None, b"1", 900), record(2, b"b", b"1", 700)])
    assert found.stream_time == 900


def test_nothing_makes_no_rows_and_knows_no_time() -> None:
    assert folded() == (Folded({}, misplaced_at=None, stream_time=-1), [])
    assert folded([]) == folded()


def test_the_first_misplaced_key_is_told_by_its_offset_whatever_was_skipped_before_it() -> None:
    found, _ = folded(
        [record(10, None, b"1"), record(11, b"bad", b"1"), record(15, b"~a", b"1"), record(16, b"~b", b"1")]
    )
    assert found.misplaced_at == 15


def test_the_first_misplaced_key_and_those_after_it_are_the_sample() -> None:
    folding = Folding(CODEC, lambda *_: None, lambda _: None)
    folding.add([record(0, b"a", b"1"), record(1, b"b", b"1")])
    assert not folding.sample
    folding.add([record(2, b"c", b"1"), record(3, b"~d", b"1"), record(4, b"bad", b"1"), record(5, b"e", b"1")])
    assert folding.sample == [b"~d", b"e"]
    folding.add([record(6, b"~f", b"1")])
    assert folding.sample == [b"~d", b"e"]


def test_a_key_that_was_skipped_is_not_looked_for_in_another_partition() -> None:
    found, _ = folded([record(0, b"~a", b"bad")])
    assert found.misplaced_at is None


def test_where_slices_end_makes_no_difference() -> None:
    records = [
        record(0, b"a", b"1", 3),
        record(1, None, b"2", 9),
        record(2, b"~b", b"3", 1),
        record(4, b"a", None, 2),
        record(6, b"c", b"bad", 5),
        record(7, b"a", b"4", 4),
    ]
    whole = folded(records)
    for cut in range(len(records) + 1):
        assert folded(records[:cut], records[cut:]) == whole
    assert folded(*([one] for one in records)) == whole


def test_a_fold_sees_the_decoded_records_in_order_and_the_earlier_rows() -> None:
    seen: list[Decoded] = []

    class Listing:
        name = "listing"

        def __call__(self, records: Sequence[Decoded], lookup: Lookup, around: Slice) -> dict[bytes, bytes | None]:
            seen.extend(records)
            assert [record.offset for record in around.source] == [3, 5]
            return {key: lookup(key) for key, _, _, _ in records}

    codec = TableCodec(SOURCE, store_key, decode_value, misplaced, Listing(), SPEC, 4)
    found = Folding(codec, no_skip, {b"\x01B": b"earlier"}.get)
    found.add([record(3, b"b", b"1"), record(5, b"a", None, 7)])
    assert seen == [Decoded(b"\x01B", b"<1>", 1000, 3), Decoded(b"\x01A", None, 7, 5)]
    assert found.rows == {b"\x01B": b"earlier", b"\x01A": None}


def test_a_slice_is_folded_on_top_of_the_ones_before_it() -> None:
    class Joining:
        name = "joining"

        def __call__(self, records: Sequence[Decoded], lookup: Lookup, around: Slice) -> dict[bytes, bytes | None]:
            assert around.stream_time == (-1 if records[0].offset == 0 else 1000)
            rows: dict[bytes, bytes | None] = {}
            for key, payload, _, _ in records:
                before = rows[key] if key in rows else lookup(key)
                rows[key] = None if payload is None else (before or b"") + payload
            return rows

    found = Folding(
        TableCodec(SOURCE, store_key, decode_value, misplaced, Joining(), SPEC, 4),
        no_skip,
        {b"\x01A": b"<0>", b"\x01B": b"<0>"}.get,
    )
    found.add([record(0, b"a", b"1"), record(1, b"b", None)])
    found.add([record(2, b"a", b"2"), record(3, b"b", b"3")])
    assert found.rows == {b"\x01A": b"<0><1><2>", b"\x01B": b"<3>"}


@pytest.mark.parametrize("failure", [ValueError, IndexError, OverflowError, TypeError, AttributeError, RecursionError])
def test_what_a_format_stumbles_over_is_a_bad_record_that_tells_nothing_of_its_content(
    failure: type[Exception],
) -> None:
    def stumble(data: bytes, *_: object) -> bytes:
        if data == b"odd":
            raise failure(data)
        return data

    said: list[tuple[int, str, str]] = []
    codec = replace(CODEC, store_key=stumble, decode_value=stumble)
    folding = Folding(codec, lambda record, reason, detail: said.append((record.offset, reason, detail)), never)
    folding.add([record(0, b"odd", b"1"), record(1, b"k", b"odd"), record(2, b"k", b"2")])
    assert list(folding.rows.values()) == [row(b"2", 2)]
    detail = f"reading it failed with a {failure.__name__}"
    assert said == [(0, "undecodable_key", detail), (1, "undecodable_value", detail)]


def test_a_disk_or_memory_that_fails_is_nothing_against_the_record() -> None:
    def fail(_value: bytes, _headers: Sequence[tuple[str, bytes]]) -> bytes:
        raise OSError("no space left on device")

    folding = Folding(replace(CODEC, decode_value=fail), no_skip, never)
    with pytest.raises(OSError, match="no space left"):
        folding.add([record(0, b"k", b"v")])


def pieces(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Generator[None, None, bytes]:
    yield
    if value == b"disk":
        raise OSError("no space left on device")
    yield
    return decode_value(value, headers)


@pytest.mark.parametrize("value", [b"1", b"bad", None])
@pytest.mark.parametrize("key", [b"a", b"bad", b"~a", b"", None])
@pytest.mark.parametrize("decode_in_pieces", [pieces, None])
def test_a_record_added_in_pieces_becomes_what_it_becomes_at_once(
    key: bytes | None,
    value: bytes | None,
    decode_in_pieces: Callable[[bytes, Sequence[tuple[str, bytes]]], Generator[None, None, bytes | None]] | None,
) -> None:
    said: list[tuple[int, str, str]] = []
    codec = replace(CODEC, decode_in_pieces=decode_in_pieces)
    folding = Folding(codec, lambda record, reason, detail: said.append((record.offset, reason, detail)), never)
    folding.add([record(0, b"a", b"0")])
    finish(folding.add_in_pieces(record(1, key, value)))
    folding.add([record(2, b"b", b"2")])
    found, skipped = folded([record(0, b"a", b"0"), record(1, key, value), record(2, b"b", b"2")])
    assert (Folded(folding.rows, folding.misplaced_at, folding.stream_time), said) == (found, skipped)


def test_a_disk_that_fails_between_pieces_is_nothing_against_the_record() -> None:
    folding = Folding(replace(CODEC, decode_in_pieces=pieces), no_skip, never)
    with pytest.raises(OSError, match="no space left"):
        finish(folding.add_in_pieces(record(0, b"k", b"disk")))
    assert folding.rows == {}
