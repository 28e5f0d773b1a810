"""The group's consumer on the main event loop, with the lanes in place of Faust's record path.

Faust's own driver runs aiokafka in a thread and creates four tasks per record. Here Faust's base class, with its commit
timer, single-flight commit and life cycle, drives an aiokafka consumer directly. lane_fetcher.py fetches the records
and hands them over in batches.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.types import TP

from tablehouse.kafka.assignor import TableAssignor
from tablehouse.kafka.client import Connection
from tablehouse.kafka.commits import OffsetCommits
from tablehouse.kafka.fetch_refusals import raise_refusals
from tablehouse.kafka.fetching_ahead import fetch_ahead
from tablehouse.kafka.group_watch import GroupWatch
from tablehouse.kafka.lane_fetcher import RECORDS_PER_POLL, LaneFetcher, Lanes
from tablehouse.kafka.lease import GroupLease
from tablehouse.kafka.leaving import leave_during_join
from tablehouse.kafka.raw_records import raw
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.kafka.record_path import NoRecordPath
from tablehouse.kafka.skips import Skips
from tablehouse.model import TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.tasks.log import LaneOutage
from tablehouse.turns import Turns

log = structlog.get_logger(__name__)

#: Maximum bytes per partition of a fetch, if memory allows; aiokafka's default.
LANE_FETCH_BYTES = 1024 * 1024

#: Seconds that leaving the group and closing connections may take, and after which a join is assumed to block it.
STOP_TIMEOUT, LEAVE_AFTER = 3.0, 0.5

#: aiokafka permanently removes a member that does not fetch from the group. A worker may have nothing to fetch.
MAX_POLL_INTERVAL_MS = 365 * 24 * 3600 * 1000

#: Milliseconds for which a changed partition count of a source may go unnoticed. Each refresh is one small request.
METADATA_MAX_AGE_MS = 2_000


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The consumer group.

    `topics` returns the current topics to read; session_timeout is in seconds, fetch_bytes is the maximum fetched ahead
    per partition.
    """

    group: str
    topics: Callable[[], Collection[str]]
    session_timeout: float
    fetch_bytes: int


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """Forwards aiokafka's callbacks to Faust, and crashes the worker on exceptions, which aiokafka would only log."""

    def __init__(self, consumer: "LaneConsumer") -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        consumer = self._consumer
        consumer.app.on_rebalance_start()
        try:
            await consumer.on_partitions_revoked({TP(*partition) for partition in revoked})
        except Exception as error:
            await consumer.crash(error)
            raise

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        consumer = self._consumer
        generation = consumer.client._coordinator.generation
        consumer.app.consumer_generation_id = generation
        try:
            await consumer.on_partitions_assigned({TP(*partition) for partition in assigned}, generation)
        except Exception as error:
            await consumer.crash(error)
            raise


class LaneConsumer(NoRecordPath):
    """Implements LaneControl through a LaneFetcher; connect() sets its dependencies before it starts."""

    consumer_stopped_errors = (ConsumerStoppedError,)

    client: AIOKafkaConsumer
    lanes: Lanes
    lease: GroupLease
    assignor: TableAssignor

    def connect(
        self,
        connection: Connection,
        options: GroupOptions,
        assignor: TableAssignor,
        lanes: Lanes,
        lease: GroupLease,
        turns: Turns,
        skips: Skips,
    ) -> None:
        """Set the dependencies that start() needs."""
        self.lanes, self.lease, self.assignor, self._options = lanes, lease, assignor, options
        self._committed: dict[TopicPartition, int] = {}
        self._warnings = Recurring(log)
        self.client = AIOKafkaConsumer(
            **connection.arguments(),
            group_id=options.group,
            partition_assignment_strategy=[assignor],
            enable_auto_commit=False,
            # A reset would silently skip records removed by retention, or read a different topic of the same name.
            auto_offset_reset="none",
            isolation_level="read_committed",
            key_deserializer=raw,
            session_timeout_ms=int(options.session_timeout * 1000),
            heartbeat_interval_ms=int(min(0.5, options.session_timeout / 6) * 1000),
            rebalance_timeout_ms=int(max(20.0, 2 * options.session_timeout) * 1000),
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            max_poll_records=RECORDS_PER_POLL,
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=options.fetch_bytes,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        rebootstrap(self.client._client, connection)
        raise_refusals(self.client)
        self._watch = GroupWatch(options.group, self.client)
        self._lane_fetcher = LaneFetcher(self.client, lanes, self._watch, turns, skips)
        #: None until the group is joined.
        self._commits: OffsetCommits | None = None

    @property
    def topics(self) -> Collection[str]:
        """The current topics to read."""
        return self._options.topics()

    def fetch_ahead(self, size: int) -> None:
        """Fetch at most `size` bytes ahead of each partition from now on."""
        fetch_ahead(self.client, size)

    # Life cycle

    async def on_start(self) -> None:
        """Connect; wait for a broker without a time limit."""
        while not self.should_stop:
            try:
                await self.client.start()
            except KafkaError as error:
                self._warnings.warn("start", "no broker reachable; trying again", error=str(error))
                await self.sleep(1.0)
            else:
                self._warnings.end("start", "broker reachable")
                return

    async def on_stop(self) -> None:
        """Commit, leave the group and disconnect, each within a time limit."""
        await self.commit()
        stopping = asyncio.ensure_future(self.client.stop())
        await asyncio.wait({stopping}, timeout=LEAVE_AFTER)
        if not stopping.done():
            await leave_during_join(self.client._coordinator)
            await asyncio.wait({stopping}, timeout=STOP_TIMEOUT)
        if not stopping.done():
            log.warning("the group could not be left in time; the broker removes this member after the session timeout")
            stopping.cancel()
        elif stopping.exception() is not None:
            # An error of the fetching task is raised again here, before connections are closed.
            await self.client._client.close()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group."""
        self._subscribe(topics)
        self._commits = OffsetCommits(self.client)
        self.lease.attach(self.client._coordinator)
        self.assignor.attach(self.client._coordinator)

    def follow_topics(self) -> bool:
        """Join the group again if the topics have changed since the last join; return whether it rejoins.

        No partition is assigned and no record is fetched until the next assignment. A subscription needs at least one
        topic, so if there is none, the consumer stays subscribed to the last ones.
        """
        topics = frozenset(self.topics)
        if self._commits is None or not topics or topics == self.client.subscription():
            return False
        self._subscribe(topics)
        return True

    def _subscribe(self, topics: Iterable[str]) -> None:
        self.client.subscribe(sorted(topics), listener=_Listener(self))

    @property
    def member_id(self) -> str:
        """The member id assigned by the group's coordinator."""
        return str(self.client._coordinator.member_id)

    def rejoin(self) -> None:
        """Request a rebalance, so that this worker's new metadata reaches the leader."""
        self.client._coordinator.request_rejoin()

    def partition_counts(self) -> dict[str, int]:
        """Return the last known partition counts of the sources; unknown ones are missing."""
        counts = {topic: self.client.partitions_for_topic(topic) for topic in self.topics}
        return {topic: len(numbers) for topic, numbers in counts.items() if numbers}

    def close(self) -> None:
        """Do nothing: stop() closes the client."""

    # Lanes

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and hand over records until stopped; records not handed over are fetched again.

        Raises GroupFailed and GroupRefused, which end the worker.
        """
        while not (self.should_stop or fetcher.should_stop):
            try:
                await self._lane_fetcher.fetch_and_offer()
            except ConsumerStoppedError:
                return
            except KafkaError as error:
                self._warnings.warn(
                    type(error).__name__, "fetching failed; trying again", group=self._options.group, error=repr(error)
                )
                await self.sleep(1.0)

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """See LaneControl."""
        self._lane_fetcher.start_lane(partition, offset)

    def pause_lane(self, partition: TopicPartition) -> None:
        """See LaneControl."""
        self._lane_fetcher.pause_lane(partition)

    def resume_lane(self, partition: TopicPartition) -> None:
        """See LaneControl."""
        self._lane_fetcher.resume_lane(partition)

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """See LaneControl."""
        return self._lane_fetcher.outage(partition)

    def hold_all(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch nothing of newly assigned partitions until their lanes start."""
        self._watch.assigned()
        self._lane_fetcher.hold_all(partitions)

    # Commits

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        del topics  # all are committed together
        for partition, offset in self.lanes.committable().items():
            if self._committed.get(partition) != offset:
                yield TP(*partition)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        committable = self.lanes.committable()
        return {tp: committable[source] for tp in tps if (source := TopicPartition(*tp)) in committable}

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002 - Faust's signature
        """Commit what is possible in time; the authoritative positions are in stores and changelogs."""
        del start_new_transaction
        return await self._commit(offsets)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assigned = self.client.assignment()
        wanted = {partition: offset for tp, offset in offsets.items() if (partition := KafkaPartition(*tp)) in assigned}
        # Without the lease, the coordinator may be unreachable, have moved, or no longer know this member.
        if not wanted or self._commits is None or not self.lease.holds(self.client._coordinator.generation):
            return False
        committed = await self._commits.commit(wanted)
        self._committed.update({TopicPartition(*partition): offset for partition, offset in committed.items()})
        return len(committed) == len(wanted)

    async def wait_empty(self) -> None:
        """Commit; records in flight were drained before."""
        await self.commit()

    def assignment(self) -> set[TP]:
        """Return the assigned partitions."""
        return {TP(*partition) for partition in self.client.assignment()}

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)
