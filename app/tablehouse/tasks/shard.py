"""A shard on this worker: its store, the lane of its input, and a task for each of its tables."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tablehouse.model import ShardId, TaskState, TopicPartition
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
    #: The inputs that were missing when their ends were last listed.
    _missing: set[TopicPartition] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Return whether the store is open, so that tasks can work."""
        return self.opening is not None and self.opening.done()

    @property
    def position(self) -> int | None:
        """Return the position of the slowest table as one number (Position.total); None while the store is not open.

        A rebuild counts at its current progress, and a store that cannot be trusted as empty.
        """
        states = [task.state for task in self.tasks.values()]
        is_opening = TaskState.OPENING in states
        if is_opening and not self.was_destroyed:
            return None
        if is_opening or TaskState.QUARANTINED in states:
            return -1
        return min((task.position.total for task in self.tasks.values()), default=-1)

    @property
    def inputs(self) -> tuple[TopicPartition, ...]:
        """Return the source partitions that the tasks read, each once."""
        return tuple(dict.fromkeys(source for task in self.tasks.values() for source in task.inputs))

    @property
    def committable(self) -> Mapping[TopicPartition, int]:
        """Return the offset of each input to continue at after a restart.

        It is the lowest of the tables that read the input. An input of which nothing was applied to one of them is left
        out.
        """
        lowest: dict[TopicPartition, int | None] = {}
        for task in self.tasks.values():
            for source, offset in task.committable:
                other = lowest.get(source, offset)
                lowest[source] = None if offset is None or other is None else min(offset, other)
        return {source: offset for source, offset in lowest.items() if offset is not None}

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

    def observe_source_end(
        self, source: TopicPartition, bounds: Bounds, listed_at: float, positions: Sequence[tuple[Task, int]]
    ) -> None:
        """Record an input's bounds; see Task.observe_source_end. `positions` are those of the tasks at that time."""
        self._missing.discard(source)
        for task, position in positions:
            task.observe_source_end(source, bounds, listed_at, position)

    def observe_source_missing(self, source: TopicPartition) -> None:
        """Record that the brokers do not know an input."""
        for task in self.tasks.values():
            if source in task.inputs:
                task.observe_source_missing(source)
        if source in self._missing and source == self.lane.source:
            # Missing twice in a row, so this is not just a broker that has started a moment ago.
            self.lane.lost()
        self._missing.add(source)
