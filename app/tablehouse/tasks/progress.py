"""A task's progress against its source: lag, staleness, catching up, and callers that wait for a position."""

import asyncio

from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds, Clock
from tablehouse.tasks.open_transactions import OpenTransactions
from tablehouse.tasks.source_ends import SourceEnds
from tablehouse.tasks.table_state import TableState

#: Seconds for which a standby waits for its owner to catch up with the source, before it may take over anyway.
OWNER_TIMEOUT_SECONDS = 60.0


class Progress:
    """The progress of one task in one input, from the position of its table state and the listed ends of the source."""

    def __init__(self, state: TableState, source: TopicPartition, clock: Clock) -> None:
        self._state = state
        self._source = source
        self._clock = clock
        self._ends = SourceEnds()
        self._transactions = OpenTransactions(source, self._ends)
        #: The stable end of the source after the claim, until the position has reached it.
        self._target: int | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        #: When the task was last near the end of the source; at first, when it began to follow.
        self._near_at = clock.monotonic()

    @property
    def _applied(self) -> int:
        return self._state.applied(self._source)

    @property
    def lag_records(self) -> int | None:
        """Return how many source offsets are not applied yet; None while the source's end is not known."""
        end = self._ends.end(self._clock.monotonic())
        return None if end is None else max(0, end - 1 - self._applied)

    @property
    def staleness_ms(self) -> int | None:
        """Return the milliseconds since the position last reached a known end of the source; None when it never did."""
        at = self._ends.reached_at
        return None if at is None else int((self._clock.monotonic() - at) * 1000)

    @property
    def held_back_reason(self) -> str | None:
        """Return why an open transaction in the source makes a miss inconclusive; None when it does not."""
        return self._transactions.doubt(self._applied)

    @property
    def held_back_seconds(self) -> float:
        """Return how long the same open transaction has kept source records from being applied."""
        return self._transactions.seconds(self._applied)

    @property
    def remaining(self) -> int | None:
        """Return how many source offsets are left to apply before the task has caught up; None without a target."""
        return None if self._target is None else max(0, self._target - 1 - self._applied)

    # Observations of the source

    def observe_end(self, bounds: Bounds, listed_at: float, position: int) -> None:
        """Record the source's bounds; `position` is what had been applied before they were requested."""
        self._ends.listed(bounds, listed_at, position)
        self._ends.applied(self._applied)

    def observe_missing(self) -> None:
        """Record that the source does not exist, so that lag and staleness are unknown."""
        self._ends.forget()

    def distrust_source(self) -> None:
        """Report no figures until trust_source(): the source is not the one that the position refers to."""
        self._ends.distrust()

    def trust_source(self) -> None:
        """Report figures from the next listing on: the source was compared with what was applied."""
        self._ends.trust()
        self._ends.applied(self._applied)

    # Events of the task

    def load(self) -> None:
        """Record that the position is that of the store's checkpoint."""
        self._ends.loaded(self._applied)

    def start(self) -> None:
        """Record that the task begins to own or to follow."""
        self._near_at = self._clock.monotonic()

    def aim_at(self, bounds: Bounds) -> None:
        """Set the target from bounds listed after the claim; the task has caught up once it is reached."""
        self._target = bounds.end
        # Without an open transaction the target covers everything in the source.
        self._transactions.claimed_end = bounds.high_watermark if bounds.held else 0

    def aim_at_nothing(self) -> None:
        """Forget the target, because the task is not the owner."""
        self._target, self._transactions.claimed_end = None, 0

    def reach_target(self) -> bool:
        """Return whether the task has just caught up; true only once, since later lag does not undo it."""
        if self._target is None or self._applied + 1 < self._target:
            return False
        self._target = None
        return True

    def advance(self) -> None:
        """Record that something was applied, and wake the callers that wait for it."""
        applied = self._applied
        self._ends.applied(applied)
        if self._waiting:
            for _, reached in [waiter for waiter in self._waiting if waiter[0] <= applied]:
                if not reached.done():
                    reached.set_result(None)

    def release_waiters(self) -> None:
        """Wake all callers that wait for a position, because nothing more will be applied."""
        for _, reached in self._waiting:
            if not reached.done():
                reached.set_result(None)

    async def wait_for(self, offset: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a source offset is applied or the task is closed; return whether it was applied in time."""
        if self._applied >= offset:
            return True
        reached = asyncio.get_running_loop().create_future()
        waiter = (offset, reached)
        self._waiting.append(waiter)
        try:
            await asyncio.wait({reached}, timeout=timeout)
        finally:
            self._waiting.remove(waiter)
        return self._applied >= offset

    def compare_with_source(self, acceptable_lag: int) -> bool | None:
        """Return whether the task is within `acceptable_lag` records of the source's stable end.

        None if it was further behind, or this was unknown, for OWNER_TIMEOUT_SECONDS.
        """
        now = self._clock.monotonic()
        end = self._ends.stable_end(now)
        if end is not None and end - 1 - self._applied <= acceptable_lag:
            self._near_at = now
            return True
        return False if now - self._near_at < OWNER_TIMEOUT_SECONDS else None
