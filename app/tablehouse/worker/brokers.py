"""A worker's access to its brokers: waits for them at the start, explains their outages, and measures their clock."""

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

#: Seconds between attempts to reach a broker at the start.
_RETRY_INTERVAL = 1.0

#: Seconds between checks why the brokers are unreachable, while the group's coordinator does not answer.
_OUTAGE_INTERVAL = 2.0

Result = TypeVar("Result")


class Stoppable(Protocol):
    """A service that may be stopped while it waits."""

    @property
    def should_stop(self) -> bool:
        """Whether the service was told to stop."""

    async def sleep(self, seconds: float) -> None:
        """Wait; return early if the service is told to stop."""


class Brokers:
    """Reaches the brokers, and reports in `health` why that fails.

    measure_clock() sets `broker_clock` to the brokers' time.
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
        """Repeat `attempt` until a broker answers; None if the service is stopped first.

        Raises SetupError as explain_outage() does.
        """
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
        """Determine the reason while brokers do not answer; a login that is no longer accepted looks like an outage."""
        health = self._health
        while True:
            await asyncio.sleep(_OUTAGE_INTERVAL)
            outage = None
            if not health.broker_reachable():
                try:
                    outage = await explain_outage(self._connection, "the group's coordinator does not answer")
                except BrokersRefuse as error:
                    # The login may be accepted again, for example after a secret was rotated.
                    outage = str(error)
            # The coordinator may have answered in the meantime.
            health.outage = None if health.broker_reachable() else outage
            if health.outage is not None:
                self._recurring.warn("outage", "brokers not reachable; trying again", reason=outage)
            else:
                self._recurring.end("outage", "brokers reachable again")

    async def measure_clock(self) -> None:
        """Measure how the brokers' clock differs from this machine's."""
        await broker_time.measure(self._connection, self._group, self._clock, self._broker_clock)

    async def keep_measuring(self) -> None:
        """Measure the brokers' clock periodically, because clocks drift."""
        while True:
            await asyncio.sleep(MEASURING_INTERVAL)
            try:
                await self.measure_clock()
            except Exception as error:  # noqa: BLE001 - the last measurement is used whatever has failed
                log.warning("the brokers' clock cannot be measured; using the last measurement", error=in_words(error))
