"""A shard: the lane of one source partition, and which of its tasks are on it.

The group's consumer delivers each record once; the shard hands it to every task that has joined. The lane follows the
front: a task that lags (a new table on an old topic, one that had to claim again) catches up on a reader of its own and
joins within a lane batch of the front, so that its siblings never rewind and never wait for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from app.model import TopicPartition
from app.tasks.ingest import LaneBatch
from app.tasks.log import LaneControl, LogRecord
from app.tasks.pipeline import LANE_BATCH


class LaneMovedOn(Exception):
    """The lane went on to the front without this task, which has to catch up and join again."""


class SourceLost(Exception):
    """The source has not got the offset that comes next; what became of it has to be found out."""


class Inbox:
    """The batches that wait for one task, in order and without a hole."""

    def __init__(self, on_taken: Callable[[], None]) -> None:
        self._batches: deque[LaneBatch] = deque()
        self._filled = asyncio.Event()
        self._on_taken = on_taken
        self._cut: Exception | None = None
        self.records = 0

    def put(self, batch: LaneBatch) -> None:
        """Add a batch."""
        self._batches.append(batch)
        self.records += len(batch.records)
        self._filled.set()

    def cut(self, reason: Exception) -> None:
        """Nothing more will come: once what waits has been taken, take() raises `reason`."""
        if self._cut is None:
            self._cut = reason
        self._filled.set()

    async def take(self, limit: int) -> LaneBatch:
        """Wait for something and return as many batches as fit into `limit` records, as one.

        Raises LaneMovedOn and SourceLost.
        """
        while not self._batches:
            if self._cut is not None:
                raise self._cut
            await self._filled.wait()
        batch = self._batches.popleft()
        if self._batches and len(batch.records) < limit:
            records = list(batch.records)
            while self._batches and len(records) + len(self._batches[0].records) <= limit:
                following = self._batches.popleft()
                records += following.records
                batch = LaneBatch(records, batch.first, following.next_offset)
        self.records -= len(batch.records)
        if not self._batches and self._cut is None:
            self._filled.clear()
        self._on_taken()
        return batch

    @property
    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not self._batches


class Shard:
    """The lane of one source partition."""

    def __init__(self, source: TopicPartition, lane: LaneControl) -> None:
        self.source = source
        self._lane = lane
        self._joined: dict[str, Inbox] = {}
        #: The source offset that the lane delivers next; None while it stands still.
        self._next: int | None = None
        #: What was delivered last, so that a task a little behind can still join.
        self._recent: deque[LaneBatch] = deque()
        self._paused = False
        #: Records that may wait in a task's inbox before the lane is paused; it goes on when half of them are taken.
        self.limit = 2 * LANE_BATCH
        #: For each task the furthest source offset it is known to have reached: the front is their highest.
        self._reached: dict[str, int] = {}
        self.gaps = 0

    def offer(self, records: Sequence[LogRecord], next_offset: int) -> bool:
        """Hand over what was fetched; False when the lane does not want it, and it has to be fetched again.

        Offsets without a record are normal where the source is compacted or transactional; `gaps` counts them.
        """
        expected = self._next
        if expected is None or not self._joined:
            return False
        if records and records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if next_offset <= expected:
            return True
        if records:
            self.gaps += records[0].offset - expected
        batch = LaneBatch(records, expected, next_offset)
        self._next = next_offset
        if len(self._joined) < len(self._reached):
            self._remember(batch)
        else:
            # Nobody is behind, so nobody will need it, and many shards would hold a lot of records.
            self._recent.clear()
        for inbox in self._joined.values():
            inbox.put(batch)
        if not self._paused and any(inbox.records >= self.limit for inbox in self._joined.values()):
            self._paused = True
            self._lane.pause_lane(self.source)
        return True

    @property
    def expected(self) -> int | None:
        """Return the source offset that the lane wants next; None while it stands still."""
        return self._next

    def reached(self, task: str, offset: int) -> None:
        """Take note that a task has everything before source offset `offset`."""
        self._reached[task] = offset

    def admit(self, task: str, next_source: int) -> Inbox | None:
        """Let a task that needs `next_source` next join the lane; None when it lags too far and must catch up first."""
        self.reached(task, next_source)
        front = max(self._reached.values())
        if next_source < front - LANE_BATCH:
            return None
        inbox = Inbox(self._resume_when_drained)
        if self._next is None or not self._joined or next_source > self._next + LANE_BATCH:
            for behind in self._joined.values():
                behind.cut(LaneMovedOn())
            self._joined.clear()
            self._recent.clear()
            self._next = next_source
            self._paused = False
            self._lane.start_lane(self.source, next_source)
        elif next_source < self._next:
            missed = [batch for batch in self._recent if batch.next_offset > next_source]
            if not missed or missed[0].first > next_source:
                return None
            for batch in missed:
                inbox.put(batch)
        self._joined[task] = inbox
        return inbox

    def leave(self, task: str) -> None:
        """Take a task off the lane, which stands still once nobody is on it."""
        if self._joined.pop(task, None) is None:
            return
        if self._joined:
            self._resume_when_drained()
        else:
            self.stop()

    def lost(self) -> None:
        """Stand still, and have every task find out what became of the source."""
        for inbox in self._joined.values():
            inbox.cut(SourceLost(f"{self.source} has no offset {self._next}"))
        self.stop()

    def stop(self) -> None:
        """Stand still: what is fetched from now on is refused until a task joins again."""
        if self._next is not None:
            self._lane.pause_lane(self.source)
        self._next = None
        for inbox in self._joined.values():
            inbox.cut(LaneMovedOn())
        self._joined.clear()
        self._recent.clear()
        self._paused = False

    def _remember(self, batch: LaneBatch) -> None:
        self._recent.append(batch)
        kept = sum(len(recent.records) for recent in self._recent)
        while len(self._recent) > 1 and kept - len(self._recent[0].records) >= LANE_BATCH:
            kept -= len(self._recent.popleft().records)

    def _resume_when_drained(self) -> None:
        if self._paused and all(inbox.records < self.limit // 2 for inbox in self._joined.values()):
            self._paused = False
            self._lane.resume_lane(self.source)
