"""A task's progress against its inputs: lag, staleness, catching up, and callers that wait for a position."""

import asyncio

from tablehouse.model import TopicPartition
from tablehouse.positions import Position
from tablehouse.tasks.input_progress import InputProgress
from tablehouse.tasks.log import Bounds, Clock
from tablehouse.tasks.table_state import TableState

#: Seconds for which a standby waits for its owner to catch up with the source, before it may take over anyway.
OWNER_TIMEOUT_SECONDS = 60.0


class Progress:
    """The progress of one task over all of its inputs.

    What is not known of one input is not known of the task: there the missing records may be.
    """

    def __init__(self, state: TableState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._by_source = {source: InputProgress(state, source) for source in state.inputs}
        self._inputs = tuple(self._by_source.values())
        self._waiting: list[tuple[Position, asyncio.Future[None]]] = []
        #: When the task began to follow or, after that, last had nearly everything of the inputs.
        self._near_at = clock.monotonic()

    @property
    def lag_records(self) -> int | None:
        """Return how many offsets of all inputs are not applied yet; None while the end of one is not known."""
        now, total = self._clock.monotonic(), 0
        for one in self._inputs:
            lag = one.lag(now)
            if lag is None:
                return None
            total += lag
        return total

    @property
    def staleness_ms(self) -> int | None:
        """Return the milliseconds since a known end of every input was last reached; None when one never was."""
        oldest = None
        for one in self._inputs:
            at = one.ends.reached_at
            if at is None:
                return None
            if oldest is None or at < oldest:
                oldest = at
        return None if oldest is None else int((self._clock.monotonic() - oldest) * 1000)

    @property
    def held_back_reason(self) -> str | None:
        """Return why an open transaction in an input makes a miss inconclusive; None when it does not."""
        for one in self._inputs:
            reason = one.held_back_reason
            if reason is not None:
                return reason
        return None

    @property
    def held_back_seconds(self) -> float:
        """Return how long the same open transaction has kept records of an input from being applied."""
        return max(one.held_back_seconds for one in self._inputs)

    @property
    def remaining(self) -> int | None:
        """Return how many offsets are left to apply before the task has caught up; None without a target."""
        left = [remaining for one in self._inputs if (remaining := one.remaining) is not None]
        return sum(left) if len(left) == len(self._inputs) else None

    # Observations of the inputs

    def observe_end(self, source: TopicPartition, bounds: Bounds, listed_at: float, position: int) -> None:
        """Record an input's bounds; `position` is what had been applied of it before they were requested."""
        self._by_source[source].observe_end(bounds, listed_at, position)

    def observe_missing(self, source: TopicPartition) -> None:
        """Record that an input does not exist, so that lag and staleness are unknown."""
        self._by_source[source].ends.forget()

    def distrust_source(self) -> None:
        """Report no figures until trust_source(): an input is not the one that the position refers to."""
        for one in self._inputs:
            one.ends.distrust()

    def trust_source(self) -> None:
        """Report figures from the next listing on: every input was compared with what was applied."""
        for one in self._inputs:
            one.trust()

    # Events of the task

    def load(self) -> None:
        """Record that the position is that of the store's checkpoint."""
        for one in self._inputs:
            one.ends.loaded(one.applied)

    def start(self) -> None:
        """Record that the task begins to own or to follow."""
        self._near_at = self._clock.monotonic()

    def aim_at(self, source: TopicPartition, bounds: Bounds) -> None:
        """Set the target in an input from bounds listed after the claim.

        The task has a target once every input has one, and has caught up once all are reached.
        """
        self._by_source[source].aim_at(bounds)

    def aim_at_nothing(self) -> None:
        """Forget the target, because the task is not the owner."""
        for one in self._inputs:
            one.aim_at_nothing()

    def reach_target(self) -> bool:
        """Return whether the task has just caught up; true only once, since later lag does not undo it."""
        if self.remaining != 0:
            return False
        for one in self._inputs:
            one.pass_target()
        return True

    def advance(self) -> None:
        """Record that something was applied, and wake the callers that wait for it."""
        for one in self._inputs:
            one.advance()
        if self._waiting:
            for required, reached in self._waiting:
                if not reached.done() and self._has(required):
                    reached.set_result(None)

    def release_waiters(self) -> None:
        """Wake all callers that wait for a position, because nothing more will be applied."""
        for _, reached in self._waiting:
            if not reached.done():
                reached.set_result(None)

    async def wait_for(self, required: Position, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a position is applied or the task is closed; return whether it was applied in time."""
        if self._has(required):
            return True
        reached = asyncio.get_running_loop().create_future()
        waiter = (required, reached)
        self._waiting.append(waiter)
        try:
            await asyncio.wait({reached}, timeout=timeout)
        finally:
            self._waiting.remove(waiter)
        return self._has(required)

    def _has(self, required: Position) -> bool:
        return self._state.reached.lacking(required) is None

    def compare_with_source(self, acceptable_lag: int) -> bool | None:
        """Return whether the task is within `acceptable_lag` records of the stable ends of its inputs.

        None if it was further behind, or this was unknown, for OWNER_TIMEOUT_SECONDS.
        """
        now = self._clock.monotonic()
        lags = [lag for one in self._inputs if (lag := one.stable_lag(now)) is not None]
        if len(lags) == len(self._inputs) and sum(lags) <= acceptable_lag:
            self._near_at = now
            return True
        return False if now - self._near_at < OWNER_TIMEOUT_SECONDS else None
