"""Random groups and what happens to them; a failure names its seed."""

import random
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from tablehouse.placement.assign import place
from tablehouse.placement.wire import MemberAssignment
from tests.support.placement import (
    Group,
    Shard,
    add,
    apart,
    loads,
    owners,
    random_group,
    settled,
    shards_of,
)

BATCHES = range(5)
BATCH = 100


def each_seed(batch: int, test: Callable[[random.Random], None], count: int = BATCH) -> None:
    for seed in range(batch * BATCH, batch * BATCH + count):
        try:
            test(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def something_happens(group: Group, chance: random.Random, step: int) -> None:
    event = chance.choice(["die", "join", "restart", "ingest", "nothing"])
    names = sorted(group.members)
    if event == "die" and len(names) > 1:
        del group.members[chance.choice(names)]
    elif event == "join" and len(names) < 8:
        add(group, f"joined{step}", chance)
    elif event == "restart":
        member = group.members[chance.choice(names)]
        member.incarnation += 1
        member.actives, member.standbys, member.warming = set(), set(), set()
    elif event == "ingest":
        for shard in group.ends:
            group.ends[shard] += chance.choice([0, 10, 100_000])


def every(group: Group) -> set[Shard]:
    return {(topic, partition) for topic, count in group.topics.items() for partition in range(count)}


def check_rules(group: Group, placed: Mapping[str, MemberAssignment]) -> None:
    names = list(group.members)
    owner, then = owners(placed), settled(placed)
    assert sum(len(shards_of(mine.actives)) for mine in placed.values()) == len(owner)
    assert owner.keys() == every(group)
    for shard in owner:
        assert group.has_caught_up(owner[shard], shard), f"{shard} is on a cold member, {owner[shard]}"
        # While the owner is new reads go on: it has the shard open, if anybody has who is as far.
        able = {name for name in names if group.has_caught_up(name, shard)}
        could_answer = {name for name in able if shard in group.members[name].open}
        if could_answer and not any(shard in group.members[name].actives for name in able):
            assert owner[shard] in could_answer, f"{shard} is on {owner[shard]}, and {could_answer} have it open"
        standbys = [name for name in names if shard in shards_of(placed[name].standbys)]
        warming = [name for name in names if shard in shards_of(placed[name].warming)]
        assert owner[shard] not in standbys
        assert len(warming) <= 1
        assert set(warming) <= set(standbys)
        for name in warming:
            member = group.members[name]
            assert shard not in member.open or not group.has_caught_up(name, shard)
        asked = min(group.standbys[shard[0]], len(names) - 1 - len(warming))
        assert len(standbys) - len(warming) == asked, f"{shard} has {standbys}"
    assert apart(loads(then, names)) <= 1
    assert all(apart(loads(then, names, topic)) <= 1 for topic in group.topics)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_rules_hold_whatever_anybody_holds(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance, zones=chance.choice([1, 1, 2, 3]))
        placed = group.placed()
        check_rules(group, placed)
        shuffled = group.described()
        shuffled = {name: shuffled[name] for name in chance.sample(sorted(shuffled), len(shuffled))}
        topics = dict(reversed(group.topics.items()))
        assert place(shuffled, topics, group.standbys, group.acceptable_lag) == placed

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_placing_again_moves_no_active(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        first = owners(group.rebalance())
        assert owners(group.placed()) == first

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_warming_ends_and_then_nothing_moves(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        assert group.come_to_rest() <= 2
        rest = group.rebalance()
        assert not any(mine.warming for mine in rest.values())
        assert apart(loads(owners(rest), group.members)) <= 1
        group.catch_up()
        assert group.placed() == rest

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_what_is_warmed_up_goes_on_until_it_takes_over_or_something_else_could(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        group.come_to_rest()
        group.ends = dict.fromkeys(group.ends, 10**9)
        group.catch_up()
        add(group, "new", chance)
        before = group.rebalance()["new"]
        new = group.members["new"]
        for shard in new.standbys:
            new.copies[shard] = chance.randrange(10**6)
        again = group.rebalance()["new"]
        assert (again.actives, again.warming) == (before.actives, before.warming)
        for done in sorted(shards_of(before.warming)):
            if done not in new.warming:
                continue
            new.copies[done] = 10**9
            assert done in shards_of(group.rebalance()["new"].actives)

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_failover_always_lands_on_a_standby_that_has_caught_up(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        group.come_to_rest()
        dead = group.members.pop(chance.choice(sorted(group.members)))
        if not group.members:
            return
        placed = group.placed()
        check_rules(group, placed)
        moved = 0
        for shard, owner in owners(placed).items():
            if shard not in dead.actives:
                moved += shard not in group.members[owner].actives
            elif group.standbys[shard[0]]:
                assert shard in group.members[owner].standbys
        assert moved <= len(dead.actives) + 1

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_member_that_joins_gets_its_share_and_little_else_moves(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        group.come_to_rest()
        before = owners(group.rebalance())
        group.catch_up()
        add(group, "new", chance)
        placed = group.placed()
        check_rules(group, placed)
        moved = [shard for shard, owner in settled(placed).items() if owner != before[shard]]
        share = -(-len(before) // len(group.members))
        # One more for a topic of which only some partitions can move at once, or that has to be shared out the other
        # way for all of them together to be even.
        assert len(moved) <= share + len(group.topics)
        at_once = {shard for shard, owner in owners(placed).items() if owner != before[shard]}
        assert all(group.ends[shard] < group.acceptable_lag or owners(placed)[shard] != "new" for shard in at_once)
        group.catch_up()
        group.come_to_rest()
        assert "new" in owners(group.placed()).values() or len(before) < len(group.members)

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_an_active_that_has_caught_up_stays_unless_its_member_had_more_than_its_part(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        owner = owners(group.placed())
        claims = {
            shard: name
            for name, member in group.members.items()
            for shard in member.actives
            if group.has_caught_up(name, shard)
        }
        for shard, name in claims.items():
            if owner[shard] == name:
                continue
            mine = [taken for taken in owner if owner[taken] == name and claims.get(taken) != name]
            of_topic = loads(claims, group.members, shard[0])[name] > group.topics[shard[0]] // len(group.members)
            of_all = loads(claims, group.members)[name] > len(owner) // len(group.members)
            # It may give one away for another that has no copy elsewhere.
            assert of_topic or of_all or mine, f"{name} lost {shard}"

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_standbys_of_a_group_at_rest_are_spread(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        group.come_to_rest()
        placed = group.placed()
        kept = Counter({name: len(shards_of(mine.standbys)) for name, mine in placed.items()})
        whole = kept + loads(owners(placed), group.members)
        # Of one topic, nothing is in the way but that two members can only keep each other's.
        most = 1 if len(group.topics) == 1 and len(group.members) > 2 else 2
        assert apart(kept) <= most
        assert max(whole.values()) - min(whole.values()) <= most

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_standby_shares_its_active_s_zone_only_where_no_other_can_keep_it(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance, zones=3)
        placed = group.placed()
        zone = {name: member.zone for name, member in group.members.items()}
        owner, later = owners(placed), {s: n for n, mine in placed.items() for s in shards_of(mine.warming)}
        for name, mine in placed.items():
            for shard in shards_of(mine.standbys) - shards_of(mine.warming):
                if zone[name] == zone[owner[shard]]:
                    assert all(
                        shard in shards_of(placed[other].standbys) or other == later.get(shard)
                        for other in group.members
                        if zone[other] != zone[owner[shard]]
                    )

    each_seed(batch, one)


@pytest.mark.parametrize("batch", BATCHES)
def test_through_deaths_joins_and_restarts_no_shard_with_a_good_copy_is_on_a_cold_member(batch: int) -> None:
    def one(chance: random.Random) -> None:
        group = random_group(chance)
        for step in range(8):
            something_happens(group, chance, step)
            check_rules(group, group.placed())
            group.rebalance()
            if chance.random() < 0.6:
                group.catch_up()

    each_seed(batch, one, BATCH // 4)
