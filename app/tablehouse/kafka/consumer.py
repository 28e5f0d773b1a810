"""The group's consumer on the main event loop, with the lane in place of Faust's record path.

Faust's own driver runs aiokafka in a thread and creates four tasks per record. Here Faust's base class, with its commit
timer, single-flight commit and life cycle, drives an aiokafka consumer directly, and _drain_messages hands over
batches.

This stays one file of one class: most of its methods override one of Faust's, and those that fetch, pause, seek and
commit share the state of one consumer.
"""

import asyncio
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import ConsumerStoppedError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.types import TP

from tablehouse.kafka.assignor import TableAssignor
from tablehouse.kafka.client import Connection
from tablehouse.kafka.commits import OffsetCommits
from tablehouse.kafka.fetch_refusals import tell_refusals
from tablehouse.kafka.fetching_ahead import fetch_ahead
from tablehouse.kafka.group_watch import GroupWatch
from tablehouse.kafka.lane_outages import LaneOutages
from tablehouse.kafka.lease import GroupLease
from tablehouse.kafka.leaving import leave_during_join
from tablehouse.kafka.raw_records import raw
from tablehouse.kafka.rebootstrap import rebootstrap
from tablehouse.kafka.record_path import NoRecordPath
from tablehouse.kafka.skips import PASSED_OVER, Skips
from tablehouse.model import TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.tasks.clock import SystemClock
from tablehouse.tasks.log import LaneOutage, LogRecord, LogUnavailable
from tablehouse.turns import Turns

log = structlog.get_logger(__name__)

#: Maximum records per poll. Parsing them cannot be interrupted, so this bounds how long a read waits.
POLL_RECORDS = 500

#: Maximum bytes per partition of a fetch, if memory allows; aiokafka's default.
LANE_FETCH_BYTES = 1024 * 1024

#: Seconds a poll waits for records; a partition that starts or resumes during a poll waits as long.
POLL_WAIT = 0.1

#: Seconds a broker may send nothing of a partition that has more records; other partitions may fill its responses.
SILENCE_SECONDS = 10.0

#: Seconds that leaving the group and closing connections may take, and after which a join is assumed to block it.
STOP_TIMEOUT, LEAVE_AFTER = 3.0, 0.5

#: Seconds between checks whether fetching can continue, while large records wait to be ingested.
CROWDED_PAUSE = 0.02

#: aiokafka permanently removes a member that does not fetch from the group. A worker may have nothing to fetch.
MAX_POLL_INTERVAL_MS = 365 * 24 * 3600 * 1000


#: Milliseconds for which a changed partition count of a source may go unnoticed. Each refresh is one small request.
METADATA_MAX_AGE_MS = 2_000


class Lanes(Protocol):
    """Receives the records, and tells which offsets it wants next."""

    def offer(self, source: TopicPartition, records: list[LogRecord], next_offset: int) -> bool:
        """Hand over fetched records; return False if they must be fetched again."""

    def expected(self, source: TopicPartition) -> int | None:
        """Return the next offset to deliver; None while the lane is stopped."""

    def lost(self, source: TopicPartition) -> None:
        """Record that the source no longer has the next offset."""

    def are_crowded(self) -> bool:
        """Return whether the waiting records are so large that fetching must pause."""

    def committable(self) -> Mapping[TopicPartition, int]:
        """Return the offsets to commit."""


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The consumer group.

    `topics` returns the topics to read, as they are now; session_timeout is in seconds, fetch_bytes is what may be
    fetched ahead of each partition.
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
    """Implements LaneControl; `connect` sets its dependencies before it starts."""

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
        self.lanes, self.lease, self.assignor, self._options, self._turns = lanes, lease, assignor, options, turns
        self._skips = skips
        self._committed: dict[TopicPartition, int] = {}
        #: Partitions whose lanes are running.
        self._flowing: set[KafkaPartition] = set()
        #: Those of them that are paused for now.
        self._held_back: set[KafkaPartition] = set()
        self._started_flowing = asyncio.Event()
        self._outages = LaneOutages(SystemClock())
        self._warnings = Recurring(log)
        #: When the broker last answered for a partition that is being retried, in aiokafka's own time.
        self._tried_again: dict[KafkaPartition, int] = {}
        #: Lanes whose broker sends nothing although the log has more records: their position, and since when.
        self._silent: dict[KafkaPartition, tuple[int, float]] = {}
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
            max_poll_records=POLL_RECORDS,
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=options.fetch_bytes,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        rebootstrap(self.client._client, connection)
        tell_refusals(self.client)
        self._watch = GroupWatch(options.group, self.client)
        #: None until the group is joined.
        self._commits: OffsetCommits | None = None

    @property
    def topics(self) -> Collection[str]:
        """The topics to read, as they are now."""
        return self._options.topics()

    def fetch_ahead(self, size: int) -> None:
        """Fetch at most `size` bytes ahead of each partition from here on."""
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
        """Join the group again if there are other topics now than when it was joined; return whether it is.

        Until the assignment that follows, no partition is assigned, and lanes stand still. Without any topic there is
        nothing to subscribe to, so the last ones stay.
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
        """Nothing to do: stop() closes."""

    # The lane

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and hand over records until stopped; records not handed over are fetched again.

        Raises GroupFailed and GroupRefused, which end the worker.
        """
        while not (self.should_stop or fetcher.should_stop):
            try:
                await self._fetch_and_offer()
            except ConsumerStoppedError:
                return
            except KafkaError as error:
                self._warnings.warn(
                    type(error).__name__, "fetching failed; trying again", group=self._options.group, error=repr(error)
                )
                await self.sleep(1.0)

    async def _fetch_and_offer(self) -> None:
        client = self.client
        self._watch.check()
        self._try_again()
        assigned = client.assignment()
        wanted = [
            partition
            for partition in self._flowing
            if partition in assigned and not self._outages.waits(TopicPartition(*partition))
        ]
        if not wanted:
            self._started_flowing.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_WAIT):
                    await self._started_flowing.wait()
            return
        if self.lanes.are_crowded():
            self._hold_back(wanted)
            await asyncio.sleep(CROWDED_PAUSE)
            return
        self._go_on()
        # No await after getmany: records, positions and failures must be from the same moment.
        try:
            found = await client.getmany(*wanted, timeout_ms=int(POLL_WAIT * 1000), max_records=POLL_RECORDS)
        except ConsumerStoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - decompressing and parsing may raise anything
            self._watch.check()
            self._rewind(wanted)
            self._note_failure(error)
        else:
            self._offer(wanted, found)
        # getmany does not yield to the event loop while it has records.
        await self._turns.wait()

    def _offer(self, wanted: Iterable[KafkaPartition], found: Mapping[KafkaPartition, list[LogRecord]]) -> None:
        for partition in wanted:
            position = self._position(partition)
            if position is None:
                continue
            source = TopicPartition(*partition)
            records = found.get(partition, [])
            expected = self.lanes.expected(source)
            # A position can move without records: transaction markers, aborted records, compacted offsets.
            if records or (expected is not None and position > expected):
                if self.lanes.offer(source, records, position):
                    self._outages.delivered(source)
                    continue
                rewind_to = records[0].offset if expected is None and records else expected
                if rewind_to is not None:
                    log.debug("rewound", source=str(source), offset=rewind_to)
                    self.client.seek(partition, rewind_to)
            elif expected == position:
                self._note_silence(partition, position)

    def _hold_back(self, flowing: Iterable[KafkaPartition]) -> None:
        """Pause all lanes: a broker sends at least one whole record per partition, of any size."""
        for partition in flowing:
            if partition not in self._held_back:
                self.client.pause(partition)
                self._held_back.add(partition)

    def _go_on(self) -> None:
        """Resume after _hold_back()."""
        while self._held_back:
            partition = self._held_back.pop()
            self._silent.pop(partition, None)
            waits = self._outages.waits(TopicPartition(*partition))
            if partition in self._flowing and partition in self.client.assignment() and not waits:
                self.client.resume(partition)

    def _position(self, partition: KafkaPartition) -> int | None:
        """Return the offset that aiokafka delivers next; None if it has no position in the partition."""
        state = self._state(partition)
        return state.position if state is not None and state.has_valid_position else None

    def _state(self, partition: KafkaPartition) -> Any:
        assignment = self.client._subscription.subscription.assignment
        return None if assignment is None else assignment.state_value(partition)

    def _note_silence(self, partition: KafkaPartition, position: int) -> None:
        """Suspend a lane and report it if its broker sends nothing for long although the log has more records."""
        state = self._state(partition)
        end = state.lso
        if end is None or end <= position or partition in self.client._fetcher._records:
            self._silent.pop(partition, None)
            if end is not None and end <= position and state.timestamp != self._tried_again.get(partition):
                # The broker answered that this is the end of the log.
                self._outages.delivered(TopicPartition(*partition))
            return
        now = asyncio.get_running_loop().time()
        at, since = self._silent.setdefault(partition, (position, now))
        if at != position:
            self._silent[partition] = position, now
        elif now - since >= SILENCE_SECONDS:
            del self._silent[partition]
            problem = (
                f"the broker has sent no records from offset {position} of {TopicPartition(*partition)} for "
                f"{SILENCE_SECONDS:g} s, although the log ends at offset {end - 1}"
            )
            self._fail(partition, position, LogUnavailable(problem))

    # What goes wrong

    def _try_again(self) -> None:
        for source in self._outages.due():
            partition = KafkaPartition(*source)
            if partition in self._flowing and partition in self.client.assignment():
                self._pass_over(source)
                self._tried_again[partition] = self._state(partition).timestamp
                self.client.resume(partition)

    def _pass_over(self, source: TopicPartition) -> None:
        """Continue after unreadable offsets if an operator has decided to skip them."""
        expected = self.lanes.expected(source)
        if expected is None or (unreadable := self._outages.unreadable_at(source, expected)) is None:
            return
        first = max(expected, unreadable.first)
        after = self._skips.after(source, first, unreadable)
        if after is None:
            # The result is available at the partition's next retry.
            self._skips.refresh_soon()
        elif self.lanes.offer(source, [], after):
            log.warning(PASSED_OVER, source=str(source), first=first, last=after - 1)
            self._outages.delivered(source)
            self.client.seek(KafkaPartition(*source), after)

    def _rewind(self, wanted: Iterable[KafkaPartition]) -> None:
        """Seek back to the lanes' offsets: a failed getmany loses the records it had taken of other partitions."""
        for partition in wanted:
            position, expected = self._position(partition), self.lanes.expected(TopicPartition(*partition))
            if position is not None and expected is not None and position != expected:
                self.client.seek(partition, expected)

    def _note_failure(self, error: Exception) -> None:
        """Suspend the lane that an error is about, or have it check its source again; raises errors about no lane."""
        partition = _partition_at_fault(error)
        if partition is None:
            raise error
        source = TopicPartition(*partition)
        expected = self.lanes.expected(source)
        # Without a position, the error is from before the lane started; starting it sets the position.
        if expected is None or isinstance(error, NoOffsetForPartitionError):
            return
        if isinstance(error, OffsetOutOfRangeError):
            # A lane that has moved since then no longer needs the offset.
            if error.args[0].get(partition) == expected:
                self.lanes.lost(source)
        elif partition in self.client.assignment():
            self._fail(partition, expected, error)

    def _fail(self, partition: KafkaPartition, expected: int, error: Exception) -> None:
        """Suspend a lane until its next retry."""
        source = TopicPartition(*partition)
        self._outages.failed(source, expected, error)
        # Drops the fetched data, which would fail again, and fetches nothing until the retry.
        self.client.seek(partition, expected)
        self.client.pause(partition)

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """Start delivering records of a partition from `offset`."""
        kafka_partition = KafkaPartition(*partition)
        if kafka_partition not in self.client.assignment():
            # The rebalance that revoked it is about to suspend the calling task.
            return
        self.client.seek(kafka_partition, offset)
        self._resume(kafka_partition)

    def pause_lane(self, partition: TopicPartition) -> None:
        """Stop delivering records of a partition."""
        kafka_partition = KafkaPartition(*partition)
        self._flowing.discard(kafka_partition)
        if kafka_partition in self.client.assignment():
            self.client.pause(kafka_partition)

    def resume_lane(self, partition: TopicPartition) -> None:
        """Resume delivering records of a partition."""
        kafka_partition = KafkaPartition(*partition)
        if kafka_partition in self.client.assignment():
            self._resume(kafka_partition)

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """Return why a partition cannot be read; None if no reason is known."""
        return self._outages.of(partition)

    def _resume(self, partition: KafkaPartition) -> None:
        self._silent.pop(partition, None)
        if not self._outages.waits(TopicPartition(*partition)):
            self.client.resume(partition)
        self._flowing.add(partition)
        self._started_flowing.set()

    def hold_all(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch nothing of newly assigned partitions until their lanes start."""
        partitions = frozenset(partitions)
        self._watch.assigned()
        self._outages.keep(partitions)
        self._flowing.clear()
        self._held_back.clear()
        self._silent.clear()
        self._tried_again.clear()
        # None of them is assigned any more where the topics have changed meanwhile.
        for partition in self.client.assignment() & {KafkaPartition(*partition) for partition in partitions}:
            self.client.pause(partition)

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


def _partition_at_fault(error: Exception) -> KafkaPartition | None:
    """Return the partition that aiokafka was reading when it failed; few of its errors name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is Fetcher.fetched_records.__code__:
            return frame.f_locals.get("tp")
    return None
