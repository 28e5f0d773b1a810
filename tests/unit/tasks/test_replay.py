"""Which changelog records count, and from where on a store may be read: the rules of tasks/DESIGN.md one by one."""

import pytest

from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.identity import FingerprintChanged, Identity
from tablehouse.tasks.log import Bounds, LogSlice
from tablehouse.tasks.records import CLAIM_KEY, POSITION_KEY, Claim, PositionRecord, encode, epoch_headers
from tablehouse.tasks.retention import DELETE_RETENTION_MS, MIN_COMPACTION_LAG_MS
from tablehouse.tasks.table_state import ChangelogRefused, TableState, Untrusted
from tablehouse.testing.simulated.broker import Record
from tablehouse.testing.simulated.store import Disk, MemoryStore
from tests.support.positions import with_names

CHANGELOG, SOURCE = TopicPartition("changelog", 0), TopicPartition("source", 0)
IDENTITY = Identity("table", CHANGELOG, {"fold": "upsert"}, with_names(SOURCE))
OLD, NEW = Epoch(0, 1), Epoch(0, 2)
NOW_MS = 10**12


class _Clock:
    def __init__(self) -> None:
        self.brokers_ms = NOW_MS

    def now_ms(self) -> int:
        return self.brokers_ms


class _Changelog:
    """Makes records at consecutive offsets; `hole` leaves some out, as compaction does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.end = 0

    def row(self, key: bytes, value: bytes | None, epoch: Epoch = OLD) -> None:
        self._add(b"\x01" + key, value, epoch)

    def position(self, first: int, last: int, epoch: Epoch = OLD) -> None:
        self._add(POSITION_KEY, encode(PositionRecord(first, last, (epoch.id_index, epoch.number))), epoch)

    def claim(self, epoch: Epoch = OLD, log_id: bytes = b"log", fold: str = "upsert") -> None:
        claim = Claim((epoch.id_index, epoch.number), b"nonce", 1, "worker", {"fold": fold}, log_id)
        self._add(CLAIM_KEY, encode(claim), epoch)

    def hole(self, count: int = 1) -> None:
        self.end += count

    def slice(self, first: int = 0, following: int | None = None) -> LogSlice:
        following = self.end if following is None else following
        return LogSlice([record for record in self.records if first <= record.offset < following], following)

    def _add(self, key: bytes, value: bytes | None, epoch: Epoch) -> None:
        self.records.append(Record(self.end, NOW_MS, key, value, epoch_headers(epoch)))
        self.end += 1


class _Replay:
    """A state over a disk that outlives it."""

    def __init__(self, disk: Disk | None = None, identity: Identity = IDENTITY) -> None:
        self.clock = _Clock()
        self.disk = disk or Disk()
        self.store = MemoryStore(self.disk)
        self.state = TableState(identity, self.store, self.clock, Doubts(lambda: None))

    def begin(self, end: int, start: int = 0) -> TableState:
        self.state.load()
        self.state.begin(Bounds(start, end))
        self.state.rewind()
        return self.state

    def rows(self) -> dict[bytes, bytes]:
        return {key[1:]: row for key, row in self.store.rows().items()}


@pytest.fixture
def changelog() -> _Changelog:
    changelog = _Changelog()
    changelog.claim()
    return changelog


async def test_a_store_is_unreadable_below_the_end_at_the_start_and_rows_are_written_as_they_come(
    changelog: _Changelog,
) -> None:
    changelog.row(b"a", b"1")
    changelog.row(b"b", b"2")
    changelog.position(0, 1)
    replay = _Replay()
    state = replay.begin(changelog.end)
    await state.apply(changelog.slice(0, 2))
    assert (replay.rows(), state.readable) == ({b"a": b"1"}, False)
    await state.apply(changelog.slice(2))
    assert (state.applied(SOURCE), state.readable) == (1, True)


async def test_from_there_on_rows_wait_for_the_position_that_closes_their_batch(changelog: _Changelog) -> None:
    changelog.row(b"a", b"1")
    changelog.position(0, 0)
    replay = _Replay()
    state = replay.begin(changelog.end)
    await state.apply(changelog.slice())
    middle = changelog.end + 1
    changelog.row(b"a", b"2")
    changelog.row(b"b", b"3")
    changelog.position(1, 2)
    await state.apply(changelog.slice(middle - 1, middle))
    assert (replay.rows(), state.applied(SOURCE), state.next_offset) == ({b"a": b"1"}, 0, middle - 1)
    await state.apply(changelog.slice(middle))
    assert (replay.rows(), state.applied(SOURCE), state.next_offset) == ({b"a": b"2", b"b": b"3"}, 2, changelog.end)


async def test_rewinding_forgets_half_a_batch(changelog: _Changelog) -> None:
    replay = _Replay()
    state = replay.begin(changelog.end)
    await state.apply(changelog.slice())
    changelog.row(b"a", b"1")
    changelog.position(0, 0)
    await state.apply(changelog.slice(1, 2))
    state.rewind()
    await state.apply(changelog.slice(state.next_offset))
    assert replay.rows() == {b"a": b"1"}


async def test_a_crash_below_readable_from_goes_on_at_the_checkpoint_and_stays_unreadable(
    changelog: _Changelog,
) -> None:
    changelog.row(b"a", b"1")
    changelog.row(b"b", b"2")
    changelog.position(0, 1)
    first = _Replay()
    await first.begin(changelog.end).apply(changelog.slice(0, 2))
    first.disk.flush()
    second = _Replay(first.disk)
    state = second.begin(changelog.end)
    assert (state.next_offset, state.readable) == (2, False)
    await state.apply(changelog.slice(2))
    assert (second.rows(), state.readable) == ({b"a": b"1", b"b": b"2"}, True)


async def test_records_of_an_older_epoch_or_of_none_are_dropped_and_counted(changelog: _Changelog) -> None:
    changelog.row(b"a", b"1")
    changelog.position(0, 0)
    changelog.claim(NEW)
    changelog.row(b"a", b"stale")
    changelog.position(1, 7)
    changelog.row(b"a", b"2", NEW)
    changelog.position(1, 1, NEW)
    stranger = Record(changelog.end, NOW_MS, b"\x01a", b"strange")
    changelog.records.append(stranger)
    changelog.hole()
    replay = _Replay()
    state = replay.begin(changelog.end)
    await state.apply(changelog.slice())
    assert (replay.rows(), state.applied(SOURCE), state.epoch) == ({b"a": b"2"}, 1, NEW)
    assert state.foreign_records == 3


async def test_a_batch_that_directly_follows_another_must_go_on_where_that_ended(changelog: _Changelog) -> None:
    changelog.position(0, 3)
    changelog.position(5, 6)
    with pytest.raises(ChangelogRefused, match="source offsets 5 to 6 follow 3, in the changelog itself; give the"):
        await _Replay().begin(changelog.end).apply(changelog.slice())


async def test_where_compaction_left_a_hole_between_two_batches_it_need_not(changelog: _Changelog) -> None:
    changelog.position(0, 3)
    changelog.hole()
    changelog.position(9, 9)
    state = _Replay().begin(changelog.end)
    await state.apply(changelog.slice())
    assert state.applied(SOURCE) == 9


async def test_a_position_never_goes_back(changelog: _Changelog) -> None:
    changelog.position(0, 3)
    changelog.hole()
    changelog.position(2, 2)
    with pytest.raises(ChangelogRefused, match="source offsets 2 to 2 follow 3"):
        await _Replay().begin(changelog.end).apply(changelog.slice())


async def _built(changelog: _Changelog) -> Disk:
    changelog.row(b"a", b"1")
    changelog.position(0, 0)
    replay = _Replay()
    await replay.begin(changelog.end).apply(changelog.slice())
    replay.disk.flush()
    return replay.disk


async def test_a_store_past_the_end_of_the_log_is_not_trusted(changelog: _Changelog) -> None:
    disk = await _built(changelog)
    with pytest.raises(Untrusted, match="past the log's end 2"):
        _Replay(disk).begin(2)


async def test_a_store_that_could_not_be_restored_from_what_is_left_of_the_log_is_kept(changelog: _Changelog) -> None:
    disk = await _built(changelog)
    with pytest.raises(ChangelogRefused, match="begins at offset 5"):
        _Replay(disk).begin(9, start=5)
    with pytest.raises(ChangelogRefused, match="begins at offset 1"):
        _Replay(disk).begin(2, start=1)


def test_a_log_that_lost_its_beginning_is_refused() -> None:
    with pytest.raises(ChangelogRefused, match="begins at offset 4"):
        _Replay().begin(9, start=4)


async def test_a_store_older_than_the_retention_of_tombstones_is_not_trusted_unless_it_is_at_the_end(
    changelog: _Changelog,
) -> None:
    replay = _Replay(await _built(changelog))
    replay.clock.brokers_ms += DELETE_RETENTION_MS + 1
    assert replay.begin(changelog.end).readable
    with pytest.raises(Untrusted, match="retention of tombstones"):
        replay.begin(changelog.end + 1)


async def test_a_replay_from_the_start_may_be_interrupted_however_old_the_log_is(changelog: _Changelog) -> None:
    for number in range(3):
        changelog.row(b"a", b"%d" % number)
        changelog.position(number, number)
    replay = _Replay()
    replay.clock.brokers_ms += 30 * DELETE_RETENTION_MS
    state = replay.begin(changelog.end)
    state.rewind()
    await state.apply(changelog.slice(0, 2))
    assert 0 < state.next_offset < changelog.end
    replay.clock.brokers_ms += DELETE_RETENTION_MS - MIN_COMPACTION_LAG_MS // 2
    again = _Replay(replay.disk)
    again.clock.brokers_ms = replay.clock.brokers_ms
    again.begin(changelog.end)
    again.clock.brokers_ms += 1
    with pytest.raises(Untrusted, match="retention of tombstones"):
        again.begin(changelog.end)


async def test_a_store_is_trusted_only_once_a_claim_has_shown_its_log(changelog: _Changelog) -> None:
    disk = await _built(changelog)
    state = _Replay(disk).begin(changelog.end)
    with pytest.raises(Untrusted, match="deleted and created again"):
        state.require_verified()
    state.verify_log(changelog.records[0])
    state.require_verified()
    other = _Changelog()
    other.claim(log_id=b"another log")
    with pytest.raises(Untrusted, match="deleted and created again"):
        _Replay(disk).begin(changelog.end).verify_log(other.records[0])


async def test_a_log_with_records_and_no_claim_is_refused() -> None:
    changelog = _Changelog()
    changelog.row(b"a", b"1")
    changelog.position(7, 7)
    state = _Replay().begin(changelog.end)
    await state.apply(changelog.slice())
    with pytest.raises(ChangelogRefused, match="no claim"):
        state.require_verified()


async def test_the_changelog_of_another_table_is_refused_and_says_whose_it_is(changelog: _Changelog) -> None:
    theirs = {"group": "shop", "table": "eu-users", "version": "1", "fold": "upsert"}
    fingerprint = {"group": "shop-eu", "table": "users", "version": "1", "fold": "upsert"}
    ours = Identity("users", CHANGELOG, fingerprint, with_names(SOURCE))
    claim = Claim(OLD, b"nonce", 1, "worker", theirs, b"log")
    changelog.records[0] = changelog.records[0]._replace(value=encode(claim))
    replay = _Replay(identity=ours)
    whose = "is the changelog of version 1 of table eu-users of group shop.*version 1 of table users of group shop-eu"
    with pytest.raises(FingerprintChanged, match=whose):
        await replay.begin(changelog.end).apply(changelog.slice())
    assert replay.rows() == {}


async def test_a_store_that_another_group_built_is_not_trusted(changelog: _Changelog) -> None:
    disk = Disk()
    replay = _Replay(disk, Identity("table", CHANGELOG, {"group": "g", "fold": "upsert"}, with_names(SOURCE)))
    changelog.records.clear()
    await replay.begin(changelog.end).apply(changelog.slice())
    disk.flush()
    with pytest.raises(Untrusted, match="built by group g, and this is group h"):
        _Replay(disk, Identity("table", CHANGELOG, {"group": "h", "fold": "upsert"}, with_names(SOURCE))).begin(
            changelog.end
        )


async def test_another_definition_is_refused_wherever_it_shows(changelog: _Changelog) -> None:
    changed = Identity("table", CHANGELOG, {"fold": "count"}, with_names(SOURCE))
    with pytest.raises(FingerprintChanged, match="fold was upsert and is now count"):
        await _Replay(identity=changed).begin(changelog.end).apply(changelog.slice())
    disk = await _built(changelog)
    with pytest.raises(FingerprintChanged, match="the store was built with another definition"):
        _Replay(disk, changed).begin(changelog.end)


async def test_a_replayer_far_behind_becomes_unreadable_until_the_present_end(changelog: _Changelog) -> None:
    replay = _Replay(await _built(changelog))
    state = replay.begin(changelog.end)
    readable = [state.readable]
    changelog.row(b"a", b"2")
    changelog.row(b"b", b"3")
    changelog.position(1, 2)
    state.postpone_reading(changelog.end)
    for piece in (changelog.slice(3, 4), changelog.slice(4)):
        await state.apply(piece)
        readable.append(state.readable)
    state.postpone_reading(1)
    assert [*readable, state.readable] == [True, False, True, True]


@pytest.mark.parametrize(
    ("age_ms", "ends_at", "torn"),
    [
        (MIN_COMPACTION_LAG_MS // 2, 5, False),
        (MIN_COMPACTION_LAG_MS // 2 + 1, 5, True),
        (MIN_COMPACTION_LAG_MS // 2 + 1, 3, True),
        (MIN_COMPACTION_LAG_MS // 2 + 1, 2, False),
        (-MIN_COMPACTION_LAG_MS, 5, False),
    ],
    ids=["young", "old", "old, and ends where reading begins", "old, and ends before", "of a broker that is ahead"],
)
async def test_what_ends_with_an_old_record_may_have_holes_that_are_filled_further_on(
    changelog: _Changelog, age_ms: int, ends_at: int, *, torn: bool
) -> None:
    replay = _Replay()
    state = replay.begin(3)
    changelog.row(b"a", b"1")
    changelog.position(0, 0)
    changelog.row(b"b", b"2")
    changelog.position(1, 1)
    replay.clock.brokers_ms += age_ms
    assert state.tears(changelog.slice(0, ends_at)) is torn


async def test_offsets_without_records_at_the_end_of_a_replay_may_be_holes() -> None:
    state = _Replay().begin(3)
    assert [state.tears(LogSlice([], following)) for following in (2, 3, 4)] == [False, True, True]


async def test_forgetting_leaves_nothing(changelog: _Changelog) -> None:
    replay = _Replay(await _built(changelog))
    state = replay.begin(changelog.end)
    await state.forget()
    assert (replay.rows(), state.next_offset, state.applied(SOURCE), state.readable) == ({}, 0, -1, False)
    assert replay.store.checkpoint() is None
