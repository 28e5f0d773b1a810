"""Topics that are kept in message formats from before Apache Kafka 0.11, on a broker that still can."""

from collections.abc import Iterator

import aiohttp
import pytest

from tablehouse.errors import BrokerUnfit
from tablehouse.kafka.client import Connection
from tablehouse.kafka.probe import probe_epochs
from tests.support.kafka import create_topic, unique
from tests.support.old_kafka import OldKafka
from tests.support.worker import MakeWorker, table, tables

OLD_FORMAT = {"message.format.version": "0.10.2"}


@pytest.fixture(scope="module")
def old_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldKafka]:
    with OldKafka(tmp_path_factory.mktemp("old-kafka")) as broker:
        yield broker


async def test_a_write_to_a_topic_of_an_old_format_is_refused_and_did_not_happen(
    old_kafka: OldKafka, make_worker: MakeWorker
) -> None:
    old, new, group = unique("old"), unique("new"), unique("group")
    await create_topic(old_kafka.bootstrap_servers, old, 1, OLD_FORMAT)
    await create_topic(old_kafka.bootstrap_servers, new, 1)
    definitions = tables(*(table(name, topic) + "    writable: true\n" for name, topic in (("old", old), ("new", new))))
    worker = make_worker(old_kafka.bootstrap_servers, definitions, group=group)
    worker.start()
    await worker.wait_ready()

    async with aiohttp.ClientSession() as session:
        async with session.put(f"{worker.url}/tables/old/k", json={"n": 1}) as refused:
            problem = await refused.json(content_type=None)
        async with session.put(f"{worker.url}/tables/new/k?wait=visible", json={"n": 1}) as written:
            assert written.status == 200, await written.text()

    assert (refused.status, problem["type"]) == (503, "urn:tablehouse:problem:source_unavailable")
    assert "nothing was written" in problem["detail"]
    assert "message format from before Apache Kafka 0.11 (message.format.version)" in problem["detail"]
    assert (await worker.get("/tables/old/k")).status == 404


async def test_a_broker_whose_topics_have_no_producer_epochs_is_unfit(old_kafka: OldKafka) -> None:
    group = unique("group")
    # As log.message.format.version of the broker makes every topic.
    await create_topic(old_kafka.bootstrap_servers, f"{group}-epoch-probe", 1, OLD_FORMAT)

    with pytest.raises(BrokerUnfit, match=r"from before Apache Kafka 0\.11 \(log\.message\.format\.version\)"):
        await probe_epochs(Connection(old_kafka.bootstrap_servers, "test"), group)
