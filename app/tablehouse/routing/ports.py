"""What a query needs of the tasks of this worker, and of the way to the others."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tablehouse.errors import OwnerUnreachable, PositionNotReached, RequestError
from tablehouse.model import Consistency, HostInfo, SourceEnd, TaskStatus
from tablehouse.tasks.digest import PartitionDigest
from tablehouse.tasks.reads import ReadResult, SliceResult


class LocalTables(Protocol):
    """The tasks of this worker."""

    def read(self, table: str, partition: int, stored_key: bytes, consistency: Consistency) -> ReadResult:
        """Read a key here and now; never waits.

        Raises NotOwner when this worker does not hold the partition in a role that the caller takes, and
        PartitionRestoring, TooStale, PositionNotReached, MisplacedKeys or Draining when it does and cannot answer.
        """

    def read_many(
        self, table: str, partition: int, stored_keys: Sequence[bytes], consistency: Consistency
    ) -> SliceResult:
        """Read the first of some keys here and now, at least one: as many as one slice of work has.

        Raises what read() raises whether there is a row or not; what depends on that is in the result.
        """

    def require_applied(self, table: str, partition: int) -> None:
        """Raise WriteRefused where this worker owns a partition and applies nothing that is written to its source now.

        That is until a person acts, not while it restores or waits for a broker. Raises NotOwner when this worker does
        not hold the partition, and MisplacedKeys for a table that is not served.
        """

    async def wait_for_position(self, table: str, partition: int, offset: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return once a source offset, inclusive, has been applied in a partition held here, in whatever role.

        Raises PositionNotReached when it has not been within `timeout` seconds, and NotOwner when this worker does not
        hold the partition, or loses it meanwhile.
        """

    async def digest(self, table: str, partition: int) -> PartitionDigest:
        """Count and hash the rows of a partition held here.

        Raises NotOwner when this worker does not hold it, PartitionRestoring while they are in no consistent state.
        """

    async def count_rows(self) -> None:
        """Have statuses() say exactly how many rows tasks have that have few; takes a fraction of a second at most."""

    def statuses(self) -> Sequence[TaskStatus]:
        """Every task of this worker."""

    def table_reason(self, table: str) -> str | None:
        """Return why a table is not served here, or why its misses prove nothing; None when neither is so."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What one worker asks of another; the asked one enforces `consistency`.

    timeout is in seconds, for all of it. wait, in seconds, is the part of it for which the asked worker may wait for a
    position that the caller wants to see applied. The rest says what both must agree on.
    """

    table: str
    partition: int
    stored_key: bytes
    consistency: Consistency
    wait: float
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    timeout: float


class Wanted(NamedTuple):
    """The keys of one partition that a batch wants, in order."""

    partition: int
    stored_keys: Sequence[bytes]


class Slice(NamedTuple):
    """What became of the next so many keys of a partition: what a copy has for them, or why it says nothing."""

    partition: int
    keys: int
    outcome: SliceResult | RequestError


@dataclass(frozen=True, slots=True)
class BatchHop:
    """What one worker asks of another for a batch; everything but `wanted` is as in Hop."""

    table: str
    wanted: Sequence[Wanted]
    consistency: Consistency
    wait: float
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class PeerSlices:
    """What a peer answered to a batch, and the worker id under which it did."""

    slices: Sequence[Slice]
    worker_id: str


@dataclass(frozen=True, slots=True)
class PeerRead:
    """What a peer answered, and the worker id under which it did."""

    result: ReadResult
    worker_id: str


class OwnerSide(Protocol):
    """What this worker does for the partitions that it owns, so that a write can rest on what is there."""

    async def catch_up(self, table: str, partition: int, timeout: float) -> SourceEnd:  # noqa: ASYNC109
        """Return where the source of a partition ends now, once everything before is applied here.

        Raises NotOwner when this worker does not hold the partition, or loses it meanwhile, PositionNotReached, and
        SourceUnavailable when the end cannot be had in time, or the outcome of an earlier append is still unknown.
        """

    async def append_as_owner(
        self,
        table: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        end: SourceEnd,
        timeout: float,  # noqa: ASYNC109
    ) -> int:
        """Append a record to the source of a partition that was read up to an end; return its offset once it is safe.

        Raises NotOwner when this worker cannot prove right then that it owns the partition, MisplacedKeys,
        PayloadTooLarge and SourceUnavailable when nothing was and will be written, and DeadlineExceeded when it may
        have been.
        """


class Condition(NamedTuple):
    """What a row has to be for a write to happen: at one of these source offsets, there or not; None for any."""

    offsets: tuple[int, ...] | None = None
    exists: bool | None = None


@dataclass(frozen=True, slots=True)
class WriteHop:
    """What one worker asks of a partition's owner: to write a row if the one that is there meets a condition.

    key is the wire form under which it is written, and stored_key that under which it is read. timeout is in seconds.
    The rest is as in Hop.
    """

    table: str
    partition: int
    stored_key: bytes
    key: bytes
    value: bytes | None
    condition: Condition
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    timeout: float


class Unresponsive(OwnerUnreachable):
    """A worker could not be connected to, or was silent for all of a hop's time."""


class Peer(Protocol):
    """The way to other workers."""

    async def read(self, host: HostInfo, hop: Hop) -> PeerRead:
        """Ask `host` to read a key of its own.

        Raises what its LocalTables.read raises, and OwnerUnreachable (detail: why, in words) when there was no answer
        that can be understood: Unresponsive when there was none at all.
        """

    async def require_applied(self, host: HostInfo, hop: Hop) -> None:
        """Have `host` look whether it applies what is written; the hop's key and consistency do not matter.

        Raises what its LocalTables.require_applied raises, and what read() raises when there was no answer.
        """

    async def read_many(self, host: HostInfo, hop: BatchHop) -> PeerSlices:
        """Ask `host` to read keys of its own: what read_slices() returns there.

        Raises NotOwner when the workers do not agree on the table, DeadlineExceeded, and OwnerUnreachable and
        Unresponsive as read() does.
        """

    async def write(self, host: HostInfo, hop: WriteHop) -> int:
        """Ask `host` to write a row of a partition of its own, and return the record's offset.

        Raises what Decisions.write raises there, OwnerUnreachable when it was not asked, and DeadlineExceeded when it
        may have been and gave no answer that can be understood.
        """

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """List the tasks of `host`; raises OwnerUnreachable."""


async def read_or_wait(
    local: LocalTables, table: str, partition: int, stored_key: bytes, consistency: Consistency, wait: float
) -> ReadResult:
    """Read a key here, and once more after up to `wait` seconds where only the wanted position is missing.

    Raises what LocalTables.read and wait_for_position raise.
    """
    try:
        return local.read(table, partition, stored_key, consistency)
    except PositionNotReached:
        least = consistency.least_position(partition)
        if least is None or wait <= 0:
            raise
    # Whether it was reached or not, the copy answers from where it is now.
    with suppress(PositionNotReached):
        await local.wait_for_position(table, partition, least, wait)
    return local.read(table, partition, stored_key, consistency)
