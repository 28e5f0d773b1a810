"""Catalogs over topics, and what brokers say of topics."""

from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.polling import until

#: What the names of a group's topics end with, other than the changelogs, in the order in which they are listed.
GROUP_TOPICS = ("skips", "dead-letters", "epoch-probe", "clock-probe")


def catalog(*sources: str, version: int = 1) -> Catalog:
    """Return a catalog of one table a source, with the names planes, planes1, planes2."""
    names = ["planes" + (str(number) if number else "") for number in range(len(sources))]
    return Catalog(
        {
            name: TableSpec(name, SourceSpec(source, KeySpec("string"), ValueSpec("json")), version=version)
            for name, source in zip(names, sources, strict=True)
        }
    )


async def settings_of(kafka: EmbeddedKafka, topic: str) -> Mapping[str, str]:
    """Return the settings of a topic, defaults included."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


async def alter_topic(kafka: EmbeddedKafka, topic: str, settings: Mapping[str, str]) -> None:
    """Set these settings of a topic, and no others."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(settings))
        (answer, *_) = await admin.alter_configs([resource])
        assert [error[0] for error in answer.resources] == [0], answer
    finally:
        await admin.close()

    async def known() -> bool:
        return (await settings_of(kafka, topic)).items() >= settings.items()

    await until(known, f"topic {topic} has {settings}")


async def topics_of(kafka: EmbeddedKafka) -> set[str]:
    """Return the names of all topics, by a request that names none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def partitions_of(kafka: EmbeddedKafka, topic: str) -> list[dict[str, list[int]]]:
    """Return what is known of each partition of a topic: `replicas`, `isr` and others."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        (found,) = await admin.describe_topics([topic])
        return list(found["partitions"])
    finally:
        await admin.close()
