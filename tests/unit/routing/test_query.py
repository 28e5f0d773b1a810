from dataclasses import replace

import pytest

from tablehouse.errors import (
    DeadlineExceeded,
    Draining,
    InvalidKey,
    MisplacedKeys,
    NotOwner,
    OwnerUnreachable,
    PartitionRestoring,
    PartitionUnassigned,
    RequestError,
    TableNotFound,
    TooStale,
    UriTooLong,
)
from tablehouse.formats.framing import Headers
from tablehouse.formats.keys import Key
from tablehouse.model import HostInfo, Role
from tablehouse.placement.wire import PlacedMember
from tablehouse.routing.cluster import NO_CLUSTER
from tablehouse.routing.survey import survey
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tablehouse.tasks.reads import ReadResult
from tests.support.cluster_fakes import (
    CATALOG,
    PLANES,
    FakeTables,
    Placed,
    ScriptedPeer,
    everything,
    snapshot,
    status,
)
from tests.support.querying import PARTITION, ROW, Setting, found
from tests.support.schemas import NO_REGISTRY


def owned_by_me() -> Setting:
    return Setting(Placed("me", "http://me:1", everything()), Placed("other", "http://other:1"))


def owned_by_other(*script: ReadResult | Exception) -> Setting:
    return Setting(
        Placed("me", "http://me:1"),
        Placed("other", "http://other:1", everything()),
        peer=ScriptedPeer(*script),
    )


async def test_a_key_of_an_own_partition_is_read_here() -> None:
    setting = owned_by_me()
    setting.local.rows["planes", PARTITION, b"N10156"] = ROW
    answer = await setting.read()
    assert (answer.result.row, answer.served_by, answer.path) == (ROW, "me", "local")
    assert setting.peer.hops == []
    assert setting.counted("hit") == 1


async def test_a_miss_of_the_own_active_is_an_answer_without_a_row() -> None:
    setting = owned_by_me()
    answer = await setting.read()
    assert answer.result.row is None
    assert answer.result.freshness.partition == PARTITION
    assert setting.counted("miss") == 1


async def test_a_key_of_another_worker_takes_one_hop_with_everything_the_other_needs() -> None:
    setting = owned_by_other(found())
    answer = await setting.read(within=3.0)
    assert (answer.result.row, answer.served_by, answer.path) == (ROW, "other", "forwarded")
    [(host, hop)] = setting.peer.hops
    assert host == "other"
    assert (hop.table, hop.partition, hop.stored_key) == ("planes", PARTITION, b"N10156")
    assert (hop.partitions, hop.generation, hop.request_id, hop.timeout) == (4, 7, "r1", 3.0)
    assert hop.table_digest == routed_tables(CATALOG, "g", NO_REGISTRY)["planes"].digest
    assert setting.local.asked == []
    assert setting.forwards("ok") == 1


async def test_not_mine_takes_the_current_snapshot_and_asks_once_more() -> None:
    setting = owned_by_other()

    def moved() -> ReadResult:
        setting.view.swap(snapshot(Placed("me", "http://me:1", everything()), generation=8))
        raise NotOwner("moved away")

    setting.peer.script.append(moved)
    setting.local.rows["planes", PARTITION, b"N10156"] = ROW
    answer = await setting.read()
    assert (answer.served_by, answer.path) == ("me", "local")
    assert setting.forwards("not_owner") == 1


async def test_an_owner_that_hears_of_its_assignment_a_moment_later_is_asked_again() -> None:
    setting = owned_by_other(NotOwner("not here"), found())
    assert (await setting.read()).served_by == "other"
    assert len(setting.peer.hops) == 2


async def test_a_partition_count_that_changes_on_the_way_is_a_503_and_no_miss() -> None:
    setting = owned_by_other()

    def grown() -> ReadResult:
        current = snapshot(Placed("me", "http://me:1", everything()), generation=8)
        setting.view.swap(replace(current, partitions={**current.partitions, "planes-topic": 8}))
        raise NotOwner("moved away")

    setting.peer.script.append(grown)
    assert isinstance(await setting.error(), PartitionUnassigned)
    assert setting.local.asked == []


async def test_not_mine_twice_is_a_503_that_says_who_was_asked() -> None:
    setting = owned_by_other(NotOwner("moved away"), NotOwner("still not here"))
    error = await setting.error()
    assert isinstance(error, PartitionUnassigned)
    assert error.details == {
        "table": "planes",
        "partition": PARTITION,
        "generation": 7,
        "tried": [
            {"host": "other", "role": "active", "reason": "moved away"},
            {"host": "other", "role": "active", "reason": "still not here"},
        ],
    }
    assert error.retry_after == 1
    assert len(setting.peer.hops) == 2
    assert setting.counted("unavailable") == 1


async def test_an_own_task_that_says_not_mine_is_never_the_caller_s_last_answer() -> None:
    setting = owned_by_me()
    setting.local.held.clear()
    assert isinstance(await setting.error(), PartitionUnassigned)


async def test_an_unreachable_owner_is_a_503_and_is_not_asked_twice() -> None:
    setting = owned_by_other(OwnerUnreachable("connection refused"))
    error = await setting.error()
    assert isinstance(error, OwnerUnreachable)
    assert "other" in error.detail
    assert "connection refused" in error.detail
    assert error.details["tried"] == [{"host": "other", "role": "active", "reason": "connection refused"}]
    assert setting.forwards("unreachable") == 1


async def test_when_the_partition_has_moved_from_an_unreachable_owner_the_new_one_is_asked() -> None:
    setting = owned_by_other()

    def gone() -> ReadResult:
        setting.view.swap(snapshot(Placed("third", "http://third:1", everything()), generation=8))
        raise OwnerUnreachable("connection refused")

    setting.peer.script += [gone, found()]
    assert (await setting.read()).served_by == "third"


async def test_a_partition_without_an_owner_is_a_503() -> None:
    error = await Setting(Placed("me", "http://me:1")).error()
    assert isinstance(error, PartitionUnassigned)
    assert error.details["tried"] == []
    assert error.details["partition"] == PARTITION


async def test_before_the_first_assignment_everything_is_unassigned() -> None:
    setting = owned_by_me()
    setting.view.swap(NO_CLUSTER)
    error = await setting.error()
    assert isinstance(error, PartitionUnassigned)
    assert error.details == {"table": "planes", "generation": -1, "tried": []}
    with pytest.raises(PartitionUnassigned):
        setting.query.locate("planes", b"x")


@pytest.mark.parametrize("kind", [PartitionRestoring, TooStale, MisplacedKeys, Draining])
@pytest.mark.parametrize("where", ["here", "there"])
async def test_what_an_owner_cannot_answer_reaches_the_caller_with_the_partition_in_it(
    kind: type[RequestError], where: str
) -> None:
    original = kind("not now", retry_after=4, progress={"remaining": 12})
    if where == "here":
        setting = owned_by_me()
        setting.local.errors[PARTITION] = original
    else:
        setting = owned_by_other(original)
    error = await setting.error()
    assert type(error) is kind
    assert error.retry_after == 4
    assert error.details["progress"] == {"remaining": 12}
    assert (error.details["table"], error.details["partition"]) == ("planes", PARTITION)


@pytest.mark.parametrize("role", [Role.SUSPENDED, Role.STANDBY])
async def test_a_copy_that_is_not_active_may_give_a_row_but_never_a_miss(role: Role) -> None:
    assert (await owned_by_other(found(role)).read()).result.freshness.role is role
    assert isinstance(await owned_by_other(found(role, None)).error(), PartitionRestoring)
    here = owned_by_me()
    here.local.role = role
    assert isinstance(await here.error(), PartitionRestoring)


async def test_a_row_of_a_suspended_copy_counts_as_stale() -> None:
    setting = owned_by_other(found(Role.SUSPENDED))
    await setting.read()
    assert setting.counted("stale") == 1


async def test_no_hop_starts_after_the_deadline() -> None:
    setting = owned_by_other(found())
    assert isinstance(await setting.error(within=0.0), DeadlineExceeded)
    assert setting.peer.hops == []


async def test_the_second_hop_has_only_the_time_that_is_left() -> None:
    setting = owned_by_other()

    def slow() -> ReadResult:
        setting.clock.now += 2.0
        raise NotOwner("moved away")

    setting.peer.script += [slow, found()]
    await setting.read(within=5.0)
    assert [hop.timeout for _, hop in setting.peer.hops] == [5.0, 3.0]


class TwoForms:
    """A key format in which a producer may have written each key in two ways."""

    name = "two"
    canonical_wire = False
    enumerable = True
    unordered_reason = None

    def parse(self, text: bytes) -> Key:
        """Give both forms."""
        return Key(text, (b"1" + text, b"22" + text))

    def store(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """Never asked by a read."""
        return wire[1:]

    def text(self, stored: bytes) -> bytes:
        """Never asked by a read."""
        return stored

    def record_text(self, wire: bytes, _headers: Headers = (), /) -> bytes:
        """Never asked by a read."""
        return self.store(wire)

    def canonical(self, wire: bytes) -> bytes:
        """Never asked by a read."""
        return wire


def two_forms() -> tuple[Setting, list[int]]:
    setting = owned_by_me()
    tables = dict(routed_tables(CATALOG, "g", NO_REGISTRY))
    routed = tables["planes"]
    two = type(routed)(PLANES, TwoForms(), routed.content_type, routed.digest)
    tables["planes"] = two
    setting.query = setting.query_of(tables)
    partitions = list(two.partitions_of(TwoForms().parse(b"a"), 4))
    assert len(partitions) == 2
    return setting, partitions


async def test_a_miss_needs_every_partition_that_can_hold_the_key() -> None:
    setting, partitions = two_forms()
    assert (await setting.read(b"a")).result.row is None
    assert [partition for _, partition, _ in setting.local.asked] == partitions


async def test_a_row_is_found_in_whichever_partition_it_lies() -> None:
    setting, partitions = two_forms()
    setting.local.rows["planes", partitions[1], b"a"] = ROW
    assert (await setting.read(b"a")).result.row == ROW


async def test_of_rows_in_two_partitions_the_newest_is_the_answer() -> None:
    setting, partitions = two_forms()
    for newest in (0, 1):
        for place, partition in enumerate(partitions):
            row = Row(b"%d" % place, 1000 + (place == newest), 1)
            setting.local.rows["planes", partition, b"a"] = row
        found_row = (await setting.read(b"a")).result.row
        assert found_row is not None
        assert found_row.payload == b"%d" % newest


async def test_one_partition_that_cannot_answer_makes_the_whole_miss_a_503() -> None:
    setting, partitions = two_forms()
    setting.local.errors[partitions[1]] = PartitionRestoring("restoring")
    assert isinstance(await setting.error(b"a"), PartitionRestoring)


async def test_unknown_tables_bad_keys_and_long_keys_are_refused_before_anybody_is_asked() -> None:
    setting = owned_by_me()
    assert isinstance(await setting.error(table="nope"), TableNotFound)
    assert isinstance(await setting.error(b"\xff"), InvalidKey)
    assert isinstance(await setting.error(b"x" * 8193), UriTooLong)
    assert (await setting.read(b"x" * 8192)).result.row is None
    assert len(setting.local.asked) == 1


async def test_locate_names_partition_active_and_standbys() -> None:
    setting = Setting(
        Placed("me", "http://me:1", everything()), Placed("other", "http://other:1", standbys=everything())
    )
    generation, [location] = setting.query.locate("planes", b"N10156")
    assert generation == 7
    assert location.partition == PARTITION
    assert location.active == HostInfo("me", 1, "http://me:1")
    assert location.standbys == (HostInfo("other", 1, "http://other:1"),)


def test_the_assignor_s_own_members_make_a_snapshot() -> None:
    member = PlacedMember("w", 3, "http://w:1", {"planes-topic": [2]}, {})
    made = snapshot(member)
    [(shard, host)] = made.actives.items()
    assert (shard.name, shard.partition) == ("planes-topic", 2)
    assert host == HostInfo("w", 3, "http://w:1") == made.members[0]


def test_tables_of_another_definition_or_version_have_another_digest() -> None:
    digests = {
        routed_tables(type(CATALOG)({"planes": spec}), "g", NO_REGISTRY)["planes"].digest
        for spec in (PLANES, replace(PLANES, version=2), replace(PLANES, columns={"a": "b"}))
    }
    assert len(digests) == 3


def test_a_table_of_another_group_has_another_digest() -> None:
    assert (
        routed_tables(CATALOG, "g", NO_REGISTRY)["planes"].digest
        != routed_tables(CATALOG, "h", NO_REGISTRY)["planes"].digest
    )


async def test_a_survey_asks_every_worker_and_marks_the_missing_one() -> None:
    local = FakeTables(states=[status()])
    peer = ScriptedPeer(found(), OwnerUnreachable("connection refused"))
    current = snapshot(Placed("me", "http://me:1"), Placed("b", "http://b:1"), Placed("cc", "http://cc:1"))
    seen = await survey(current, HostInfo("me", 1, "http://me:1"), local, peer, seconds=5.0)
    assert [(r.host.worker_id, r.tasks and len(r.tasks), r.reason) for r in seen.reports] == [
        ("me", 1, None),
        ("b", 1, None),
        ("cc", None, "connection refused"),
    ]
    assert not seen.complete


async def test_a_survey_before_the_first_assignment_shows_this_worker_and_is_not_complete() -> None:
    seen = await survey(NO_CLUSTER, HostInfo("me", 1, "http://me:1"), FakeTables(), ScriptedPeer(), seconds=5.0)
    assert [report.host.worker_id for report in seen.reports] == ["me"]
    assert not seen.complete
