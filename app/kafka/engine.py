"""The engine of a worker: prepares topics and clients, takes part in the group, and owns the shards it is given."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Protocol, TypeVar

import structlog
from aiokafka.errors import KafkaError
from mode import Service

from app.catalog.fingerprint import catalog_digest
from app.catalog.spec import REGISTRY_FORMATS, Catalog, TableSpec
from app.config import Settings
from app.errors import BrokersRefuse, Draining, MisplacedKeys, NotOwner, PartitionRestoring, SourceUnavailable
from app.formats.errors import DecodeError
from app.formats.schemas import Schemas
from app.formats.variants import Known
from app.kafka.assignor import TableAssignor
from app.kafka.changelog_writer import KafkaChangelogWriter
from app.kafka.client import Connection
from app.kafka.consumer import LANE_FETCH_BYTES, GroupOptions, LaneConsumer
from app.kafka.dead_letters import KafkaDeadLetters
from app.kafka.faust_app import TablehouseApp
from app.kafka.lease import GroupLease
from app.kafka.log_reader import SLICE_FETCH_BYTES, KafkaLogReader
from app.kafka.login import check_login
from app.kafka.probe import probe_epochs
from app.kafka.security import security_of
from app.kafka.source_writer import KafkaSourceWriter
from app.kafka.topics import Topics, prepare
from app.model import Consistency, TaskStatus, TopicPartition
from app.placement.wire import MemberMetadata
from app.routing.cluster import ClusterView, shards_of, snapshot_of
from app.stores.data_directory import DataDirectory
from app.stores.rocksdb import RocksShard, StoreMemory
from app.tasks import background
from app.tasks.clock import SystemClock
from app.tasks.definitions import changelog_topic
from app.tasks.digest import PartitionDigest
from app.tasks.doubts import Doubts, Growth, Misplaced
from app.tasks.log import OutcomeUnknown
from app.tasks.ports import Ports
from app.tasks.reads import MISPLACED_RETRY_AFTER, Reader, ReadResult, SliceResult
from app.tasks.shards import Shards, ShardSettings
from app.telemetry import Metrics
from app.turns import Turns

log = structlog.get_logger(__name__)

#: Seconds between attempts to reach a broker at start.
_RETRY = 1.0

#: Seconds that a batch in flight is given to be acknowledged when a rebalance or a stop interrupts it.
_PATIENCE = 2.0

#: Seconds between two looks at the partition counts that the consumer knows.
_PARTITION_COUNTS_INTERVAL = 1.0

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
    """The Kafka side of a worker; the local side of every read, and the worker's health."""

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
        self._view = view
        self._schemas = schemas
        self.known = Known(schemas)
        self._connection = Connection(settings.bootstrap_servers, directory.worker_id, security=security_of(settings))
        self._clock = SystemClock()
        self._lease = GroupLease(settings.session_timeout, self._clock)
        #: Shared by everything long on this event loop.
        self.turns = Turns()
        self._doubts = Doubts(self._tell_the_group)
        for table in catalog.tables.values():
            metrics.misses_in_doubt.labels(table.name).set_function(partial(self._in_doubt, table))
        self._trouble: str | None = "starting"
        self._disagreements: list[str] = []
        #: What keeps this worker from the brokers since it started; None while nothing does.
        self._outage: str | None = None
        self._shards: Shards | None = None
        self._assignor: TableAssignor | None = None
        self._source_writer: KafkaSourceWriter | None = None
        self._clients: list[_Client] = []
        self._upkeep: list[asyncio.Task[None]] = []
        self._stopping = False
        self._revoked_at: float | None = None
        self._assigned_at = 0.0
        #: What the leader wants this worker to own once it has restored it.
        self._warming: frozenset[TopicPartition] = frozenset()
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
        budget = self._settings.memory_budget
        tasks = sum(topics.partitions[table.source.topic] for table in self._catalog.tables.values())
        ahead = _fetch_bytes(budget, tasks, SLICE_FETCH_BYTES)
        changelog, sources = KafkaLogReader(self._connection, ahead), KafkaLogReader(self._connection, ahead)
        writer = KafkaChangelogWriter(self._connection, max(topics.batch_limits.values()), limits=topics.batch_limits)
        written = {
            table.source.topic: topics.source_limits[table.source.topic]
            for table in self._catalog.tables.values()
            if table.writable
        }
        source_writer = KafkaSourceWriter(self._connection, written) if written else None
        letters = self._dead_letters(topics)
        clients: list[_Client | None] = [changelog, sources, writer, source_writer, letters]
        for client in [client for client in clients if client is not None]:
            await self._until_reachable(client.start)
            self._clients.append(client)
        self._source_writer = source_writer
        consumer: LaneConsumer = self.app.consumer
        ports = Ports(
            changelog=changelog,
            sources=sources,
            writer=writer,
            dead_letters=letters,
            lease=self._lease,
            clock=self._clock,
            metrics=self._metrics,
            doubts=self._doubts,
            known=self.known,
            turns=self.turns,
            sleep=asyncio.sleep,
            on_fatal=self._on_fatal,
            worker_id=self._directory.worker_id,
        )
        memory = StoreMemory(budget)
        self._shards = Shards(
            ShardSettings(
                self._settings.group,
                self._catalog,
                topics.partitions,
                self._directory,
                lambda source: RocksShard(self._directory.shard(source), memory, self.turns),
                budget,
            ),
            consumer,
            ports,
            Reader(self._lease, self._settings.max_staleness),
        )
        self._assignor = TableAssignor(
            self._describe, topics.partitions, self._catalog.standbys, self._settings.acceptable_lag
        )
        consumer.connect(
            self._connection,
            GroupOptions(
                self._settings.group,
                self._catalog.topics,
                self._settings.session_timeout,
                _fetch_bytes(budget, sum(topics.partitions.values()), LANE_FETCH_BYTES),
            ),
            self._assignor,
            self._shards,
            self._lease,
            self.turns,
        )
        self._upkeep = [
            background.start(work, name, self._on_fatal)
            for name, work in (
                ("flush", self._shards.keep_flushed()),
                ("source ends", self._shards.watch_source_ends()),
                ("partition counts", self._watch_partition_counts(topics.partitions)),
                ("outages", self._explain_outages()),
                ("warming", self._take_over_once_warm(self._shards)),
                ("key schemas", self._watch_key_schemas()),
            )
        ]
        self._trouble = "joining the group"

    async def on_stop(self) -> None:
        """Close the stores and the clients; the consumer has left the group before."""
        for upkeep in self._upkeep:
            upkeep.cancel()
        if self._shards is not None:
            await self._shards.stop(_PATIENCE)
        await asyncio.gather(*(client.stop() for client in self._clients), self._schemas.stop())
        self._directory.release()

    def drain(self) -> None:
        """Take note that the worker is stopping."""
        self._stopping = True

    async def _prepare(self) -> Topics:
        await check_login(self._connection)
        await probe_epochs(self._connection, self._settings.group)
        return await prepare(self._connection, self._settings.group, self._catalog, self._settings.dead_letter_topic)

    def _dead_letters(self, topics: Topics) -> KafkaDeadLetters | None:
        """Return the writer of dead letters; None where no table sends any."""
        if topics.dead_letters is None:
            return None
        return KafkaDeadLetters(self._connection, topics.dead_letters, self._settings.group, self._directory.worker_id)

    async def _until_reachable(self, attempt: Callable[[], Awaitable[Result]]) -> Result | None:
        """Try until it works; None when the worker was stopped meanwhile."""
        while not self.should_stop:
            try:
                return await attempt()
            except (KafkaError, OutcomeUnknown) as error:
                self._trouble = f"no broker of {self._settings.bootstrap_servers} can be used: {error}"
                log.warning(
                    "no broker can be used; trying again",
                    bootstrap_servers=self._settings.bootstrap_servers,
                    error=str(error) or repr(error),
                )
                await self.sleep(_RETRY)
        return None

    async def _explain_outages(self) -> None:
        """Ask the brokers while they are away: a login that is refused by now looks like an outage to every client."""
        while True:
            await asyncio.sleep(_OUTAGE_INTERVAL)
            outage = None
            if not self.broker_reachable():
                try:
                    await check_login(self._connection)
                except (BrokersRefuse, KafkaError) as error:
                    outage = str(error)
            if outage is not None and outage != self._outage:
                log.warning("the brokers cannot be used; trying again", reason=outage)
            self._outage = outage

    def _on_fatal(self, error: Exception) -> None:
        self._trouble = str(error)
        self.add_future(self.crash(error))

    # Tables of which a miss proves nothing

    def _in_doubt(self, table: TableSpec) -> float:
        return float(self._doubt(table) is not None)

    def _doubt(self, table: TableSpec) -> str | None:
        return self._doubts.why(changelog_topic(self._settings.group, table), table.source.topic)

    def _tell_the_group(self) -> None:
        """Have everybody learn what a task of this worker found; see _describe() and assigned()."""
        self.app.consumer.rejoin()

    async def _watch_partition_counts(self, checked: Mapping[str, int]) -> None:
        known: dict[str, Growth] = {}
        while True:
            grown = {
                topic: Growth(checked[topic], now)
                for topic, now in self.app.consumer.partition_counts().items()
                if now != checked[topic]
            }
            if grown != known:
                known = grown
                self._doubts.grown(grown)
                for topic, growth in grown.items():
                    log.error(
                        "the partition count of a source has changed; misses of its tables are no longer proof",
                        topic=topic,
                        built_with=growth.built,
                        now=growth.now,
                    )
            await asyncio.sleep(_PARTITION_COUNTS_INTERVAL)

    async def _watch_key_schemas(self) -> None:
        """Learn of each schema that keys may have, so that lookups go where they are written with it."""
        sources = [table.source for table in self._catalog.tables.values()]
        topics = {source.topic for source in sources if source.key.format in REGISTRY_FORMATS}
        while topics:
            for topic in topics:
                try:
                    await self.known.keys_of(topic).refresh()
                except DecodeError as error:
                    log.error("not every schema of a topic's keys can be used", topic=topic, reason=str(error))
            await asyncio.sleep(_KEY_SCHEMAS_INTERVAL)

    async def _take_over_once_warm(self, shards: Shards) -> None:
        """Ask for a rebalance, in which the leader gives this worker what it has restored as a standby."""
        while True:
            await asyncio.sleep(_WARMING_INTERVAL)
            waited, warming, settings = monotonic() - self._assigned_at, self._warming, self._settings
            if waited < settings.takeover_interval or not await shards.warm(warming, settings.acceptable_lag):
                continue
            # An assignment may have come meanwhile, and have given this worker something else to restore.
            if warming is self._warming:
                log.info("warm", partitions=[str(source) for source in sorted(warming)])
                self._warming = frozenset()
                self.app.consumer.rejoin()

    # The group

    def _describe(self) -> MemberMetadata:
        return MemberMetadata(
            worker_id=self._directory.worker_id,
            incarnation=self._directory.incarnation,
            url=self._settings.advertised_url,
            catalog_digest=catalog_digest(self._catalog),
            positions={} if self._shards is None else self._shards.positions(),
            zone=self._settings.zone,
            misplaced=dict(self._doubts.misplaced),
        )

    async def revoked(self) -> None:
        """Suspend every shard."""
        if self._shards is not None:
            self._revoked_at = monotonic()
            await self._shards.suspend(
                _PATIENCE, "the worker is stopping" if self._stopping else "the group is rebalancing"
            )

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Route by the new assignment, and own what it gives to this worker."""
        if self._shards is None or self._assignor is None or self._assignor.latest is None:
            raise AssertionError("assigned before the engine was ready")
        assignment = self._assignor.latest
        self._view.swap(snapshot_of(generation, self._agreed(assignment.partitions), assignment.members))
        self._doubts.learn({changelog: Misplaced(*first) for changelog, first in assignment.misplaced.items()})
        self._shards.assign(generation, partitions, frozenset(shards_of(assignment.own.standbys)))
        self._warming, self._assigned_at = frozenset(shards_of(assignment.own.warming)), monotonic()
        self._trouble = None
        self._metrics.generation.set(generation)
        self._metrics.rebalances.inc()
        if self._revoked_at is not None:
            self._metrics.rebalance_duration.observe(monotonic() - self._revoked_at)
        log.info("assigned", generation=generation, partitions=[str(partition) for partition in sorted(partitions)])

    def _agreed(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Return the partition counts that the group's leader placed by, without those that this worker's differ from.

        They do after a topic has grown, while workers from before and after that are in the group. Whoever hashes with
        one count would look in the wrong partition of a table that was built with the other.
        """
        built = {} if self._assignor is None else self._assignor.partitions
        differing = {topic: count for topic, count in counted.items() if built.get(topic, count) != count}
        self._disagreements = [
            f"the group's leader counts {count} partitions of {topic} and this worker {built[topic]}: no key of its "
            "tables can be looked up here until the workers that were started before the topic grew are restarted"
            for topic, count in differing.items()
        ]
        for disagreement in self._disagreements:
            log.warning("partition counts differ", reason=disagreement)
        return {topic: count for topic, count in counted.items() if topic not in differing}

    # The local side of reads

    def _joined_shards(self) -> Shards:
        if self._shards is None:
            raise NotOwner("this worker has not joined the group yet")
        return self._shards

    def read(self, table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:
        """Read a key here and now; raises what Shards.read raises, or Draining where a stopping worker cannot."""
        return self._here(lambda shards: shards.read(table, partition, stored_key, consistency))

    def read_many(
        self, table: str, partition: int, stored_keys: Sequence[bytes], consistency: Consistency
    ) -> SliceResult:
        """Read the first of some keys here and now; raises what read() raises."""
        return self._here(lambda shards: shards.read_many(table, partition, stored_keys, consistency))

    def _here(self, read: Callable[[Shards], Result]) -> Result:
        shards = self._joined_shards()
        try:
            return read(shards)
        except PartitionRestoring as error:
            if self._stopping:
                raise Draining(f"the worker is shutting down; {error.detail}", **error.details) from None
            raise

    async def wait_for_position(self, table: str, partition: int, offset: int, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until a source offset is applied here; raises what Shards.wait_for_position raises."""
        await self._joined_shards().wait_for_position(table, partition, offset, timeout)

    async def digest(self, table: str, partition: int) -> PartitionDigest:
        """Count and hash the rows of a partition held here; raises what Shards.digest raises."""
        return await self._joined_shards().digest(table, partition)

    def statuses(self) -> Sequence[TaskStatus]:
        """Return the status of every task of this worker."""
        return [] if self._shards is None else self._shards.statuses()

    # Writes

    def _writer(self, table: str) -> KafkaSourceWriter:
        if self._source_writer is None:
            raise SourceUnavailable(f"nothing was written to table {table}: this worker has reached no broker yet")
        return self._source_writer

    def limit(self, table: str) -> int:
        """Return the most bytes that a record of a writable table's source may have; raises SourceUnavailable."""
        return self._writer(table).limit(self._catalog.tables[table].source.topic)

    async def append(self, table: str, partition: int, key: bytes, value: bytes | None, timeout: float) -> int:  # noqa: ASYNC109
        """Append a record to a writable table's source; raises MisplacedKeys, and what the source writer does."""
        spec = self._catalog.tables[table]
        doubt = self._doubt(spec)
        if doubt is not None:
            raise MisplacedKeys(
                f"nothing was written to table {table}, since its keys do not lie where they are looked for: {doubt}",
                retry_after=MISPLACED_RETRY_AFTER,
                table=table,
                partition=partition,
            )
        return await self._writer(table).append(TopicPartition(spec.source.topic, partition), key, value, timeout)

    # Health

    def joined(self) -> bool:
        """Say whether the group has given this worker its part.

        Another worker with the same URL, a ghost of a process without a lasting data directory, has to leave first.
        """
        current, me = self._view.current, self._directory.worker_id
        rivals = [
            member.worker_id
            for member in current.members
            if member.url == self._settings.advertised_url and member.worker_id != me
        ]
        return current.generation >= 0 and not rivals

    def broker_reachable(self) -> bool:
        """Say whether the group's coordinator answered lately."""
        return self._lease.age() < self._settings.session_timeout

    def draining(self) -> bool:
        """Say whether the worker is stopping."""
        return self._stopping

    def generation(self) -> int:
        """Return the group's generation, -1 before the first."""
        return self._view.current.generation

    def reasons(self) -> Sequence[str]:
        """Say what keeps the worker from being as it should be."""
        doubts = [
            f"misses of table {table.name} prove nothing: {doubt}"
            for table in self._catalog.tables.values()
            if (doubt := self._doubt(table)) is not None
        ]
        registry = self._schemas.trouble
        stopped = [
            f"partition {task.partition} of table {task.table} has {task.reason}"
            for task in self.statuses()
            if task.stopped
        ]
        return [
            *(trouble for trouble in (self._trouble, self._outage) if trouble is not None),
            *([] if registry is None else [f"the schema registry does not answer: {registry}"]),
            *self._disagreements,
            *doubts,
            *stopped,
        ]
