"""Fetches records for the lanes of all assigned partitions, and keeps the partitions' fetch positions.

A lane that cannot be read is suspended and retried on its own. This module only uses aiokafka's consumer: consumer.py
overrides Faust's, and decides when to fetch.
"""

import asyncio
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import ConsumerStoppedError, NoOffsetForPartitionError, OffsetOutOfRangeError

from tablehouse.kafka.group_watch import GroupWatch
from tablehouse.kafka.lane_outages import LaneOutages
from tablehouse.kafka.skips import SKIPPED, Skips
from tablehouse.model import TopicPartition
from tablehouse.tasks.clock import SystemClock
from tablehouse.tasks.log import LaneOutage, LogRecord, LogUnavailable
from tablehouse.turns import Turns

log = structlog.get_logger(__name__)

#: Maximum records per poll. Parsing them cannot be interrupted, so this bounds how long a read waits.
RECORDS_PER_POLL = 500

#: Seconds a poll waits for records; a partition that starts or resumes during a poll waits as long.
POLL_SECONDS = 0.1

#: Seconds a broker may send nothing of a partition that has more records; other partitions may fill its responses.
SILENCE_SECONDS = 10.0

#: Seconds between checks whether fetching can continue, while large records wait to be ingested.
CROWDED_SECONDS = 0.02


class Lanes(Protocol):
    """Receives fetched records, and decides which offsets to fetch next and which to commit."""

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


class LaneFetcher:
    """Implements LaneControl over an aiokafka consumer."""

    def __init__(self, client: AIOKafkaConsumer, lanes: Lanes, watch: GroupWatch, turns: Turns, skips: Skips) -> None:
        self._client = client
        self._lanes = lanes
        self._watch = watch
        self._turns = turns
        self._skips = skips
        self._outages = LaneOutages(SystemClock())
        #: Partitions whose lanes are running.
        self._running: set[KafkaPartition] = set()
        #: Those of them that are paused while the lanes are crowded.
        self._held_back: set[KafkaPartition] = set()
        self._started = asyncio.Event()
        #: When the broker last answered for a partition before its retry, on aiokafka's clock.
        self._answered_before: dict[KafkaPartition, int] = {}
        #: Lanes whose broker sends nothing although the log has more records: their position, and since when.
        self._silent: dict[KafkaPartition, tuple[int, float]] = {}

    async def fetch_and_offer(self) -> None:
        """Fetch records of the running lanes once and offer them, or wait briefly if there is nothing to fetch.

        Records that a lane does not accept are fetched again. Raises GroupFailed, GroupRefused, ConsumerStoppedError,
        and errors of aiokafka that are not about one partition.
        """
        client = self._client
        self._watch.check()
        self._retry_due()
        assigned = client.assignment()
        wanted = [
            partition
            for partition in self._running
            if partition in assigned and not self._outages.waits(TopicPartition(*partition))
        ]
        if not wanted:
            self._started.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._started.wait()
            return
        if self._lanes.are_crowded():
            self._hold_back(wanted)
            await asyncio.sleep(CROWDED_SECONDS)
            return
        self._resume_held_back()
        # No await after getmany: records, positions and failures must be from the same moment.
        try:
            found = await client.getmany(*wanted, timeout_ms=int(POLL_SECONDS * 1000), max_records=RECORDS_PER_POLL)
        except ConsumerStoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - decompressing and parsing may raise anything
            self._watch.check()
            self._rewind(wanted)
            self._handle(error)
        else:
            self._offer(wanted, found)
        # getmany does not yield to the event loop while it has records.
        await self._turns.wait()

    # Delivering

    def _offer(self, wanted: Iterable[KafkaPartition], found: Mapping[KafkaPartition, list[LogRecord]]) -> None:
        for partition in wanted:
            position = self._position(partition)
            if position is None:
                continue
            source = TopicPartition(*partition)
            records = found.get(partition, [])
            expected = self._lanes.expected(source)
            # A position can move without records: transaction markers, aborted records, compacted offsets.
            if records or (expected is not None and position > expected):
                if self._lanes.offer(source, records, position):
                    self._outages.delivered(source)
                    continue
                rewind_to = records[0].offset if expected is None and records else expected
                if rewind_to is not None:
                    log.debug("rewound", source=str(source), offset=rewind_to)
                    self._client.seek(partition, rewind_to)
            elif expected == position:
                self._check_silence(partition, position)

    def _position(self, partition: KafkaPartition) -> int | None:
        """Return the offset that aiokafka delivers next; None if it has no position in the partition."""
        state = self._state(partition)
        return state.position if state is not None and state.has_valid_position else None

    def _state(self, partition: KafkaPartition) -> Any:
        assignment = self._client._subscription.subscription.assignment
        return None if assignment is None else assignment.state_value(partition)

    def _rewind(self, wanted: Iterable[KafkaPartition]) -> None:
        """Seek back to the lanes' offsets: a failed getmany loses the records it had taken of other partitions."""
        for partition in wanted:
            position, expected = self._position(partition), self._lanes.expected(TopicPartition(*partition))
            if position is not None and expected is not None and position != expected:
                self._client.seek(partition, expected)

    def _hold_back(self, running: Iterable[KafkaPartition]) -> None:
        """Pause all lanes: a broker sends at least one whole record per partition, of any size."""
        for partition in running:
            if partition not in self._held_back:
                self._client.pause(partition)
                self._held_back.add(partition)

    def _resume_held_back(self) -> None:
        while self._held_back:
            partition = self._held_back.pop()
            self._silent.pop(partition, None)
            waits = self._outages.waits(TopicPartition(*partition))
            if partition in self._running and partition in self._client.assignment() and not waits:
                self._client.resume(partition)

    # Failures

    def _handle(self, error: Exception) -> None:
        """Suspend the lane that an error is about, or have it check its source again; raise errors about no lane."""
        partition = _partition_at_fault(error)
        if partition is None:
            raise error
        source = TopicPartition(*partition)
        expected = self._lanes.expected(source)
        # Without a position, the error is from before the lane started; starting it sets the position.
        if expected is None or isinstance(error, NoOffsetForPartitionError):
            return
        if isinstance(error, OffsetOutOfRangeError):
            # A lane that has moved since then no longer needs the offset.
            if error.args[0].get(partition) == expected:
                self._lanes.lost(source)
        elif partition in self._client.assignment():
            self._suspend(partition, expected, error)

    def _check_silence(self, partition: KafkaPartition, position: int) -> None:
        """Suspend a lane if its broker sends nothing for SILENCE_SECONDS although the log has more records.

        The end of the log ends an outage, if the broker has answered since the lane was retried.
        """
        state = self._state(partition)
        end = state.lso
        if end is None or end <= position or partition in self._client._fetcher._records:
            self._silent.pop(partition, None)
            if end is not None and end <= position and state.timestamp != self._answered_before.get(partition):
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
            self._suspend(partition, position, LogUnavailable(problem))

    def _suspend(self, partition: KafkaPartition, expected: int, error: Exception) -> None:
        """Suspend a lane until its next retry."""
        self._outages.failed(TopicPartition(*partition), expected, error)
        # Drops the fetched data, which would fail again, and fetches nothing until the retry.
        self._client.seek(partition, expected)
        self._client.pause(partition)

    def _retry_due(self) -> None:
        """Resume the suspended lanes whose retry is due."""
        for source in self._outages.take_due():
            partition = KafkaPartition(*source)
            if partition in self._running and partition in self._client.assignment():
                self._skip_unreadable(source)
                self._answered_before[partition] = self._state(partition).timestamp
                self._client.resume(partition)

    def _skip_unreadable(self, source: TopicPartition) -> None:
        """Continue after unreadable offsets if an operator has decided to skip them."""
        expected = self._lanes.expected(source)
        if expected is None or (unreadable := self._outages.unreadable_at(source, expected)) is None:
            return
        first = max(expected, unreadable.first)
        after = self._skips.after(source, first, unreadable)
        if after is None:
            # The result is available at the partition's next retry.
            self._skips.refresh_soon()
        elif self._lanes.offer(source, [], after):
            log.warning(SKIPPED, source=str(source), first=first, last=after - 1)
            self._outages.delivered(source)
            self._client.seek(KafkaPartition(*source), after)

    # Control

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """Start delivering records of a partition from `offset`."""
        kafka_partition = KafkaPartition(*partition)
        if kafka_partition not in self._client.assignment():
            # The rebalance that revoked it is about to suspend the calling task.
            return
        self._client.seek(kafka_partition, offset)
        self._resume(kafka_partition)

    def pause_lane(self, partition: TopicPartition) -> None:
        """Stop delivering records of a partition."""
        kafka_partition = KafkaPartition(*partition)
        self._running.discard(kafka_partition)
        if kafka_partition in self._client.assignment():
            self._client.pause(kafka_partition)

    def resume_lane(self, partition: TopicPartition) -> None:
        """Resume delivering records of a partition."""
        kafka_partition = KafkaPartition(*partition)
        if kafka_partition in self._client.assignment():
            self._resume(kafka_partition)

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """Return why a partition cannot be read; None if no reason is known."""
        return self._outages.of(partition)

    def _resume(self, partition: KafkaPartition) -> None:
        self._silent.pop(partition, None)
        if not self._outages.waits(TopicPartition(*partition)):
            self._client.resume(partition)
        self._running.add(partition)
        self._started.set()

    def hold_all(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch nothing of newly assigned partitions until their lanes start."""
        self._outages.keep(partitions)
        self._running.clear()
        self._held_back.clear()
        self._silent.clear()
        self._answered_before.clear()
        # If the topics have changed in the meantime, none of them is assigned any more.
        for partition in self._client.assignment() & {KafkaPartition(*partition) for partition in partitions}:
            self._client.pause(partition)


def _partition_at_fault(error: Exception) -> KafkaPartition | None:
    """Return the partition that aiokafka was reading when it failed; few of its errors name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is Fetcher.fetched_records.__code__:
            return frame.f_locals.get("tp")
    return None
