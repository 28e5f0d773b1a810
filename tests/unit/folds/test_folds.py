"""Folds of rows: what they are given, in which order, and that the same records always make the same rows."""

import random
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest

from tablehouse.catalog.fingerprint import definition, digest
from tablehouse.catalog.spec import FoldName, FoldSpec, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.folds.batches import RowByRow
from tablehouse.folds.fold import FoldRecord, RowFold, Rows
from tablehouse.folds.make import make_fold
from tablehouse.model import TopicPartition
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, Row, pack_head, unpack
from tablehouse.tasks.ingest import Folding, TableCodec
from tablehouse.testing.simulated.broker import Record

SPEC = SourceSpec("source", KeySpec("bytes"), ValueSpec("bytes"))


def codec(fold: RowFold) -> TableCodec:
    return TableCodec(
        TopicPartition("source", 0),
        lambda key, _: key,
        lambda value, _: value,
        lambda _: None,
        RowByRow(fold),
        SPEC,
        1,
    )


class Folded:
    """Folds slices of records, and keeps what came of them."""

    def __init__(self, fold: RowFold, before: Mapping[bytes, bytes] | None = None, stream_time: int = -1) -> None:
        self.skipped: list[tuple[int, str, str]] = []
        self.folding = Folding(codec(fold), self._skip, (before or {}).get, stream_time)

    def _skip(self, record: object, reason: str, detail: str) -> None:
        assert isinstance(record, Record)
        self.skipped.append((record.offset, reason, detail))

    def add(self, *records: Record) -> Mapping[bytes, Row | None]:
        """Fold a slice, and return all rows so far by stored key."""
        self.folding.add(records)
        return {key[1:]: None if row is None else unpack(row) for key, row in self.folding.rows.items()}


def records_of(*pairs: tuple[bytes | None, bytes | None]) -> list[Record]:
    return [Record(offset, 1000 + offset, key, value) for offset, (key, value) in enumerate(pairs)]


class Sessions:
    """The rows of two keys are `open`, and `closed` once stream time is 10 ms past their records."""

    name = "sessions"

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:  # noqa: ARG002
        """See RowFold."""
        return b"open %d" % stream_time

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:
        """See RowFold."""
        found = {key: rows(key) for key in (b"\x01a", b"\x01b")}
        return {
            key: b"closed %d" % stream_time
            for key, row in found.items()
            if row is not None and row.payload.startswith(b"open") and row.timestamp_ms + 10 <= stream_time
        }


class Sums:
    """The sum of a member of a key's records."""

    name = "sums"

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:  # noqa: ARG002
        """See RowFold."""
        if record.payload is None:
            return None
        assert record.members is record.members
        return b"%d" % ((0 if row is None else int(row.payload)) + record.members["n"])

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:  # noqa: ARG002
        """See RowFold."""
        return {}


@pytest.mark.parametrize("name", get_args(FoldName))
def test_every_fold_that_a_definition_can_name_is_made_and_has_that_name(name: FoldName) -> None:
    assert make_fold(FoldSpec(name)).name == name


def test_a_definition_names_its_fold_in_its_fingerprint_and_plain_tables_keep_the_bytes_they_had() -> None:
    plain = TableSpec("planes", SourceSpec("planes-raw", KeySpec("string"), ValueSpec("json")))
    anywhere = TableSpec("planes", SourceSpec("planes-raw", KeySpec("string"), ValueSpec("json"), "any"))
    counted = TableSpec("planes", plain.source, aggregate=FoldSpec("count"))
    assert [definition(table)["fold"] for table in (plain, anywhere, counted)] == ["upsert", "marked_upsert", "count"]
    assert [digest(definition(table)) for table in (plain, anywhere, counted)] == [
        "78c5bcc860795831c554e7d3adc23c1d",
        "355ee5abb08d9051d493441e620276be",
        "0b466ecd31e1c95e45f9f11f8745f755",
    ]


def test_a_count_begins_with_one_goes_on_from_the_row_before_and_again_after_a_tombstone() -> None:
    before = {b"\x01b": pack_head(LAYOUT_VERSION, 0, 5, 5) + b"41"}
    folding = Folding(
        TableCodec(
            TopicPartition("source", 0),
            lambda key, _: key,
            lambda value, _: value,
            lambda _: None,
            make_fold(FoldSpec("count")),
            SPEC,
            1,
        ),
        lambda *_: None,
        before.get,
    )
    folding.add(records_of((b"a", b"x"), (b"b", b"x"), (b"a", b"x"), (b"c", b"x"), (b"c", None)))
    folding.add([Record(5, 1005, b"a", None), Record(6, 1006, b"a", b"x"), Record(7, 1007, b"d", None)])
    assert {key: row and unpack(row) for key, row in folding.rows.items()} == {
        b"\x01a": Row(b"1", 1006, 6),
        b"\x01b": Row(b"42", 1001, 1),
        b"\x01c": None,
        b"\x01d": None,
    }


def test_the_mark_of_a_deleted_key_is_no_row_to_a_fold_of_rows() -> None:
    found = Folded(Sums(), {b"\x01a": pack_head(LAYOUT_VERSION, DELETED, 1, 1)})
    assert found.add(Record(2, 2, b"a", b'{"n":3}')) == {b"a": Row(b"3", 2, 2)}


def test_a_fold_asks_for_members_and_a_record_without_them_is_a_bad_one_that_changes_nothing() -> None:
    found = Folded(Sums())
    rows = found.add(
        *records_of((b"a", b'{"n":1}'), (b"a", b"[1]"), (b"a", b"{"), (b"a", b'{"m":1}'), (b"a", b'{"n":2}'))
    )
    assert rows == {b"a": Row(b"3", 1004, 4)}
    assert [(offset, reason) for offset, reason, _ in found.skipped] == [
        (1, "undecodable_value"),
        (2, "undecodable_value"),
        (3, "undecodable_value"),
    ]
    assert found.skipped[0][2] == "it is not a JSON object, so there are no members to aggregate"
    assert found.skipped[2][2] == "reading it failed with a KeyError"


def test_time_that_passes_changes_rows_before_the_record_that_it_passes_with() -> None:
    found = Folded(Sessions(), stream_time=995)
    rows = found.add(Record(0, 990, b"a", b"x"), Record(1, 1000, b"a", b"x"), Record(2, 1009, b"b", b"x"))
    assert rows == {b"a": Row(b"open 1000", 1000, 1), b"b": Row(b"open 1009", 1009, 2)}
    assert found.add(Record(4, 1010, b"a", b"x"))[b"a"] == Row(b"open 1010", 1010, 4)


def test_time_passes_with_records_that_become_no_rows_too() -> None:
    found = Folded(Sessions())
    rows = found.add(Record(0, 1000, b"a", b"x"), Record(1, 1020, None, b"x"))
    assert rows == {b"a": Row(b"closed 1020", 1020, 1)}
    assert found.folding.stream_time == 1020


@pytest.mark.parametrize("seed", range(30))
def test_the_same_records_make_the_same_rows_however_they_are_cut_into_slices_and_batches(seed: int) -> None:
    choose = random.Random(seed)
    records = [
        Record(offset, choose.randrange(1000, 1100), choose.choice([b"a", b"b", b"c", None]), b"x")
        for offset in range(choose.randrange(1, 40))
    ]
    whole = Folded(Sessions()).add(*records)
    rest, kept, stream_time = list(records), dict[bytes, bytes](), -1
    while rest:
        batch = Folded(Sessions(), kept, stream_time)
        for _ in range(choose.randrange(1, 4)):
            count = choose.randrange(1, 8)
            batch.add(*rest[:count])
            rest = rest[count:]
        kept |= {key: row for key, row in batch.folding.rows.items() if row is not None}
        stream_time = batch.folding.stream_time
    assert {key[1:]: unpack(row) for key, row in kept.items()} == whole, f"seed {seed}"


def test_a_fold_is_asked_for_each_rise_of_time_once() -> None:
    times: list[int] = []

    class Watching(Sums):
        def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:
            """See RowFold."""
            times.append(stream_time)
            return super().pass_time(stream_time, rows)

    slices: Sequence[Sequence[int]] = ((5, 5, 3), (5, 7), (6,), (9, 8))
    found, offset = Folded(Watching(), stream_time=4), 0
    for timestamps in slices:
        found.add(*(Record(offset + index, time, None, None) for index, time in enumerate(timestamps)))
        offset += len(timestamps)
    assert times == [5, 7, 9]
