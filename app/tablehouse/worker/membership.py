"""A worker's membership in its group: its metadata, and what it does at rebalances."""

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

#: Seconds to wait for the acknowledgement of a batch in flight at a rebalance or a stop.
IN_FLIGHT_TIMEOUT_SECONDS = 2.0

#: Seconds between checks whether this worker has restored the shards that it is to take over.
_WARMING_INTERVAL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOptions:
    """Options of a member: the URL at which peers reach it, its zone, and when it takes over; see the settings.

    takeover_interval is in seconds.
    """

    url: str
    zone: str
    acceptable_lag: int
    takeover_interval: float


class Membership:
    """Describes this worker to the group, and applies each assignment to its shards and its view of the cluster."""

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
        #: The shards that the leader assigns to this worker once it has restored them.
        self.warming: frozenset[ShardId] = frozenset()
        #: The digest of the catalog in the last metadata sent to the group.
        self._sent_digest: str | None = None
        self.assignor = TableAssignor(
            self.describe, lambda: counts.shards, lambda: catalog.current.standbys, options.acceptable_lag
        )

    def follow(self, before: Topics, after: Topics) -> None:
        """Request a rebalance if a change of the served tables affects other workers.

        That is the case if there are other topics, new shards, or another number of standbys. If the members had
        different catalogs, a rebalance is also needed, because they report the difference until the next assignment. A
        table that is added to existing shards or removed from them needs none.
        """
        if self._consumer.follow_topics():
            return
        latest = self.assignor.latest
        were_different = latest is not None and bool(latest.catalogs)
        is_new_catalog = self._sent_digest is not None and self._sent_digest != catalog_digest(self._catalog.current)
        had = before.catalog.standbys
        are_shards_changed = any(had.get(name) != count for name, count in after.catalog.standbys.items())
        if are_shards_changed or (were_different and is_new_catalog):
            self._consumer.rejoin()

    def describe(self) -> MemberMetadata:
        """Return the metadata that this worker sends when it joins."""
        self._sent_digest = catalog_digest(self._catalog.current)
        return MemberMetadata(
            worker_id=self._directory.worker_id,
            incarnation=self._directory.incarnation,
            url=self._options.url,
            catalog_digest=self._sent_digest,
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
        # Conditional writes decided by this ownership should be in the log before the next one begins.
        await self._owner_writer.settle_all(IN_FLIGHT_TIMEOUT_SECONDS)

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Route by the new assignment, and own the shards assigned to this worker."""
        self._health.trouble = self.assignor.refused
        if self.assignor.latest is None or self.assignor.refused is not None:
            # The view of the other workers stays as it was.
            self._shards.assign(generation, frozenset(), frozenset())
            self.warming = frozenset()
        else:
            self._apply(generation, self.assignor.latest)
        self._metrics.generation.set(generation)
        self._metrics.rebalances.inc()
        if self._revoked_at is not None:
            self._metrics.rebalance_duration.observe(monotonic() - self._revoked_at)
        topics = Counter(partition.topic for partition in partitions)
        log.info("assigned", generation=generation, partitions=len(partitions), topics=len(topics))
        log.debug("assigned partitions", partitions=[str(partition) for partition in sorted(partitions)])

    def _apply(self, generation: int, assignment: Assignment) -> None:
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
        """Request a rebalance once this worker has restored shards, so that the leader assigns them to it."""
        while True:
            await asyncio.sleep(_WARMING_INTERVAL)
            waited, warming = monotonic() - self._assigned_at, self.warming
            if waited < self._options.takeover_interval:
                continue
            warm = await self._shards.warm(warming, self._options.acceptable_lag)
            # A new assignment may have arrived in the meantime, with other shards to restore.
            if warm and warming is self.warming:
                log.info("warm", partitions=[str(shard) for shard in warm])
                # The next assignment lists the shards that are still to be restored.
                self.warming = frozenset()
                self._consumer.rejoin()
