import gc
import struct
import weakref
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.control_record import ABORT_MARKER, COMMIT_MARKER, ControlRecord

from tablehouse.catalog.spec import KeySpec, SourceSpec, ValueSpec
from tablehouse.folds.upsert import Upsert
from tablehouse.kafka.record_batches import ReadRecord, UnreadableBatch
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import unpack
from tablehouse.tasks.dead_letters import DeadLetter, content_of, read_letter
from tablehouse.tasks.ingest import BadRecord, Folding, TableCodec
from tablehouse.tasks.log import NO_TIMESTAMP
from tablehouse.tasks.records import PositionRecord, anchor_of, decode, encode
from tests.support.batches import (
    LAST_OFFSET_AT,
    as_marker,
    batch_of,
    fetched,
    old_batch,
    read_through,
    renamed,
    with_crc,
)


def batch(base: int, count: int, codec: int = 0) -> bytes:
    return batch_of(*((number, b"key", b"value", ()) for number in range(count)), base=base, codec=codec)


def offsets(records: list[Any]) -> list[int]:
    return [record.offset for record in records]


def test_records_are_taken_across_batches_as_many_as_are_wanted() -> None:
    records = fetched(batch(0, 3) + batch(3, 5))
    assert offsets(records.take(2)) == [0, 1]
    assert records.next_fetch_offset == 2
    assert offsets(records.take(4)) == [2, 3, 4, 5]
    assert offsets(records.take(10)) == [6, 7]
    assert (records.take(10), records.next_fetch_offset) == ([], 8)


def test_records_before_the_offset_that_was_asked_for_are_passed_over() -> None:
    assert offsets(fetched(batch(0, 6), offset=4).take(10)) == [4, 5]


def test_what_was_fetched_is_freed_without_waiting_for_the_garbage_collector() -> None:
    gc.disable()
    try:
        records = fetched(batch(0, 3))
        records.take(2)
        gone = weakref.ref(records)
        del records
        assert gone() is None
    finally:
        gc.enable()


# Header names


@pytest.mark.parametrize("asked_for", [0, 1, 2])
def test_a_header_name_that_is_not_utf_8_is_read_as_java_reads_it_and_its_neighbours_as_always(asked_for: int) -> None:
    spoilt = renamed(
        batch_of(
            (0, b"a", b"1", [("plain", b"x")]),
            (1, b"b", None, [("cafX", b"y"), ("last", None)]),
            (2, None, b"3", ()),
            base=5,
        ),
        b"cafX",
        b"caf\xe9",
    )
    taken = fetched(batch(0, 5) + spoilt + batch(8, 1), offset=5 + asked_for).take(10)
    found = [(record.offset, record.timestamp, record.key, record.value, list(record.headers)) for record in taken]
    assert (
        found[:-1]
        == [
            (5, 1000, b"a", b"1", [("plain", b"x")]),
            (6, 1001, b"b", None, [("caf\N{REPLACEMENT CHARACTER}", b"y"), ("last", None)]),
            (7, 1002, None, b"3", []),
        ][asked_for:]
    )
    assert found[-1][0] == 8


def test_a_batch_that_is_read_carefully_is_handed_out_in_as_many_pieces_as_are_wanted() -> None:
    spoilt = renamed(batch_of(*((n, b"k", b"v", [(f"nam{n}", b"")]) for n in range(5))), b"nam3", b"nam\xff")
    records = fetched(spoilt)
    assert offsets(records.take(2)) == [0, 1]
    assert offsets(records.take(2)) == [2, 3]
    assert offsets(records.take(2)) == [4]
    assert (records.take(2), records.next_fetch_offset) == ([], 5)


# What cannot be read


def test_what_comes_before_a_batch_that_cannot_be_read_is_handed_out_first() -> None:
    damaged = bytearray(batch(3, 4))
    damaged[-1] ^= 1
    records = fetched(batch(0, 3) + bytes(damaged) + batch(7, 1))
    assert offsets(records.take(10)) == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(UnreadableBatch, match=r"offsets 3 to 6 of topic\[0\] cannot be read: .*checksum is wrong"):
            records.take(10)
    assert records.next_fetch_offset == 3


def test_records_of_a_batch_are_handed_out_up_to_the_one_that_cannot_be_read() -> None:
    damaged = bytearray(batch_of(*((n, b"key%d" % n, b"value", ()) for n in range(4)), base=3))
    at = damaged.index(b"key2") - 1
    damaged[at] = 0x7E  # a key of 63 bytes
    records = fetched(with_crc(damaged))
    assert offsets(records.take(10)) == [3, 4]
    with pytest.raises(UnreadableBatch) as found:
        records.take(10)
    assert (found.value.first, found.value.last) == (5, 6)


@pytest.mark.parametrize("most", [1, 3, 500])
def test_a_damaged_batch_costs_no_record_of_the_next_however_few_are_taken_at_once(most: int) -> None:
    names = [("name", b"x")]
    damaged = bytearray(batch_of(*((n, b"k", b"v", names) for n in range(4)), base=20))
    at = damaged.index(b"\x1e", LAST_OFFSET_AT + 4) + 2
    # A timestamp of one byte more makes the first record the second, and there are to be more records than there are.
    damaged[at] = 0xB3
    damaged[at - 6 : at - 2] = struct.pack(">i", 128)
    found, failures = read_through([with_crc(damaged), batch_of((0, b"next", b"v", ()), base=24)], most)
    assert found[-1].offset == 24
    assert all(20 <= failure.first <= failure.last < 24 for failure in failures)


def test_a_record_with_an_offset_outside_of_its_batch_cannot_be_read() -> None:
    misnumbered = bytearray(batch_of((0, b"a", b"", ()), (5, b"b", b"", ())))
    misnumbered[LAST_OFFSET_AT : LAST_OFFSET_AT + 4] = struct.pack(">i", 3)
    records = fetched(with_crc(misnumbered) + batch(4, 1))
    assert offsets(records.take(10)) == [0]
    with pytest.raises(UnreadableBatch, match=r"offsets 1 to 3 .* out of place"):
        records.take(10)


def test_a_batch_that_says_it_is_longer_than_what_was_fetched_cannot_be_read() -> None:
    whole = batch(0, 2)
    with pytest.raises(UnreadableBatch, match=r"offset 0 .* longer than"):
        fetched(whole[:8] + struct.pack(">i", 1 << 20) + whole[12:]).take(10)
    assert offsets(fetched(whole + batch(2, 1)[:-1]).take(10)) == [0, 1]
    assert not fetcher.MemoryRecords(b"").has_next()
    assert not fetcher.MemoryRecords(None).has_next()


# Transactions


def marker(kind: ControlRecord, base: int, producer: int, records: int = 1) -> bytes:
    key = struct.pack(">HH", kind.version, kind.type_)
    return as_marker(batch_of((0, key, bytes(6), ()), base=base, producer=producer, transactional=True), records)


def transaction(base: int, producer: int) -> bytes:
    return batch_of((0, b"key", b"value", ()), base=base, producer=producer, transactional=True)


@pytest.mark.parametrize("kind", [COMMIT_MARKER, ABORT_MARKER])
def test_a_marker_whose_record_compaction_has_removed_is_stepped_over(kind: ControlRecord) -> None:
    records = fetched(transaction(0, 7) + marker(kind, 1, 7, records=0) + batch(2, 1))
    assert offsets(records.take(10)) == [0, 2]
    assert records.next_fetch_offset == 3
    alone = fetched(marker(kind, 1, 7, records=0), offset=1)
    assert (alone.take(10), alone.next_fetch_offset) == ([], 2)


def test_a_marker_without_its_record_does_not_end_an_aborted_transaction() -> None:
    log = transaction(0, 7) + marker(COMMIT_MARKER, 1, 7, records=0) + transaction(2, 7) + marker(ABORT_MARKER, 3, 7)
    assert offsets(fetched(log + transaction(4, 7), aborted=[(7, 0)]).take(10)) == [4]


def test_a_control_batch_of_an_unknown_kind_is_stepped_over_and_one_without_a_kind_cannot_be_read() -> None:
    assert offsets(fetched(marker(ControlRecord(3, 9), 0, 7) + batch(1, 1)).take(10)) == [1]
    with pytest.raises(UnreadableBatch, match="offset 0 of"):
        fetched(as_marker(batch_of((0, b"", b"", ()), producer=7, transactional=True), 1)).take(10)


# Old message formats


@pytest.mark.parametrize("codec", [0, 1, 2])
@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_old_formats_are_read_and_those_without_a_timestamp_get_none(magic: int, codec: int) -> None:
    records = fetched(old_batch(magic, codec, 2, 3), offset=3)
    taken = records.take(10)
    timestamps = [NO_TIMESTAMP] * 2 if magic == 0 else [6, 7]
    assert [(record.offset, record.timestamp) for record in taken] == list(zip([3, 4], timestamps, strict=True))
    content = [(record.key, record.value, list(record.headers)) for record in taken]
    assert content == [(b"key3", b'"old"', []), (b"key4", b'"old"', [])]
    assert records.next_fetch_offset == 5


def test_formats_may_change_from_batch_to_batch_as_they_do_where_a_cluster_was_upgraded() -> None:
    log = [old_batch(0, 0, 0, 1), old_batch(1, 2, 1, 3), batch(4, 2), batch(6, 1), old_batch(1, 0, 7, 1)]
    for most in (1, 4, 10):
        records, failures = read_through(log, most)
        assert (offsets(records), failures) == (list(range(8)), [])


def test_a_damaged_message_of_an_old_format_cannot_be_read() -> None:
    damaged = bytearray(old_batch(0, 0, 3, 1))
    damaged[-1] ^= 1
    with pytest.raises(UnreadableBatch, match=r"offset 3 .* checksum"):
        fetched(bytes(damaged), offset=3).take(10)


def test_a_record_without_a_timestamp_becomes_a_row_an_anchor_a_position_and_a_dead_letter() -> None:
    (record,) = fetched(old_batch(0, 0, 0, 1)).take(10)
    spec = SourceSpec("topic", KeySpec("bytes"), ValueSpec("bytes"))
    codec = TableCodec(
        TopicPartition("topic", 0), lambda key, _: key, lambda value, _: value, lambda _: None, Upsert(), spec, 4
    )
    bad: list[BadRecord] = []
    folding = Folding(codec, lambda *skipped: bad.append(BadRecord(*skipped)), lambda _: None)
    folding.add([record, record._replace(key=None)])
    row = unpack(folding.rows[b"\x01key0"] or b"")
    assert (row.payload, row.timestamp_ms, folding.stream_time) == (b'"old"', NO_TIMESTAMP, -1)

    position = PositionRecord(0, 0, (0, 1), folding.stream_time, anchor_of(record))
    assert decode(PositionRecord, encode(position)) == position

    content = content_of(DeadLetter("t", codec.source, bad[0]), "group", "worker", 17)
    letter = read_letter(0, ReadRecord(3, 17, *content))
    assert letter is not None
    assert (letter.timestamp_ms, letter.time_ms) == (NO_TIMESTAMP, 17)
