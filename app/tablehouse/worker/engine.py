"""The engine of a worker: prepares topics and clients, takes part in the group, and owns the shards it is given."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Protocol, TypeVar

import structlog

from tablehouse.catalog.fingerprint import catalog_digest, table_digests
from tablehouse.catalog.spec import REGISTRY_FORMATS, Catalog, TableSpec
from tablehouse.config.settings import Settings
from tablehouse.errors import BrokersRefuse
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.schemas import Schemas
from tablehouse.formats.variants import Known
from tablehouse.kafka import broker_time
from tablehouse.kafka.assignor import TableAssignor
from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.kafka.client import Connection
from tablehouse.kafka.consumer import LANE_FETCH_BYTES, GroupOptions, LaneConsumer
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.faust_app import TablehouseApp
from tablehouse.kafka.lease import GroupLease
from tablehouse.kafka.log_reader import SLICE_FETCH_BYTES, KafkaLogReader
from tablehouse.kafka.login import check_login
from tablehouse.kafka.outages import explain_outage
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.partition_counts import PartitionCounts
from tablehouse.kafka.probe import probe_epochs
from tablehouse.kafka.replica_watch import ReplicaWatch
from tablehouse.kafka.security import security_of
from tablehouse.kafka.service import UNREACHABLE, Service
from tablehouse.kafka.skips import Skips
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.kafka.topics import Replication, Topics, prepare
from tablehouse.masking import in_words
from tablehouse.model import ShardId, TopicPartition
from tablehouse.placement.catalogs import differences
from tablehouse.placement.wire import Assignment, MemberMetadata
from tablehouse.recurring import Recurring
from tablehouse.routing.cluster import ClusterView, shards_of, snapshot_of
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.stores.memory import StoreMemory, memory_for_rows
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.tasks import background
from tablehouse.tasks.built_with import check_definitions
from tablehouse.tasks.clock import MEASURING_INTERVAL, MeasuredClock, SystemClock
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.tasks.doubts import Doubts, Misplaced
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.reads import Reader
from tablehouse.tasks.shards import Shards, ShardSettings
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tablehouse.worker.health import Health
from tablehouse.worker.local_side import LocalSide

log = structlog.get_logger(__name__)

#: Seconds between attempts to reach a broker at start.
_RETRY = 1.0

#: Seconds that a batch in flight is given to be acknowledged when a rebalance or a stop interrupts it.
_PATIENCE = 2.0

#: Seconds between two looks at what keeps this worker from the brokers, while the group's coordinator does not answer.
_OUTAGE_INTERVAL = 2.0

#: Seconds between two looks which schemas the registry has for keys.
_KEY_SCHEMAS_INTERVAL = 30.0

#: Seconds between two looks whether what this worker is to take over is restored.
_WARMING_INTERVAL = 0.5

#: The part of the memory budget that may be fetched ahead, should this worker hold everything; the clients that fetch
#: (lane, restores, catching up); and the bytes that are fetched of each partition all the same. Brokers send a larger
#: batch whole.
FETCHED_SHARE = 5
_FETCHING_CLIENTS = 3
_LEAST_FETCHED = 64 * 1024


_Client = KafkaChangelogWriter | KafkaLogReader | KafkaSourceWriter | KafkaDeadLetters

Result = TypeVar("Result")


class SchemaSource(Schemas, Protocol):
    """The schema registry's client, which this package does not know."""

    @property
    def trouble(self) -> str | None:
        """Return what is wrong with the registry; None when it answered last time, or was not asked yet."""

    async def start(self) -> None:
        """Get ready, within seconds; raises SetupError for what only a person can mend."""

    async def stop(self) -> None:
        """End what is under way."""


def _fetch_bytes(budget: int, partitions: int, most: int) -> int:
    """Return what a client may fetch ahead of each of so many partitions within its share of the memory budget."""
    return max(_LEAST_FETCHED, min(most, budget // FETCHED_SHARE // _FETCHING_CLIENTS // partitions))


class Engine(Service):  # type: ignore[misc]  # mode's Service has untyped parts
    """The Kafka side of a worker.

    `local` is its own part in every request, `health` what there is to say of its state.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        directory: DataDirectory,
        metrics: Metrics,
        view: ClusterView,
        schemas: SchemaSource,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._catalog = catalog
        self._directory = directory
        self._metrics = metrics
        # Until the first flush.
        directory.measure(metrics)
        self._view = view
        self._schemas = schemas
        self.known = Known(schemas)
        self._connection = Connection(settings.bootstrap_servers, directory.worker_id, security=security_of(settings))
        self._clock = SystemClock()
        self._broker_clock = MeasuredClock(self._clock)
        self._lease = GroupLease(settings.session_timeout, self._clock)
        #: Shared by everything long on this event loop.
        self.turns = Turns()
        self._doubts = Doubts(self._tell_the_group)
        for table in catalog.tables.values():
            metrics.misses_in_doubt.labels(table.name).set_function(partial(self._in_doubt, table))
        self.local = LocalSide(catalog, self._doubt)
        self.health = Health(
            settings,
            catalog,
            directory.worker_id,
            view,
            self._lease,
            self.local,
            registry_trouble=lambda: schemas.trouble,
        )
        self._recurring = Recurring(log)
        self._shards: Shards | None = None
        self._assignor: TableAssignor | None = None
        self._counts: PartitionCounts | None = None
        self._owner_writer: KafkaOwnerWriter | None = None
        self._clients: list[_Client] = []
        self._upkeep: list[asyncio.Task[None]] = []
        self._revoked_at: float | None = None
        self._assigned_at = 0.0
        #: What the leader wants this worker to own once it has restored it.
        self._warming: frozenset[ShardId] = frozenset()
        self.app = TablehouseApp(settings.group, settings.bootstrap_servers, catalog.topics, self)

    # Life cycle

    async def on_start(self) -> None:
        """Get everything ready to join the group, however long no broker is there.

        Raises SetupError for what only a person can mend.
        """
        await self._schemas.start()
        topics: Topics | None = await self._until_reachable(self._prepare)
        if topics is None:
            return
        counts = topics.counts
        tasks = sum(counts.shards[table.shard_name] for table in self._catalog.tables.values())
        budget = memory_for_rows(self._settings.memory_budget, sum(counts.shards.values()), tasks)
        ahead = _fetch_bytes(budget, tasks, SLICE_FETCH_BYTES)
        changelog = KafkaLogReader(self._connection, ahead)
        skips = Skips(changelog, self._settings.group)
        sources = KafkaLogReader(self._connection, ahead, skips)
        writer = KafkaChangelogWriter(self._connection, max(topics.batch_limits.values()), limits=topics.batch_limits)
        written = {
            table.source.topic: topics.source_limits[table.source.topic]
            for table in self._catalog.tables.values()
            if table.writable
        }
        source_writer = KafkaSourceWriter(self._connection, written, self._broker_clock) if written else None
        owner_writer = KafkaOwnerWriter(self._connection, written, self._broker_clock) if written else None
        letters = self._dead_letters(topics)
        clients: list[_Client | None] = [changelog, sources, writer, source_writer, letters]
        for client in [client for client in clients if client is not None]:
            await self._until_reachable(client.start)
            self._clients.append(client)
        consumer: LaneConsumer = self.app.consumer
        ports = Ports(
            changelog=changelog,
            sources=sources,
            writer=writer,
            dead_letters=letters,
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
        memory = StoreMemory(budget, self._metrics)
        shards = ShardSettings(
            self._settings.group,
            Catalog({name: table for name, table in self._catalog.tables.items() if name not in counts.held}),
            counts.shards,
            self._directory,
            lambda shard: RocksShard(self._directory.shard(shard), memory, self.turns),
            budget,
        )
        await check_definitions(shards, changelog)
        self._shards = Shards(
            shards,
            consumer,
            ports,
            Reader(self._lease, self._settings.max_staleness),
        )
        self._owner_writer = owner_writer
        self.local.open(self._shards, source_writer, owner_writer, counts.held)
        self._counts = PartitionCounts(counts, self._doubts)
        replicas = ReplicaWatch(self._connection, self._settings.group, self._catalog, topics.replicas, self._metrics)
        self.health.replication = lambda: replicas.reasons
        self._assignor = TableAssignor(
            self._describe, counts.shards, self._catalog.standbys, self._settings.acceptable_lag
        )
        consumer.connect(
            self._connection,
            GroupOptions(
                self._settings.group,
                self._catalog.topics,
                self._settings.session_timeout,
                _fetch_bytes(budget, sum(counts.shards.values()), LANE_FETCH_BYTES),
            ),
            self._assignor,
            self._shards,
            self._lease,
            self.turns,
            skips,
        )
        self._upkeep = [
            background.start(work, name, self._on_fatal)
            for name, work in (
                ("flush", self._shards.keep_flushed()),
                ("source ends", self._shards.watch_source_ends()),
                ("partition counts", self._counts.watch(consumer.partition_counts)),
                ("outages", self._explain_outages()),
                ("replicas", replicas.watch()),
                ("broker clock", self._keep_measuring()),
                ("warming", self._take_over_once_warm(self._shards)),
                ("key schemas", self._watch_key_schemas()),
            )
        ]
        self.health.trouble = "joining the group"

    async def on_stop(self) -> None:
        """Close the stores and the clients; the consumer has left the group before."""
        for upkeep in self._upkeep:
            upkeep.cancel()
        if self._shards is not None:
            await self._shards.stop(_PATIENCE)
        if self._owner_writer is not None:
            await self._owner_writer.stop()
        await asyncio.gather(*(client.stop() for client in self._clients), self._schemas.stop())
        self._directory.release()

    def drain(self) -> None:
        """Take note that the worker is stopping."""
        self.local.draining = True

    async def _prepare(self) -> Topics:
        await check_login(self._connection)
        group, replication = self._settings.group, Replication(self._settings.replication_factor)
        await probe_epochs(self._connection, group, replication)
        await broker_time.prepare_probe(self._connection, group, replication)
        await self._measure_broker_clock()
        return await prepare(self._connection, group, self._catalog, self._settings.dead_letter_topic, replication)

    def _dead_letters(self, topics: Topics) -> KafkaDeadLetters | None:
        """Return the writer of dead letters; None where no table sends any."""
        if topics.dead_letters is None:
            return None
        return KafkaDeadLetters(
            self._connection, topics.dead_letters, self._settings.group, self._directory.worker_id, self._broker_clock
        )

    async def _until_reachable(self, attempt: Callable[[], Awaitable[Result]]) -> Result | None:
        """Try until it works; None when the worker was stopped meanwhile. Raises SetupError as explain_outage does."""
        while not self.should_stop:
            try:
                found = await attempt()
            except UNREACHABLE as error:
                reason = await explain_outage(self._connection, str(error) or repr(error))
                self.health.trouble = f"waiting for the brokers of {self._settings.bootstrap_servers}: {reason}"
                self._recurring.warn(
                    "start",
                    "no broker reachable; trying again",
                    bootstrap_servers=self._settings.bootstrap_servers,
                    reason=reason,
                )
                await self.sleep(_RETRY)
            else:
                self._recurring.end("start", "broker reachable")
                return found
        return None

    async def _explain_outages(self) -> None:
        """Ask the brokers while they are away: a login that is refused by now looks like an outage to every client."""
        while True:
            await asyncio.sleep(_OUTAGE_INTERVAL)
            outage = None
            if not self.health.broker_reachable():
                try:
                    outage = await explain_outage(self._connection, "the group's coordinator does not answer")
                except BrokersRefuse as error:
                    # The login may be let in again, as after a secret was rotated.
                    outage = str(error)
            # An answer may have come meanwhile.
            self.health.outage = None if self.health.broker_reachable() else outage
            if self.health.outage is not None:
                self._recurring.warn("outage", "brokers not reachable; trying again", reason=outage)
            else:
                self._recurring.end("outage", "brokers reachable again")

    async def _measure_broker_clock(self) -> None:
        await broker_time.measure(self._connection, self._settings.group, self._clock, self._broker_clock)

    async def _keep_measuring(self) -> None:
        """Measure the brokers' clock now and then, since no two clocks run at quite the same speed for ever."""
        while True:
            await asyncio.sleep(MEASURING_INTERVAL)
            try:
                await self._measure_broker_clock()
            except Exception as error:  # noqa: BLE001 - counting on is right whatever has failed
                log.warning(
                    "the brokers' clock cannot be measured; counting on from the last time", error=in_words(error)
                )

    def _on_fatal(self, error: Exception) -> None:
        self.health.trouble = str(error)
        self.add_future(self.crash(error))

    # Tables of which a miss proves nothing

    def _in_doubt(self, table: TableSpec) -> float:
        return float(self._doubt(table) is not None)

    def _doubt(self, table: TableSpec) -> str | None:
        return self._doubts.why(changelog_topic(self._settings.group, table), table.source.topic)

    def _tell_the_group(self) -> None:
        """Have everybody learn what a task of this worker found; see _describe() and assigned()."""
        self.app.consumer.rejoin()

    async def _watch_key_schemas(self) -> None:
        """Learn of each schema that keys may have, so that lookups go where they are written with it."""
        sources = [table.source for table in self._catalog.tables.values()]
        topics = {source.topic for source in sources if source.key.format in REGISTRY_FORMATS}
        while topics:
            for topic in topics:
                try:
                    await self.known.keys_of(topic).refresh()
                except DecodeError as error:
                    self._recurring.error(
                        topic, "not every schema of a topic's keys can be used", topic=topic, reason=str(error)
                    )
                else:
                    self._recurring.end(topic, "every schema of a topic's keys can be used again", topic=topic)
            await asyncio.sleep(_KEY_SCHEMAS_INTERVAL)

    async def _take_over_once_warm(self, shards: Shards) -> None:
        """Ask for a rebalance, in which the leader gives this worker what it has restored as a standby."""
        while True:
            await asyncio.sleep(_WARMING_INTERVAL)
            waited, warming, settings = monotonic() - self._assigned_at, self._warming, self._settings
            if waited < settings.takeover_interval:
                continue
            warm = await shards.warm(warming, settings.acceptable_lag)
            # An assignment may have come meanwhile, and have given this worker something else to restore.
            if warm and warming is self._warming:
                log.info("warm", partitions=[str(shard) for shard in warm])
                # The assignment that follows says what is still to be restored.
                self._warming = frozenset()
                self.app.consumer.rejoin()

    # The group

    def _describe(self) -> MemberMetadata:
        return MemberMetadata(
            worker_id=self._directory.worker_id,
            incarnation=self._directory.incarnation,
            url=self._settings.advertised_url,
            catalog_digest=catalog_digest(self._catalog),
            tables=table_digests(self._catalog),
            positions={} if self._shards is None else self._shards.positions(),
            zone=self._settings.zone,
            misplaced=dict(self._doubts.misplaced),
        )

    async def revoked(self) -> None:
        """Suspend every shard."""
        if self._shards is not None:
            self._revoked_at = monotonic()
            await self._shards.suspend(
                _PATIENCE, "the worker is stopping" if self.health.draining() else "the group is rebalancing"
            )
        if self._owner_writer is not None:
            # Its decisions are those of this ownership: the next one begins when they are in the log.
            await self._owner_writer.rest(_PATIENCE)

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Route by the new assignment, and own what it gives to this worker."""
        if self._shards is None or self._counts is None or self._assignor is None:
            raise AssertionError("assigned before the engine was ready")
        self.health.trouble = self._assignor.refused
        if self._assignor.latest is None or self._assignor.refused is not None:
            # Where the others are is known no better than before.
            self._shards.assign(generation, frozenset(), frozenset())
            self._warming = frozenset()
        else:
            self._take_up(generation, self._shards, self._counts, self._assignor.latest)
        self._metrics.generation.set(generation)
        self._metrics.rebalances.inc()
        if self._revoked_at is not None:
            self._metrics.rebalance_duration.observe(monotonic() - self._revoked_at)
        topics = Counter(partition.topic for partition in partitions)
        log.info("assigned", generation=generation, partitions=len(partitions), topics=len(topics))
        log.debug("assigned partitions", partitions=[str(partition) for partition in sorted(partitions)])

    def _take_up(
        self,
        generation: int,
        shards: Shards,
        known: PartitionCounts,
        assignment: Assignment,
    ) -> None:
        counts, self.local.disagreements = known.agreed(assignment.partitions)
        differing = differences(table_digests(self._catalog), assignment.catalogs)
        if differing:
            log.warning("workers of the group have different tables.yaml files", differences=differing)
        self.health.differences = [
            f"worker {worker} has another tables.yaml: {what}" for worker, what in differing.items()
        ]
        self._view.swap(snapshot_of(generation, counts, assignment.members, differing))
        self._doubts.learn({changelog: Misplaced(*first) for changelog, first in assignment.misplaced.items()})
        own = assignment.own
        shards.assign(generation, frozenset(shards_of(own.actives)), frozenset(shards_of(own.standbys)))
        self._warming, self._assigned_at = frozenset(shards_of(own.warming)), monotonic()
        self._metrics.group_members_left_out.set(len(assignment.left_out))
        self.health.left_out = assignment.left_out
        self.health.is_left_out = self.app.consumer.member_id in assignment.left_out
