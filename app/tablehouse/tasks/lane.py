"""A lane: the stream of one input into its shard, and which of the shard's tasks are on it.

The group's consumer delivers each record once; the lane hands it to every task that has joined. A lane is at the
position of its furthest task, the front. A task that lags (a new table on an old topic, or a task that had to claim
again) catches up with a reader of its own, and joins once it is within a lane batch of the front. So its siblings never
rewind and never wait for it. DESIGN.md says which tasks belong to the front.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from tablehouse.model import TopicPartition
from tablehouse.tasks.ingest import LaneBatch
from tablehouse.tasks.log import LaneControl, LaneOutage, LogRecord
from tablehouse.tasks.pipeline import LANE_BATCH, LANE_BATCH_BYTES, LARGE_BATCH_BYTES

#: Memory that a record takes in addition to the bytes of its key and value: Python objects and list entries.
RECORD_BYTES = 300

#: A paused lane resumes once no inbox is fuller than this share of its limits.
_GO_ON = 0.5


class LaneMovedOn(Exception):
    """The lane moved on to the front without this task, which has to catch up and join again."""


class SourceLost(Exception):
    """The source no longer has the next offset; the next attempt finds out why."""


class _Batches:
    """A queue of batches, and the total number and size of their records."""

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
    """The batches that wait for one task, in order and without a gap."""

    def __init__(self, on_taken: Callable[[], None]) -> None:
        self._batches = _Batches()
        self._filled = asyncio.Event()
        self._on_taken = on_taken
        self._cut: Exception | None = None
        #: The bytes of a large batch that was taken and is being ingested; 0 for others.
        self._in_hand = 0
        #: Whether the task waits for something that may take long, such as a schema.
        self._set_aside = False

    def put(self, batch: LaneBatch) -> None:
        """Add a batch."""
        self._batches.push(batch)
        self._filled.set()

    def cut(self, reason: Exception) -> None:
        """Close the inbox: once the waiting batches have been taken, take() raises `reason`."""
        if self._cut is None:
            self._cut = reason
        self._filled.set()

    async def take(self, limit: int) -> LaneBatch:
        """Wait for batches, and return as many as fit into `limit` records and LANE_BATCH_BYTES, joined into one.

        At least one batch is returned, however large it is. A large one counts as waiting until the next call, so that
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
        """Report a `size` of 0 until the next batch is taken."""
        self._set_aside = True

    @property
    def size(self) -> int:
        """Return the bytes of waiting keys and values, and of a large batch that is being ingested."""
        return 0 if self._set_aside else self._batches.size + self._in_hand

    @property
    def empty(self) -> bool:
        """Return whether no batch waits."""
        return not self._batches.queue

    def fill(self, records: int, size: int) -> float:
        """Return how full the inbox is: its share of `records` or of `size` bytes, whichever is greater."""
        return self._batches.fill(records, size) + self._in_hand / size


class Lane:
    """The stream of one source partition to the tasks that have joined."""

    def __init__(self, source: TopicPartition, control: LaneControl) -> None:
        self.source = source
        self._control = control
        self._joined: dict[str, Inbox] = {}
        #: The source offset that the lane delivers next; None while it is stopped.
        self._next: int | None = None
        #: The batches delivered last, so that a task a little behind can still join.
        self._recent = _Batches()
        self._paused = False
        #: The lane is paused when a task's inbox reaches this many records, or this many bytes in memory. An empty
        #: inbox takes one poll, however large.
        self.limit = 2 * LANE_BATCH
        self.limit_bytes = 4 * LANE_BATCH_BYTES
        #: Tasks that are about to ask for admission, or have asked.
        self._coming: set[str] = set()
        #: The source offset that each task needed when it last asked for admission: the front is their highest.
        self._reached: dict[str, int] = {}

    def offer(self, records: Sequence[LogRecord], next_offset: int) -> bool:
        """Hand fetched records to the tasks; return False if the lane refuses them, so they have to be fetched again.

        Offsets without a record are normal in a compacted or transactional source.
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
            # No task is behind, so none needs the batch, and keeping it in many shards would take much memory.
            self._recent.clear()
        for inbox in self._joined.values():
            inbox.put(batch)
        if not self._paused and self._fill() >= 1:
            self._paused = True
            self._control.pause_lane(self.source)
        return True

    @property
    def expected(self) -> int | None:
        """Return the next source offset that the lane accepts; None while it is stopped."""
        return self._next

    @property
    def waiting_bytes(self) -> int:
        """Return the bytes in the fullest inbox, not counting inboxes that are set aside."""
        return max((inbox.size for inbox in self._joined.values()), default=0)

    @property
    def outage(self) -> LaneOutage | None:
        """Return why the lane cannot be read; None when it can."""
        return self._control.outage(self.source)

    def expect(self, task: str) -> None:
        """Keep recent batches for a task that will ask for admission, until it leaves.

        So the tasks of a shard, which claim one after the other after a rebalance, join without readers of their own.
        """
        self._coming.add(task)

    def admit(self, task: str, next_source: int) -> Inbox | None:
        """Let a task that needs `next_source` next join the lane; None when it lags too far and must catch up first.

        The task counts for the front from now until it leaves.
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
        """Take a task that has to wait off the lane, so that the others on it need not wait; it can join again.

        Its waiting batches no longer hold up other shards either. It can still take them; after that its inbox raises
        LaneMovedOn. A task that is alone on the lane stays on it.
        """
        inbox = self._joined.get(task)
        if inbox is None:
            return
        inbox.set_aside()
        if len(self._joined) > 1:
            inbox.cut(LaneMovedOn())
            self.leave(task)

    def leave(self, task: str) -> None:
        """Forget a task and take it off the lane, which stops when no task is left."""
        self._coming.discard(task)
        self._reached.pop(task, None)
        if self._joined.pop(task, None) is None:
            return
        if self._joined:
            self._resume_when_drained()
        else:
            self.stop()

    def lost(self) -> None:
        """Stop, and raise SourceLost in every task, so that each checks its source."""
        for inbox in self._joined.values():
            inbox.cut(SourceLost(f"{self.source} has no offset {self._next}"))
        self.stop()

    def stop(self) -> None:
        """Stop: refuse fetched records until a task joins again."""
        if self._next is not None:
            self._control.pause_lane(self.source)
        self._next = None
        for inbox in self._joined.values():
            inbox.cut(LaneMovedOn())
        self._joined.clear()
        self._recent.clear()
        self._paused = False

    def _remember(self, batch: LaneBatch) -> None:
        """Keep a batch, and earlier ones up to half of an inbox's limits: a lane batch, or less with many shards."""
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
