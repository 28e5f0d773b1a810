"""Reads of partitions that have standbys: who is asked, in which order, for how long, and what the caller is told."""

import asyncio

import pytest

from tablehouse.errors import (
    Draining,
    InternalError,
    MisplacedKeys,
    NotOwner,
    Overloaded,
    OwnerUnreachable,
    PartitionRestoring,
    PartitionUnassigned,
    PositionNotReached,
    RequestError,
    TooStale,
)
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, HostInfo, ReadMode, Role, ShardId
from tablehouse.positions import Position
from tablehouse.routing.candidates import AVOIDED_SECONDS, Candidates
from tablehouse.routing.ports import Unresponsive
from tablehouse.routing.query import Answer, Elsewhere
from tablehouse.tasks.reads import ReadResult
from tests.support.cluster_fakes import Placed, ScriptedPeer, everything, snapshot
from tests.support.positions import at
from tests.support.querying import PARTITION, ROW, Setting, found
from tests.unit.routing.test_query import two_forms

ACTIVE = Consistency(ReadMode.ACTIVE)
ANY = Consistency(ReadMode.ANY)
AT_120 = Consistency(min_position=at(PARTITION, 120))
STANDBY_MISS = ReadResult(None, Freshness(PARTITION, at(PARTITION, 90), Role.STANDBY, 9, 1200))
STANDBY_ROW = ReadResult(ROW, Freshness(PARTITION, at(PARTITION, 90), Role.STANDBY, 9, 1200))


def elsewhere(*script: object, standbys: int = 1) -> Setting:
    """Make this worker hold nothing; `a` is the active, `s1` and so on are standbys."""
    follow = [Placed(f"s{number}", f"http://s{number}:1", standbys=everything()) for number in range(1, standbys + 1)]
    peer = ScriptedPeer(*script)  # type: ignore[arg-type]
    return Setting(Placed("me", "http://me:1"), Placed("a", "http://a:1", everything()), *follow, peer=peer)


def standby_here(*script: object) -> Setting:
    """Make this worker a standby of what `a` is the active of."""
    members = (Placed("me", "http://me:1", standbys=everything()), Placed("a", "http://a:1", everything()))
    setting = Setting(*members, peer=ScriptedPeer(*script))  # type: ignore[arg-type]
    setting.local.role = Role.STANDBY
    setting.local.rows["planes", PARTITION, b"N10156"] = ROW
    return setting


def behind(kind: type[RequestError] = TooStale) -> RequestError:
    return kind("9 records behind", position=90, role="standby", lag_records=9, staleness_ms=1200)


PASSING = [
    NotOwner,
    OwnerUnreachable,
    Unresponsive,
    PartitionRestoring,
    TooStale,
    Draining,
    Overloaded,
    PositionNotReached,
]


@pytest.mark.parametrize("kind", PASSING)
async def test_when_the_active_cannot_answer_a_standby_does(kind: type[RequestError]) -> None:
    setting = elsewhere(kind("not now"), STANDBY_ROW)
    answer = await setting.read()
    assert (answer.result.row, answer.result.freshness.role, answer.served_by) == (ROW, Role.STANDBY, "s1")
    assert setting.asked_hosts == ["a", "s1"]
    assert (setting.counted("stale"), setting.durations("standby"), setting.durations("forwarded")) == (1, 1, 0)


@pytest.mark.parametrize("kind", [MisplacedKeys, InternalError])
async def test_what_is_the_same_everywhere_or_a_fault_is_not_hidden_by_a_standby(kind: type[RequestError]) -> None:
    setting = elsewhere(kind("so it is"), STANDBY_ROW)
    assert type(await setting.error()) is kind
    assert setting.asked_hosts == ["a"]


async def test_standbys_are_asked_in_turn_until_one_answers() -> None:
    setting = elsewhere(Unresponsive("gone"), TooStale("an hour behind"), STANDBY_ROW, standbys=3)
    assert (await setting.read()).served_by == "s2"
    assert setting.asked_hosts == ["a", "s1", "s2"]


async def test_a_standby_of_this_worker_answers_without_a_hop() -> None:
    setting = standby_here(Unresponsive("gone"))
    answer = await setting.read()
    assert (answer.served_by, answer.path, answer.result.freshness.role) == ("me", "local", Role.STANDBY)
    assert (setting.durations("standby"), setting.durations("local")) == (1, 0)


async def test_of_several_standbys_that_of_this_worker_is_asked_first() -> None:
    setting = standby_here(Unresponsive("gone"))
    setting.view.swap(
        snapshot(
            Placed("s1", "http://s1:1", standbys=everything()),
            Placed("a", "http://a:1", everything()),
            Placed("me", "http://me:1", standbys=everything()),
        )
    )
    assert (await setting.read()).served_by == "me"
    assert setting.asked_hosts == ["a"]


async def test_the_active_is_preferred_to_a_standby_here() -> None:
    setting = standby_here(found())
    assert (await setting.read()).served_by == "a"
    assert setting.local.asked == []


async def test_by_default_a_standby_s_miss_is_a_503_and_never_a_404() -> None:
    setting = elsewhere(Unresponsive("gone"), STANDBY_MISS)
    error = await setting.error()
    assert isinstance(error, OwnerUnreachable)
    assert [attempt["host"] for attempt in error.details["tried"]] == ["a", "s1"]
    assert setting.counted("unavailable") == 1


@pytest.mark.parametrize("asked", [ANY, Consistency(max_lag=10), Consistency(max_staleness_ms=2000)])
async def test_who_asked_for_standby_reads_takes_a_standby_s_word_for_a_miss(asked: Consistency) -> None:
    setting = elsewhere(Unresponsive("gone"), STANDBY_MISS)
    answer = await setting.read(asked=asked)
    assert (answer.result.row, answer.result.freshness.role) == (None, Role.STANDBY)
    assert setting.counted("stale") == 1
    assert setting.counted("miss") == 0


@pytest.mark.parametrize("asked", [DEFAULT_CONSISTENCY, ANY, Consistency(max_lag=10), ACTIVE])
async def test_nobody_takes_a_suspended_copy_s_word_for_a_miss(asked: Consistency) -> None:
    suspended = ReadResult(None, Freshness(PARTITION, at(PARTITION, 90), Role.SUSPENDED, 0, 0))
    assert isinstance(await elsewhere(suspended, suspended).error(asked=asked), PartitionRestoring)


async def test_a_caller_who_wants_the_active_alone_gets_no_other() -> None:
    setting = elsewhere(Unresponsive("gone"), STANDBY_ROW)
    assert isinstance(await setting.error(asked=ACTIVE), OwnerUnreachable)
    assert setting.asked_hosts == ["a"]
    bounded = elsewhere(STANDBY_MISS)
    asked = Consistency(ReadMode.ACTIVE, max_lag=10)
    assert isinstance(await bounded.error(asked=asked), PartitionRestoring)


async def test_an_active_that_is_still_a_standby_to_itself_is_asked_again_and_then_a_503() -> None:
    setting = elsewhere(NotOwner("held as a standby"), NotOwner("held as a standby"))
    error = await setting.error(asked=ACTIVE)
    assert isinstance(error, PartitionUnassigned)
    assert [attempt["role"] for attempt in error.details["tried"]] == ["active", "active"]


async def test_any_copy_means_this_worker_s_own_first() -> None:
    setting = standby_here()
    assert (await setting.read(asked=ANY)).served_by == "me"
    assert setting.local.asked_for == [ANY]
    assert setting.peer.hops == []


async def test_any_copy_of_another_worker_means_the_active_first() -> None:
    setting = elsewhere(found())
    assert (await setting.read(asked=ANY)).served_by == "a"


async def test_any_goes_on_to_the_active_when_the_standby_here_is_beyond_the_bound() -> None:
    setting = standby_here(found())
    setting.local.errors[PARTITION] = TooStale("an hour behind")
    answer = await setting.read(asked=ANY)
    assert (answer.served_by, answer.result.freshness.role) == ("a", Role.ACTIVE)


async def test_without_an_active_the_standbys_answer_and_the_first_one_s_refusal_counts() -> None:
    members = [Placed(f"s{number}", f"http://s{number}:1", standbys=everything()) for number in (1, 2)]
    setting = Setting(*members, peer=ScriptedPeer(TooStale("an hour"), STANDBY_ROW, TooStale("one"), Draining("two")))
    assert (await setting.read()).served_by == "s2"
    error = await setting.error()
    assert isinstance(error, TooStale)
    assert error.detail == "one"


async def test_tried_names_each_worker_with_its_role_and_why_and_the_active_s_refusal_is_the_answer() -> None:
    setting = elsewhere(PartitionRestoring("40 to go", retry_after=7, remaining_records=40), behind(), Draining("bye"))
    setting.view.swap(
        snapshot(
            Placed("a", "http://a:1", everything()),
            Placed("s1", "http://s1:1", standbys=everything()),
            Placed("s2", "http://s2:1", standbys=everything()),
        )
    )
    error = await setting.error()
    assert isinstance(error, PartitionRestoring)
    assert (error.detail, error.retry_after, error.details["remaining_records"]) == ("40 to go", 7, 40)
    assert error.details["tried"] == [
        {"host": "a", "role": "active", "reason": "40 to go"},
        {"host": "s1", "role": "standby", "reason": "9 records behind"},
        {"host": "s2", "role": "standby", "reason": "bye"},
    ]


async def test_a_refusal_has_the_freshness_of_the_copy_that_refused_whoever_s_error_it_is() -> None:
    setting = elsewhere(Unresponsive("gone"), behind(PartitionRestoring))
    details = (await setting.error()).details
    assert [details[name] for name in ("position", "role", "lag_records", "staleness_ms")] == [90, "standby", 9, 1200]
    assert details["served_by"] == "s1"


async def test_a_refusal_never_mixes_the_freshness_of_two_copies() -> None:
    own = TooStale("too old", position=120, role="suspended")
    details = (await elsewhere(own, behind(PartitionRestoring)).error()).details
    assert (details["position"], details["role"], details["served_by"]) == (120, "suspended", "a")
    assert "lag_records" not in details


async def test_a_refusal_says_no_freshness_when_none_is_known() -> None:
    details = (await elsewhere(Unresponsive("gone"), OwnerUnreachable("gone too")).error()).details
    assert not {"position", "role", "served_by"} & set(details)


async def test_of_the_misses_of_several_partitions_the_least_certain_labels_the_answer() -> None:
    setting, partitions = two_forms()
    original = setting.local.read

    def read(table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:
        setting.local.role = Role.ACTIVE if partition == partitions[0] else Role.STANDBY
        return original(table, partition, stored_key, consistency)

    setting.local.read = read  # type: ignore[method-assign]
    freshness = (await setting.read(b"a", asked=ANY)).result.freshness
    assert (freshness.partition, freshness.role) == (partitions[1], Role.STANDBY)


# After the snapshot has changed


async def test_a_standby_s_503_is_asked_for_once_more_from_an_active_that_had_not_heard_of_its_assignment() -> None:
    setting = elsewhere(NotOwner("not here"), STANDBY_MISS, found(row=None))
    answer = await setting.read()
    assert (answer.result.row, answer.result.freshness.role) == (None, Role.ACTIVE)
    assert setting.asked_hosts == ["a", "s1", "a"]


async def test_a_new_owner_is_asked_and_those_that_refused_for_good_are_not() -> None:
    setting = elsewhere(Unresponsive("gone"))

    def promoted() -> ReadResult:
        setting.view.swap(
            snapshot(
                Placed("n", "http://n:1", everything()),
                Placed("s1", "http://s1:1", standbys=everything()),
                generation=8,
            )
        )
        raise PartitionRestoring("a standby cannot say")

    setting.peer.script += [promoted, found(row=None)]
    assert (await setting.read()).served_by == "n"
    assert setting.asked_hosts == ["a", "s1", "n"]


# Time


async def test_a_silent_worker_leaves_half_of_the_time_to_those_that_follow() -> None:
    setting = elsewhere(standbys=2)

    def silent() -> ReadResult:
        setting.clock.now += setting.peer.hops[-1][1].timeout
        raise Unresponsive("no answer")

    setting.peer.script += [silent, silent, STANDBY_ROW]
    assert (await setting.read(within=8.0)).served_by == "s2"
    assert [hop.timeout for _, hop in setting.peer.hops] == [4.0, 2.0, 2.0]


async def test_nobody_is_asked_once_the_time_is_over() -> None:
    setting = elsewhere()

    def slow() -> ReadResult:
        setting.clock.now += 5.0
        raise OwnerUnreachable("it answered nonsense")

    setting.peer.script += [slow, STANDBY_ROW]
    error = await setting.error(within=5.0)
    assert isinstance(error, OwnerUnreachable)
    assert [attempt["host"] for attempt in error.details["tried"]] == ["a"]


async def test_only_the_first_read_after_a_kill_pays_for_finding_out() -> None:
    setting = elsewhere(Unresponsive("connection refused"), STANDBY_ROW, STANDBY_ROW, STANDBY_ROW)
    await setting.read()
    await setting.read()
    assert setting.asked_hosts == ["a", "s1", "s1"]
    setting.clock.now += AVOIDED_SECONDS
    setting.peer.script[:] = [found()]
    assert (await setting.read()).served_by == "a"


def first_of(candidates: Candidates, setting: Setting, mode: ReadMode = ReadMode.PREFER_ACTIVE) -> HostInfo:
    return candidates.of(ShardId("planes-topic", PARTITION), setting.view.current, mode)[0].host


async def test_one_read_a_second_tries_a_worker_that_hangs_and_the_others_go_on_without_it() -> None:
    setting = elsewhere()
    candidates = Candidates("me", setting.clock)
    active = first_of(candidates, setting)
    for _ in range(3):
        candidates.heard(active, Unresponsive("silent"))
        assert [first_of(candidates, setting).worker_id for _ in range(3)] == ["s1"] * 3
        setting.clock.now += AVOIDED_SECONDS
        assert [first_of(candidates, setting).worker_id for _ in range(3)] == ["a", "s1", "s1"]
    candidates.heard(active, NotOwner("not here"))
    assert [first_of(candidates, setting) for _ in range(3)] == [active] * 3


async def test_who_asks_another_first_does_not_use_up_the_turn_of_a_worker_to_be_tried_again() -> None:
    setting = elsewhere()
    candidates = Candidates("s1", setting.clock)
    active = first_of(candidates, setting)
    candidates.heard(active, Unresponsive("silent"))
    setting.clock.now += AVOIDED_SECONDS
    assert first_of(candidates, setting, ReadMode.ANY).worker_id == "s1"
    assert first_of(candidates, setting) == active


async def test_an_avoided_worker_is_still_asked_when_nobody_else_answers() -> None:
    setting = elsewhere(Unresponsive("connection refused"), STANDBY_ROW, behind(PartitionRestoring), found(row=None))
    await setting.read()
    assert (await setting.read()).result.freshness.role is Role.ACTIVE
    assert setting.asked_hosts == ["a", "s1", "s1", "a"]


async def test_a_worker_that_answered_nonsense_or_not_mine_is_not_avoided() -> None:
    setting = elsewhere(OwnerUnreachable("nonsense"), STANDBY_ROW, NotOwner("not here"), STANDBY_ROW, found())
    for _ in range(3):
        await setting.read()
    assert setting.asked_hosts == ["a", "s1", "a", "s1", "a"]


async def test_a_restarted_worker_is_not_avoided_for_what_its_killed_process_did() -> None:
    setting = elsewhere(Unresponsive("connection refused"), STANDBY_ROW, found())
    await setting.read()
    setting.view.swap(
        snapshot(
            Placed("a", "http://a:1", everything(), incarnation=2),
            Placed("s1", "http://s1:1", standbys=everything()),
            generation=8,
        )
    )
    assert (await setting.read()).served_by == "a"


# Positions


async def test_what_the_caller_asks_crosses_the_hop_with_the_time_to_wait() -> None:
    setting = elsewhere(found())
    asked = Consistency(ReadMode.ANY, 10, 20, Position.parse(f"{PARTITION}:120,0:1"))
    await setting.read(asked=asked, wait=1.0, within=5.0)
    [(_, hop)] = setting.peer.hops
    # One second to wait, and half of the other four while a standby follows.
    assert (hop.consistency, hop.wait, hop.timeout) == (asked, 1.0, 3.0)


async def test_without_a_position_nobody_waits() -> None:
    setting = elsewhere(found())
    await setting.read(asked=ANY, wait=3.0)
    assert setting.peer.hops[0][1].wait == 0.0


@pytest.mark.parametrize(("wait", "first"), [(None, 2.5), (0.0, 0.0), (4.0, 4.0), (60.0, 5.0)])
async def test_a_position_is_waited_for_as_long_as_asked_within_the_request_s_time(
    wait: float | None, first: float
) -> None:
    setting = elsewhere(found())
    await setting.read(asked=AT_120, wait=wait, within=5.0)
    assert setting.peer.hops[0][1].wait == first


async def test_the_wait_is_one_for_all_candidates() -> None:
    setting = elsewhere()

    def waited() -> ReadResult:
        setting.clock.now += 1.5
        raise PositionNotReached("at 100")

    setting.peer.script += [waited, STANDBY_ROW]
    await setting.read(asked=AT_120, wait=2.0, within=5.0)
    assert [hop.wait for _, hop in setting.peer.hops] == [2.0, 0.5]


async def test_a_standby_is_not_waited_for_while_its_active_is_to_be_asked() -> None:
    setting = standby_here(found())
    asked = Consistency(ReadMode.ANY, min_position=at(PARTITION, 120))
    assert (await setting.read(asked=asked, wait=2.0)).served_by == "a"
    assert setting.local.waits == []
    assert setting.peer.hops[0][1].wait == 2.0


async def test_a_standby_is_waited_for_when_its_active_is_unresponsive() -> None:
    setting = standby_here(Unresponsive("gone"), Unresponsive("gone"))
    asking = asyncio.create_task(setting.read(asked=AT_120, wait=2.0))
    await setting.local.waiting.wait()
    setting.local.advance(PARTITION, 120)
    assert (await asking).result.freshness.position == at(PARTITION, 120)
    # By now the active is asked last, and the standby still waited for.
    setting.local.applied[PARTITION] = 100
    setting.local.waiting.clear()
    again = asyncio.create_task(setting.read(asked=AT_120, wait=2.0))
    await setting.local.waiting.wait()
    setting.local.advance(PARTITION, 121)
    assert (await again).result.freshness.position == at(PARTITION, 121)
    assert setting.asked_hosts == ["a"]


async def test_an_own_active_is_waited_for_until_it_has_applied_the_position() -> None:
    setting = Setting(Placed("me", "http://me:1", everything()))
    setting.local.rows["planes", PARTITION, b"N10156"] = ROW
    asking = asyncio.create_task(setting.read(asked=AT_120, wait=4.0))
    await setting.local.waiting.wait()
    assert setting.local.waits == [(PARTITION, at(PARTITION, 120), 4.0)]
    setting.local.advance(PARTITION, 110)
    setting.local.advance(PARTITION, 125)
    answer = await asking
    assert (answer.result.row, answer.result.freshness.position) == (ROW, at(PARTITION, 125))


async def test_a_position_that_is_not_reached_in_time_is_a_503_that_says_how_far_the_copy_is() -> None:
    setting = Setting(Placed("me", "http://me:1", everything()))
    error = await setting.error(asked=AT_120, wait=0.01)
    assert isinstance(error, PositionNotReached)
    assert (error.details["position"], error.details["served_by"], error.retry_after) == (99, "me", 1)
    assert len(setting.local.waits) == 1


async def test_a_position_of_another_partition_is_no_reason_to_wait() -> None:
    setting = Setting(Placed("me", "http://me:1", everything()))
    asked = Consistency(min_position=at((PARTITION + 1) % 4, 1_000))
    assert (await setting.read(asked=asked)).result.row is None
    assert setting.local.waits == []


async def test_a_partition_that_leaves_while_its_position_is_waited_for_is_asked_for_elsewhere() -> None:
    setting = Setting(Placed("me", "http://me:1", everything()), peer=ScriptedPeer(found()))
    original = setting.local.wait_for_position

    async def leaving(table: str, partition: int, required: Position, timeout: float) -> None:  # noqa: ASYNC109
        setting.local.held.clear()
        setting.view.swap(snapshot(Placed("a", "http://a:1", everything()), generation=8))
        await original(table, partition, required, timeout)

    setting.local.wait_for_position = leaving  # type: ignore[method-assign]
    assert (await setting.read(asked=AT_120)).served_by == "a"


def test_a_look_answers_only_for_the_own_active_and_asks_for_nothing_special() -> None:
    setting = standby_here()
    there = setting.query.look("planes", b"N10156")
    assert isinstance(there, Elsewhere)
    assert there.host.worker_id == "a"
    assert setting.local.asked == []
    setting.view.swap(snapshot(Placed("me", "http://me:1", everything())))
    setting.local.role = Role.ACTIVE
    answer = setting.query.look("planes", b"N10156")
    assert isinstance(answer, Answer)
    assert answer.result.row == ROW
    assert setting.local.asked_for == [DEFAULT_CONSISTENCY]
