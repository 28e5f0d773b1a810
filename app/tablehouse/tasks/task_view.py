"""The readable side of a task: its state, its figures, and what it waits for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tablehouse.formats.row_form import RowForm
from tablehouse.model import Ownership, TaskState, TaskStatus, TopicPartition
from tablehouse.positions import Position
from tablehouse.stores.store import TaskStore
from tablehouse.tasks.identity import Identity
from tablehouse.tasks.impediments import Impediments
from tablehouse.tasks.ingest import TableCodec
from tablehouse.tasks.lane import Lane
from tablehouse.tasks.log import LogUnavailable
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.progress import Progress
from tablehouse.tasks.table_state import TableState
from tablehouse.tasks.takeover import Takeover

if TYPE_CHECKING:
    from tablehouse.tasks.ingestion import Ingestion


class TaskView:
    """The parts of a task and its properties; task.py drives the parts."""

    def __init__(
        self, identity: Identity, partition: int, codec: TableCodec, store: TaskStore, lane: Lane, ports: Ports
    ) -> None:
        self.table = identity.table
        self.partition = partition
        self.store = store
        self.state = TaskState.OPENING
        self._reason: str | None = "opening the store"
        self.generation = -1
        self._codec = codec
        self._lane = lane
        #: What the table is made from, in words.
        self._topics = ", ".join(dict.fromkeys(source.topic for source in identity.inputs))
        self._ports = ports
        self._table_state = TableState(identity, store, ports.broker_clock, ports.doubts)
        self._takeover = Takeover(self._table_state, ports)
        self._progress = Progress(self._table_state, ports.clock)
        self._impediments = Impediments(self._table_state.inputs)
        #: The ingestion of an owner after its claim; None otherwise.
        self._ingestion: Ingestion | None = None
        #: Whether the table state was loaded from the store.
        self._loaded = False
        #: Whether the task owns its partition in the present generation; otherwise it follows the owner.
        self._owns = False

    @property
    def source(self) -> TopicPartition:
        """Return the input that the lane brings."""
        return self._lane.source

    @property
    def form(self) -> RowForm:
        """Return how expressions read the rows."""
        return self._codec.form

    @property
    def inputs(self) -> tuple[TopicPartition, ...]:
        """Return the source partitions that the task reads."""
        return self._table_state.inputs

    @property
    def position(self) -> Position:
        """Return how far each input is applied."""
        return self._table_state.reached

    def applied(self, source: TopicPartition) -> int:
        """Return the last offset of an input that is applied, inclusive; -1 before the first."""
        return self._table_state.applied(source)

    @property
    def rejected(self) -> int:
        """Return how many source records could not become rows since the table was built."""
        position = self._table_state.position
        return 0 if position is None else position.rejected

    @property
    def ownership(self) -> Ownership:
        """Return the claim of the changelog under which the task owns the partition; only meaningful while it does."""
        return Ownership(self._table_state.epoch, self._table_state.log_id)

    @property
    def committable(self) -> Sequence[tuple[TopicPartition, int | None]]:
        """Return each input with the offset to continue at after a restart, None while nothing was applied of it."""
        return self._table_state.committable

    @property
    def readable(self) -> bool:
        """Return whether the store holds a consistent state, however old."""
        return self._loaded and self._table_state.readable

    @property
    def doubt(self) -> str | None:
        """Return why misses of the table are inconclusive; None when they are not."""
        return self._ports.doubts.why(self._table_state.changelog.topic, self._topics)

    @property
    def held_back_reason(self) -> str | None:
        """Return why an open transaction in an input makes a miss inconclusive; None when it does not."""
        return self._progress.held_back_reason

    @property
    def stopped(self) -> bool:
        """Return whether ingesting has stopped at a record that cannot become a row, until the task starts again."""
        return self._impediments.is_stopped

    @property
    def blocked(self) -> bool:
        """Return whether a person has to act before the task can continue; waiting or a restart does not help."""
        return self._impediments.block(self._lane.outage) is not None

    @property
    def halt(self) -> str | None:
        """Return why the owner does not apply records written to its source now; None where it does, or soon will.

        It does not while it is blocked, or after its last attempt could not write dead letters.
        """
        return self._impediments.halt(self._lane.outage) if self._owns else None

    @property
    def lag_records(self) -> int | None:
        """Return how many offsets of all inputs are not applied yet; None while the end of one is not known."""
        return self._progress.lag_records

    @property
    def staleness_ms(self) -> int | None:
        """Return the milliseconds since a known end of every input was last reached; None when one never was."""
        return self._progress.staleness_ms

    @property
    def remaining(self) -> int | None:
        """Return how many records are left to apply before the task has caught up; None when that is not known."""
        remaining = self._progress.remaining
        if remaining is not None:
            return remaining
        return 0 if self.state >= TaskState.STANDBY else self._takeover.remaining

    @property
    def reason(self) -> str | None:
        """Return what keeps the task from making progress or answering; None when nothing does."""
        outage, ingestion = self._lane.outage, self._ingestion
        if outage is not None and ingestion is not None:
            return outage.reason
        waits_for = None if ingestion is None else ingestion.pipeline.waits_for
        return waits_for or self.store.waits_for or self._reason or self.held_back_reason

    @reason.setter
    def reason(self, reason: str | None) -> None:
        self._reason = reason

    def status(self) -> TaskStatus:
        """Return the task's status."""
        return TaskStatus(
            table=self.table,
            partition=self.partition,
            state=self.state,
            position=self.position.in_json(self.partition),
            lag_records=self.lag_records,
            staleness_ms=self.staleness_ms,
            restore_remaining=self.remaining,
            reason=self.reason,
            rows_estimate=self.store.rows_estimate(),
            stopped=self.stopped,
            blocked=self.blocked,
            held_back_seconds=self._progress.held_back_seconds,
            rejected_records=self.rejected,
            rejection=None if self._ingestion is None else self._ingestion.pipeline.rejection,
            suspicion=None if self._codec.suspicion is None else self._codec.suspicion.text,
        )

    async def wait_for(self, required: Position, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a position is applied or the task is closed; return whether it was applied in time."""
        return await self._progress.wait_for(required, timeout)

    async def compare_with_owner(self, acceptable_lag: int) -> bool:
        """Return whether a standby is within `acceptable_lag` records of its owner, so that it can take over.

        At first it has to be that near to the source's stable end, because a new owner answers no misses before it has
        caught up with the source. If it is not for OWNER_TIMEOUT_SECONDS, it is compared with the end of the changelog
        instead: the owner may have stopped at a record, wait for a schema, or be overloaded, which is when another
        worker is needed most. False while the changelog's end is not known.
        """
        is_near = self._progress.compare_with_source(acceptable_lag)
        if is_near is not None:
            return is_near
        try:
            return await self._takeover.lacking() <= acceptable_lag
        except LogUnavailable:
            return False
