"""What the engine needs of the world: logs to read and append to, a lease, a clock.

Small protocols, so that the engine runs on real Kafka and, unchanged, on a simulated log under a seeded scheduler.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from tablehouse.model import Epoch, TopicPartition

#: The timestamp of a record without one, of Kafka's first message format or of a producer that gave none; the same in
#: Kafka's own clients.
NO_TIMESTAMP = -1


class LogUnavailable(Exception):
    """The broker could not be asked, or did not answer in time; asking again later is right."""


class PartitionMissing(LogUnavailable):
    """The brokers answer that they do not know the topic, or that it has no such partition."""


#: What an operator may do about offsets of a source that cannot be read.
SKIP_ADVICE = "if they are lost permanently, skip them with `tablehouse skip`"


class Unreadable(LogUnavailable):
    """Offsets of a partition, `first` to `last`, cannot be read, and asking again may not help.

    `may_pass` says that it is the broker that could not read them just now.
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
    """A reader has not looked at its log for so long that what it reads next may not be all that was written."""


class OffsetOutOfRange(Exception):
    """The log does not reach to the offset asked for: it was truncated, deleted or recreated."""


class Fenced(Exception):
    """The broker refused an append because the partition has a higher epoch: it did not and will not happen."""


class OutcomeUnknown(Exception):
    """An append failed or is overdue: it may have happened, or may happen later."""


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

    `next_offset` can lie beyond the last record's offset plus one, and there may be no records at all: compaction and
    transactions leave offsets without a record.
    """

    records: Sequence[LogRecord]
    next_offset: int


class Bounds(NamedTuple):
    """The first offset of a partition, and where it ends.

    `end` follows the last record that can be read (read_committed). An open transaction holds back the `held` offsets
    after that, which may have records of other producers too: `settled` says whether some of them may be committed, or
    outside of any transaction.
    """

    start: int
    end: int
    held: int = 0
    settled: bool = False

    @property
    def high_watermark(self) -> int:
        """Return the offset after the last record that there is, whether it can be read or not."""
        return self.end + self.held


class Cursor(Protocol):
    """A place in one partition from which slices are read in order."""

    async def next(self) -> LogSlice:
        """Wait for the next slice; safe to cancel (the slice comes again).

        At the end of the log that takes as long as it takes. Raises OffsetOutOfRange, and LogUnavailable when the
        reader had to stop or, after some seconds, when nothing comes although the log goes on or its end is not known.
        Raises Unreadable once all records before those that cannot be read were returned.
        Raises StoodStill when it was not looked at for half of the time for which tombstones are kept.
        """


class LogReader(Protocol):
    """Reads any partition from any offset, outside the consumer group."""

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """Ask the broker for the bounds, within a deadline of its own.

        Partitions that could not be asked about, as those without a leader, are left out and hold up no others. Raises
        LogUnavailable, which says why, when that is all of them: PartitionMissing when none of them exists.
        """

    async def peek(self, partition: TopicPartition, offset: int) -> LogRecord | None:
        """Return the first record at or after an offset inside the bounds; None when only holes follow it closely.

        Raises OffsetOutOfRange, Unreadable and LogUnavailable.
        """

    def read(self, partition: TopicPartition, offset: int) -> AbstractAsyncContextManager[Cursor]:
        """Open a cursor; one at a time for a partition."""


class ChangelogWriter(Protocol):
    """Appends to changelog partitions under producer epochs that the broker enforces."""

    def encode(
        self, partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]
    ) -> Any | None:
        """Return the records as one record batch for append(); None when they do not fit in one."""

    async def append(self, partition: TopicPartition, epoch: Epoch, batch: Any) -> int:
        """Append a batch and return the offset of its first record, once all in-sync replicas have it.

        Raises Fenced or OutcomeUnknown; after either, nothing more can be appended under this epoch. Being cancelled
        has an unknown outcome too.
        """

    async def claim(self, partition: TopicPartition, epoch: Epoch, key: bytes, value: bytes) -> int:
        """Append one record as the first of a new epoch and return its offset; raises as append() does.

        The loser of a race for an epoch is told the winner's offset as its own success: read it back.
        """


class Lease(Protocol):
    """The proof, for a while, that this worker is a member of the group in a generation."""

    async def confirm(self, generation: int) -> None:
        """Return once a heartbeat that was sent after this call was answered without error in `generation`.

        Raises LeaseLost when the generation is over.
        """

    def holds(self, generation: int) -> bool:
        """Return whether the last good heartbeat of `generation` was SENT less than half a session time-out ago."""

    def age(self) -> float:
        """Return the seconds since the last good heartbeat was sent; infinity when there was none."""


class LeaseLost(Exception):
    """The generation a lease was asked for is over."""


class Clock(Protocol):
    """Time, passed in so that logic can be tested without waiting for it."""

    def monotonic(self) -> float:
        """Return seconds that never go back and count while the machine sleeps."""


class BrokerClock(Protocol):
    """The clock by which brokers stamp what they append, and judge how old it is."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, rather ahead of the brokers than behind; tasks/DESIGN.md says how far off."""


#: Seconds after which what cannot be read is not expected to be by waiting: elections and restarts of brokers are over.
OUTAGE_LASTS_SECONDS = 10.0


class LaneOutage(NamedTuple):
    """Why the records of a source partition cannot be read, and whether that has lasted too long to pass by itself."""

    reason: str
    lasts: bool


class LaneControl(Protocol):
    """How a lane steers the group's consumer for its source partition."""

    def start_lane(self, partition: TopicPartition, offset: int) -> None:
        """Deliver records from `offset` on."""

    def pause_lane(self, partition: TopicPartition) -> None:
        """Deliver no more until resume_lane() or start_lane()."""

    def resume_lane(self, partition: TopicPartition) -> None:
        """Go on delivering where pause_lane() stopped."""

    def outage(self, partition: TopicPartition) -> LaneOutage | None:
        """Return what keeps the partition from being read; None when nothing is known to."""
