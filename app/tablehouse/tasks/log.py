"""The engine's external interfaces: logs to read and append to, a lease, clocks.

They are small protocols, so that the same engine runs on Kafka and on a simulated log under a seeded scheduler.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from tablehouse.model import Epoch, TopicPartition

#: The timestamp of a record without one (Kafka's first message format, or a producer that set none), as in Kafka's own
#: clients.
NO_TIMESTAMP = -1


class LogUnavailable(Exception):
    """The broker is not reachable, or did not answer in time; retry later."""


class PartitionMissing(LogUnavailable):
    """The brokers do not know the topic, or it has no such partition."""


#: Advice to the operator about offsets of a source that cannot be read.
SKIP_ADVICE = "if they are lost permanently, skip them with `tablehouse skip`"


class Unreadable(LogUnavailable):
    """Offsets `first` to `last` of a partition cannot be read, and a retry may not help.

    `may_pass` is set if the broker failed to read them, which may be temporary.
    """

    def __init__(
        self, problem: str, partition: TopicPartition, first: int, last: int, *, may_pass: bool = False
    ) -> None:
        super().__init__(problem)
        self.partition = partition
        self.first = first
        self.last = last
        self.may_pass = may_pass


class StoodStill(Exception):
    """A reader has not read its log for so long that it may have missed tombstones."""


class OffsetOutOfRange(Exception):
    """The log does not have the requested offset: it was truncated, deleted or recreated."""


class Fenced(Exception):
    """The broker refused an append because the partition has a higher epoch; the batch will never be in the log."""


class OutcomeUnknown(Exception):
    """An append failed or is overdue: the batch may be in the log, or may still get there."""


class LogRecord(Protocol):
    """One record as read. `timestamp` is in milliseconds, or NO_TIMESTAMP."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


class LogSlice(NamedTuple):
    """Consecutive records of one partition, and the offset that follows them.

    `next_offset` may be higher than the last record's offset plus one, and there may be no records at all, because
    compaction and transactions leave offsets without a record.
    """

    records: Sequence[LogRecord]
    next_offset: int


class Bounds(NamedTuple):
    """The first offset of a partition, and where it ends.

    `end` follows the last record that can be read (read_committed). An open transaction holds back the `held` offsets
    after that, which may have records of other producers too: `settled` says whether some of these may be committed or
    written outside of transactions.
    """

    start: int
    end: int
    held: int = 0
    settled: bool = False

    @property
    def high_watermark(self) -> int:
        """Return the offset after the last record, whether that can be read or not."""
        return self.end + self.held


class Cursor(Protocol):
    """A place in one partition from which slices are read in order."""

    async def next(self) -> LogSlice:
        """Wait for the next slice; safe to cancel (the slice is returned by the next call).

        At the end of the log this waits without a timeout. Raises OffsetOutOfRange, and LogUnavailable when the reader
        had to stop or, after some seconds, when no records come although the log has more or its end is not known.
        Raises Unreadable once all records before the unreadable ones were returned.
        Raises StoodStill when it was not called for half of the time for which tombstones are kept.
        """


class LogReader(Protocol):
    """Reads any partition from any offset, outside the consumer group."""

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """Ask the broker for the bounds, with a timeout of its own.

        Partitions whose bounds are not available, such as those without a leader, are left out and do not delay others.
        Raises LogUnavailable with the reason when none is available, and PartitionMissing when none exists.
        """

    async def peek(self, partition: TopicPartition, offset: int) -> LogRecord | None:
        """Return the first record at or after an offset inside the bounds; None when the offsets after it have none.

        Raises OffsetOutOfRange, Unreadable and LogUnavailable.
        """

    def read(self, partition: TopicPartition, offset: int) -> AbstractAsyncContextManager[Cursor]:
        """Open a cursor; a partition has at most one at a time."""


class ChangelogWriter(Protocol):
    """Appends to changelog partitions under producer epochs that the broker enforces."""

    def encode(
        self, partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]
    ) -> Any | None:
        """Return the records as one record batch for append(); None when they do not fit in one."""

    async def append(self, partition: TopicPartition, epoch: Epoch, batch: Any) -> int:
        """Append a batch and return the offset of its first record, once all in-sync replicas have it.

        Raises Fenced or OutcomeUnknown; after either, nothing more can be appended under this epoch. After a
        cancellation the outcome is unknown too.
        """

    async def claim(self, partition: TopicPartition, epoch: Epoch, key: bytes, value: bytes) -> int:
        """Append one record as the first of a new epoch and return its offset; raises as append() does.

        The loser of a race for an epoch gets the winner's offset, as if it had succeeded, so read the record back.
        """


class Lease(Protocol):
    """Proof, for a limited time, that this worker is a member of the group in a generation."""

    async def confirm(self, generation: int) -> None:
        """Return once a heartbeat sent after this call was answered without error in `generation`.

        Raises LeaseLost when the generation is over.
        """

    def holds(self, generation: int) -> bool:
        """Return whether the last good heartbeat of `generation` was SENT less than half a session time-out ago."""

    def age(self) -> float:
        """Return the seconds since the last good heartbeat was sent; infinity when there was none."""


class LeaseLost(Exception):
    """The generation that a lease was requested for is over."""


class Clock(Protocol):
    """A monotonic clock, passed in so that logic can be tested without waiting."""

    def monotonic(self) -> float:
        """Return seconds that never go back and count while the machine sleeps."""


class BrokerClock(Protocol):
    """The clock by which brokers stamp records and judge their age."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, ahead of the brokers rather than behind; see tasks/DESIGN.md for how far."""


#: Seconds after which waiting is not expected to end an outage: elections and restarts of brokers are over by then.
OUTAGE_LASTS_SECONDS = 10.0


class LaneOutage(NamedTuple):
    """Why a source partition cannot be read, and whether that has lasted too long to be expected to pass by itself."""

    reason: str
    lasts: bool


class LaneControl(Protocol):
    """How a lane steers the group's consumer for its source partition."""

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """Deliver records from `offset` on."""

    def pause_lane(self, partition: TopicPartition) -> None:
        """Deliver no more until resume_lane() or start_lane()."""

    def resume_lane(self, partition: TopicPartition) -> None:
        """Continue delivering where pause_lane() stopped."""

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """Return why the partition cannot be read; None when no reason is known."""
