"""The settings that topics are created with, by what a cluster says of itself."""

import pytest

from tablehouse.kafka.client import Connection
from tablehouse.kafka.security import Security
from tablehouse.kafka.topic_admin import Cluster
from tablehouse.kafka.topic_plan import BATCH_OVERHEAD, Rule, changelog, dead_letters, internal
from tablehouse.kafka.topics import Replication

HOUR_MS, DAY_MS, MIB = 3_600_000, 86_400_000, 1 << 20
KAFKA = {
    "cleanup.policy": "delete",
    "delete.retention.ms": str(DAY_MS),
    "max.compaction.lag.ms": str(2**63 - 1),
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "retention.ms": str(7 * DAY_MS),
    "unclean.leader.election.enable": "false",
}
ALWAYS = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    "min.compaction.lag.ms": str(HOUR_MS),
}


def test_a_changelog_is_not_set_to_what_is_the_default_anyway() -> None:
    wanted = changelog("c", 3, 1, 500_000, KAFKA)

    assert wanted.ways == (
        {**ALWAYS, "delete.retention.ms": str(DAY_MS)},
        # Where a policy refuses the first.
        ALWAYS,
    )


def test_a_changelog_is_set_to_what_the_defaults_of_its_cluster_would_spoil() -> None:
    spoilt = {
        "unclean.leader.election.enable": "true",
        "max.compaction.lag.ms": "1800000",
        "delete.retention.ms": "1000",
        "min.insync.replicas": "2",
    }
    least = {
        **ALWAYS,
        "unclean.leader.election.enable": "false",
        "max.compaction.lag.ms": str(HOUR_MS),
        "delete.retention.ms": str(DAY_MS),
        "min.insync.replicas": "1",
    }

    assert changelog("c", 3, 2, 500_000, KAFKA | spoilt).ways == (least,)


def test_a_changelog_asks_for_less_where_a_policy_refuses_its_size() -> None:
    ways = changelog("c", 3, 3, 8 * MIB, KAFKA | {"min.insync.replicas": "2"}).ways

    assert [way.get("max.message.bytes") for way in ways] == [str(8 * MIB + BATCH_OVERHEAD), str(8 * MIB)] * 2
    assert [way.get("delete.retention.ms") for way in ways] == [str(DAY_MS)] * 2 + [None] * 2
    assert all("min.insync.replicas" not in way for way in ways)


def test_a_cluster_that_says_nothing_of_its_defaults_is_not_told_what_is_the_default_of_kafka() -> None:
    (way, *_) = changelog("c", 3, 3, MIB, {}).ways

    assert way["min.insync.replicas"] == "2"
    assert way["max.message.bytes"] == str(MIB + BATCH_OVERHEAD)
    assert "unclean.leader.election.enable" not in way
    assert "max.compaction.lag.ms" not in way


def test_dead_letters_ask_for_the_room_of_compressed_records_and_make_do_with_that_of_one_batch() -> None:
    ways = dead_letters("d", 1, 1_048_588, KAFKA).ways

    assert [way.get("max.message.bytes") for way in ways[:3]] == ["8388704", str(1_048_588 + BATCH_OVERHEAD), None]
    assert all(way["retention.ms"] == str(30 * DAY_MS) for way in ways)


def test_a_size_between_that_of_the_source_and_the_best_is_tolerated() -> None:
    (size,) = (rule for rule in changelog("c", 1, 1, MIB, KAFKA).rules if rule.setting == "max.message.bytes")

    assert size.holds(str(MIB + BATCH_OVERHEAD))
    assert size.holds(str(MIB))
    assert not size.holds(str(MIB - 1))
    assert size.fault(str(MIB - 1)) == f"max.message.bytes is {MIB - 1} and must be at least {MIB + BATCH_OVERHEAD}"


def test_a_setting_that_a_hosted_cluster_does_not_show_is_no_fault_where_it_is_the_default() -> None:
    rules = {rule.setting: rule for rule in changelog("c", 1, 1, MIB, KAFKA).rules}

    assert rules["unclean.leader.election.enable"].holds(None)
    assert not rules["unclean.leader.election.enable"].holds("true")
    assert not rules["cleanup.policy"].holds(None)
    assert not rules["min.compaction.lag.ms"].holds(None)


@pytest.mark.parametrize(
    ("factor", "cluster", "source", "replicas"),
    [
        (None, Cluster(brokers=1, default_replicas=1), 1, 1),
        (None, Cluster(brokers=3, default_replicas=1), 1, 3),
        (None, Cluster(brokers=9, default_replicas=1), 1, 3),
        (None, Cluster(brokers=2, default_replicas=3), 1, 3),
        (None, Cluster(brokers=2, default_replicas=1), 3, 3),
        (None, Cluster(brokers=9, default_replicas=3), 5, 5),
        (2, Cluster(brokers=9, default_replicas=3), 5, 2),
    ],
)
def test_replicas_are_those_of_the_setting_or_the_most_that_anything_suggests(
    factor: int | None, cluster: Cluster, source: int, replicas: int
) -> None:
    assert Replication(factor).of(cluster, source) == replicas


def test_commands_can_be_pasted_into_a_shell() -> None:
    wanted = internal("g-clock-probe", 2, (Rule("message.timestamp.type", "LogAppendTime"),))
    plain, secured = Connection("k1:9092,k2:9092", "t"), Connection("k1:9092", "t", security=Security("SSL"))

    assert wanted.create_command(plain) == (
        "kafka-topics.sh --bootstrap-server k1:9092,k2:9092 --create --if-not-exists --topic g-clock-probe "
        "--partitions 1 --replication-factor 2 --config=cleanup.policy=delete --config=retention.ms=3600000 "
        "--config=message.timestamp.type=LogAppendTime"
    )
    assert wanted.create_command(secured, 1) == (
        "kafka-topics.sh --bootstrap-server k1:9092 --command-config client.properties --create --if-not-exists "
        "--topic g-clock-probe --partitions 1 --replication-factor 2 --config=message.timestamp.type=LogAppendTime"
    )
    assert wanted.alter_command(plain, wanted.rules) == (
        "kafka-configs.sh --bootstrap-server k1:9092,k2:9092 --alter --entity-type topics --entity-name g-clock-probe "
        "--add-config message.timestamp.type=LogAppendTime"
    )
