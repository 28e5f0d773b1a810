"""The topics that a worker needs: its sources, which must exist, and those that it creates or checks."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import structlog

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.skips import skip_topic
from tablehouse.kafka.topic_admin import Cluster, Described, TopicAdmin
from tablehouse.kafka.topic_plan import (
    BATCH_OVERHEAD,
    CHANGELOG,
    MAX_AUTOMATIC_REPLICAS,
    Rule,
    Wanted,
    changelog,
    dead_letters,
    insync_of,
    internal,
    skips,
)
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.tasks.partition_counts import Counts, settle
from tablehouse.tasks.served import Served

log = structlog.get_logger(__name__)

_SIZE = "max.message.bytes"

#: Number of attempts, and seconds between them, to find a topic that another worker has just created.
_ATTEMPTS, _PAUSE = 50, 0.1

EPOCH_PROBE, CLOCK_PROBE = "epoch-probe", "clock-probe"

#: Required settings of the probe topics.
_PROBES: Mapping[str, tuple[Rule, ...]] = {
    EPOCH_PROBE: (),
    CLOCK_PROBE: (Rule("message.timestamp.type", "LogAppendTime"),),
}


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """The dead-letter topic: its requirements, its partition count, and its maximum batch size in bytes."""

    wanted: Wanted
    partitions: int
    limit: int

    @property
    def name(self) -> str:
        """Return its name."""
        return self.wanted.name


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of the tables of `catalog`, as prepare() returns them.

    counts are the partition counts of sources and changelogs; batch_limits and source_limits are the maximum batch
    sizes in bytes, by changelog topic and by source topic. dead_letters is None if no table sends any. replicas is the
    required number for each changelog.
    """

    catalog: Catalog
    counts: Counts
    batch_limits: Mapping[str, int]
    source_limits: Mapping[str, int]
    dead_letters: DeadLetterTopic | None
    replicas: Mapping[str, int]

    @property
    def served(self) -> Served:
        """The tables that can be served: all but those that are held back because of their partition counts."""
        tables = {name: table for name, table in self.catalog.tables.items() if name not in self.counts.held}
        return Served(Catalog(tables), self.counts.shards)

    def with_more(self, more: "Topics") -> "Topics":
        """Return these topics and `more`, which are newer and replace those in both."""
        return Topics(
            catalog=Catalog({**self.catalog.tables, **more.catalog.tables}),
            counts=self.counts.with_more(more.counts),
            batch_limits={**self.batch_limits, **more.batch_limits},
            source_limits={**self.source_limits, **more.source_limits},
            dead_letters=more.dead_letters or self.dead_letters,
            replicas={**self.replicas, **more.replicas},
        )

    def only(self, catalog: Catalog, group: str) -> "Topics":
        """Return only the topics of a catalog's tables, but all limits: tasks that are being closed need theirs."""
        counts = self.counts.only(catalog, group)
        replicas = {name: count for name, count in self.replicas.items() if name in counts.built}
        return replace(self, catalog=catalog, counts=counts, replicas=replicas)


class TopicsView:
    """Holds the topics of the tables that this worker serves; `current` is replaced when the catalog changes."""

    def __init__(self, topics: Topics) -> None:
        self.current = topics

    def batch_limit(self, changelog: str) -> int:
        """Return the maximum size of a changelog's batch in bytes."""
        return self.current.batch_limits[changelog]

    def source_limit(self, topic: str) -> int:
        """Return the maximum size of a source's record in bytes."""
        return self.current.source_limits[topic]


@dataclass(frozen=True, slots=True)
class Replication:
    """The number of replicas of created topics: a fixed number, or one derived from the cluster and the sources."""

    factor: int | None = None

    def of(self, cluster: Cluster, source_replicas: int = 1) -> int:
        """Return the number of replicas of a topic."""
        automatic = max(source_replicas, cluster.default_replicas, min(MAX_AUTOMATIC_REPLICAS, cluster.brokers))
        return automatic if self.factor is None else self.factor


AUTOMATIC = Replication()


@dataclass(frozen=True, slots=True)
class Survey:
    """The topics that a group needs: its sources and those that it creates, and which of them exist.

    A missing source that has a changelog is also in `sources`, with what is known from its changelogs. No topics are
    required for the tables of a missing source without one.
    """

    sources: Mapping[str, Described]
    source_limits: Mapping[str, int]
    wanted: Mapping[str, Wanted]
    existing: Mapping[str, Described]
    missing_sources: tuple[str, ...] = ()

    @property
    def missing(self) -> list[Wanted]:
        """Return the topics to create."""
        return [wanted for name, wanted in self.wanted.items() if name not in self.existing]


async def survey(
    admin: TopicAdmin, group: str, catalog: Catalog, dead_letter_topic: str, replication: Replication
) -> Survey:
    """Describe all topics of a group but its probes; raises TopicError for errors that only an operator can fix."""
    changelogs = {changelog_topic(group, table): table.topics for table in catalog.tables.values()}
    if dead_letter_topic in {*catalog.topics, *changelogs, skip_topic(group)} and _sends_letters(catalog):
        raise TopicError(
            f"dead_letter_topic is {dead_letter_topic}, which is a source, a changelog or the skip topic; choose "
            "another name"
        )
    existing = await admin.describe([*changelogs, skip_topic(group), dead_letter_topic])
    found = await _describe_sources(admin, catalog, changelogs, existing)
    cluster = await admin.cluster()
    known = Catalog(
        {name: table for name, table in catalog.tables.items() if found.described.keys() >= set(table.topics)}
    )
    counts = _counts(group, known, found.described, existing)
    wanted: dict[str, Wanted] = {}
    for name in counts.built:
        topics = changelogs[name]
        replicas = replication.of(cluster, max(found.described[topic].replicas for topic in topics))
        largest = max(found.limits[topic] for topic in topics)
        wanted[name] = changelog(name, counts.built[name], replicas, largest, found.defaults)
    replicas = replication.of(cluster, max((source.replicas for source in found.described.values()), default=1))
    wanted[skip_topic(group)] = skips(skip_topic(group), replicas, found.defaults)
    if found.limits and _sends_letters(catalog):
        largest = max(found.limits.values())
        wanted[dead_letter_topic] = dead_letters(dead_letter_topic, replicas, largest, found.defaults)
    existing = {name: topic for name, topic in existing.items() if name in wanted}
    return Survey(found.described, found.limits, wanted, existing, found.missing)


class _Sources(NamedTuple):
    """Sources as they exist or as known from their changelogs, their batch size limits, and the cluster's defaults."""

    described: Mapping[str, Described]
    limits: Mapping[str, int]
    defaults: Mapping[str, str]
    missing: tuple[str, ...]


async def _describe_sources(
    admin: TopicAdmin, catalog: Catalog, changelogs: Mapping[str, Sequence[str]], existing: Mapping[str, Described]
) -> _Sources:
    """Describe the sources, and the changelogs of missing ones; `changelogs` maps each name to its sources."""
    described = await admin.describe(catalog.topics)
    missing = tuple(topic for topic in catalog.topics if topic not in described)
    left = {topic: [name for name in existing if topic in changelogs.get(name, ())] for topic in missing}
    settings = await admin.settings(list(dict.fromkeys([*described, *chain.from_iterable(left.values())])))
    limits = {topic: int(settings[topic].values[_SIZE]) for topic in described}
    for topic, names in left.items():
        if not names:
            continue
        described[topic] = Described(
            max(existing[name].partitions for name in names), max(existing[name].replicas for name in names)
        )
        limits[topic] = max(1, min(int(settings[name].values[_SIZE]) for name in names) - BATCH_OVERHEAD)
    # Without any of these topics, the cluster's defaults cannot be read.
    defaults = next((found.defaults for found in settings.values()), {})
    return _Sources(described, limits, defaults, missing)


def _sends_letters(catalog: Catalog) -> bool:
    return any(table.source.on_error == "dead_letter" for table in catalog.tables.values())


def _counts(
    group: str, catalog: Catalog, sources: Mapping[str, Described], existing: Mapping[str, Described]
) -> Counts:
    now = {topic: sources[topic].partitions for topic in catalog.topics}
    return settle(catalog, group, now, {name: found.partitions for name, found in existing.items()})


def probes(group: str, cluster: Cluster, replication: Replication) -> list[Wanted]:
    """Return the topics that workers use to probe brokers."""
    replicas = replication.of(cluster)
    return [internal(f"{group}-{name}", replicas, rules) for name, rules in _PROBES.items()]


async def prepare(
    connection: Connection,
    group: str,
    catalog: Catalog,
    dead_letter_topic: str,
    replication: Replication = AUTOMATIC,
    in_use: Mapping[str, int] = MappingProxyType({}),
) -> Topics:
    """Check the sources; create or check the changelogs, and the dead-letter topic if a table sends letters.

    A source may be missing if one of its tables has a changelog: the tables are served from their changelogs. `in_use`
    are the partition counts, by shard name, with which a running worker already serves tables; they must not change.
    Raises TopicError for errors that only an operator can fix, and aiokafka's KafkaError if the brokers do not answer.
    """
    async with TopicAdmin(connection) as admin:
        surveyed = await survey(admin, group, catalog, dead_letter_topic, replication)
        _require_sources(catalog, surveyed)
        _require_counts(_counts(group, catalog, surveyed.sources, surveyed.existing), in_use)
        found, limits = await _create_and_check(connection, admin, surveyed)
    limits.pop(skip_topic(group))
    letters = _letters(dead_letter_topic, found, limits) if dead_letter_topic in found.wanted else None
    return Topics(
        catalog=catalog,
        counts=_counts(group, catalog, found.sources, found.existing),
        batch_limits=limits,
        source_limits=found.source_limits,
        dead_letters=letters,
        replicas={name: found.wanted[name].replicas for name in limits},
    )


async def prepare_dead_letters(
    connection: Connection, name: str, source: str, replication: Replication = AUTOMATIC
) -> DeadLetterTopic:
    """Create or check the dead-letter topic for one source, which must exist; raises the same as prepare()."""
    async with TopicAdmin(connection) as admin:
        sources, settings = await admin.describe([source]), (await admin.settings([source]))[source]
        replicas, limit = replication.of(await admin.cluster(), sources[source].replicas), int(settings.values[_SIZE])
        return await _create_or_check_dead_letters(
            connection, admin, dead_letters(name, replicas, limit, settings.defaults)
        )


async def check_again(connection: Connection, topic: DeadLetterTopic) -> DeadLetterTopic:
    """Recreate the dead-letter topic if it was deleted, otherwise check it; raises the same as prepare()."""
    async with TopicAdmin(connection) as admin:
        return await _create_or_check_dead_letters(connection, admin, topic.wanted)


async def _create_or_check_dead_letters(connection: Connection, admin: TopicAdmin, wanted: Wanted) -> DeadLetterTopic:
    name = wanted.name
    surveyed = Survey({}, {}, {name: wanted}, await admin.describe([name]))
    found, limits = await _create_and_check(connection, admin, surveyed)
    return _letters(name, found, limits)


def _letters(name: str, found: Survey, limits: dict[str, int]) -> DeadLetterTopic:
    there = found.existing.get(name)
    return DeadLetterTopic(found.wanted[name], 1 if there is None else there.partitions, limits.pop(name))


async def _create_and_check(connection: Connection, admin: TopicAdmin, found: Survey) -> tuple[Survey, dict[str, int]]:
    """Create missing topics and check the others; return the new survey, and the maximum batch sizes."""
    raced = await admin.create(found.missing)
    if raced:
        # Created in the meantime, by another worker or otherwise: describe them again.
        found = replace(found, existing={**found.existing, **await _describe_once_known(admin, raced)})
    return found, await _check_settings(connection, admin, found)


async def create_probe(connection: Connection, group: str, probe: str, replication: Replication = AUTOMATIC) -> str:
    """Create the topic of a probe if it does not exist, and return its name; raises TopicError and KafkaError."""
    name = f"{group}-{probe}"
    async with TopicAdmin(connection) as admin:
        if not await admin.describe([name]):
            (wanted,) = (one for one in probes(group, await admin.cluster(), replication) if one.name == name)
            await admin.create_with_available_brokers(wanted)
    return name


async def partition_count(connection: Connection, topic: str) -> int | None:
    """Return the number of partitions of a topic, None if it does not exist; raises aiokafka's KafkaError."""
    async with TopicAdmin(connection) as admin:
        found = (await admin.describe([topic])).get(topic)
    return None if found is None else found.partitions


async def replica_counts(connection: Connection, topics: Collection[str]) -> dict[str, int]:
    """Return the replicas of existing topics; raises aiokafka's KafkaError."""
    async with TopicAdmin(connection) as admin:
        return {name: found.replicas for name, found in (await admin.describe(topics)).items()}


def faults(wanted: Wanted, existing: Described | None, values: Mapping[str, str]) -> tuple[Rule, ...]:
    """Return the rules that a topic's settings break."""
    rules = wanted.rules
    if existing is not None and wanted.title == CHANGELOG:
        rules += (Rule("min.insync.replicas", str(insync_of(existing.replicas)), at_least=True),)
    return tuple(rule for rule in rules if not rule.holds(values.get(rule.setting)))


def _require_sources(catalog: Catalog, found: Survey) -> None:
    """Raise TopicError for a missing source without any changelog: its tables cannot be served."""
    missing = [topic for topic in found.missing_sources if topic not in found.sources]
    if missing:
        tables = [table.name for topic in missing for table in catalog.tables_of(topic)]
        raise TopicError(
            f"there is no topic {', '.join(missing)}, which {', '.join(tables)} would read: create it first, or "
            "correct `source.topic`"
        )
    for topic in found.missing_sources:
        log.error(
            "a source topic is missing; its tables are served from their changelogs and get no updates",
            topic=topic,
            tables=[table.name for table in catalog.tables_of(topic)],
        )


def _require_counts(counts: Counts, in_use: Mapping[str, int]) -> None:
    """Raise TopicError if a topic's tables would be served with another partition count than the one in use."""
    for topic, count in counts.shards.items():
        if in_use.get(topic, count) != count:
            raise TopicError(
                f"topic {topic} has {count} partitions, but its tables are served with {in_use[topic]}: a new table of "
                "this topic would hold them back, so it is only added when the worker restarts"
            )


async def _describe_once_known(admin: TopicAdmin, names: Collection[str]) -> dict[str, Described]:
    """Describe topics that were just created and that some brokers may not know yet."""
    for _ in range(_ATTEMPTS):
        found = await admin.describe(names)
        if len(found) == len(names):
            break
        await asyncio.sleep(_PAUSE)
    return found


async def _check_settings(connection: Connection, admin: TopicAdmin, found: Survey) -> dict[str, int]:
    """Check the current settings, and return the configured maximum batch sizes."""
    limits: dict[str, int] = {}
    for name, settings in (await admin.settings(found.wanted)).items():
        wanted = found.wanted[name]
        broken = faults(wanted, found.existing.get(name), settings.values)
        if broken:
            what = "; ".join(rule.fault(settings.values.get(rule.setting)) for rule in broken)
            raise TopicError(
                f"{wanted.title} {name}: {what}; alter the topic's settings: {wanted.alter_command(connection, broken)}"
            )
        limits[name] = int(settings.values[_SIZE])
        for rule in wanted.rules:
            if rule.setting == _SIZE and limits[name] < int(rule.value):
                log.warning(
                    "topic accepts smaller batches than it should; records too large for it are not kept whole",
                    topic=name,
                    kind=wanted.title,
                    max_message_bytes=limits[name],
                    should_be=int(rule.value),
                )
    return limits
