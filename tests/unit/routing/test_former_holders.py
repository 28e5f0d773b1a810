from tablehouse.model import HostInfo, ReadMode, Role, ShardId
from tablehouse.routing.candidates import AVOIDED_SECONDS, Candidate, Candidates
from tablehouse.routing.cluster import ClusterSnapshot, ClusterView
from tablehouse.routing.ports import Unresponsive

ONE, TWO, THREE = (HostInfo(f"worker-{number}", 1, f"http://worker-{number}") for number in (1, 2, 3))
ONE_AGAIN, TWO_AGAIN = (HostInfo(host.worker_id, 2, f"{host.url}-again") for host in (ONE, TWO))
FIRST, SECOND = ShardId("rows", 0), ShardId("rows", 1)


def snapshot(
    *members: HostInfo, first: tuple[HostInfo, ...], second: tuple[HostInfo, ...], partitions: int = 2
) -> ClusterSnapshot:
    """Return a snapshot with these holders of the two shards, the active first."""
    held = {FIRST: first, SECOND: second}
    return ClusterSnapshot(
        1,
        members,
        {shard: holders[0] for shard, holders in held.items() if holders},
        {shard: holders[1:] for shard, holders in held.items()},
        {"rows": partitions},
    )


def view(*snapshots: ClusterSnapshot) -> ClusterSnapshot:
    cluster = ClusterView()
    for each in snapshots:
        cluster.swap(each)
    return cluster.current


ALL = snapshot(ONE, TWO, THREE, first=(ONE, TWO), second=(TWO, THREE))


def test_nobody_is_remembered_while_one_holder_is_in_the_group() -> None:
    assert not view(ALL).former
    assert not view(ALL, snapshot(TWO, first=(TWO,), second=(TWO,))).former


def test_the_holders_of_a_shard_are_remembered_when_all_have_left() -> None:
    alone = view(ALL, snapshot(ONE, first=(ONE,), second=(ONE,)))
    assert alone.former == {SECOND: (TWO, THREE)}


def test_they_are_remembered_until_one_of_them_is_back_also_as_another_process() -> None:
    alone = snapshot(ONE, first=(ONE,), second=(ONE,))
    assert view(ALL, alone, alone).former == {SECOND: (TWO, THREE)}
    assert not view(ALL, alone, snapshot(ONE, TWO_AGAIN, first=(ONE,), second=(TWO_AGAIN,))).former


def test_a_process_that_took_the_place_of_one_is_the_same_worker() -> None:
    assert view(ALL, snapshot(ONE_AGAIN, first=(ONE_AGAIN,), second=(ONE_AGAIN,))).former == {SECOND: (TWO, THREE)}


def test_nobody_is_remembered_when_the_keys_are_in_other_partitions() -> None:
    assert not view(ALL, snapshot(ONE, first=(ONE,), second=(ONE,), partitions=4)).former


def test_they_are_asked_last_and_never_for_the_active() -> None:
    alone = view(ALL, snapshot(ONE, first=(ONE,), second=(ONE,)))
    candidates = Candidates(ONE.worker_id, lambda: 0.0)
    former = [Candidate(TWO, Role.STANDBY), Candidate(THREE, Role.STANDBY)]
    assert candidates.of(SECOND, alone, ReadMode.PREFER_ACTIVE) == [Candidate(ONE, Role.ACTIVE), *former]
    assert candidates.of(SECOND, alone, ReadMode.ANY) == [Candidate(ONE, Role.ACTIVE), *former]
    assert candidates.of(SECOND, alone, ReadMode.ACTIVE) == [Candidate(ONE, Role.ACTIVE)]
    assert candidates.of(FIRST, alone, ReadMode.PREFER_ACTIVE) == [Candidate(ONE, Role.ACTIVE)]


def test_one_that_is_unresponsive_is_tried_by_one_request_a_second() -> None:
    alone = view(ALL, snapshot(ONE, first=(ONE,), second=(ONE,)))
    now = 0.0
    candidates = Candidates(ONE.worker_id, lambda: now)
    own, other = Candidate(ONE, Role.ACTIVE), Candidate(THREE, Role.STANDBY)
    candidates.heard(TWO, Unresponsive("worker-2"))
    assert candidates.of(SECOND, alone, ReadMode.PREFER_ACTIVE) == [own, other]
    now = AVOIDED_SECONDS
    assert candidates.of(SECOND, alone, ReadMode.PREFER_ACTIVE) == [own, Candidate(TWO, Role.STANDBY), other]
    assert candidates.of(SECOND, alone, ReadMode.PREFER_ACTIVE) == [own, other]
