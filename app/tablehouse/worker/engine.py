"""The engine of a worker: prepares topics and clients, takes part in the group, and owns the assigned shards."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from tablehouse.catalog.spec import Catalog, TableSpec
from tablehouse.catalog.view import CatalogChange, CatalogView
from tablehouse.formats.schemas import Schemas
from tablehouse.formats.variants import Known
from tablehouse.kafka.client import Connection
from tablehouse.kafka.consumer import GroupOptions, LaneConsumer
from tablehouse.kafka.faust_app import TablehouseApp
from tablehouse.kafka.lease import GroupLease
from tablehouse.kafka.replica_watch import ReplicaWatch
from tablehouse.kafka.service import Service
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.model import TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.routing.cluster import ClusterView
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.tasks import background
from tablehouse.tasks.built_with import check_definitions
from tablehouse.tasks.clock import MeasuredClock, SystemClock
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.log import LogReader
from tablehouse.tasks.partition_counts import PartitionCounts
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.shards import Shards, ShardSettings
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tablehouse.worker.brokers import Brokers
from tablehouse.worker.following import Following
from tablehouse.worker.health import Health
from tablehouse.worker.kafka_clients import Client, KafkaClients, kafka_clients, lane_fetch_bytes
from tablehouse.worker.key_schemas import watch_key_schemas
from tablehouse.worker.local_side import LocalSide
from tablehouse.worker.membership import IN_FLIGHT_TIMEOUT_SECONDS, MemberOptions, Membership
from tablehouse.worker.preparing import Preparing

log = structlog.get_logger(__name__)


class SchemaSource(Schemas, Protocol):
    """The client of the schema registry, which this module does not import."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with the registry; None if it answered the last request, or was not asked yet."""

    def require(self, catalog: Catalog) -> None:
        """Raise ConfigError if tables need a schema registry and there is none."""

    async def start(self) -> None:
        """Start, within seconds; raises SetupError for errors that only an operator can fix."""

    async def stop(self) -> None:
        """Cancel pending requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of an engine; see the settings of the same names. Durations are in seconds, sizes in bytes."""

    group: str
    dead_letter_topic: str
    replication_factor: int | None
    session_timeout: float
    max_staleness: float
    memory_budget: int
    member: MemberOptions


class Engine(Service):  # type: ignore[misc]  # mode's Service has untyped parts
    """The Kafka side of a worker.

    `local` answers this worker's part of every request, `health` reports its state.
    """

    def __init__(
        self,
        options: EngineOptions,
        connection: Connection,
        catalog: CatalogView,
        directory: DataDirectory,
        metrics: Metrics,
        view: ClusterView,
        schemas: SchemaSource,
    ) -> None:
        super().__init__()
        self._options = options
        self._connection = connection
        self._catalog = catalog
        self._directory = directory
        self._metrics = metrics
        # Each flush measures it again.
        directory.measure(metrics)
        self._view = view
        self._schemas = schemas
        self.known = Known(schemas)
        self._clock = SystemClock()
        self._broker_clock = MeasuredClock(self._clock)
        self._lease = GroupLease(options.session_timeout, self._clock)
        #: Shared by all long work on this event loop.
        self.turns = Turns()
        self._doubts = Doubts(self._report_to_group)
        self._show_doubts(CatalogChange(Catalog({}), catalog.current))
        catalog.subscribe(self._show_doubts)
        self.local = LocalSide(catalog, self._doubt)
        self.health = Health(
            catalog,
            view,
            self._lease,
            self.local,
            worker_id=directory.worker_id,
            url=options.member.url,
            session_timeout=options.session_timeout,
            registry_trouble=lambda: schemas.trouble,
        )
        self._recurring = Recurring(log)
        self._brokers = Brokers(
            connection, options.group, self.health, self._recurring, self._clock, self._broker_clock
        )
        self._preparing = Preparing(
            connection,
            self._brokers,
            group=options.group,
            dead_letter_topic=options.dead_letter_topic,
            replication_factor=options.replication_factor,
            memory_budget=options.memory_budget,
        )
        self._shards: Shards | None = None
        self._clients: KafkaClients | None = None
        self._open_clients: list[Client] = []
        self._upkeep: list[asyncio.Task[None]] = []
        #: None until the worker has reached a broker.
        self.membership: Membership | None = None
        self.app = TablehouseApp(options.group, connection.bootstrap_servers, self)

    # Life cycle

    async def on_start(self) -> None:
        """Prepare to join the group; wait for a broker without a time limit.

        Raises SetupError for errors that only an operator can fix.
        """
        await self._schemas.start()
        topics = await self._brokers.until_reachable(self, partial(self._preparing.at_start, self._catalog.current))
        if topics is None:
            return
        group, budget, view = self._options.group, self._preparing.memory_for_rows(topics), TopicsView(topics)
        clients = kafka_clients(self._connection, group, view, budget, self._broker_clock)
        self._clients = clients
        for client in clients.needed:
            await self._brokers.until_reachable(self, client.start)
            self._open_clients.append(client)
        consumer: LaneConsumer = self.app.consumer
        memory = StoreMemory(budget, self._metrics)
        settings = self._shard_settings(memory, budget)
        await check_definitions(settings, topics.served, clients.changelog)
        reader = Reader(self._lease, self._options.max_staleness)
        shards = self._shards = Shards(settings, topics.served, consumer, self._ports(clients), reader)
        self.local.held = topics.counts.held
        self.local.open(shards, clients.source_writer, clients.owner_writer)
        partition_counts = PartitionCounts(topics.counts, self._doubts)
        replicas = ReplicaWatch(self._connection, group, lambda: view.current, self._metrics)
        self.health.replication = lambda: replicas.reasons
        membership = self.membership = Membership(
            self._options.member,
            directory=self._directory,
            catalog=self._catalog,
            shards=shards,
            owner_writer=clients.owner_writer,
            counts=partition_counts,
            doubts=self._doubts,
            consumer=consumer,
            view=self._view,
            local=self.local,
            health=self.health,
            metrics=self._metrics,
        )
        consumer.connect(
            self._connection,
            GroupOptions(
                group,
                lambda: view.current.catalog.topics,
                self._options.session_timeout,
                lane_fetch_bytes(budget, topics),
            ),
            membership.assignor,
            shards,
            self._lease,
            self.turns,
            clients.skips,
        )
        following = Following(
            self._catalog,
            view,
            partial(self._prepare_more, changelog=clients.changelog),
            group=group,
            letters=clients.letters,
            counts=partition_counts,
            local=self.local,
            shards=shards,
            membership=membership,
            share_memory=partial(self._share_memory, memory, clients),
        )
        self._upkeep = [
            background.start(work, name, self._on_fatal)
            for name, work in (
                ("flush", shards.keep_flushed()),
                ("source ends", shards.watch_source_ends()),
                ("partition counts", partition_counts.watch(consumer.partition_counts)),
                ("outages", self._brokers.explain_outages()),
                ("replicas", replicas.watch()),
                ("broker clock", self._brokers.keep_measuring()),
                ("warming", membership.take_over_once_warm()),
                ("catalog", following.follow()),
                ("key schemas", watch_key_schemas(self._catalog, self.known, self._recurring)),
            )
        ]
        self.health.trouble = "joining the group"

    async def on_stop(self) -> None:
        """Close the stores and the clients; the consumer has left the group before."""
        for upkeep in self._upkeep:
            upkeep.cancel()
        if self._shards is not None:
            await self._shards.stop(IN_FLIGHT_TIMEOUT_SECONDS)
        clients = [] if self._clients is None else [self._clients.stop(self._open_clients)]
        await asyncio.gather(*clients, self._schemas.stop())
        self._directory.release()

    def drain(self) -> None:
        """Record that the worker is stopping."""
        self.local.draining = True

    async def _prepare_more(self, topics: Topics, catalog: Catalog, changelog: LogReader) -> Topics:
        self._schemas.require(catalog)
        return await self._preparing.more(topics, catalog, changelog)

    def _share_memory(self, memory: StoreMemory, clients: KafkaClients, topics: Topics) -> None:
        budget = self._preparing.memory_for_rows(topics)
        memory.resize(budget)
        clients.fetch_ahead(budget, topics)
        self.app.consumer.fetch_ahead(lane_fetch_bytes(budget, topics))

    def _shard_settings(self, memory: StoreMemory, budget: int) -> ShardSettings:
        return ShardSettings(
            self._options.group,
            self._directory,
            lambda shard: RocksShard(self._directory.shard(shard), memory, self.turns),
            budget,
        )

    def _ports(self, clients: KafkaClients) -> Ports:
        return Ports(
            changelog=clients.changelog,
            sources=clients.sources,
            writer=clients.writer,
            dead_letters=clients.letters,
            lease=self._lease,
            clock=self._clock,
            broker_clock=self._broker_clock,
            metrics=self._metrics,
            doubts=self._doubts,
            known=self.known,
            turns=self.turns,
            sleep=asyncio.sleep,
            on_fatal=self._on_fatal,
            worker_id=self._directory.worker_id,
        )

    def _on_fatal(self, error: Exception) -> None:
        self.health.trouble = str(error)
        self.add_future(self.crash(error))

    # Tables whose misses are inconclusive

    def _show_doubts(self, change: CatalogChange) -> None:
        """Make the metrics report for each table whether its misses are inconclusive."""
        for name in change.removed:
            self._metrics.misses_in_doubt.remove(name)
        for name, table in {**change.added, **change.changed}.items():
            self._metrics.misses_in_doubt.labels(name).set_function(partial(self._in_doubt, table))

    def _in_doubt(self, table: TableSpec) -> float:
        return float(self._doubt(table) is not None)

    def _doubt(self, table: TableSpec) -> str | None:
        return self._doubts.why(changelog_topic(self._options.group, table), ", ".join(table.topics))

    def _report_to_group(self) -> None:
        """Request a rebalance, in which all workers learn of the misplaced keys found by this one; see Membership."""
        self.app.consumer.rejoin()

    # The group

    async def revoked(self) -> None:
        """Suspend every shard."""
        if self.membership is not None:
            await self.membership.revoked()

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Route by the new assignment, and own the shards assigned to this worker."""
        if self.membership is None:
            raise AssertionError("assigned before the engine was ready")
        await self.membership.assigned(generation, partitions)
