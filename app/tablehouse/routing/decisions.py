"""Conditional writes at the owner of a partition: read what is there, decide, append; one at a time for a key.

A decision holds until another producer writes. Among conditional writes it always holds: they all come here, and wait
for each other. What it rests on is everything that the source held when it began: so it sees each write
that was acknowledged before, from any client. A record that another producer appends between the decision and its own
is not seen, and is overwritten.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tablehouse.errors import Overloaded, PreconditionFailed
from tablehouse.model import Consistency, ReadMode
from tablehouse.routing.ports import Condition, LocalTables, OwnerSide
from tablehouse.routing.tables import RoutedTable
from tablehouse.stores.rows import Row
from tablehouse.tasks.questions import Applied, Get

#: Conditional writes that a worker has under way, those that wait for others of their key included.
MAX_UNDER_WAY = 1024

_OF_THE_ACTIVE = Consistency(ReadMode.ACTIVE)


@dataclass(slots=True)
class _Turn:
    """Whose turn it is to write a key, and how many want to."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Decisions:
    """Decides conditional writes of rows that this worker owns; clock is monotonic, in seconds."""

    def __init__(self, local: LocalTables, owner: OwnerSide, clock: Callable[[], float]) -> None:
        self._local = local
        self._owner = owner
        self._clock = clock
        self._turns: dict[tuple[str, bytes], _Turn] = {}
        self._under_way = 0

    async def write(
        self,
        routed: RoutedTable,
        partition: int,
        stored_key: bytes,
        *,
        key: bytes,
        value: bytes | None,
        condition: Condition,
        deadline: float,
    ) -> int:
        """Write a row, or with a value of None delete it, if what is there meets a condition; return the offset.

        Raises WriteRefused where no read would show it, PreconditionFailed, Overloaded when the key's turn does not
        come in time, what LocalTables.answer raises for an active, and what OwnerSide raises.
        """
        table = routed.spec.name
        self._local.answer(table, partition, Applied(), _OF_THE_ACTIVE)
        async with self._turn((table, stored_key), deadline):
            end = await self._owner.catch_up(table, partition, self._left(deadline))
            row = self._local.answer(table, partition, Get(stored_key), _OF_THE_ACTIVE).row
            if not _holds(condition, row):
                raise _failed(routed, partition, row)
            return await self._owner.append_as_owner(table, partition, key, value, end, self._left(deadline))

    @asynccontextmanager
    async def _turn(self, key: tuple[str, bytes], deadline: float) -> AsyncIterator[None]:
        """Wait until no other conditional write of a key is under way; raises Overloaded."""
        if self._under_way >= MAX_UNDER_WAY:
            raise Overloaded(f"nothing was written: {MAX_UNDER_WAY} conditional writes are under way on this worker")
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        self._under_way += 1
        try:
            try:
                async with asyncio.timeout(self._left(deadline)):
                    await turn.lock.acquire()
            except TimeoutError:
                raise Overloaded(
                    "nothing was written: other conditional writes of this key took all the time that there was"
                ) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            self._under_way -= 1
            turn.users -= 1
            if not turn.users:
                del self._turns[key]

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock())


def _holds(condition: Condition, row: Row | None) -> bool:
    offsets, exists = condition
    if offsets is not None and (row is None or row.offset not in offsets):
        return False
    return exists is None or exists == (row is not None)


def _failed(routed: RoutedTable, partition: int, row: Row | None) -> PreconditionFailed:
    table = routed.spec.name
    if row is None:
        return PreconditionFailed(
            f"nothing was written: table {table} has no row for this key", table=table, partition=partition
        )
    tag = routed.entity_tag(partition, row.offset)
    return PreconditionFailed(
        f"nothing was written: the row of this key in table {table} has the entity tag {tag}",
        table=table,
        partition=partition,
        etag=tag,
    )
