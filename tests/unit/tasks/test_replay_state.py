"""What a state takes up from a store, and how far it is after something went wrong."""

from dataclasses import replace

import msgspec
import pytest

from tablehouse.model import NO_EPOCH, Epoch, TopicPartition
from tablehouse.stores.store import StoreClosed
from tablehouse.tasks.doubts import Doubts, Misplaced
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.log import Bounds, LogSlice
from tablehouse.tasks.records import (
    CLAIM_KEY,
    POSITION_KEY,
    Checkpoint,
    Claim,
    PositionRecord,
    decode,
    encode,
    epoch_headers,
)
from tablehouse.tasks.retention import DELETE_RETENTION_MS
from tablehouse.tasks.table_state import ChangelogRefused, TableState, Untrusted
from tablehouse.testing.simulated.broker import Record
from tablehouse.testing.simulated.store import Disk, MemoryStore
from tests.support.positions import with_names

FINGERPRINT = {"fold": "upsert"}
SOURCE = TopicPartition("source", 3)
IDENTITY = Identity("table", TopicPartition("changelog", 3), FINGERPRINT, with_names(SOURCE))
EPOCH = Epoch(0, 4)
NOW_MS = 10**12
POSITION = PositionRecord(0, 9, EPOCH, stream_time=77, misplaced=Misplaced(3, 5))
CHECKPOINT = Checkpoint(
    next_offset=12,
    applied_at=NOW_MS,
    epoch=EPOCH,
    log_id=b"log",
    claim_offset=2,
    layout=1,
    fingerprint=FINGERPRINT,
    position=POSITION,
)


class _Clock:
    """Implements BrokerClock."""

    def now_ms(self) -> int:
        return NOW_MS


def record(offset: int, key: bytes, value: bytes | None, epoch: Epoch = EPOCH, timestamp: int = NOW_MS) -> Record:
    return Record(offset, timestamp, key, value, epoch_headers(epoch))


def claim(offset: int, epoch: Epoch = EPOCH, log_id: bytes = b"log") -> Record:
    return record(offset, CLAIM_KEY, encode(Claim(epoch, b"nonce", 1, "w", FINGERPRINT, log_id)), epoch)


def position(offset: int, first: int, last: int, epoch: Epoch = EPOCH) -> Record:
    return record(offset, POSITION_KEY, encode(PositionRecord(first, last, epoch)), epoch)


async def state_at(
    checkpoint: bytes | None, inputs: tuple[TopicPartition, ...] = (SOURCE,)
) -> tuple[TableState, MemoryStore]:
    store = MemoryStore(Disk())
    if checkpoint is not None:
        await store.write([], checkpoint)
    identity = replace(IDENTITY, inputs=with_names(*inputs))
    return TableState(identity, store, _Clock(), Doubts(lambda: None)), store


async def started(end: int = 12) -> tuple[TableState, MemoryStore]:
    """Return a state that has taken CHECKPOINT up and stands before the next slice."""
    state, store = await state_at(encode(CHECKPOINT))
    state.load()
    state.begin(Bounds(0, end))
    state.rewind()
    return state, store


def checkpoint_of(store: MemoryStore) -> Checkpoint:
    return decode(Checkpoint, store.checkpoint() or b"")


async def test_a_store_without_a_checkpoint_begins_at_the_beginning() -> None:
    state, _ = await state_at(None)
    state.load()
    assert (state.next_offset, state.applied(SOURCE), state.epoch, state.readable) == (0, -1, NO_EPOCH, False)
    state.begin(Bounds(0, 0))
    assert state.readable, "an empty changelog is a table without rows"


async def test_everything_in_a_checkpoint_is_taken_up() -> None:
    state, _ = await state_at(encode(CHECKPOINT))
    state.load()
    assert (state.next_offset, state.applied_at, state.claim_offset) == (12, NOW_MS, 2)
    assert (state.epoch, state.log_id, state.position, state.applied(SOURCE)) == (EPOCH, b"log", POSITION, 9)
    assert not state.readable, "nobody has asked yet where the changelog ends"


async def test_loading_again_forgets_what_was_only_in_memory() -> None:
    state, _ = await started()
    await state.apply(LogSlice([claim(12, Epoch(0, 5))], 13))
    assert state.claim is not None
    state.load()
    assert (vars(state)["claim"], state.next_offset) == (None, 13)
    assert not state.log_verified
    assert not state.readable


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (b"", "not a Checkpoint"),
        (b"\xff\x00", "not a Checkpoint"),
        (encode(POSITION), "not a Checkpoint"),
        (encode(CHECKPOINT).replace(b"\xa6layout\x01", b"\xa6layout\x02"), "layout 2; this version writes 1"),
    ],
)
async def test_a_checkpoint_that_cannot_be_read_makes_the_store_untrusted(checkpoint: bytes, message: str) -> None:
    state, _ = await state_at(checkpoint)
    with pytest.raises(Untrusted, match=message):
        state.load()


@pytest.mark.parametrize(("age_ms", "trusted"), [(DELETE_RETENTION_MS, True), (DELETE_RETENTION_MS + 1, False)])
async def test_a_store_may_be_exactly_as_old_as_the_retention_of_tombstones(age_ms: int, *, trusted: bool) -> None:
    old = Checkpoint(12, NOW_MS - age_ms, EPOCH, b"log", 2, 1, FINGERPRINT, POSITION)
    state, _ = await state_at(encode(old))
    state.load()
    state.begin(Bounds(0, 12))
    if trusted:
        state.begin(Bounds(0, 13))
    else:
        with pytest.raises(Untrusted, match="retention of tombstones"):
            state.begin(Bounds(0, 13))


async def test_a_store_may_stand_exactly_at_the_start_or_the_end_of_its_log() -> None:
    for bounds in (Bounds(12, 20), Bounds(0, 12), Bounds(12, 12)):
        state, _ = await state_at(encode(CHECKPOINT))
        state.load()
        state.begin(bounds)
        assert state.readable is (bounds.end == 12)


async def test_beginning_again_leaves_a_store_as_readable_as_it_was() -> None:
    state, _ = await started(end=12)
    state.begin(Bounds(0, 500))
    assert state.readable


async def test_a_write_that_fails_moves_nothing() -> None:
    state, store = await started()
    store.close()
    with pytest.raises(StoreClosed):
        await state.apply(LogSlice([record(12, b"\x01a", b"1"), position(13, 10, 10)], 14))
    with pytest.raises(StoreClosed):
        await state.commit({b"\x01a": b"1"}, PositionRecord(10, 10, EPOCH), EPOCH, 14, NOW_MS)
    assert (state.next_offset, state.position, state.applied(SOURCE)) == (12, POSITION, 9)


async def test_what_the_owner_appended_moves_the_store_and_its_checkpoint_together() -> None:
    state, store = await started()
    following = PositionRecord(10, 11, EPOCH)
    await state.commit({b"\x01a": b"1"}, following, EPOCH, 14, NOW_MS - 3)
    assert store.rows() == {b"\x01a": b"1"}
    assert (state.next_offset, state.position) == (14, following)
    checkpoint = checkpoint_of(store)
    assert (checkpoint.next_offset, checkpoint.position, checkpoint.applied_at) == (14, following, NOW_MS - 3)
    assert (checkpoint.log_id, checkpoint.claim_offset, checkpoint.fingerprint) == (b"log", 2, FINGERPRINT)


async def test_offsets_without_records_are_passed_and_make_the_store_no_younger() -> None:
    state, store = await started(end=30)
    before = state.applied_at
    assert await state.apply(LogSlice([], 20)) == 0
    assert (state.next_offset, state.applied_at, checkpoint_of(store).next_offset) == (20, before, 20)


async def test_applying_says_how_many_rows_were_written_tombstones_included() -> None:
    state, store = await started()
    piece = [record(12, b"\x01a", b"1"), record(13, b"\x01b", None), record(14, b"\x01a", b"2"), position(15, 10, 12)]
    assert await state.apply(LogSlice(piece, 16)) == 2
    assert store.rows() == {b"\x01a": b"2"}


async def test_an_idle_owners_position_changes_nothing_but_the_offset() -> None:
    state, _ = await started()
    await state.apply(LogSlice([position(12, 10, 12), position(13, 13, 12), position(14, 13, 13)], 15))
    assert (state.applied(SOURCE), state.next_offset) == (13, 15)


async def test_a_claim_does_not_excuse_a_batch_that_does_not_follow() -> None:
    state, _ = await started()
    higher = Epoch(0, 5)
    piece = [position(12, 10, 12), claim(13, higher), position(14, 15, 15, higher)]
    with pytest.raises(Untrusted, match="source offsets 15 to 15 follow 12"):
        await state.apply(LogSlice(piece, 15))
    assert (state.applied(SOURCE), state.next_offset) == (9, 12), "nothing of the slice was applied"


@pytest.mark.parametrize("appended", [True, False], ids=["appended", "replayed"])
async def test_what_follows_a_position_without_a_hole_has_to_follow_it_after_a_restart_too(*, appended: bool) -> None:
    state, store = await started()
    if appended:
        await state.commit({b"\x01a": b"1"}, PositionRecord(10, 10, EPOCH), EPOCH, 14, NOW_MS)
    else:
        # Half of the batch after it is there as well.
        half = record(14, b"\x01a", b"2")
        await state.apply(LogSlice([record(12, b"\x01a", b"1"), position(13, 10, 10), half], 15))
    assert state.next_offset == 14
    for again in (state, TableState(IDENTITY, store, _Clock(), Doubts(lambda: None))):
        again.load()
        again.begin(Bounds(0, 16))
        again.rewind()
        with pytest.raises(Untrusted, match="source offsets 12 to 12 follow 10"):
            await again.apply(LogSlice([record(14, b"\x01a", b"2"), position(15, 12, 12)], 16))


async def test_after_a_hole_at_the_end_of_a_slice_nothing_has_to_follow() -> None:
    state, _ = await started()
    await state.apply(LogSlice([position(12, 10, 10)], 15))
    state.rewind()
    await state.apply(LogSlice([position(15, 20, 20)], 16))
    assert state.applied(SOURCE) == 20


async def test_the_first_slice_after_a_rewind_follows_nothing_when_offsets_were_missing_before_it() -> None:
    state, _ = await started()
    await state.apply(LogSlice([position(12, 50, 60)], 13))
    assert state.applied(SOURCE) == 60


async def test_the_highest_epoch_stands_in_the_checkpoint_and_outlives_a_restart() -> None:
    state, store = await started()
    higher = Epoch(1, 1)
    await state.apply(LogSlice([claim(12, higher)], 13))
    assert (state.epoch, state.claim_offset) == (higher, 12)
    again = TableState(IDENTITY, store, _Clock(), Doubts(lambda: None))
    again.load()
    again.begin(Bounds(0, 15))
    again.rewind()
    await again.apply(LogSlice([record(13, b"\x01a", b"late", Epoch(0, 32766)), position(14, 10, 99, EPOCH)], 15))
    assert (store.rows(), again.applied(SOURCE), again.foreign_records) == ({}, 9, 2)


async def test_a_reserved_key_that_is_not_known_and_a_null_key_are_dropped_and_counted() -> None:
    state, store = await started()
    unknown = record(12, b"\x00later", b"1")
    keyless = Record(13, NOW_MS, None, b"1", epoch_headers(EPOCH))
    await state.apply(LogSlice([unknown, keyless], 14))
    assert (store.rows(), state.foreign_records, state.next_offset) == ({}, 2, 14)


async def test_an_empty_key_and_a_header_of_another_name_are_dropped_and_counted() -> None:
    state, store = await started()
    empty = record(12, b"", b"1")
    empty_of_a_later_epoch = record(13, b"", b"1", Epoch(0, 5))
    [(_, value)] = epoch_headers(EPOCH)
    foreign = [Record(14, NOW_MS, b"\x01a", b"1", [("x", value)]), Record(15, NOW_MS, b"\x01b", b"1", [("e", b"")])]
    await state.apply(LogSlice([empty, empty_of_a_later_epoch, *foreign], 16))
    assert (store.rows(), state.foreign_records, state.next_offset) == ({}, 4, 16)
    assert state.epoch == EPOCH, "an epoch is begun by a record that can be ours"


@pytest.mark.parametrize("key", [POSITION_KEY, CLAIM_KEY])
@pytest.mark.parametrize("value", [None, b"", b"\xff", encode(CHECKPOINT)])
async def test_a_record_that_cannot_be_read_is_the_changelogs_fault_and_names_its_offset(
    key: bytes, value: bytes | None
) -> None:
    state, _ = await started()
    with pytest.raises(ChangelogRefused, match=r"changelog\[3\] offset 12: .*; give the table a new version"):
        await state.apply(LogSlice([record(12, key, value)], 13))


@pytest.mark.parametrize(("key", "known"), [(POSITION_KEY, 2), (CLAIM_KEY, 1)])
@pytest.mark.parametrize("value", [{"v": 3}, {"from": "of another type", "epoch": "too", "v": 3}])
async def test_a_record_of_a_later_version_asks_for_an_upgrade_and_leaves_the_store_as_it_is(
    key: bytes, known: int, value: object
) -> None:
    state, store = await started()
    expected = rf"offset 12: \w+ of version 3; known is version {known}; upgrade this worker"
    with pytest.raises(ChangelogRefused, match=expected):
        await state.apply(LogSlice([record(12, key, msgspec.msgpack.encode(value))], 13))
    assert checkpoint_of(store) == CHECKPOINT


def contradicting(*, claims: bool) -> list[Record]:
    """Return a log whose record at offset 6 contradicts those before it, as a position or as a claim."""
    last = claim(6, Epoch(0, 5), b"another") if claims else position(6, 7, 8)
    return [
        claim(0),
        record(1, b"\x01a", b"1"),
        position(2, 0, 0),
        position(3, 1, 1),
        position(4, 2, 3),
        claim(5),
        last,
    ]


@pytest.mark.parametrize("claims", [False, True])
async def test_what_contradicts_itself_in_a_replay_from_the_start_is_the_changelog(*, claims: bool) -> None:
    state, store = await state_at(None)
    log = contradicting(claims=claims)
    state.load()
    state.begin(Bounds(0, 7))
    for first in (0, 3):
        state.rewind()
        assert state.next_offset == first
        if first == 0:
            await state.apply(LogSlice(log[:3], 3))
        # The next attempt goes on where the first one came to, and the changelog is still the one at fault.
        with pytest.raises(
            ChangelogRefused, match=r"changelog\[3\] offset 6: .*, in the changelog itself; give the table"
        ):
            await state.apply(LogSlice(log[3:], 7))
    assert store.rows() == {b"\x01a": b"1"}


@pytest.mark.parametrize("claims", [False, True])
async def test_what_contradicts_a_store_makes_it_untrusted_once_and_then_it_is_the_changelog(*, claims: bool) -> None:
    state, _ = await state_at(None)
    log = contradicting(claims=claims)
    state.load()
    state.begin(Bounds(0, 7))
    for refusal in (Untrusted, ChangelogRefused, ChangelogRefused):
        state.rewind()
        if state.next_offset == 0:
            await state.apply(LogSlice(log[:3], 3))
        # Interrupted, so that what follows does not begin at offset 0.
        state.rewind()
        with pytest.raises(refusal, match=r"changelog\[3\] offset 6"):
            await state.apply(LogSlice(log[3:], 7))
        if refusal is Untrusted:
            await state.forget()
            state.begin(Bounds(0, 7))


async def test_once_a_rebuilt_store_is_past_what_was_wrong_the_next_contradiction_is_the_stores_again() -> None:
    state, _ = await started()
    for _ in range(3):
        with pytest.raises(Untrusted, match="follow 9"):
            await state.apply(LogSlice([position(12, 3, 4)], 13))
        await state.forget()
        state.begin(Bounds(0, 20))
        state.rewind()
        await state.apply(LogSlice([claim(0), position(1, 0, 9)], 20))
        await state.store.write([], encode(CHECKPOINT))
        state.load()
        state.begin(Bounds(0, 20))
        state.rewind()


async def test_a_newer_claim_with_the_same_log_id_shows_the_log_too() -> None:
    state, _ = await started()
    await state.apply(LogSlice([claim(12, Epoch(0, 5))], 13))
    state.require_verified()


async def test_a_newer_claim_with_another_log_id_is_another_log() -> None:
    state, _ = await started()
    with pytest.raises(Untrusted, match="deleted and created again"):
        await state.apply(LogSlice([claim(12, Epoch(0, 5), b"another")], 13))


@pytest.mark.parametrize("found", [None, claim(3), record(2, b"\x01a", b"1")])
async def test_what_is_not_the_claim_known_to_stand_there_shows_nothing(found: Record | None) -> None:
    state, _ = await started()
    state.verify_log(found)
    with pytest.raises(Untrusted, match="deleted and created again"):
        state.require_verified()


async def test_a_claim_that_was_seen_and_not_written_says_nothing_of_a_log_read_from_the_start() -> None:
    state, store = await state_at(None)
    state.load()
    state.begin(Bounds(0, 1))
    state.rewind()
    store.close()
    with pytest.raises(StoreClosed):
        await state.apply(LogSlice([claim(0, Epoch(0, 9))], 1))
    state.store = MemoryStore(Disk())
    state.rewind()
    await state.apply(LogSlice([claim(0, EPOCH, b"another")], 1))
    assert (state.log_id, state.claim and state.claim.epoch) == (b"another", tuple(EPOCH))
    state.require_verified()


async def test_forgetting_makes_it_a_store_that_was_never_written() -> None:
    state, store = await started()
    await state.commit({b"\x01a": b"1"}, PositionRecord(10, 10, EPOCH), EPOCH, 14, NOW_MS)
    await state.forget()
    assert (store.rows(), store.checkpoint()) == ({}, None)
    assert (state.next_offset, state.log_id, state.epoch, state.position) == (0, b"", NO_EPOCH, None)
    state.begin(Bounds(0, 3))
    assert not state.readable


async def test_rewinding_keeps_no_row_of_a_batch_that_is_not_there_any_more() -> None:
    state, store = await started()
    await state.apply(LogSlice([record(12, b"\x01a", b"half")], 13))
    assert state.next_offset == 12
    state.rewind()
    await state.apply(LogSlice([record(12, b"\x01b", b"1"), position(13, 10, 10)], 14))
    assert store.rows() == {b"\x01b": b"1"}


async def test_an_owner_of_one_input_writes_checkpoints_as_it_always_did() -> None:
    state, store = await started()
    await state.commit({}, PositionRecord(10, 10, EPOCH), EPOCH, 14, NOW_MS)
    assert b"\xa1v" not in (store.checkpoint() or b"\xa1v")
