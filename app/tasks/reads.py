"""Who may read what: the one place that decides which state of a task may give which answer.

state                     a row             no row
ACTIVE, lease held        200 active        404 active
ACTIVE, lease ran out     as SUSPENDED      as SUSPENDED
SUSPENDED                 200 suspended     503 partition_restoring
STANDBY                   200 standby       503 partition_restoring; 404 standby when the caller asked for standby reads
CLOSED                    421 not_owner
OPENING, RESTORING,
QUARANTINED, or a store
that is not consistent    503 partition_restoring
table in doubt            as above          503 misplaced_keys where the above is ACTIVE or STANDBY

read=active               STANDBY: 421 not_owner; SUSPENDED: 503 partition_restoring
min_position              not applied yet: 503 position_not_reached, whatever the state that could answer
beyond a bound            503 too_stale. The caller's bounds are held against the figures that the answer is labelled
                          with, of an active too, and a figure that is not known is beyond every bound. A SUSPENDED
                          is held against the age of its worker's lease besides. A caller who gave no max_staleness_ms
                          has the default one, for a STANDBY by its staleness, for a SUSPENDED by that age.
"""

from dataclasses import dataclass
from typing import Any

from app.errors import MisplacedKeys, NotOwner, PartitionRestoring, PositionNotReached, TooStale
from app.model import Consistency, Freshness, ReadMode, Role, TaskState
from app.stores.rows import ROW_PREFIX, Row, unpack
from app.stores.store import StoreClosed
from app.tasks.log import Lease
from app.tasks.task import Task

#: Seconds after which a caller may ask a restoring partition again; restores take seconds, so sooner only adds load.
RESTORING_RETRY_AFTER = 1

#: Seconds after which asking again may help once somebody has mended the table.
MISPLACED_RETRY_AFTER = 60

_ROLES = {TaskState.ACTIVE: Role.ACTIVE, TaskState.STANDBY: Role.STANDBY, TaskState.SUSPENDED: Role.SUSPENDED}


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A row, or the word of the copy that looked that there is none.

    row is None when the key does not exist, which only a caught-up active may say, or a standby to a caller who asked
    for standby reads; freshness.role says who did.
    """

    row: Row | None
    freshness: Freshness


class Reader:
    """Reads tasks; max_staleness is the default bound of every copy that is not the active, in seconds."""

    def __init__(self, lease: Lease, max_staleness: float) -> None:
        self._lease = lease
        self._max_staleness = max_staleness

    def read(self, task: Task, stored_key: bytes, consistency: Consistency) -> ReadResult:
        """Read a key of a task, without waiting.

        Raises NotOwner, PartitionRestoring, TooStale, PositionNotReached or MisplacedKeys as the table above says, and
        the store's errors. Those of a copy that can be read have its freshness in their details.
        """
        role = _readable_role(task, consistency.mode)
        # The position, and what is counted from it, before the row: a row newer than its label is allowed, an older
        # one never.
        position, lag, staleness = task.applied, task.lag_records, task.staleness_ms
        try:
            data = task.store.get(ROW_PREFIX + stored_key)
        except StoreClosed:
            raise _restoring(task) from None
        # The lease after the row, or it could have run out in between.
        if role is Role.ACTIVE and not self._lease.holds(task.generation):
            role = Role.SUSPENDED
        doubt = task.doubt
        # A later version of the key may lie where nobody looks, so how far behind this one is nobody knows.
        shown = (lag, staleness) if doubt is None else (None, None)
        freshness = Freshness(task.partition, position, role, *shown)
        if role is Role.SUSPENDED and consistency.mode is ReadMode.ACTIVE:
            raise _restoring(task, freshness)
        if consistency.min_positions:
            _check_position(task, freshness, consistency)
        if data is None:
            _check_miss(task, freshness, doubt, consistency)
        if role is not Role.ACTIVE or consistency.max_staleness_ms is not None or consistency.max_lag is not None:
            self._check_bounds(task, freshness, staleness, consistency)
        return ReadResult(row=None if data is None else unpack(data), freshness=freshness)

    def _check_bounds(self, task: Task, freshness: Freshness, staleness: int | None, consistency: Consistency) -> None:
        """Raise TooStale, with the figures, for an answer beyond a bound; staleness is the copy's, shown or not."""
        bound, most = consistency.max_staleness_ms, consistency.max_lag
        if most is not None and (freshness.lag_records is None or freshness.lag_records > most):
            raise _too_stale(task, freshness, _known(freshness.lag_records, "records behind"), f"max_lag={most}")
        if bound is not None and (freshness.staleness_ms is None or freshness.staleness_ms > bound):
            raise _too_stale(task, freshness, _known(freshness.staleness_ms, "ms stale"), f"max_staleness_ms={bound}")
        if freshness.role is Role.SUSPENDED:
            age, limit = self._lease.age(), self._max_staleness if bound is None else bound / 1000
            if age > limit:
                raise _too_stale(task, freshness, f"without a lease for {age:.0f} s", f"{limit:g} s")
        elif freshness.role is Role.STANDBY and bound is None:
            limit = self._max_staleness
            if staleness is None or staleness > limit * 1000:
                raise _too_stale(task, freshness, _known(staleness, "ms stale"), f"{limit:g} s by default")


def _readable_role(task: Task, mode: ReadMode) -> Role:
    """Return the role in which a task would answer as long as the lease holds; raises where it cannot be read."""
    role = _ROLES.get(task.state)
    if task.state is TaskState.CLOSED:
        raise NotOwner(f"this worker does not serve partition {task.partition} of table {task.table}")
    if role is None or not task.readable:
        raise _restoring(task)
    if role is Role.STANDBY and mode is ReadMode.ACTIVE:
        raise NotOwner(
            f"this worker holds partition {task.partition} of table {task.table} as a standby, and read=active takes "
            "the active alone"
        )
    return role


def _check_position(task: Task, freshness: Freshness, consistency: Consistency) -> None:
    least = consistency.least_position(task.partition)
    if least is not None and freshness.position < least:
        raise PositionNotReached(
            f"partition {task.partition} of table {task.table} is applied up to offset {freshness.position}, "
            f"min_position asks for {least}",
            **_details(task, freshness),
        )


def _check_miss(task: Task, freshness: Freshness, doubt: str | None, consistency: Consistency) -> None:
    """Let a miss pass from a copy whose word the caller takes for it."""
    if freshness.role is Role.SUSPENDED:
        raise _restoring(task, freshness)
    if doubt is not None:
        raise MisplacedKeys(
            f"a miss of table {task.table} proves nothing: {doubt}",
            retry_after=MISPLACED_RETRY_AFTER,
            **_details(task, freshness),
        )
    if freshness.role is Role.STANDBY and not consistency.takes_standby_misses:
        raise PartitionRestoring(
            f"the standby of partition {task.partition} of table {task.table} has no row, and cannot say that there is "
            f"none: it is applied up to offset {freshness.position}, "
            f"{_known(freshness.lag_records, 'records behind')}, {_known(freshness.staleness_ms, 'ms stale')}",
            retry_after=RESTORING_RETRY_AFTER,
            state=task.state.name.lower(),
            **_details(task, freshness),
        )


def _too_stale(task: Task, freshness: Freshness, measured: str, bound: str) -> TooStale:
    return TooStale(
        f"partition {task.partition} of table {task.table}, {freshness.role.value} here, is {measured}; "
        f"the bound is {bound}",
        **_details(task, freshness),
    )


def _restoring(task: Task, freshness: Freshness | None = None) -> PartitionRestoring:
    # An active whose lease ran out acts as a suspended one before it has heard of it.
    word = task.state.name.lower() if freshness is None else freshness.role.value
    return PartitionRestoring(
        f"partition {task.partition} of table {task.table} is {word}" + (f": {task.reason}" if task.reason else ""),
        retry_after=RESTORING_RETRY_AFTER,
        state=word,
        remaining_records=task.remaining,
        **(_details(task, freshness) if freshness else _place(task) | {"position": task.applied}),
    )


def _place(task: Task) -> dict[str, Any]:
    return {"table": task.table, "partition": task.partition}


def _details(task: Task, freshness: Freshness) -> dict[str, Any]:
    """Say which copy refused, and how fresh it is; what is not known is left out."""
    figures = {"lag_records": freshness.lag_records, "staleness_ms": freshness.staleness_ms}
    return (
        _place(task)
        | {"position": freshness.position, "role": freshness.role.value}
        | {name: figure for name, figure in figures.items() if figure is not None}
    )


def _known(figure: int | None, words: str) -> str:
    return f"an unknown number of {words}" if figure is None else f"{figure} {words}"
