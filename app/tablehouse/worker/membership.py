"""A worker's part in its group: what it says of itself, and what it does at rebalances."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from time import monotonic

import structlog

from tablehouse.catalog.fingerprint import catalog_digest, table_digests
from tablehouse.catalog.view import CatalogView
from tablehouse.kafka.assignor import TableAssignor
from tablehouse.kafka.consumer import LaneConsumer
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.topics import Topics
from tablehouse.model import ShardId, TopicPartition
from tablehouse.placement.catalogs import differences
from tablehouse.placement.wire import Assignment, MemberMetadata
from tablehouse.routing.cluster import ClusterView, shards_of, snapshot_of
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.tasks.doubts import Doubts, Misplaced
from tablehouse.tasks.partition_counts import PartitionCounts
from tablehouse.tasks.shards import Shards
from tablehouse.telemetry import Metrics
from tablehouse.worker.health import Health
from tablehouse.worker.local_side import LocalSide

log = structlog.get_logger(__name__)

#: Seconds that a batch in flight is given to be acknowledged when a rebalance or a stop interrupts it.
IN_FLIGHT_TIMEOUT_SECONDS = 2.0

#: Seconds between two checks whether what this worker is to take over is restored.
_WARMING_INTERVAL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOptions:
    """How a worker takes part: the URL that its peers reach it by, its zone, and when it takes over; see the settings.

    takeover_interval is in seconds.
    """

    url: str
    zone: str
    acceptable_lag: int
    takeover_interval: float


class Membership:
    """Describes this worker to the group, and has its shards and its view of the cluster follow each assignment."""

    def __init__(
        self,
        options: MemberOptions,
        *,
        directory: DataDirectory,
        catalog: CatalogView,
        shards: Shards,
        owner_writer: KafkaOwnerWriter,
        counts: PartitionCounts,
        doubts: Doubts,
        consumer: LaneConsumer,
        view: ClusterView,
        local: LocalSide,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._options = options
        self._directory = directory
        self._catalog = catalog
        self._shards = shards
        self._owner_writer = owner_writer
        self._counts = counts
        self._doubts = doubts
        self._consumer = consumer
        self._view = view
        self._local = local
        self._health = health
        self._metrics = metrics
        self._revoked_at: float | None = None
        self._assigned_at = 0.0
        #: What the leader wants this worker to own once it has restored it.
        self.warming: frozenset[ShardId] = frozenset()
        #: The digest of the catalog that the group was told of last.
        self._told: str | None = None
        self.assignor = TableAssignor(
            self.describe, lambda: counts.shards, lambda: catalog.current.standbys, options.acceptable_lag
        )

    def follow(self, before: Topics, after: Topics) -> None:
        """Have the group rebalance if what this worker serves now makes a difference to the others.

        It does where there are other topics, shards that had no table before, or another number of standbys. And where
        the members had different catalogs, they say so until they hear that it is over. A table more or less in shards
        of others disturbs nobody.
        """
        if self._consumer.follow_topics():
            return
        latest = self.assignor.latest
        were_different = latest is not None and bool(latest.catalogs)
        is_news = self._told is not None and self._told != catalog_digest(self._catalog.current)
        had = before.catalog.standbys
        are_others = any(had.get(name) != count for name, count in after.catalog.standbys.items())
        if are_others or (were_different and is_news):
            self._consumer.rejoin()

    def describe(self) -> MemberMetadata:
        """Return what this worker says of itself when it joins."""
        self._told = catalog_digest(self._catalog.current)
        return MemberMetadata(
            worker_id=self._directory.worker_id,
            incarnation=self._directory.incarnation,
            url=self._options.url,
            catalog_digest=self._told,
            tables=table_digests(self._catalog.current),
            positions=self._shards.positions(),
            zone=self._options.zone,
            misplaced=dict(self._doubts.misplaced),
        )

    async def revoked(self) -> None:
        """Suspend every shard."""
        self._revoked_at = monotonic()
        reason = "the worker is stopping" if self._health.draining() else "the group is rebalancing"
        await self._shards.suspend(IN_FLIGHT_TIMEOUT_SECONDS, reason)
        # Its decisions are those of this ownership: the next one begins when they are in the log.
        await self._owner_writer.settle_all(IN_FLIGHT_TIMEOUT_SECONDS)

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Route by the new assignment, and own what it gives to this worker."""
        self._health.trouble = self.assignor.refused
        if self.assignor.latest is None or self.assignor.refused is not None:
            # Where the others are is known no better than before.
            self._shards.assign(generation, frozenset(), frozenset())
            self.warming = frozenset()
        else:
            self._take_up(generation, self.assignor.latest)
        self._metrics.generation.set(generation)
        self._metrics.rebalances.inc()
        if self._revoked_at is not None:
            self._metrics.rebalance_duration.observe(monotonic() - self._revoked_at)
        topics = Counter(partition.topic for partition in partitions)
        log.info("assigned", generation=generation, partitions=len(partitions), topics=len(topics))
        log.debug("assigned partitions", partitions=[str(partition) for partition in sorted(partitions)])

    def _take_up(self, generation: int, assignment: Assignment) -> None:
        counts, self._local.disagreements = self._counts.agreed(assignment.partitions)
        differing = differences(table_digests(self._catalog.current), assignment.catalogs)
        if differing:
            log.warning("workers of the group have different tables.yaml files", differences=differing)
        self._health.differences = [
            f"worker {worker} has another tables.yaml: {what}" for worker, what in differing.items()
        ]
        self._view.swap(snapshot_of(generation, counts, assignment.members, differing))
        self._doubts.learn({changelog: Misplaced(*first) for changelog, first in assignment.misplaced.items()})
        own = assignment.own
        self._shards.assign(generation, frozenset(shards_of(own.actives)), frozenset(shards_of(own.standbys)))
        self.warming, self._assigned_at = frozenset(shards_of(own.warming)), monotonic()
        self._metrics.group_members_left_out.set(len(assignment.left_out))
        self._health.left_out = assignment.left_out
        self._health.is_left_out = self._consumer.member_id in assignment.left_out

    async def take_over_once_warm(self) -> None:
        """Ask for a rebalance, in which the leader gives this worker what it has restored as a standby."""
        while True:
            await asyncio.sleep(_WARMING_INTERVAL)
            waited, warming = monotonic() - self._assigned_at, self.warming
            if waited < self._options.takeover_interval:
                continue
            warm = await self._shards.warm(warming, self._options.acceptable_lag)
            # An assignment may have come meanwhile, and have given this worker something else to restore.
            if warm and warming is self.warming:
                log.info("warm", partitions=[str(shard) for shard in warm])
                # The assignment that follows says what is still to be restored.
                self.warming = frozenset()
                self._consumer.rejoin()
