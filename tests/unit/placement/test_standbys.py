from collections.abc import Mapping

from tablehouse.placement.assign import place
from tablehouse.placement.wire import MemberAssignment, MemberMetadata
from tests.support.placement import owners

FAR = 1_000_000
LAG = 10_000


def member(
    worker: str, positions: dict[int, int] | None = None, actives: list[int] | None = None, zone: str = ""
) -> MemberMetadata:
    return MemberMetadata(
        worker,
        1,
        f"http://{worker}:9080",
        "",
        {"t": positions or {}},
        zone=zone,
        actives={} if actives is None else {"t": actives},
    )


def placed(
    members: Mapping[str, MemberMetadata], partitions: int, standbys: int = 1, acceptable_lag: int = LAG
) -> Mapping[str, MemberAssignment]:
    return place(members, {"t": partitions}, {"t": standbys}, acceptable_lag)


def everywhere(partitions: int, position: int = FAR) -> dict[int, int]:
    return dict.fromkeys(range(partitions), position)


def test_a_cold_member_follows_its_share_first_while_the_others_stay_active() -> None:
    members = {"a": member("w1", everywhere(4), [0, 1, 2, 3]), "b": member("w2")}
    first = placed(members, 4)
    assert first["a"] == MemberAssignment(actives={"t": [0, 1, 2, 3]}, standbys={})
    assert (first["b"].actives, first["b"].standbys) == ({}, {"t": [0, 1, 2, 3]})
    assert len(first["b"].warming["t"]) == 2


def test_a_member_that_was_warmed_up_gets_what_it_was_warmed_up_for_and_the_former_active_follows() -> None:
    members = {"a": member("w1", everywhere(4), [0, 1, 2, 3]), "b": member("w2")}
    warming = placed(members, 4)["b"].warming["t"]
    then = placed(members | {"b": member("w2", dict.fromkeys(warming, FAR - LAG))}, 4)
    assert then["b"].actives == {"t": warming}
    assert then["a"].standbys == {"t": warming}
    assert all(not mine.warming for mine in then.values())


def test_a_copy_one_record_beyond_the_acceptable_lag_is_not_enough() -> None:
    members = {
        "a": member("w1", everywhere(2), [0, 1]),
        "b": member("w2", {0: FAR - LAG - 1, 1: FAR - LAG - 2}),
    }
    mine = placed(members, 2)["b"]
    assert (mine.actives, mine.warming) == ({}, {"t": [0]})


def test_what_is_warmed_up_comes_beside_the_standbys_that_were_asked_for() -> None:
    members = {
        "a": member("w1", everywhere(6), [0, 1, 2]),
        "b": member("w2", everywhere(6), [3, 4, 5]),
        "c": member("w3"),
    }
    mine = placed(members, 6)
    warming = set(mine["c"].warming["t"])
    assert len(warming) == 2
    copies = [partition for part in mine.values() for partition in part.standbys["t"]]
    assert {partition: copies.count(partition) for partition in range(6)} == {
        partition: 2 if partition in warming else 1 for partition in range(6)
    }


def test_when_all_are_cold_the_balance_decides_at_once() -> None:
    mine = placed({"a": member("w1"), "b": member("w2"), "c": member("w3")}, 6)
    assert [len(part.actives["t"]) for part in mine.values()] == [2, 2, 2]
    assert [len(part.standbys["t"]) for part in mine.values()] == [2, 2, 2]
    assert all(not part.warming for part in mine.values())


def test_a_source_with_fewer_records_than_the_acceptable_lag_is_shared_out_at_once() -> None:
    members = {"a": member("w1", everywhere(4, LAG - 1), [0, 1, 2, 3]), "b": member("w2")}
    mine = placed(members, 4)
    assert [len(part.actives["t"]) for part in mine.values()] == [2, 2]
    assert all(not part.warming for part in mine.values())


def test_after_a_failover_the_standbys_are_active_even_over_their_part() -> None:
    members = {
        "b": member("w2", {0: FAR, 1: FAR, 2: FAR}, [2]),
        "c": member("w3", {3: FAR, 2: FAR}, [3]),
    }
    mine = placed(members, 4)
    assert owners(mine) == {("t", 0): "b", ("t", 1): "b", ("t", 2): "c", ("t", 3): "c"}


def test_a_failover_goes_to_the_one_with_a_copy_though_another_has_room() -> None:
    members = {
        "b": member("w2", everywhere(3), [2]),
        "c": member("w3", {}, []),
    }
    mine = placed(members, 3)
    assert mine["b"].actives == {"t": [0, 1, 2]}
    assert len(mine["c"].warming["t"]) == 1


def test_a_restarted_worker_takes_back_what_it_lacks_little_of_and_follows_the_rest() -> None:
    members = {
        "a": member("w1", everywhere(4), [0, 1, 2, 3]),
        "b": member("w2", {0: FAR - 5 * LAG, 1: FAR - 5, 2: FAR - 5 * LAG, 3: FAR - 4 * LAG}),
    }
    mine = placed(members, 4)
    assert mine["b"].actives == {"t": [1]}
    assert mine["b"].warming == {"t": [3]}


def test_of_two_that_have_caught_up_the_active_of_before_stays_though_it_is_behind() -> None:
    members = {"a": member("w1", {0: FAR}), "b": member("w2", {0: FAR - 5}, [0])}
    assert owners(placed(members, 1)) == {("t", 0): "b"}


def test_of_two_that_say_they_were_active_the_furthest_is() -> None:
    members = {"a": member("w1", {0: FAR - 5}, [0]), "b": member("w2", {0: FAR}, [0])}
    assert owners(placed(members, 1)) == {("t", 0): "b"}


def test_a_standby_stays_where_the_copy_is() -> None:
    members = {
        "a": member("w1", {0: FAR, 2: FAR}, [0]),
        "b": member("w2", {1: FAR, 0: FAR}, [1]),
        "c": member("w3", {2: FAR, 1: FAR}, [2]),
    }
    assert [part.standbys for part in placed(members, 3).values()] == [{"t": [2]}, {"t": [0]}, {"t": [1]}]


def test_there_are_as_many_standbys_as_other_members_when_more_are_asked_for() -> None:
    mine = placed({"a": member("w1"), "b": member("w2")}, 2, standbys=3)
    assert [part.standbys["t"] for part in mine.values()] == [[1], [0]]
    assert placed({"a": member("w1")}, 2)["a"].standbys == {}


def test_no_standbys_are_kept_where_none_are_asked_for() -> None:
    mine = placed({"a": member("w1"), "b": member("w2")}, 4, standbys=0)
    assert all(not part.standbys for part in mine.values())


def test_standbys_are_in_another_zone_than_their_active() -> None:
    zones = {"a": "x", "b": "x", "c": "y", "d": "y"}
    members = {name: member(f"w{name}", zone=zone) for name, zone in zones.items()}
    mine = placed(members, 8)
    owner = owners(mine)
    for name, part in mine.items():
        assert part.standbys["t"]
        assert all(zones[owner["t", partition]] != zones[name] for partition in part.standbys["t"])


def test_two_standbys_are_in_two_zones_where_there_are_three() -> None:
    zones = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "z", "f": "z"}
    members = {name: member(f"w{name}", zone=zone) for name, zone in zones.items()}
    mine = placed(members, 12, standbys=2)
    for partition in range(12):
        copies = [name for name in mine if partition in mine[name].actives["t"] + mine[name].standbys["t"]]
        assert {zones[name] for name in copies} == {"x", "y", "z"}


def test_one_zone_only_does_not_keep_standbys_away() -> None:
    mine = placed({"a": member("w1", zone="x"), "b": member("w2", zone="x")}, 2)
    assert [part.standbys["t"] for part in mine.values()] == [[1], [0]]


def test_a_ghost_keeps_no_standbys_and_is_not_asked_what_it_owned() -> None:
    ghost = MemberMetadata("w1", 1, "http://w1:9080", "", {"t": {0: FAR}}, actives={"t": [0]})
    back = MemberMetadata("w1", 2, "http://w1:9080", "", {"t": {0: FAR}})
    mine = placed({"ghost": ghost, "back": back, "other": member("w2", {0: FAR}, [])}, 2)
    assert mine["ghost"] == MemberAssignment(actives={}, standbys={})
    assert {partition for part in mine.values() for partition in part.standbys.get("t", [])} == {0, 1}
