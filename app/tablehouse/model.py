"""The value types used by all layers: partitions, epochs, states, freshness, hosts."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from tablehouse.positions import Position


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

    `number` is also the Kafka producer epoch (int16, 1 to 32766 for owners; 32767 seals a producer id), and `id_index`
    is the index of the constant producer id that it belongs to.
    """

    id_index: int
    number: int


class Ownership(NamedTuple):
    """One claim of a changelog partition: its epoch, and the id of the log to which the epoch applies."""

    epoch: Epoch
    log_id: bytes


class SourceEnd(NamedTuple):
    """The end of a source partition at `listed_at` or later, in seconds on the event loop's clock."""

    offset: int
    listed_at: float


#: The epoch of a changelog partition without a claim.
NO_EPOCH = Epoch(0, 0)


class TaskState(enum.IntEnum):
    """The states of a task, ordered by how close it is to answering reads.

    SUSPENDED was active and cannot prove it now (a rebalance, an expired lease). QUARANTINED is below all others: its
    store is not trustworthy and is being deleted.
    """

    QUARANTINED = -1
    CLOSED = 0
    OPENING = 1
    RESTORING = 2
    STANDBY = 3
    SUSPENDED = 4
    ACTIVE = 5


class Role(enum.StrEnum):
    """The role in which a task answered a read."""

    ACTIVE = "active"
    STANDBY = "standby"
    SUSPENDED = "suspended"


class Freshness(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The freshness of an answer, part of every row and every 404.

    position: how far each input is applied.
    lag_records: the number of offsets not applied yet, over all inputs; None if the end of one is unknown.
    staleness_ms: milliseconds since the position had last reached a known end of every input; None if it never did. The
    end is the high watermark, so records held back by an open transaction count. rejected_records: source records of
    the partition that could not become rows, since the table was built.
    """

    partition: int
    position: Position
    role: Role
    lag_records: int | None
    staleness_ms: int | None
    rejected_records: int = 0


class ReadMode(enum.StrEnum):
    """The copies whose answers a caller accepts: only the active, others if it cannot answer, or any."""

    ACTIVE = "active"
    PREFER_ACTIVE = "prefer-active"
    ANY = "any"


class Consistency(msgspec.Struct, frozen=True, array_like=True):
    """A caller's requirements for an answer, enforced by the answering worker.

    max_staleness_ms and max_lag are the caller's limits, None if not given. min_position has the source offsets that
    must have been applied (inclusive), None if not given; those of inputs that a partition does not have do not apply
    to its answers.
    """

    mode: ReadMode = ReadMode.PREFER_ACTIVE
    max_staleness_ms: int | None = None
    max_lag: int | None = None
    min_position: Position | None = None

    @property
    def takes_standby_misses(self) -> bool:
        """Return whether the caller requested standby reads, so that a standby may answer "no such key"."""
        bounded = self.max_staleness_ms is not None or self.max_lag is not None
        return self.mode is ReadMode.ANY or (bounded and self.mode is not ReadMode.ACTIVE)


#: Defaults when the caller specifies nothing.
DEFAULT_CONSISTENCY = Consistency()


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One worker: its id, its process's incarnation, and the URL of its internal listener."""

    worker_id: str
    incarnation: int
    url: str


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The status of a task, for /readyz, /cluster and the metrics, and as workers send it to each other in JSON.

    position is in its form in JSON (Position.in_json). restore_remaining is the number of changelog or source records
    left to apply before the task has caught up, None if unknown. reason describes why the task is not making progress;
    None if it is. stopped means that it applies no more records until it is restarted, because of a record that cannot
    become a row. rejected_records counts the source records that could not become rows since the table was built, and
    rejection describes the latest one seen by this process. suspicion says why keys probably have a different format
    than the table's; None if they look right. blocked means that neither waiting nor a restart helps: an operator must
    act as described by reason. A stopped task is also blocked. held_back_seconds is how long the same open transaction
    has held back source records, 0 if none does.
    """

    table: str
    partition: int
    state: TaskState
    position: int | str
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


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str


#: A caller that shows no credentials.
ANONYMOUS = Principal("anonymous")
