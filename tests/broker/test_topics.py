import asyncio
import time
from collections.abc import Callable
from time import monotonic

import pytest
from aiokafka.errors import KafkaTimeoutError

import tablehouse.kafka.probe
from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import BrokerUnfit, TopicError
from tablehouse.kafka import topics
from tablehouse.kafka.broker_time import measure, prepare_probe
from tablehouse.kafka.client import Connection
from tablehouse.kafka.probe import probe_epochs
from tablehouse.kafka.topic_plan import BATCH_OVERHEAD
from tablehouse.kafka.topics import Topics
from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.clock import MeasuredClock
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.changelog import connection
from tests.support.kafka import create_topic, delete_topic, unique
from tests.support.polling import until
from tests.support.topics import catalog, partitions_of, settings_of, topics_of

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SOURCE_LIMIT = 2_000_000
RIGHT = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
    "min.compaction.lag.ms": str(HOUR_MS),
    "delete.retention.ms": str(DAY_MS),
    "max.message.bytes": str(SOURCE_LIMIT + BATCH_OVERHEAD),
}

ROOM = {"max.message.bytes": str(SOURCE_LIMIT)}


async def prepare(to: Connection, group: str, tables: Catalog) -> Topics:
    return await topics.prepare(to, group, tables, f"{group}-dead-letters")


async def source_topic(kafka: EmbeddedKafka, partitions: int = 3) -> str:
    topic = unique("source")
    await create_topic(kafka.bootstrap_servers, topic, partitions, {"max.message.bytes": str(SOURCE_LIMIT)})
    return topic


async def test_a_changelog_is_created_with_what_the_protocol_needs_and_as_many_partitions(kafka: EmbeddedKafka) -> None:
    group, topic = unique("group"), await source_topic(kafka)

    found = await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))

    assert found.counts.shards == {topic: 3}
    assert set(found.batch_limits.values()) == {SOURCE_LIMIT + BATCH_OVERHEAD}
    settings = await settings_of(kafka, f"{group}-planes-changelog")
    assert {name: settings[name] for name in RIGHT} == RIGHT
    assert settings["min.insync.replicas"] == "1"
    assert len(await partitions_of(kafka, f"{group}-planes-changelog")) == 3


async def test_what_was_prepared_is_found_good_the_next_time(kafka: EmbeddedKafka) -> None:
    group, topic = unique("group"), await source_topic(kafka)
    first = await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))

    assert await prepare(connection(kafka.bootstrap_servers), group, catalog(topic)) == first


async def test_a_changelog_takes_the_batches_of_its_own_source(kafka: EmbeddedKafka) -> None:
    group, small, large = unique("group"), await source_topic(kafka), unique("source")
    await create_topic(kafka.bootstrap_servers, large, 1, {"max.message.bytes": "5000000"})

    found = await prepare(connection(kafka.bootstrap_servers), group, catalog(small, large))

    assert found.batch_limits == {
        f"{group}-planes-changelog": SOURCE_LIMIT + BATCH_OVERHEAD,
        f"{group}-planes1-changelog": 5_000_000 + BATCH_OVERHEAD,
    }
    for changelog, limit in found.batch_limits.items():
        assert (await settings_of(kafka, changelog))["max.message.bytes"] == str(limit)


async def test_several_workers_that_prepare_at_once_all_find_the_same(kafka: EmbeddedKafka) -> None:
    group, sources = unique("group"), [await source_topic(kafka), await source_topic(kafka, 2)]

    found = await asyncio.gather(
        *(prepare(connection(kafka.bootstrap_servers), group, catalog(*sources)) for _ in range(4))
    )

    assert all(one == found[0] for one in found)
    assert len(await partitions_of(kafka, f"{group}-planes1-changelog")) == 2


@pytest.mark.parametrize(
    ("setting", "wrong", "said"),
    [
        ("cleanup.policy", "delete", "cleanup.policy is delete and must be compact"),
        ("cleanup.policy", "compact,delete", "cleanup.policy is compact,delete and must be compact"),
        ("message.timestamp.type", "CreateTime", "message.timestamp.type is CreateTime and must be LogAppendTime"),
        ("unclean.leader.election.enable", "true", "unclean.leader.election.enable is true and must be false"),
        ("min.compaction.lag.ms", "0", f"min.compaction.lag.ms is 0 and must be at least {HOUR_MS}"),
        ("delete.retention.ms", "1000", f"delete.retention.ms is 1000 and must be at least {DAY_MS}"),
        (
            "max.message.bytes",
            "1000",
            f"max.message.bytes is 1000 and must be at least {SOURCE_LIMIT + BATCH_OVERHEAD}",
        ),
    ],
)
async def test_a_changelog_with_another_setting_is_refused_by_its_name(
    kafka: EmbeddedKafka, setting: str, wrong: str, said: str
) -> None:
    group, topic = unique("group"), await source_topic(kafka, 1)
    await create_topic(kafka.bootstrap_servers, f"{group}-planes-changelog", 1, {**RIGHT, setting: wrong})

    with pytest.raises(TopicError) as refusal:
        await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))

    assert str(refusal.value).startswith(f"changelog {group}-planes-changelog: {said}; alter the topic's settings: ")
    assert str(refusal.value).endswith(
        f"kafka-configs.sh --bootstrap-server {kafka.bootstrap_servers} --alter --entity-type topics "
        f"--entity-name {group}-planes-changelog --add-config {setting}={RIGHT[setting]}"
    )


async def test_a_changelog_that_keeps_more_than_is_needed_is_used(kafka: EmbeddedKafka) -> None:
    group, topic = unique("group"), await source_topic(kafka, 1)
    generous = {**RIGHT, "delete.retention.ms": str(7 * DAY_MS), "min.compaction.lag.ms": str(2 * HOUR_MS)}
    await create_topic(kafka.bootstrap_servers, f"{group}-planes-changelog", 1, generous)

    assert (await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))).counts.shards == {topic: 1}


async def test_a_missing_source_is_named_with_the_tables_that_would_read_it(kafka: EmbeddedKafka) -> None:
    group, topic, missing = unique("group"), await source_topic(kafka), unique("missing")

    with pytest.raises(TopicError, match=f"there is no topic {missing}, which planes1 would read"):
        await prepare(connection(kafka.bootstrap_servers), group, catalog(topic, missing))

    # Nothing was made for the table whose source is there.
    assert f"{group}-planes-changelog" not in await topics_of(kafka)


async def test_a_missing_source_is_taken_for_what_its_changelogs_tell_of_it(kafka: EmbeddedKafka) -> None:
    group, topic, gone, never = (
        unique("group"),
        await source_topic(kafka),
        await source_topic(kafka, 2),
        unique("never"),
    )
    to = connection(kafka.bootstrap_servers)
    before = await prepare(to, group, catalog(topic, gone))
    await delete_topic(kafka.bootstrap_servers, gone)

    async def missing() -> Topics:
        assert gone not in await topics_of(kafka)
        return await prepare(to, group, catalog(topic, gone))

    assert await until(missing, "the topic is deleted") == before
    # Another table of the same topic is served as well, once there are records.
    found = await prepare(to, group, catalog(topic, gone, gone))
    assert (found.counts.built[f"{group}-planes2-changelog"], found.counts.held) == (2, frozenset())
    # No other topic remains to be asked for the limits and the defaults.
    alone = await prepare(to, group, Catalog({"planes1": catalog(topic, gone).tables["planes1"]}))
    assert (alone.counts.shards, alone.source_limits) == ({gone: 2}, {gone: SOURCE_LIMIT})
    with pytest.raises(TopicError, match=f"there is no topic {never}, which planes3 would read"):
        await prepare(to, group, catalog(topic, gone, gone, never))
    assert gone not in await topics_of(kafka)


async def test_a_table_goes_on_with_the_partition_count_of_its_changelog_when_its_topic_has_another(
    kafka: EmbeddedKafka,
) -> None:
    group, topic = unique("group"), await source_topic(kafka, 3)
    await create_topic(kafka.bootstrap_servers, f"{group}-planes-changelog", 2, RIGHT)

    counts = (await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))).counts

    assert (counts.now, counts.shards, counts.held) == ({topic: 3}, {topic: 2}, frozenset())
    assert len(await partitions_of(kafka, f"{group}-planes-changelog")) == 2
    # A new version of the table gets a changelog of its own, with the partitions that the topic has.
    counts = (await prepare(connection(kafka.bootstrap_servers), group, catalog(topic, version=2))).counts
    assert (counts.shards, counts.built) == ({topic: 3}, {f"{group}-planes-v2-changelog": 3})
    assert len(await partitions_of(kafka, f"{group}-planes-v2-changelog")) == 3


async def test_a_table_that_would_hold_back_those_that_a_worker_serves_is_not_taken_up_while_it_runs(
    kafka: EmbeddedKafka,
) -> None:
    group, topic, to = unique("group"), await source_topic(kafka, 3), connection(kafka.bootstrap_servers)
    with pytest.raises(TopicError, match=rf"topic {topic} has 3 partitions, but its tables are served with 2"):
        await topics.prepare(to, group, catalog(topic), f"{group}-dead-letters", in_use={topic: 2, "other": 9})
    # The changelog alone would have a start hold the others back.
    assert f"{group}-planes-changelog" not in await topics_of(kafka)
    found = await topics.prepare(to, group, catalog(topic), f"{group}-dead-letters", in_use={topic: 3})
    assert found.counts.shards == {topic: 3}


async def test_topics_of_more_tables_are_added_and_those_that_go_leave_their_limits(kafka: EmbeddedKafka) -> None:
    group, to = unique("group"), connection(kafka.bootstrap_servers)
    first, second = await source_topic(kafka), await source_topic(kafka)
    both, one = catalog(first, second), catalog(first)
    together = (await prepare(to, group, one)).with_more(await prepare(to, group, both))
    assert together == await prepare(to, group, both)
    left = together.only(one, group)
    assert (left.catalog, left.counts) == (one, (await prepare(to, group, one)).counts)
    assert left.batch_limits == together.batch_limits
    assert left.replicas.keys() == left.counts.built.keys()


async def test_a_broker_that_refuses_older_epochs_passes_the_probe_again_and_again(kafka: EmbeddedKafka) -> None:
    group = unique("group")
    for _ in range(2):
        await probe_epochs(connection(kafka.bootstrap_servers), group)


async def test_workers_that_probe_at_once_do_not_mind_each_other(kafka: EmbeddedKafka) -> None:
    group = unique("group")

    await asyncio.gather(*(probe_epochs(connection(kafka.bootstrap_servers), group) for _ in range(4)))


class _Machine:
    """A clock that counts from anywhere."""

    def monotonic(self) -> float:
        """Return seconds."""
        return monotonic() - 5_000


async def test_a_broker_tells_its_time_again_and_again_whatever_the_machine_counts_from(kafka: EmbeddedKafka) -> None:
    group, machine = unique("group"), _Machine()
    for _ in range(2):
        await prepare_probe(connection(kafka.bootstrap_servers), group)
        clock = MeasuredClock(machine)
        before_ms = time.time() * 1000
        await measure(connection(kafka.bootstrap_servers), group, machine, clock)
        # The broker runs on this machine, and its clock shows whole milliseconds.
        assert before_ms - 1 <= clock.now_ms() <= time.time() * 1000 + 10_000
    assert (await settings_of(kafka, f"{group}-clock-probe"))["message.timestamp.type"] == "LogAppendTime"


async def test_a_topic_on_which_brokers_do_not_tell_the_time_is_refused_and_says_what_to_alter(
    kafka: EmbeddedKafka,
) -> None:
    group, machine = unique("group"), _Machine()
    await create_topic(kafka.bootstrap_servers, f"{group}-clock-probe", 1, {"message.timestamp.type": "CreateTime"})

    with pytest.raises(TopicError, match=f"topic {group}-clock-probe: message.timestamp.type must be LogAppendTime"):
        await measure(connection(kafka.bootstrap_servers), group, machine, MeasuredClock(machine))


class _Suspended(_Machine):
    """One whose machine is suspended for an hour each time somebody looks at it."""

    looks = 0

    def monotonic(self) -> float:
        """Return seconds."""
        self.looks += 1
        return super().monotonic() + 3600 * self.looks


async def test_a_measurement_that_took_long_does_not_count(kafka: EmbeddedKafka) -> None:
    group, machine = unique("group"), _Suspended()
    clock = MeasuredClock(_Machine())
    await prepare_probe(connection(kafka.bootstrap_servers), group)
    with pytest.raises(KafkaTimeoutError, match=f"an append to topic {group}-clock-probe took 3600 s"):
        await measure(connection(kafka.bootstrap_servers), group, machine, clock)
    with pytest.raises(AssertionError, match="before it was measured"):
        clock.now_ms()


class _CarelessWriter:
    """Appends whatever it is given, as to a broker that does not compare epochs."""

    def __init__(self, to: Connection, limit_of: Callable[[str], int], producer_id: int, acks: int) -> None:
        del to, limit_of, producer_id, acks
        self.end = 0

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def claim(self, partition: TopicPartition, epoch: Epoch, key: bytes, value: bytes) -> int:
        """Take it."""
        del partition, epoch, key, value
        self.end += 1
        return self.end - 1


async def test_a_broker_that_takes_records_of_an_older_epoch_is_refused(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tablehouse.kafka.probe, "KafkaChangelogWriter", _CarelessWriter)

    with pytest.raises(BrokerUnfit, match="accepted a record of an older producer epoch"):
        await probe_epochs(connection(kafka.bootstrap_servers), unique("group"))


def skipping(source: str) -> Catalog:
    spec = SourceSpec(source, KeySpec("string"), ValueSpec("json"), on_error="skip")
    return Catalog({"planes": TableSpec("planes", spec)})


async def test_a_dead_letter_topic_is_created_for_tables_that_send_any_and_takes_what_was_compressed(
    kafka: EmbeddedKafka,
) -> None:
    group, topic = unique("group"), await source_topic(kafka)

    assert (await prepare(connection(kafka.bootstrap_servers), group, skipping(topic))).dead_letters is None
    assert f"{group}-dead-letters" not in await topics_of(kafka)

    found = await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))
    letters = found.dead_letters
    assert letters is not None
    assert (letters.name, letters.partitions, letters.limit) == (f"{group}-dead-letters", 1, 8 * SOURCE_LIMIT)
    settings = await settings_of(kafka, f"{group}-dead-letters")
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("delete", str(30 * DAY_MS))
    assert await prepare(connection(kafka.bootstrap_servers), group, catalog(topic)) == found


async def test_a_dead_letter_topic_that_is_there_is_used_as_it_is(kafka: EmbeddedKafka) -> None:
    group, topic = unique("group"), await source_topic(kafka)
    await create_topic(kafka.bootstrap_servers, f"{group}-dead-letters", 4, {"retention.ms": "1000", **ROOM})

    found = await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))

    assert found.dead_letters is not None
    assert found.dead_letters.partitions == 4
    assert (await settings_of(kafka, f"{group}-dead-letters"))["retention.ms"] == "1000"


@pytest.mark.parametrize(
    ("setting", "wrong", "said"),
    [
        ("cleanup.policy", "compact", "cleanup.policy is compact and must be delete"),
        (
            "max.message.bytes",
            "1000",
            f"max.message.bytes is 1000 and must be at least {SOURCE_LIMIT + BATCH_OVERHEAD}",
        ),
    ],
)
async def test_a_dead_letter_topic_that_would_lose_letters_is_refused(
    kafka: EmbeddedKafka, setting: str, wrong: str, said: str
) -> None:
    group, topic = unique("group"), await source_topic(kafka)
    await create_topic(kafka.bootstrap_servers, f"{group}-dead-letters", 1, {**ROOM, setting: wrong})

    with pytest.raises(TopicError) as refusal:
        await prepare(connection(kafka.bootstrap_servers), group, catalog(topic))

    assert str(refusal.value).startswith(
        f"dead-letter topic {group}-dead-letters: {said}; alter the topic's settings: "
    )


async def test_a_source_is_no_dead_letter_topic(kafka: EmbeddedKafka) -> None:
    group, topic = unique("group"), await source_topic(kafka)

    with pytest.raises(TopicError, match="which is a source, a changelog or the skip topic"):
        await topics.prepare(connection(kafka.bootstrap_servers), group, catalog(topic), topic)
