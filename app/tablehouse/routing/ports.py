"""What the router needs of the tasks of this worker, and of the way to the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from tablehouse.errors import DeadlineExceeded, OwnerUnreachable, RequestError
from tablehouse.model import Consistency, HostInfo, SourceEnd, TaskStatus
from tablehouse.positions import Position
from tablehouse.tasks.questions import Get, Question
from tablehouse.tasks.reads import ReadResult, SliceResult

#: Of the caller's time, the share that a hop may use; the rest is for saying that it failed.
HOP_SHARE = 0.9

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class LocalTables(Protocol):
    """The tasks of this worker."""

    def answer(self, table: str, partition: int, question: Question[Result], consistency: Consistency) -> Result:
        """Answer a question here and now, in one slice of work; never waits.

        Raises NotOwner when this worker does not hold the partition in a role that the caller takes,
        PartitionRestoring, TooStale, PositionNotReached, MisplacedKeys or Draining when it does and cannot answer, and
        what the question raises besides.
        """

    async def wait_for_position(
        self,
        table: str,
        partition: int,
        required: Position,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        """Return once all of a position has been applied in a partition held here, in whatever role.

        Offsets of inputs that the partition does not have do not apply. Raises PositionNotReached when it has not been
        within `timeout` seconds, and NotOwner when this worker does not hold the partition, or loses it meanwhile.
        """

    async def count_rows(self) -> None:
        """Have statuses() say exactly how many rows tasks have that have few; takes a fraction of a second at most."""

    def statuses(self) -> Sequence[TaskStatus]:
        """Every task of this worker."""

    def table_reason(self, table: str) -> str | None:
        """Return why a table is not served here, or why its misses are inconclusive; None if neither applies."""


class Terms(NamedTuple):
    """On which terms a worker is asked: how long it may take, and what it and the asking one must agree on.

    timeout is in seconds, for all of it. wait, in seconds, is the part of it for which the asked worker may wait for a
    position that the caller wants to see applied. partitions is the partition count by which keys were hashed. followed
    says that another worker can be asked afterwards, so that a silent one is not waited for to the end.
    """

    wait: float
    timeout: float
    table_digest: str
    partitions: int
    generation: int
    request_id: str
    followed: bool = False


class Wanted(NamedTuple):
    """The keys of one partition that a batch wants, in order."""

    partition: int
    stored_keys: Sequence[bytes]


class Slice(NamedTuple):
    """The outcome for the next `keys` keys of a partition: what a copy has for them, or why it does not answer."""

    partition: int
    keys: int
    outcome: SliceResult | RequestError


class Answered(NamedTuple, Generic[Result_co]):
    """What a worker answered, and the worker id under which it did."""

    result: Result_co
    worker_id: str


class Answers(Protocol):
    """A worker that can be asked about its own tables: this one (here.py), or another one over a hop."""

    async def answer(
        self, table: str, partition: int, question: Question[Result], consistency: Consistency, terms: Terms
    ) -> Answered[Result]:
        """Answer a question about one partition, which enforces `consistency`.

        Raises what LocalTables.answer raises there, DeadlineExceeded, and OwnerUnreachable (detail: why, in words) when
        there was no answer that can be understood: Unresponsive when there was none at all.
        """

    async def answer_many(
        self, table: str, wanted: Sequence[Wanted], consistency: Consistency, terms: Terms
    ) -> Answered[Sequence[Slice]]:
        """Answer a MultiGet of each of some partitions at once, and return the outcomes of their keys, in their order.

        What is beyond a bound in bytes is left out, but never all. What LocalTables.answer raises is among the slices;
        raises NotOwner when the workers do not agree on the table, and otherwise as answer() does.
        """


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
class ConditionalWrite:
    """What one worker asks of a partition's owner: to write a row if the one that is there meets a condition.

    key is the wire form under which it is written, and stored_key that under which it is read.
    """

    table: str
    partition: int
    stored_key: bytes
    key: bytes
    value: bytes | None
    condition: Condition


class Unresponsive(OwnerUnreachable):
    """A worker could not be connected to, or was silent for all of a hop's time."""


def name_of(host: HostInfo) -> str:
    """Return how workers call a process among themselves: its worker id and incarnation."""
    return f"{host.worker_id} {host.incarnation}"


def unknown_write(host: HostInfo, error: OwnerUnreachable) -> DeadlineExceeded:
    """Return the error for a write that a worker was asked for, and gave no answer to."""
    return DeadlineExceeded(
        f"the write may have happened, or may happen later: {host.worker_id}, which was to decide it, gave no answer: "
        f"{error.detail}"
    )


class QuickPeer(Protocol):
    """The way to other workers for a question that is answered at once, without a task."""

    def ask(
        self,
        host: HostInfo,
        table: str,
        partition: int,
        question: Get,
        consistency: Consistency,
        terms: Terms,
        done: Callable[[ReadResult | RequestError], None],
    ) -> Callable[[], None]:
        """Ask `host` about a partition, with another worker to be asked afterwards; no position is waited for.

        `done` is called once, with the result or with what Answers.answer raises, unless the function that is returned
        is called before: then nobody waits any more. Raises Overloaded, and OwnerUnreachable for a worker that cannot
        be asked like this.
        """


class Unconnected(Unresponsive):
    """There was no connection, so nothing was asked."""


class NotAsked(OwnerUnreachable):
    """What answers where a worker should is none, or another one, so it was asked nothing."""


class NoCommonSecret(NotAsked):
    """What answers where a worker should does not prove to have a secret of this worker."""


class Peer(Protocol):
    """The way to other workers."""

    def at(self, host: HostInfo) -> Answers:
        """Return what asks one of them."""

    async def write(self, host: HostInfo, write: ConditionalWrite, terms: Terms) -> int:
        """Ask `host` to write a row of a partition that it owns, and return the record's offset.

        Raises what Decisions.write raises there, OwnerUnreachable when it was not asked, and DeadlineExceeded when it
        may have been and gave no answer that can be understood.
        """

    async def statuses(self, host: HostInfo, timeout: float) -> Sequence[TaskStatus]:  # noqa: ASYNC109
        """List the tasks of `host`; raises OwnerUnreachable."""
