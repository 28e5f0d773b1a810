"""The topics a worker stands on: its sources, which must be there, and its changelogs, which it makes."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from app.catalog.spec import Catalog
from app.errors import TopicError
from app.kafka.client import Connection
from app.kafka.partition_counts import Counts, settle
from app.tasks.definitions import changelog_topic
from app.tasks.replay import DELETE_RETENTION_MS, MIN_COMPACTION_LAG_MS

log = structlog.get_logger(__name__)

#: A changelog batch has the source's rows, their heads and a position record, so its limit is the source's plus this.
BATCH_OVERHEAD = 64 * 1024

#: A dead letter has its record, and these many bytes of headers beside it, at most.
LETTER_OVERHEAD = BATCH_OVERHEAD

#: A record whose batch was compressed can be larger than its topic's max.message.bytes, so a dead-letter topic takes so
#: many times as much, within what brokers take in one request (socket.request.max.bytes, 100 MiB by default).
LETTER_ROOM, MOST_LETTER_BYTES = 8, 64 * 1024 * 1024

#: How long dead letters are kept, in milliseconds, unless somebody alters the topic: 30 days.
LETTER_RETENTION_MS = 30 * 86_400_000

#: What a changelog must be set to: without any of these the changelog protocol does not hold (tasks/DESIGN.md).
_REQUIRED = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
}
#: And at least so many milliseconds of these.
_AT_LEAST = {"min.compaction.lag.ms": MIN_COMPACTION_LAG_MS, "delete.retention.ms": DELETE_RETENTION_MS}


#: How often, and how many seconds apart, a broker is asked about a topic that may have been created a moment ago.
_ATTEMPTS, _PAUSE = 50, 0.1


@dataclass(frozen=True, slots=True)
class Topics:
    """What prepare() found.

    counts are the partition counts of sources and changelogs, batch_limits and source_limits the bytes that a batch may
    have, by changelog topic and by source topic. dead_letters is None where no table sends any.
    """

    counts: Counts
    batch_limits: Mapping[str, int]
    source_limits: Mapping[str, int]
    dead_letters: "DeadLetterTopic | None" = None


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """The dead-letter topic: its partition count, and the limit of a batch in bytes."""

    name: str
    partitions: int
    limit: int


async def prepare(connection: Connection, group: str, catalog: Catalog, dead_letter_topic: str) -> Topics:
    """Check the sources, and make or check the changelogs, and the dead-letter topic where a table sends any.

    Raises TopicError for what only a person can mend, and aiokafka's KafkaError when the brokers do not answer.
    """
    admin = AIOKafkaAdminClient(**connection.arguments())
    await admin.start()
    try:
        now = await _source_partitions(admin, catalog)
        sources = await _settings(admin, catalog.topics)
        source_limits = {topic: int(settings["max.message.bytes"]) for topic, settings in sources.items()}
        needed = {
            changelog_topic(group, table): source_limits[table.source.topic] + BATCH_OVERHEAD
            for table in catalog.tables.values()
        }
        existing = await _described(admin, needed)
        counts = settle(catalog, group, now, {name: found.partitions for name, found in existing.items()})
        missing = {name: count for name, count in counts.built.items() if name not in existing}
        await _create(admin, missing, needed)
        limits = await _check_settings(admin, needed, existing)
        letters = None
        if any(table.source.on_error == "dead_letter" for table in catalog.tables.values()):
            if dead_letter_topic in {*catalog.topics, *needed}:
                raise TopicError(
                    f"dead_letter_topic is {dead_letter_topic}, which is a source or a changelog of a table; "
                    "name another"
                )
            letters = await _dead_letter_topic(admin, dead_letter_topic, max(source_limits.values()))
    finally:
        await admin.close()
    return Topics(counts, limits, source_limits, letters)


async def _dead_letter_topic(admin: AIOKafkaAdminClient, name: str, largest: int) -> DeadLetterTopic:
    """Make or check the dead-letter topic of sources whose batches have `largest` bytes at most."""
    found = (await _described(admin, [name])).get(name)
    if found is None:
        replication, room = await _replication(admin), min(LETTER_ROOM * largest, MOST_LETTER_BYTES)
        settings = {
            "cleanup.policy": "delete",
            "retention.ms": str(LETTER_RETENTION_MS),
            "min.insync.replicas": str(_insync(replication)),
            "max.message.bytes": str(max(room, largest + LETTER_OVERHEAD)),
        }
        answer = await admin.create_topics([NewTopic(name, 1, replication, topic_configs=settings)])
        _raise_for(answer.topic_errors)
        log.info("dead-letter topic created", topic=name, replication=replication)
    settings = (await _settings_once_known(admin, [name]))[name]
    wrong = []
    if settings["cleanup.policy"] != "delete":
        wrong.append(f"cleanup.policy is {settings['cleanup.policy']} and must be delete")
    if int(settings["max.message.bytes"]) < largest + LETTER_OVERHEAD:
        wrong.append(
            f"max.message.bytes is {settings['max.message.bytes']} and must be at least {largest + LETTER_OVERHEAD}"
        )
    if wrong:
        raise TopicError(f"dead-letter topic {name}: {'; '.join(wrong)}; alter the topic's settings")
    return DeadLetterTopic(name, 1 if found is None else found.partitions, int(settings["max.message.bytes"]))


async def create_internal_topic(connection: Connection, name: str, settings: Mapping[str, str] | None = None) -> None:
    """Make a topic of one partition, unless it is there; raises TopicError and aiokafka's KafkaError.

    It keeps what is written to it for an hour; `settings` are what else it needs.
    """
    kept = {"cleanup.policy": "delete", "retention.ms": "3600000"} | dict(settings or {})
    admin = AIOKafkaAdminClient(**connection.arguments())
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, 1, await _replication(admin), topic_configs=kept)])
        _raise_for(answer.topic_errors)
    finally:
        await admin.close()


async def partition_count(connection: Connection, topic: str) -> int | None:
    """Return how many partitions a topic has, None when there is no such topic; raises aiokafka's KafkaError."""
    admin = AIOKafkaAdminClient(**connection.arguments())
    await admin.start()
    try:
        found = (await _described(admin, [topic])).get(topic)
    finally:
        await admin.close()
    return None if found is None else found.partitions


async def _source_partitions(admin: AIOKafkaAdminClient, catalog: Catalog) -> dict[str, int]:
    found = await _described(admin, catalog.topics)
    missing = [topic for topic in catalog.topics if topic not in found]
    if missing:
        tables = [table.name for topic in missing for table in catalog.tables_of(topic)]
        raise TopicError(
            f"there is no topic {', '.join(missing)}, which {', '.join(tables)} would read: create it first, or "
            "correct `source.topic`"
        )
    return {topic: found[topic].partitions for topic in catalog.topics}


class _Described(NamedTuple):
    partitions: int
    replicas: int


async def _described(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, _Described]:
    described: dict[str, _Described] = {}
    for found in await admin.describe_topics(list(topics)):
        code = found["error_code"]
        if code == 0:
            partitions = found["partitions"]
            described[found["topic"]] = _Described(len(partitions), min(len(each["replicas"]) for each in partitions))
        elif code != UnknownTopicOrPartitionError.errno:
            raise for_code(code)(f"describing topic {found['topic']}")
    return described


async def _settings(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    settings: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _type, name, entries in answer.resources:
            if code:
                raise for_code(code)(f"reading the settings of topic {name}: {message}")
            settings[name] = {entry[0]: entry[1] for entry in entries}
    return settings


async def _settings_once_known(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the settings of topics of which the broker asked may not have heard yet."""
    for _ in range(_ATTEMPTS):
        try:
            return await _settings(admin, topics)
        except UnknownTopicOrPartitionError:
            await asyncio.sleep(_PAUSE)
    return await _settings(admin, topics)


async def _replication(admin: AIOKafkaAdminClient) -> int:
    return min(3, len((await admin.describe_cluster())["brokers"]))


async def _create(admin: AIOKafkaAdminClient, changelogs: Mapping[str, int], limits: Mapping[str, int]) -> None:
    if not changelogs:
        return
    replication = await _replication(admin)
    if replication == 1:
        log.warning("the cluster has one broker: acknowledged rows are lost with its disk", changelogs=list(changelogs))
    settings = {
        **_REQUIRED,
        **{name: str(least) for name, least in _AT_LEAST.items()},
        "min.insync.replicas": str(_insync(replication)),
    }
    answer = await admin.create_topics(
        [
            NewTopic(name, count, replication, topic_configs=settings | {"max.message.bytes": str(limits[name])})
            for name, count in changelogs.items()
        ]
    )
    _raise_for(answer.topic_errors)
    log.info("changelogs created", changelogs=sorted(changelogs), replication=replication)


def _raise_for(topic_errors: Iterable[tuple[str, int, str]]) -> None:
    for name, code, message in topic_errors:
        # Another worker may have been faster.
        if code not in (0, TopicAlreadyExistsError.errno):
            error = for_code(code)
            if getattr(error, "retriable", False):
                raise error(f"creating topic {name}: {message}")
            raise TopicError(f"topic {name} cannot be created: {message or error.description}")


def _insync(replicas: int) -> int:
    """Return how many replicas have to have a row before it counts as acknowledged: one may always be away."""
    return min(2, max(1, replicas - 1))


async def _check_settings(
    admin: AIOKafkaAdminClient, limits: Mapping[str, int], existing: Mapping[str, _Described]
) -> dict[str, int]:
    """Check the changelogs named in `limits`, and return the limits of their batches as they are set."""
    set_limits: dict[str, int] = {}
    for topic, found in (await _settings_once_known(admin, limits)).items():
        at_least = {**_AT_LEAST, "max.message.bytes": limits[topic]}
        if topic in existing:
            at_least["min.insync.replicas"] = _insync(existing[topic].replicas)
        wrong = [
            f"{name} is {found.get(name)} and must be {right}"
            for name, right in _REQUIRED.items()
            if found.get(name) != right
        ]
        wrong += [
            f"{name} is {found[name]} and must be at least {least}"
            for name, least in at_least.items()
            if int(found[name]) < least
        ]
        if wrong:
            raise TopicError(f"changelog {topic}: {'; '.join(wrong)}; alter the topic's settings")
        set_limits[topic] = int(found["max.message.bytes"])
    return set_limits
