"""A shard on this worker: its store, the lane of its input, and a task for each of its tables."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tablehouse.model import ShardId, TaskState
from tablehouse.stores.store import ShardStore
from tablehouse.tasks.lane import Lane
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.task import Task


@dataclass(slots=True)
class Shard:
    """What is opened, owned or followed, and closed as one.

    `opening` is the work that opens the store, None before it has begun, and `changing` the latest work that exchanges
    tasks. `coming` are the tables whose tasks have no store yet. `is_leaving` is set once the shard is to be closed,
    and `was_destroyed` once its store on disk was deleted.
    """

    id: ShardId
    lane: Lane
    store: ShardStore
    is_active: bool
    tasks: dict[str, Task] = field(default_factory=dict)
    opening: asyncio.Task[None] | None = None
    changing: asyncio.Task[None] | None = None
    coming: set[str] = field(default_factory=set)
    is_leaving: bool = False
    was_destroyed: bool = False
    #: Whether the source was missing when its end was last listed.
    _source_missing: bool = False

    @property
    def is_open(self) -> bool:
        """Return whether the store is open, so that tasks can work."""
        return self.opening is not None and self.opening.done()

    @property
    def position(self) -> int | None:
        """Return the position of the slowest table; None while the store is not open yet.

        A rebuild counts at its current progress, and a store that cannot be trusted as empty.
        """
        states = [task.state for task in self.tasks.values()]
        is_opening = TaskState.OPENING in states
        if is_opening and not self.was_destroyed:
            return None
        if is_opening or TaskState.QUARANTINED in states:
            return -1
        return min((task.applied for task in self.tasks.values()), default=-1)

    @property
    def committable(self) -> int | None:
        """Return the source offset to continue at after a restart; None unless every table has applied something."""
        reached = [task.committable for task in self.tasks.values()]
        known = [offset for offset in reached if offset is not None]
        return min(known) if known and len(known) == len(reached) else None

    def set_to_work(self, generation: int) -> None:
        """Make every task that has a store own or follow its partition in a generation; returns at once."""
        for name in self.tasks:
            if name not in self.coming:
                self.set_one_to_work(name, generation)

    def set_one_to_work(self, name: str, generation: int) -> None:
        """Make a table's task own or follow its partition in a generation; returns at once."""
        if self.is_active:
            self.tasks[name].own(generation)
        else:
            self.tasks[name].follow(generation)

    async def is_warm(self, acceptable_lag: int) -> bool:
        """Return whether the shard is ready to take over: all its tasks can be read and are within `acceptable_lag`."""
        if any(task.state < TaskState.STANDBY for task in self.tasks.values()):
            return False
        for task in self.tasks.values():
            if not await task.compare_with_owner(acceptable_lag):
                return False
        return True

    def observe_source_end(self, bounds: Bounds, listed_at: float, positions: Sequence[tuple[Task, int]]) -> None:
        """Record the source's bounds; see Task.observe_source_end. `positions` are those of the tasks at that time."""
        self._source_missing = False
        for task, position in positions:
            task.observe_source_end(bounds, listed_at, position)

    def observe_source_missing(self) -> None:
        """Record that the brokers do not know the source."""
        for task in self.tasks.values():
            task.observe_source_missing()
        if self._source_missing:
            # Missing twice in a row, so this is not just a broker that has started a moment ago.
            self.lane.lost()
        self._source_missing = True
