"""How far a task has come against one of its inputs."""

from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.open_transactions import OpenTransactions
from tablehouse.tasks.source_ends import SourceEnds
from tablehouse.tasks.table_state import TableState


class InputProgress:
    """The figures of one input, by the position of the task's table state and the listed ends of the input."""

    def __init__(self, state: TableState, source: TopicPartition) -> None:
        self._state = state
        self._index = state.inputs.index(source)
        self.ends = SourceEnds()
        self._transactions = OpenTransactions(source, self.ends)
        #: Where the input could be read to after the claim; None for a task that has no target.
        self._target: int | None = None

    @property
    def applied(self) -> int:
        """Return the last offset applied; -1 before the first."""
        return self._state.reached.offsets[self._index]

    def lag(self, now: float) -> int | None:
        """Return how many offsets are not applied yet; None while the input's end is not known."""
        end = self.ends.end(now)
        return None if end is None else max(0, end - 1 - self.applied)

    def stable_lag(self, now: float) -> int | None:
        """Return how many offsets that can be read are not applied yet; None where lag() is None."""
        end = self.ends.stable_end(now)
        return None if end is None else max(0, end - 1 - self.applied)

    @property
    def remaining(self) -> int | None:
        """Return how many offsets are to be applied up to the target; None without one."""
        return None if self._target is None else max(0, self._target - 1 - self.applied)

    @property
    def held_back_reason(self) -> str | None:
        """Return why a miss proves nothing because of an open transaction in the input; None when it does."""
        return self._transactions.doubt(self.applied)

    @property
    def held_back_seconds(self) -> float:
        """Return for how long the same open transaction has kept records from being applied."""
        return self._transactions.seconds(self.applied)

    def observe_end(self, bounds: Bounds, listed_at: float, position: int) -> None:
        """Record the input's bounds; `position` is what had been applied of it before they were asked for."""
        self.ends.listed(bounds, listed_at, position)
        self.advance()

    def trust(self) -> None:
        """Count by what is listed from now on: the input was compared with what was applied."""
        self.ends.trust()
        self.advance()

    def advance(self) -> None:
        """Record that something may have been applied."""
        self.ends.applied(self.applied)

    def aim_at(self, bounds: Bounds) -> None:
        """Make the input's bounds, listed after the claim, what has to be applied before the task has caught up."""
        self._target = bounds.end
        # Without an open transaction the target is all that the input holds.
        self._transactions.claimed_end = bounds.high_watermark if bounds.held else 0

    def pass_target(self) -> None:
        """Forget the target, since it is reached; what was held back then may still be to be applied."""
        self._target = None

    def aim_at_nothing(self) -> None:
        """Forget the target, since the task does not own."""
        self._target, self._transactions.claimed_end = None, 0
