"""Produces today's flights indefinitely: a few per second, with new keys, each updated when it departs."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from aiokafka.errors import KafkaError

from tablehouse.demo import flights
from tablehouse.demo.load import Producer

_SECONDS_BETWEEN = 0.25
# How many more flights are announced before one departs.
_WAITING = 20
_KNOWN_LATER = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


async def trickle(producer: Producer, report: Callable[[str], None]) -> None:
    """Produce until cancelled; errors are reported, and the next row is tried."""
    for row in todays_flights(lambda: datetime.now().astimezone()):
        try:
            await producer.send(flights.record("flights", row))
        except KafkaError as error:
            report(f"A flight could not be produced: {error!r}")
        await asyncio.sleep(_SECONDS_BETWEEN)


def todays_flights(now: Callable[[], datetime]) -> Iterator[dict[str, Any]]:
    """Yield each flight twice: first as scheduled, and again after its departure.

    `now` returns local times with their zone. The flights are those of the data set in order, repeated indefinitely,
    with today's date.
    """
    announced: deque[tuple[dict[str, Any], datetime]] = deque()
    for row in itertools.chain.from_iterable(flights.rows("flights") for _ in itertools.count()):
        time = now()
        scheduled = row | dict.fromkeys(_KNOWN_LATER) | _schedule(time)
        yield scheduled
        announced.append((scheduled, time))
        if len(announced) > _WAITING:
            left, announced_at = announced.popleft()
            time = now()
            yield left | {
                "dep_time": _time_of_day(time),
                "dep_delay": int((time - announced_at).total_seconds()) // 60,
            }


def _schedule(time: datetime) -> dict[str, Any]:
    hour = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return {
        "year": time.year,
        "month": time.month,
        "day": time.day,
        "sched_dep_time": _time_of_day(time),
        "hour": time.hour,
        "minute": time.minute,
        "time_hour": hour.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _time_of_day(time: datetime) -> int:
    return time.hour * 100 + time.minute
