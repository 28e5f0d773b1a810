"""A task's external dependencies, as one value."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tablehouse.formats.variants import Known
from tablehouse.tasks.dead_letters import DeadLetters
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.log import BrokerClock, ChangelogWriter, Clock, Lease, LogReader
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns


@dataclass(frozen=True, slots=True)
class Ports:
    """A task's external dependencies.

    on_fatal is called with an error that no retry can fix: the worker has to stop. large_batches is held by the task
    that ingests a batch of more than LARGE_BATCH_BYTES.
    """

    changelog: LogReader
    sources: LogReader
    writer: ChangelogWriter
    dead_letters: DeadLetters
    lease: Lease
    clock: Clock
    broker_clock: BrokerClock
    metrics: Metrics
    doubts: Doubts
    known: Known
    turns: Turns
    sleep: Callable[[float], Awaitable[None]]
    on_fatal: Callable[[Exception], None]
    worker_id: str
    large_batches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
