"""Who may read what: the one place that decides which state of a task may give which answer.

state                     a row             no row
ACTIVE, lease held        200 active        404, the only way to one
ACTIVE, lease ran out     as SUSPENDED      as SUSPENDED
SUSPENDED                 200 suspended     503 partition_restoring
beyond max_staleness    503 too_stale     503 partition_restoring
store not consistent    503 partition_restoring
STANDBY, CLOSED           421 not_owner
OPENING, RESTORING,
QUARANTINED               503 partition_restoring
ACTIVE, table in doubt: a row as above, no row 503 misplaced_keys
"""

from dataclasses import dataclass

from app.errors import MisplacedKeys, NotOwner, PartitionRestoring, TooStale
from app.model import Freshness, Role, TaskState
from app.stores.rows import ROW_PREFIX, Row, unpack
from app.stores.store import StoreClosed
from app.tasks.log import Lease
from app.tasks.task import Task

#: Seconds after which a caller may ask a restoring partition again; restores take seconds, so sooner only adds load.
RESTORING_RETRY_AFTER = 1

#: Seconds after which asking again may help once somebody has mended the table.
MISPLACED_RETRY_AFTER = 60


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A row, or the proof that there is none.

    row is None when the key does not exist, which only a caught-up active may say.
    """

    row: Row | None
    freshness: Freshness


class Reader:
    """Reads tasks; max_staleness is how many seconds after its last good lease a suspended task's rows are served."""

    def __init__(self, lease: Lease, max_staleness: float) -> None:
        self._lease = lease
        self._max_staleness = max_staleness

    def read(self, task: Task, stored_key: bytes) -> ReadResult:
        """Read a key of a task, without waiting.

        Raises NotOwner, PartitionRestoring, TooStale or MisplacedKeys as the table above says, and the store's errors.
        """
        state = task.state
        if state in (TaskState.STANDBY, TaskState.CLOSED):
            raise NotOwner(f"this worker does not serve partition {task.partition} of table {task.table}")
        if state not in (TaskState.ACTIVE, TaskState.SUSPENDED) or not task.readable:
            raise _restoring(task)
        # The position before the row: a row newer than its label is allowed, an older one never.
        position = task.applied
        try:
            data = task.store.get(ROW_PREFIX + stored_key)
        except StoreClosed:
            raise _restoring(task) from None
        # The lease after the row, or it could have run out in between.
        active = state is TaskState.ACTIVE and self._lease.holds(task.generation)
        if not active:
            age = self._lease.age()
            if data is None:
                raise _restoring(task)
            if age > self._max_staleness:
                raise TooStale(
                    f"partition {task.partition} of table {task.table} is suspended for {age:.0f} s, longer than the "
                    f"{self._max_staleness:.0f} s allowed",
                    table=task.table,
                    partition=task.partition,
                )
        doubt = task.doubt
        if active and data is None and doubt is not None:
            raise MisplacedKeys(
                f"a miss of table {task.table} proves nothing: {doubt}",
                retry_after=MISPLACED_RETRY_AFTER,
                table=task.table,
                partition=task.partition,
            )
        return ReadResult(
            row=None if data is None else unpack(data),
            freshness=Freshness(
                partition=task.partition,
                position=position,
                role=Role.ACTIVE if active else Role.SUSPENDED,
                # A later version of the key may lie where nobody looks, so how far behind this one is nobody knows.
                lag_records=task.lag_records if doubt is None else None,
                staleness_ms=task.staleness_ms if doubt is None else None,
            ),
        )


def _restoring(task: Task) -> PartitionRestoring:
    remaining = task.remaining
    return PartitionRestoring(
        f"partition {task.partition} of table {task.table} is {task.state.name.lower()}"
        + (f": {task.reason}" if task.reason else ""),
        retry_after=RESTORING_RETRY_AFTER,
        table=task.table,
        partition=task.partition,
        state=task.state.name.lower(),
        position=task.applied,
        remaining_records=remaining,
    )
