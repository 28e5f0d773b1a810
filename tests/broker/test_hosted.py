"""Clusters that are not as Kafka comes: with policies of hosted ones, and other defaults."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tablehouse.cli.main import main
from tablehouse.demo.load import ensure_topics
from tablehouse.errors import SetupError, TopicError
from tablehouse.kafka import topics
from tablehouse.kafka.client import Connection
from tablehouse.kafka.topic_plan import BATCH_OVERHEAD
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LogUnavailable
from tablehouse.testing import processes
from tablehouse.testing.kafka import EmbeddedKafka, Listener
from tests.support.changelog import log_reader
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.topic_policy import CLASS_NAME, write_policy
from tests.support.topics import alter_topic, catalog, settings_of, topics_of
from tests.support.worker import MakeWorker, table, tables

CAP = 3_000_000
HOUR_MS = 3_600_000


#: A way into the broker, on which it sends clients to where nothing listens.
ELSEWHERE = Listener("elsewhere", "PLAINTEXT", {}, advertised=f"127.0.0.1:{processes.free_port()}")
SENT_AWAY = (
    f"broker 1 advertises {ELSEWHERE.advertised} (advertised.listeners): {ELSEWHERE.advertised} cannot be reached"
)


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Start a broker whose cluster has a policy, compacts within half an hour, and advertises a wrong address."""
    folder = tmp_path_factory.mktemp("hosted")
    forbidden = ["unclean.leader.election.enable", "delete.retention.ms", "min.insync.replicas"]
    write_policy(folder / "classes", forbidden=forbidden, most_bytes=CAP)
    properties = {
        "create.topic.policy.class.name": CLASS_NAME,
        "log.cleaner.max.compaction.lag.ms": str(HOUR_MS // 2),
    }
    classes = folder / "classes"
    with EmbeddedKafka(folder / "kafka", listeners=[ELSEWHERE], properties=properties, class_path=classes) as broker:
        yield broker


async def test_a_worker_starts_where_a_policy_refuses_what_is_the_default_anyway(
    hosted: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(hosted.bootstrap_servers, topic, 1)
    await produce(hosted.bootstrap_servers, topic, [(b"a", b'{"n":1}', None), (b"b", b"no JSON", None)])

    worker = make_worker(hosted.bootstrap_servers, tables(table("t", topic)), group=group)
    worker.start()
    await worker.wait_ready()

    assert (await worker.get("/tables/t/a")).body == b'{"n":1}'
    assert await worker.metric("tablehouse_dead_letters_total") == 1
    settings = await settings_of(hosted, f"{group}-t-changelog")
    assert settings["min.compaction.lag.ms"] == settings["max.compaction.lag.ms"] == str(HOUR_MS)
    # 8 times the source's limit is over the cap, which one batch of the source is not.
    assert (await settings_of(hosted, f"{group}-dead-letters"))["max.message.bytes"] == str(1_048_588 + BATCH_OVERHEAD)
    assert "max.message.bytes may be 3000000 at most" in worker.log_text()


async def test_topics_of_a_source_at_the_cap_of_the_cluster_are_as_large_as_it_allows(hosted: EmbeddedKafka) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(hosted.bootstrap_servers, topic, 1, {"max.message.bytes": str(CAP)})
    connection = Connection(hosted.bootstrap_servers, "test")

    for _ in range(2):
        found = await topics.prepare(connection, group, catalog(topic), f"{group}-dead-letters")
        assert found.batch_limits == {f"{group}-planes-changelog": CAP}
        assert found.dead_letters is not None
        assert (found.dead_letters.name, found.dead_letters.limit) == (f"{group}-dead-letters", CAP)


async def test_a_topic_that_no_policy_allows_is_named_with_the_command_that_would_create_it(
    hosted: EmbeddedKafka,
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(hosted.bootstrap_servers, topic, 2)
    await alter_topic(hosted, topic, {"max.message.bytes": str(2 * CAP)})

    with pytest.raises(TopicError) as refusal:
        await topics.prepare(
            Connection(hosted.bootstrap_servers, "test"), group, catalog(topic), f"{group}-dead-letters"
        )

    assert str(refusal.value) == (
        f"topic {group}-planes-changelog cannot be created: max.message.bytes may be {CAP} at most; create it with: "
        f"kafka-topics.sh --bootstrap-server {hosted.bootstrap_servers} --create --if-not-exists "
        f"--topic {group}-planes-changelog --partitions 2 --replication-factor 1 --config=cleanup.policy=compact "
        f"--config=message.timestamp.type=LogAppendTime --config=min.compaction.lag.ms={HOUR_MS} "
        f"--config=max.compaction.lag.ms={HOUR_MS} --config=max.message.bytes={2 * CAP}"
    )
    assert f"{group}-planes-changelog" not in await topics_of(hosted)


async def test_a_worker_names_the_address_that_a_broker_wrongly_advertises(
    hosted: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic = unique("source")
    await create_topic(hosted.bootstrap_servers, topic, 1)
    worker = make_worker(ELSEWHERE.bootstrap_servers, tables(table("t", topic)), group=unique("group"))
    worker.start()

    async def named() -> bool:
        _, readiness = await worker.document("/readyz?verbose")
        assert readiness is not None
        assert any(SENT_AWAY in reason for reason in readiness["reasons"]), readiness
        return True

    await until(named, "the worker names the address")
    assert SENT_AWAY in worker.log_text()
    assert worker.exit_code is None


@pytest.mark.parametrize("command", [["topics"], ["dead-letters", "list"]])
async def test_a_command_names_the_address_that_a_broker_wrongly_advertises(
    hosted: EmbeddedKafka, tmp_path: Path, command: list[str]
) -> None:
    del hosted
    file = tmp_path / "tables.yaml"
    file.write_text(tables(table("t", "source")), "utf-8")
    environment = {
        "TABLEHOUSE_BOOTSTRAP_SERVERS": ELSEWHERE.bootstrap_servers,
        "TABLEHOUSE_TABLES": str(file),
    }

    refused = await asyncio.to_thread(CliRunner().invoke, main, command, env=environment)

    assert refused.exit_code == 1
    assert f"requests to the brokers of {ELSEWHERE.bootstrap_servers} failed: " in refused.stderr
    assert SENT_AWAY in refused.stderr


async def test_the_demonstration_names_the_address_that_a_broker_wrongly_advertises(hosted: EmbeddedKafka) -> None:
    del hosted
    with pytest.raises(SetupError) as refusal:
        await ensure_topics(ELSEWHERE.bootstrap_servers, ["flights"])

    assert SENT_AWAY in str(refusal.value)


async def test_a_listing_names_the_address_that_a_broker_wrongly_advertises(hosted: EmbeddedKafka) -> None:
    topic = unique("source")
    await create_topic(hosted.bootstrap_servers, topic, 1)

    async with log_reader(ELSEWHERE.bootstrap_servers) as reader:
        with pytest.raises(
            LogUnavailable, match=f"no broker can be reached at its advertised address: {ELSEWHERE.advertised}"
        ):
            await reader.bounds([TopicPartition(topic, 0)])
