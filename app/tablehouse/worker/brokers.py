"""How a worker gets to its brokers: it waits for them at start, explains their outages, and measures their clock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog

from tablehouse.errors import BrokersRefuse
from tablehouse.kafka import broker_time
from tablehouse.kafka.client import Connection
from tablehouse.kafka.outages import explain_outage
from tablehouse.kafka.service import UNREACHABLE
from tablehouse.masking import in_words
from tablehouse.recurring import Recurring
from tablehouse.tasks.clock import MEASURING_INTERVAL, MeasuredClock, SystemClock
from tablehouse.worker.health import Health

log = structlog.get_logger(__name__)

#: Seconds between attempts to reach a broker at start.
_RETRY_INTERVAL = 1.0

#: Seconds between two checks what keeps this worker from the brokers, while the group's coordinator does not answer.
_OUTAGE_INTERVAL = 2.0

Result = TypeVar("Result")


class Stoppable(Protocol):
    """A service that may be stopped while it waits."""

    @property
    def should_stop(self) -> bool:
        """Whether it was told to stop."""

    async def sleep(self, seconds: float) -> None:
        """Wait, but only until it is told to stop."""


class Brokers:
    """The way to the brokers; what keeps the worker from them is told to its health.

    broker_clock is the one that measure_clock() sets by the brokers' time.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        health: Health,
        recurring: Recurring,
        clock: SystemClock,
        broker_clock: MeasuredClock,
    ) -> None:
        self._connection = connection
        self._group = group
        self._health = health
        self._recurring = recurring
        self._clock = clock
        self._broker_clock = broker_clock

    async def until_reachable(self, service: Stoppable, attempt: Callable[[], Awaitable[Result]]) -> Result | None:
        """Try until it works; None if the service is stopped first. Raises SetupError as explain_outage does."""
        servers = self._connection.bootstrap_servers
        while not service.should_stop:
            try:
                found = await attempt()
            except UNREACHABLE as error:
                reason = await explain_outage(self._connection, str(error) or repr(error))
                self._health.trouble = f"waiting for the brokers of {servers}: {reason}"
                self._recurring.warn(
                    "start", "no broker reachable; trying again", bootstrap_servers=servers, reason=reason
                )
                await service.sleep(_RETRY_INTERVAL)
            else:
                self._recurring.end("start", "broker reachable")
                return found
        return None

    async def explain_outages(self) -> None:
        """Ask the brokers while they are away: a login that is refused by now looks like an outage to every client."""
        health = self._health
        while True:
            await asyncio.sleep(_OUTAGE_INTERVAL)
            outage = None
            if not health.broker_reachable():
                try:
                    outage = await explain_outage(self._connection, "the group's coordinator does not answer")
                except BrokersRefuse as error:
                    # The login may be let in again, as after a secret was rotated.
                    outage = str(error)
            # An answer may have come in between.
            health.outage = None if health.broker_reachable() else outage
            if health.outage is not None:
                self._recurring.warn("outage", "brokers not reachable; trying again", reason=outage)
            else:
                self._recurring.end("outage", "brokers reachable again")

    async def measure_clock(self) -> None:
        """Measure how the brokers' clock differs from this machine's."""
        await broker_time.measure(self._connection, self._group, self._clock, self._broker_clock)

    async def keep_measuring(self) -> None:
        """Measure the brokers' clock now and then, because clocks drift."""
        while True:
            await asyncio.sleep(MEASURING_INTERVAL)
            try:
                await self.measure_clock()
            except Exception as error:  # noqa: BLE001 - counting on is right whatever has failed
                log.warning(
                    "the brokers' clock cannot be measured; counting on from the last time", error=in_words(error)
                )
