"""Describes topics and the cluster, and creates topics within the cluster's policies."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Self

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    NodeNotReadyError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from tablehouse.errors import TopicError
from tablehouse.kafka.client import Connection
from tablehouse.kafka.topic_plan import CHANGELOG, Wanted

log = structlog.get_logger(__name__)

#: Number of attempts, and seconds between them, to describe a topic that may have just been created.
_ATTEMPTS, _PAUSE = 50, 0.1

#: Kafka's number for a setting that is set on the topic itself.
_SET_ON_TOPIC = 1

#: Error codes of a cluster's policy.
_REFUSED_BY_POLICY = {PolicyViolationError.errno, InvalidConfigurationError.errno}
_NOT_ALLOWED = {TopicAuthorizationFailedError.errno, ClusterAuthorizationFailedError.errno}


class Described(NamedTuple):
    """An existing topic; `replicas` is the lowest replica count of its partitions."""

    partitions: int
    replicas: int


class TopicSettings(NamedTuple):
    """The settings of a topic, and their defaults, which would apply if they were not set on it."""

    values: Mapping[str, str]
    defaults: Mapping[str, str]


class Cluster(NamedTuple):
    """The known number of brokers of a cluster, including unavailable ones, and its default.replication.factor."""

    brokers: int
    default_replicas: int


class TopicAdmin:
    """An admin client; must be entered as a context manager before use. All methods raise aiokafka's KafkaError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = AIOKafkaAdminClient(**connection.arguments())

    async def __aenter__(self) -> Self:
        """Connect."""
        try:
            await self._admin.start()
        except BaseException:
            await self._admin.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._admin.close()

    async def names(self) -> list[str]:
        """Return the existing topics that this client may describe."""
        return list(await self._admin.list_topics())

    async def describe(self, topics: Collection[str]) -> dict[str, Described]:
        """Describe topics; those that do not exist are missing from the result."""
        described: dict[str, Described] = {}
        # An empty list would request all topics.
        for found in await self._admin.describe_topics(list(topics)) if topics else ():
            code = found["error_code"]
            if code == 0:
                partitions = found["partitions"]
                replicas = min(len(each["replicas"]) for each in partitions)
                described[found["topic"]] = Described(len(partitions), replicas)
            elif code != UnknownTopicOrPartitionError.errno:
                raise for_code(code)(f"describing topic {found['topic']}")
        return described

    async def settings(self, topics: Collection[str]) -> dict[str, TopicSettings]:
        """Return the settings of topics that were just described or created; some brokers may not know them yet."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._settings(topics)
            except UnknownTopicOrPartitionError:
                await asyncio.sleep(_PAUSE)
        return await self._settings(topics)

    async def _settings(self, topics: Collection[str]) -> dict[str, TopicSettings]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        return {
            name: TopicSettings({name: value for name, value, *_ in entries}, dict(_defaults(entries)))
            for name, entries in await self._configurations(resources)
        }

    async def _configurations(self, resources: Collection[ConfigResource]) -> list[tuple[str, Any]]:
        found = []
        answers = await self._admin.describe_configs(list(resources), include_synonyms=True) if resources else []
        for answer in answers:
            for code, message, _type, name, entries in answer.resources:
                if code:
                    raise for_code(code)(f"reading the settings of {name}: {message}")
                found.append((name, entries))
        return found

    async def cluster(self) -> Cluster:
        """Return the size of the cluster when all brokers are up."""
        metadata = (await self._admin._get_cluster_metadata()).to_object()
        up = {broker["node_id"] for broker in metadata["brokers"]}
        holding = {
            replica
            for topic in metadata["topics"]
            for partition in topic["partitions"]
            for replica in partition["replicas"]
        }
        return Cluster(len(up | holding), await self._default_replicas(sorted(up)))

    async def _default_replicas(self, brokers: Iterable[int]) -> int:
        """Return the default.replication.factor of the first reachable broker; 1 if none shows it."""
        for broker in brokers:
            try:
                ((_, entries),) = await self._configurations([ConfigResource(ConfigResourceType.BROKER, str(broker))])
            except NodeNotReadyError:
                continue
            except BrokerResponseError:
                # Hosted clusters hide it from their users; the other values do not need it.
                break
            return next((int(value) for name, value, *_ in entries if name == "default.replication.factor"), 1)
        return 1

    async def create(self, topics: Iterable[Wanted]) -> set[str]:
        """Create topics, and return those that already existed.

        Raises TopicError, with the command that creates it, for a topic that only an operator can create.
        """
        existing: set[str] = set()
        created: dict[tuple[str, int, str], list[str]] = {}
        pending = {wanted.name: (wanted, 0) for wanted in topics}
        while pending:
            tried, pending = pending, {}
            for name, code, message in await self._create(tried.values()):
                wanted, way = tried[name]
                if code == TopicAlreadyExistsError.errno:
                    existing.add(name)
                elif code == 0:
                    settings = " ".join(f"{setting}={value}" for setting, value in wanted.ways[way].items())
                    created.setdefault((wanted.title, wanted.replicas, settings), []).append(name)
                elif code in _REFUSED_BY_POLICY and way + 1 < len(wanted.ways):
                    log.info(
                        "creation refused; retrying with fewer settings",
                        topic=name,
                        settings=dict(wanted.ways[way]),
                        reason=message,
                    )
                    pending[name] = wanted, way + 1
                else:
                    raise self._error(wanted, way, code, message)
        _log_created(created)
        return existing

    async def create_with_available_brokers(self, wanted: Wanted) -> None:
        """Create a topic with fewer replicas if not enough brokers are up; raises the same as create()."""
        try:
            await self.create([wanted])
        except InvalidReplicationFactorError:
            up = len((await self._admin.describe_cluster())["brokers"])
            if up >= wanted.replicas:
                raise
            await self.create([replace(wanted, replicas=up)])

    async def _create(self, topics: Iterable[tuple[Wanted, int]]) -> list[tuple[str, int, str]]:
        new = [
            NewTopic(wanted.name, wanted.partitions, wanted.replicas, topic_configs=dict(wanted.ways[way]))
            for wanted, way in topics
        ]
        return [
            (name, code, message or for_code(code).description)
            for name, code, message in (await self._admin.create_topics(new)).topic_errors
        ]

    def _error(self, wanted: Wanted, way: int, code: int, message: str) -> Exception:
        error: type[Exception] = for_code(code)
        if code == InvalidReplicationFactorError.errno:
            return error(
                f"creating {wanted.title} {wanted.name} with {wanted.replicas} replicas, which needs as many brokers "
                f"(replication_factor sets another number): {message}"
            )
        if getattr(error, "retriable", False):
            return error(f"creating {wanted.title} {wanted.name}: {message}")
        return TopicError(
            f"topic {wanted.name} cannot be created: {message}; "
            f"{'allow this worker to create it, or create it' if code in _NOT_ALLOWED else 'create it'} with: "
            f"{wanted.create_command(self._connection, way)}"
        )


def _log_created(created: Mapping[tuple[str, int, str], list[str]]) -> None:
    for (title, replicas, settings), names in created.items():
        log.info("topics created", kind=title, count=len(names), topics=names, replicas=replicas, settings=settings)
        if replicas == 1 and title == CHANGELOG:
            log.warning("changelogs have one replica: acknowledged rows are lost with its disk", count=len(names))


def _defaults(entries: Iterable[Any]) -> Iterable[tuple[str, str]]:
    """Yield the values of settings if they were not set on the topic."""
    for name, _value, _read_only, _source, _sensitive, synonyms, *_ in entries:
        below = [value for _, value, source in synonyms if source != _SET_ON_TOPIC]
        if below and below[0] is not None:
            yield name, below[0]
