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
records held back by an
open transaction          as above          503 partition_restoring

read=active               STANDBY: 421 not_owner; SUSPENDED: 503 partition_restoring
min_position              any of it not applied yet: 503 position_not_reached, whatever the state that could answer
beyond a bound            503 too_stale. The caller's bounds are compared with the figures that the answer is labelled
                          with, also on an active. An unknown figure exceeds every bound. On a SUSPENDED the age of its
                          worker's lease is compared too. A caller that gives no max_staleness_ms has the default one,
                          which is compared with the staleness of a STANDBY, and with that age on a SUSPENDED.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec

from tablehouse.errors import MisplacedKeys, NotOwner, PartitionRestoring, PositionNotReached, RequestError, TooStale
from tablehouse.model import Consistency, Freshness, ReadMode, Role, TaskState
from tablehouse.positions import Position
from tablehouse.stores.rows import ROW_PREFIX, Row, payloads, unpack
from tablehouse.stores.store import StoreClosed, TaskStore
from tablehouse.tasks.log import Lease
from tablehouse.tasks.slice_sizes import SliceSizes
from tablehouse.tasks.task import Task

#: Seconds after which a caller may retry a restoring partition. Restores take seconds; earlier retries only add load.
RESTORING_RETRY_AFTER = 1

#: Seconds after which a caller may retry a table in doubt: a person has to correct it first.
MISPLACED_RETRY_AFTER = 60

#: Seconds after which a caller may retry a blocked partition: a person has to act first.
BLOCKED_RETRY_AFTER = 60

Found = TypeVar("Found")

_ROLES = {TaskState.ACTIVE: Role.ACTIVE, TaskState.STANDBY: Role.STANDBY, TaskState.SUSPENDED: Role.SUSPENDED}


class ReadResult(msgspec.Struct, frozen=True, array_like=True, tag="row", gc=False):
    """A row, or the answer that there is none.

    row is None when the key does not exist. Only a caught-up active may say so, or a standby if the caller asked for
    standby reads; freshness.role is the role of the copy that answered. In tables that keep marks of deleted keys,
    deleted_ms is then the timestamp of the record that deleted the key, None where the partition has no mark.
    """

    row: Row | None
    freshness: Freshness
    deleted_ms: int | None = None

    @property
    def says_absent(self) -> bool:
        """Whether the result says that the key does not exist."""
        return self.row is None


@dataclass(frozen=True, slots=True)
class SliceResult:
    """A copy's rows for some keys of a partition, read together.

    payloads are those of the rows in the order of the keys, None where there is no row. hit is the error to return in
    place of rows, and miss the error to return in place of misses; None where the answer may be given. A missing row
    with miss None is a key that does not exist, as in ReadResult.
    """

    payloads: Sequence[bytes | None]
    freshness: Freshness
    hit: RequestError | None = None
    miss: RequestError | None = None

    @property
    def size(self) -> int:
        """The total bytes of the payloads."""
        return sum([len(payload) for payload in self.payloads if payload is not None])


#: The position, and the lag and staleness counted from it.
_Figures = tuple[Position, int | None, int | None]


class _Look(NamedTuple):
    """The label of a read. staleness is the copy's, in milliseconds, even where freshness does not show it."""

    freshness: Freshness
    staleness: int | None
    doubt: str | None


class Reader:
    """Reads tasks. max_staleness is the default bound for copies other than the active, in seconds.

    sizes say how many rows a question reads in one slice of work. clock is monotonic, in seconds.
    """

    def __init__(self, lease: Lease, max_staleness: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.sizes = SliceSizes()
        self.clock = clock
        self._lease = lease
        self._max_staleness = max_staleness

    def read(self, task: Task, stored_key: bytes, consistency: Consistency) -> ReadResult:
        """Read a key of a task, without waiting.

        Raises NotOwner, PartitionRestoring, TooStale, PositionNotReached or MisplacedKeys as the table above says, and
        the store's errors. If the copy can be read, the error's details have its freshness.
        """
        role, figures = _readable_role(task, consistency.mode), _figures(task)
        try:
            data = task.store.get(ROW_PREFIX + stored_key)
        except StoreClosed:
            raise _restoring(task) from None
        look = self._look(task, role, figures, consistency)
        row = None if data is None else unpack(data)
        self._check(task, look, consistency, is_miss=row is None or row.deleted)
        if row is not None and row.deleted:
            return ReadResult(None, look.freshness, row.timestamp_ms)
        return ReadResult(row, look.freshness)

    def read_many(self, task: Task, stored_keys: Sequence[bytes], consistency: Consistency) -> SliceResult:
        """Read some keys of a task together, without waiting; each gets the answer that read() would give.

        Raises what read() raises for hits and misses alike; errors for only one of them are in the result.
        """
        role, figures = _readable_role(task, consistency.mode), _figures(task)
        try:
            rows = task.store.get_many([ROW_PREFIX + key for key in stored_keys])
        except StoreClosed:
            raise _restoring(task) from None
        look = self._look(task, role, figures, consistency)
        return SliceResult(
            payloads(rows),
            look.freshness,
            hit=self._refusal(task, look, consistency, is_miss=False),
            miss=self._refusal(task, look, consistency, is_miss=True),
        )

    def read_rows(
        self, task: Task, look: Callable[[TaskStore], Found], consistency: Consistency
    ) -> tuple[Found, Freshness]:
        """Return what `look` finds in the rows of a task, without waiting, and its freshness.

        The rows that it does not find count as misses, so this raises what read() raises for a miss and for a row.
        """
        role, figures = _readable_role(task, consistency.mode), _figures(task)
        try:
            found = look(task.store)
        except StoreClosed:
            raise _restoring(task) from None
        seen = self._look(task, role, figures, consistency)
        self._check(task, seen, consistency, is_miss=True)
        return found, seen.freshness

    def _look(self, task: Task, role: Role, figures: _Figures, consistency: Consistency) -> _Look:
        """Label what was just read; raises where neither a row nor a miss may be returned."""
        position, lag, staleness = figures
        # The lease is checked after the row was read, because it could expire in between.
        if role is Role.ACTIVE and not self._lease.holds(task.generation):
            role = Role.SUSPENDED
        doubt = task.doubt
        # A later version of the key may be in a partition that is not read, so lag and staleness are unknown.
        shown = (lag, staleness) if doubt is None else (None, None)
        freshness = Freshness(task.partition, position, role, *shown, task.rejected)
        if role is Role.SUSPENDED and consistency.mode is ReadMode.ACTIVE:
            raise _restoring(task, freshness)
        if consistency.min_position is not None:
            _check_position(task, freshness, consistency.min_position)
        return _Look(freshness, staleness, doubt)

    def _refusal(self, task: Task, look: _Look, consistency: Consistency, *, is_miss: bool) -> RequestError | None:
        try:
            self._check(task, look, consistency, is_miss=is_miss)
        except RequestError as error:
            return error.with_traceback(None)
        return None

    def _check(self, task: Task, look: _Look, consistency: Consistency, *, is_miss: bool) -> None:
        """Raise unless the caller may have the row, or the miss."""
        freshness = look.freshness
        if is_miss:
            _check_miss(task, freshness, look.doubt, consistency)
        if (
            freshness.role is not Role.ACTIVE
            or consistency.max_staleness_ms is not None
            or consistency.max_lag is not None
        ):
            self._check_bounds(task, freshness, look.staleness, consistency)

    def _check_bounds(self, task: Task, freshness: Freshness, staleness: int | None, consistency: Consistency) -> None:
        """Raise TooStale, with the figures, if the answer exceeds a bound; staleness is as in _Look."""
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


def _figures(task: Task) -> _Figures:
    """Return the position, lag and staleness; call it before reading the row.

    So a row may be newer than its label, but never older.
    """
    return task.position, task.lag_records, task.staleness_ms


def _readable_role(task: Task, mode: ReadMode) -> Role:
    """Return the role in which a task answers while the lease holds; raises if the task cannot be read."""
    role = _ROLES.get(task.state)
    if task.state is TaskState.CLOSED:
        raise NotOwner(f"this worker does not serve partition {task.partition} of table {task.table}")
    if role is None or not task.readable:
        raise _restoring(task)
    if role is Role.STANDBY and mode is ReadMode.ACTIVE:
        raise NotOwner(
            f"this worker holds partition {task.partition} of table {task.table} as a standby, and read=active accepts "
            "only the active"
        )
    return role


def _check_position(task: Task, freshness: Freshness, required: Position) -> None:
    lacking = freshness.position.lacking(required)
    if lacking is not None:
        raise PositionNotReached(
            f"partition {task.partition} of table {task.table} is applied up to {_offsets(freshness)}, "
            f"min_position asks for {lacking.in_json(task.partition)}" + (f": {task.reason}" if task.reason else ""),
            **_details(task, freshness),
        )


def _check_miss(task: Task, freshness: Freshness, doubt: str | None, consistency: Consistency) -> None:
    """Raise unless the miss comes from an active, or a standby that the caller accepts, and is conclusive."""
    if freshness.role is Role.SUSPENDED:
        raise _restoring(task, freshness)
    if doubt is not None:
        raise MisplacedKeys(
            f"misses of table {task.table} are inconclusive: {doubt}",
            retry_after=MISPLACED_RETRY_AFTER,
            **_details(task, freshness),
        )
    held_back = task.held_back_reason
    if held_back is not None:
        raise PartitionRestoring(
            f"partition {task.partition} of table {task.table} has no row, and cannot say that there is none: "
            f"{held_back}",
            retry_after=RESTORING_RETRY_AFTER,
            state=task.state.name.lower(),
            **_details(task, freshness),
        )
    if freshness.role is Role.STANDBY and not consistency.takes_standby_misses:
        raise PartitionRestoring(
            f"the standby of partition {task.partition} of table {task.table} has no row, and cannot say that there is "
            f"none: it is applied up to {_offsets(freshness)}, "
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
    # An active whose lease has expired answers as suspended before its state changes.
    word = task.state.name.lower() if freshness is None else freshness.role.value
    return PartitionRestoring(
        f"partition {task.partition} of table {task.table} is {word}" + (f": {task.reason}" if task.reason else ""),
        retry_after=BLOCKED_RETRY_AFTER if task.blocked else RESTORING_RETRY_AFTER,
        state=word,
        remaining_records=task.remaining,
        **(_details(task, freshness) if freshness else _place(task, task.position)),
    )


def _place(task: Task, position: Position) -> dict[str, Any]:
    return {"table": task.table, "partition": task.partition, "position": position.in_json(task.partition)}


def _details(task: Task, freshness: Freshness) -> dict[str, Any]:
    """Return an error's details: which copy refused, and its freshness without unknown figures."""
    figures = {"lag_records": freshness.lag_records, "staleness_ms": freshness.staleness_ms}
    return (
        _place(task, freshness.position)
        | {"role": freshness.role.value}
        | {name: figure for name, figure in figures.items() if figure is not None}
    )


def _offsets(freshness: Freshness) -> str:
    position = freshness.position.in_json(freshness.partition)
    return f"offset {position}" if isinstance(position, int) else position


def _known(figure: int | None, words: str) -> str:
    return f"an unknown number of {words}" if figure is None else f"{figure} {words}"
