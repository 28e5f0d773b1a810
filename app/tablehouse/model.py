"""The value types that every layer speaks: partitions, epochs, states, freshness, hosts."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class ShardId(NamedTuple):
    """What identifies a shard: the tasks with one partition number, of all tables that are sharded together.

    A shard is the unit of placement and has one store. `name` is what its tables have in common (TableSpec.shard_name).
    Names are on the assignor's wire, in positions.json and in the names of the stores' folders.
    """

    name: str
    partition: int

    def __str__(self) -> str:
        return f"{self.name}[{self.partition}]"


class ProducerRecord(NamedTuple):
    """A record to append to a topic; a value of None is a tombstone."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Epoch(NamedTuple):
    """The number of an ownership of a changelog partition, ordered.

    `number` is also the Kafka producer epoch (int16, 1 to 32766 for owners; 32767 seals a producer id), and
    `id_index` says which of our constant producer ids it counts on.
    """

    id_index: int
    number: int


class Ownership(NamedTuple):
    """One claim of a changelog partition: its epoch, and the id of the log in which epochs count."""

    epoch: Epoch
    log_id: bytes


class SourceEnd(NamedTuple):
    """The end of a source partition at a time, or later; the time is on the event loop's clock, in seconds."""

    offset: int
    listed_at: float


#: Before anyone has claimed a changelog partition.
NO_EPOCH = Epoch(0, 0)


class TaskState(enum.IntEnum):
    """How far a task is from being able to answer, as an ordered ladder.

    SUSPENDED was active and cannot prove it now (a rebalance, a lease that ran out). QUARANTINED stands below
    the ladder: its store cannot be trusted and is being thrown away.
    """

    QUARANTINED = -1
    CLOSED = 0
    OPENING = 1
    RESTORING = 2
    STANDBY = 3
    SUSPENDED = 4
    ACTIVE = 5


class Role(enum.StrEnum):
    """In which role a task answered a read."""

    ACTIVE = "active"
    STANDBY = "standby"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh an answer is; it travels with every row and every 404.

    position: the last source offset applied, inclusive; -1 before the first.
    lag_records: source end minus position minus one; None when the source's end is not known.
    staleness_ms: milliseconds since the position last reached a known source end; None when it never did.
    The end is the high watermark: what an open transaction holds back counts.
    rejected_records: source records of the partition that could not become rows, since the table was built.
    """

    partition: int
    position: int
    role: Role
    lag_records: int | None
    staleness_ms: int | None
    rejected_records: int = 0


class ReadMode(enum.StrEnum):
    """Which copies a caller accepts an answer of: the active alone, others where it cannot answer, or any."""

    ACTIVE = "active"
    PREFER_ACTIVE = "prefer-active"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Consistency:
    """What a caller asks of an answer, enforced by the worker that gives it.

    max_staleness_ms and max_lag are bounds that the caller gave, None for those it did not. min_positions are, by
    partition, source offsets that must have been applied (inclusive); they bind only answers of these partitions.
    """

    mode: ReadMode = ReadMode.PREFER_ACTIVE
    max_staleness_ms: int | None = None
    max_lag: int | None = None
    min_positions: tuple[tuple[int, int], ...] = ()

    @property
    def takes_standby_misses(self) -> bool:
        """Say whether the caller asked for standby reads, so that a standby may say "no such key" to it."""
        bounded = self.max_staleness_ms is not None or self.max_lag is not None
        return self.mode is ReadMode.ANY or (bounded and self.mode is not ReadMode.ACTIVE)

    def least_position(self, partition: int) -> int | None:
        """Return the source offset that must have been applied in a partition; None when the caller named none."""
        return max((offset for number, offset in self.min_positions if number == partition), default=None)


#: What a caller gets who asks for nothing.
DEFAULT_CONSISTENCY = Consistency()


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One worker: its id, its process's incarnation, and the URL of its internal listener."""

    worker_id: str
    incarnation: int
    url: str


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What a task says of itself, for /readyz, /cluster and the metrics.

    restore_remaining is the count of changelog or source records still to apply before the task has caught
    up, None when that is not known. reason says what keeps the task, in words for a person; None when nothing does.
    stopped says that it applies nothing more, because of a record that cannot become a row, until it is started again.
    rejected_records counts the source records that could not become rows since the table was built, and rejection says
    what was wrong with the latest that this process saw. suspicion says why keys are probably of another format than
    the table says; None where they look right.
    blocked says that neither waiting nor a restart gets it on: a person has to act, and reason says how. A task that is
    stopped is blocked too. held_back_seconds is for how long the same open transaction has kept source records from
    being applied, 0 where none does.
    """

    table: str
    partition: int
    state: TaskState
    position: int
    lag_records: int | None
    staleness_ms: int | None
    restore_remaining: int | None
    reason: str | None
    rows_estimate: int
    stopped: bool = False
    blocked: bool = False
    held_back_seconds: float = 0.0
    rejected_records: int = 0
    rejection: str | None = None
    suspicion: str | None = None
