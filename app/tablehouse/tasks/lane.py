"""A lane: the stream of one input into its shard, and which of the shard's tasks are on it.

The group's consumer delivers each record once; the lane hands it to every task that has joined. A lane is where the
furthest of its tasks is, which is the front. A task that lags (a new table on an old topic, one that had to claim
again) catches up on a reader of its own and joins within a lane batch of the front, so that its siblings never rewind
and never wait for it. DESIGN.md says which tasks belong to the front.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from tablehouse.model import TopicPartition
from tablehouse.tasks.ingest import LaneBatch
from tablehouse.tasks.log import LaneControl, LaneOutage, LogRecord
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES, LARGE_BATCH_BYTES

#: What a record takes in memory in addition to its key and value: its object, theirs, and its place in lists.
RECORD_BYTES = 300

#: A lane that was paused goes on when every inbox is down to this share of its limits.
_GO_ON = 0.5


class LaneMovedOn(Exception):
    """The lane went on to the front without this task, which has to catch up and join again."""


class SourceLost(Exception):
    """The source no longer has the next offset; why has to be found out."""


class _Batches:
    """Batches in order, and what they amount to."""

    def __init__(self) -> None:
        self.queue: deque[LaneBatch] = deque()
        self.records = 0
        self.size = 0

    def push(self, batch: LaneBatch) -> None:
        self.queue.append(batch)
        self.records += len(batch.records)
        self.size += batch.size

    def pop(self) -> LaneBatch:
        batch = self.queue.popleft()
        self.records -= len(batch.records)
        self.size -= batch.size
        return batch

    def clear(self) -> None:
        self.queue.clear()
        self.records = self.size = 0

    def fill(self, records: int, size: int) -> float:
        return max(self.records / records, (self.size + RECORD_BYTES * self.records) / size)


class Inbox:
    """The batches that wait for one task, in order and without a hole."""

    def __init__(self, on_taken: Callable[[], None]) -> None:
        self._batches = _Batches()
        self._filled = asyncio.Event()
        self._on_taken = on_taken
        self._cut: Exception | None = None
        #: The bytes of a large batch that was taken and is being ingested; 0 for others.
        self._in_hand = 0
        #: Whether the task waits for something that may take long, and not for its turn.
        self._set_aside = False

    def put(self, batch: LaneBatch) -> None:
        """Add a batch."""
        self._batches.push(batch)
        self._filled.set()

    def cut(self, reason: Exception) -> None:
        """Nothing more will come: once what waits has been taken, take() raises `reason`."""
        if self._cut is None:
            self._cut = reason
        self._filled.set()

    async def take(self, limit: int) -> LaneBatch:
        """Wait for something and return as many batches as fit into `limit` records and LANE_BATCH_BYTES, as one.

        One batch is returned however large it is. A large one counts as waiting until the next is asked for, so that
        the lane does not fetch another one meanwhile. Raises LaneMovedOn and SourceLost.
        """
        queue = self._batches.queue
        self._set_aside = False
        if self._in_hand:
            self._in_hand = 0
            self._on_taken()
        while not queue:
            if self._cut is not None:
                raise self._cut
            await self._filled.wait()
        batch = self._batches.pop()
        if queue and len(batch.records) < limit:
            records, size = list(batch.records), batch.size
            while queue and len(records) + len(queue[0].records) <= limit and size + queue[0].size <= LANE_BATCH_BYTES:
                following = self._batches.pop()
                records += following.records
                size += following.size
                batch = LaneBatch(records, batch.first, following.next_offset, size)
        if not queue and self._cut is None:
            self._filled.clear()
        self._in_hand = batch.size if batch.size > LARGE_BATCH_BYTES else 0
        self._on_taken()
        return batch

    def set_aside(self) -> None:
        """Count for nothing in `size` until the next batch is taken."""
        self._set_aside = True

    @property
    def size(self) -> int:
        """Return the bytes of keys and values that wait, and of a large batch that is being ingested."""
        return 0 if self._set_aside else self._batches.size + self._in_hand

    @property
    def empty(self) -> bool:
        """Return whether nothing waits."""
        return not self._batches.queue

    def fill(self, records: int, size: int) -> float:
        """Return what waits as a share of `records` or of `size` bytes, whichever share is greater."""
        return self._batches.fill(records, size) + self._in_hand / size


class Lane:
    """The stream of one source partition to the tasks that have joined."""

    def __init__(self, source: TopicPartition, control: LaneControl) -> None:
        self.source = source
        self._control = control
        self._joined: dict[str, Inbox] = {}
        #: The source offset that the lane delivers next; None while it stands still.
        self._next: int | None = None
        #: What was delivered last, so that a task a little behind can still join.
        self._recent = _Batches()
        self._paused = False
        #: Records, and bytes that they take in memory, that may wait in a task's inbox before the lane is paused by
        #: whatever comes first; an inbox that was empty takes one poll, however large.
        self.limit = 2 * LANE_BATCH
        self.limit_bytes = 4 * LANE_BATCH_BYTES
        #: Tasks that are about to ask for admission, or did.
        self._coming: set[str] = set()
        #: The source offset that each task needed when it last asked for admission: the front is their highest.
        self._reached: dict[str, int] = {}

    def offer(self, records: Sequence[LogRecord], next_offset: int) -> bool:
        """Hand over what was fetched; False when the lane does not want it, and it has to be fetched again.

        Offsets without a record are normal where the source is compacted or transactional.
        """
        expected = self._next
        if expected is None or not self._joined:
            return False
        if records and records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if next_offset <= expected:
            return True
        batch = LaneBatch.of(records, expected, next_offset)
        self._next = next_offset
        if len(self._joined) < len(self._coming):
            self._remember(batch)
        else:
            # No task is behind, so none will need it, and many shards would hold a lot of records.
            self._recent.clear()
        for inbox in self._joined.values():
            inbox.put(batch)
        if not self._paused and self._fill() >= 1:
            self._paused = True
            self._control.pause_lane(self.source)
        return True

    @property
    def expected(self) -> int | None:
        """Return the source offset that the lane wants next; None while it stands still."""
        return self._next

    @property
    def waiting_bytes(self) -> int:
        """Return the bytes that wait for the slowest of the tasks, leaving out those that were set aside."""
        return max((inbox.size for inbox in self._joined.values()), default=0)

    @property
    def outage(self) -> LaneOutage | None:
        """Return what keeps the lane from being read; None when nothing does."""
        return self._control.outage(self.source)

    def expect(self, task: str) -> None:
        """Keep what is delivered lately for a task that will ask for admission, until it leaves.

        After a rebalance the tasks of a shard claim one after the other, and join without a reader of their own.
        """
        self._coming.add(task)

    def admit(self, task: str, next_source: int) -> Inbox | None:
        """Let a task that needs `next_source` next join the lane; None when it lags too far and must catch up first.

        From now until it leaves it belongs to the front.
        """
        self._coming.add(task)
        self._reached[task] = next_source
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
            self._control.start_lane(self.source, next_source)
        elif next_source < self._next:
            missed = [batch for batch in self._recent.queue if batch.next_offset > next_source]
            if not missed or missed[0].first > next_source:
                return None
            for batch in missed:
                inbox.put(batch)
        self._joined[task] = inbox
        return inbox

    def step_aside(self, task: str) -> None:
        """Take a task off the lane if others are on it, which would have to wait for it; it can join again.

        No other shard waits for what it was handed, either. What it was handed already is still its own; after that
        its inbox raises LaneMovedOn.
        """
        inbox = self._joined.get(task)
        if inbox is None:
            return
        inbox.set_aside()
        if len(self._joined) > 1:
            inbox.cut(LaneMovedOn())
            self.leave(task)

    def leave(self, task: str) -> None:
        """Forget a task, and take it off the lane, which stands still once no task is on it."""
        self._coming.discard(task)
        self._reached.pop(task, None)
        if self._joined.pop(task, None) is None:
            return
        if self._joined:
            self._resume_when_drained()
        else:
            self.stop()

    def lost(self) -> None:
        """Stand still, and have every task find out what happened to the source."""
        for inbox in self._joined.values():
            inbox.cut(SourceLost(f"{self.source} has no offset {self._next}"))
        self.stop()

    def stop(self) -> None:
        """Stand still: what is fetched from now on is refused until a task joins again."""
        if self._next is not None:
            self._control.pause_lane(self.source)
        self._next = None
        for inbox in self._joined.values():
            inbox.cut(LaneMovedOn())
        self._joined.clear()
        self._recent.clear()
        self._paused = False

    def _remember(self, batch: LaneBatch) -> None:
        """Keep a batch, and half as much before it as may wait in an inbox: a lane batch, or less with many shards."""
        recent = self._recent
        recent.push(batch)
        while len(recent.queue) > 1 and recent.fill(self.limit, self.limit_bytes) > _GO_ON:
            recent.pop()

    def _fill(self) -> float:
        return max((inbox.fill(self.limit, self.limit_bytes) for inbox in self._joined.values()), default=0.0)

    def _resume_when_drained(self) -> None:
        if self._paused and self._fill() <= _GO_ON:
            self._paused = False
            self._control.resume_lane(self.source)
