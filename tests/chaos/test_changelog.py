"""Changelogs that lose their beginning or everything: rebuilt, or refused aloud; never empty and called whole."""

from functools import partial
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import PolicyViolationError

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.scene import ACCEPTABLE_LAG, HEALED, PARTITIONS, Scene, scene
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess

#: The table whose changelog loses its beginning, so that it does not fold to what the stores hold.
TRUNCATED = "first"

#: Where a topic's setting comes from, in Kafka's protocol: from the topic.
_SET_FOR_TOPIC = 1


async def truncate(bootstrap: str, topic: str) -> None:
    """Delete every record that a topic has now; for the moment its policy is one that allows that."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((_, _, _, _, entries),) = answer.resources
        # Settings that are not given are reset.
        settings = {name: value for name, value, _, source, *_ in entries if source == _SET_FOR_TOPIC}
        await _alter(admin, topic, settings | {"cleanup.policy": "compact,delete"})
        # -1 is the high watermark.
        all_records = {TopicPartition(topic, number): RecordsToDelete(-1) for number in range(PARTITIONS)}

        async def deleted() -> bool:
            try:
                await admin.delete_records(all_records)
            except PolicyViolationError:  # the broker acknowledges a policy a little before it goes by it
                return False
            return True

        await until(deleted, f"the records of {topic} are deleted")
        await _alter(admin, topic, settings)
    finally:
        await admin.close()


async def _alter(admin: AIOKafkaAdminClient, topic: str, settings: dict[str, str]) -> None:
    for answer in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)]):
        assert [error[0] for error in answer.resources] == [0], answer


async def delete(bootstrap: str, topic: str) -> None:
    """Delete a topic, and return when the broker knows it no more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await until(gone, f"topic {topic} is gone")
    finally:
        await admin.close()


def changelog(cluster: Scene, table: str) -> str:
    return f"{cluster.group}-{table}-changelog"


async def waits(worker: WorkerProcess, table: str, why: str) -> bool:
    """Say whether a task of a worker says that it waits for a reason, in its status and in the log."""
    reasons = [task["reason"] or "" for task in await worker.tasks() if task["table"] == table]
    return any(why in reason for reason in reasons) and why in worker.log_text()


async def test_a_store_behind_a_truncated_changelog_is_refused_aloud_and_owns_nothing_until_it_is_the_last(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, uncompared=[TRUNCATED]) as cluster:
        behind, other = cluster.workers
        await cluster.leave(behind)
        await cluster.settled(other)
        # More than anybody may lack who becomes an owner.
        await cluster.load.more(3 * PARTITIONS * ACCEPTABLE_LAG)
        await truncate(cluster.bootstrap, changelog(cluster, TRUNCATED))
        behind.start()
        await until(lambda: waits(behind, TRUNCATED, "its first records were deleted"), "it is refused", HEALED)
        cluster.healed(behind)
        await cluster.served(behind)
        await cluster.served(other)
        await cluster.leave(other)
        await cluster.answered(behind, 20, lambda answer: answer.table == TRUNCATED and answer.status == 503)
        await cluster.answered(behind, 40, lambda answer: answer.table != TRUNCATED and answer.role == "active")
        await cluster.start(other)
        await cluster.settled(other)


async def test_a_changelog_that_is_truncated_under_its_owners_changes_nothing(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path, uncompared=[TRUNCATED]) as cluster:
        await truncate(cluster.bootstrap, changelog(cluster, TRUNCATED))
        await cluster.load.more(300)
        await cluster.settled()


async def test_a_deleted_changelog_is_missed_aloud_and_built_anew_from_a_whole_source(
    kafka: EmbeddedKafka, make_worker: MakeWorker, tmp_path: Path
) -> None:
    async with scene(kafka.bootstrap_servers, make_worker, tmp_path) as cluster:
        deleted = cluster.tables[0].name
        await delete(cluster.bootstrap, changelog(cluster, deleted))
        for worker in cluster.workers:
            await until(partial(waits, worker, deleted, changelog(cluster, deleted)), "it is missed", HEALED)
            await cluster.answered(worker, 20, lambda one: one.table == deleted and one.role == "suspended")
        # All of them, so that nobody appends to the new one what belongs to the old one.
        for worker in cluster.workers:
            await cluster.leave(worker)
        await cluster.start(*cluster.workers)
        await cluster.settled()
