"""Proof of group membership, derived from heartbeats."""

import asyncio
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.group import HeartbeatRequest

from tablehouse.tasks.log import Clock, LeaseLost

#: Seconds between attempts to get a heartbeat answered.
_RETRY = 0.1


class _Outlived(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """A heartbeat was answered after the member had moved to another generation."""


class GroupLease:
    """Implements Lease.

    The time at which a heartbeat was SENT counts, since the broker restarts the session at some time between request
    and response. A response of REBALANCE_IN_PROGRESS does not count, although aiokafka treats it as a success.
    """

    def __init__(self, session_timeout: float, clock: Clock) -> None:
        self._valid_for = session_timeout / 2
        self._clock = clock
        self._coordinator: Any = None
        self._generation = -1
        self._sent_at: float | None = None
        self._beat: asyncio.Task[None] | None = None

    def attach(self, coordinator: Any) -> None:
        """Start watching the requests of an aiokafka GroupCoordinator."""
        send = coordinator._send_req

        async def send_and_watch(request: Any) -> Any:
            sent_at = self._clock.monotonic()
            answer = await send(request)
            if not isinstance(request, HeartbeatRequest):
                return answer
            if answer.error_code == 0:
                self._generation, self._sent_at = request._generation_id, sent_at
            elif request._generation_id != coordinator.generation:
                # aiokafka would apply it to the current generation, and join as a new member.
                raise _Outlived(f"the response is for generation {request._generation_id}, which has ended")
            return answer

        coordinator._send_req = send_and_watch
        self._coordinator = coordinator

    def holds(self, generation: int) -> bool:
        """Return whether a generation's last successful heartbeat was sent less than half a session timeout ago."""
        return self._generation == generation and self.age() < self._valid_for

    def age(self) -> float:
        """Return the seconds since the last successful heartbeat was sent; infinity if there was none."""
        return float("inf") if self._sent_at is None else self._clock.monotonic() - self._sent_at

    async def confirm(self, generation: int) -> None:
        """Return once a heartbeat of `generation` that was sent after this call has succeeded."""
        asked_at = self._clock.monotonic()
        while True:
            if self._coordinator.generation != generation:
                raise LeaseLost(f"generation {generation} has ended; the current one is {self._coordinator.generation}")
            if self._generation == generation and self._sent_at is not None and self._sent_at >= asked_at:
                return
            if self._beat is None:
                self._beat = asyncio.create_task(self._heartbeat())
            await asyncio.wait({self._beat})
            if self._sent_at is None or self._sent_at < asked_at:
                await asyncio.sleep(_RETRY)

    async def _heartbeat(self) -> None:
        # Claims of many tasks arrive at once: they share a heartbeat that has not been sent yet.
        await asyncio.sleep(0)
        self._beat = None
        if self._coordinator.coordinator_id is not None:
            await self._coordinator._do_heartbeat()
