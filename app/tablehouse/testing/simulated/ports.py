"""A task's external dependencies in the simulated world."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tablehouse.model import Epoch, TopicPartition
from tablehouse.tasks.clock import MeasuredClock
from tablehouse.tasks.dead_letters import DeadLetter, LettersUndelivered
from tablehouse.tasks.log import (
    Bounds,
    Fenced,
    LogRecord,
    LogSlice,
    LogUnavailable,
    OffsetOutOfRange,
    OutcomeUnknown,
    PartitionMissing,
    StoodStill,
)
from tablehouse.tasks.records import epoch_headers
from tablehouse.tasks.retention import STOOD_STILL
from tablehouse.testing.simulated.broker import Log, Refused
from tablehouse.testing.simulated.world import APPEND_TIMEOUT, Request, World
from tablehouse.turns import Turns

#: Maximum records of a slice or a poll.
SLICE = 5


class SimulatedClock:
    """Implements Clock."""

    def monotonic(self) -> float:
        """See Clock."""
        return asyncio.get_running_loop().time()


class MachineClock:
    """Implements Clock for a machine whose clock runs `speed` times as fast as the brokers'."""

    def __init__(self, world: World, speed: float) -> None:
        self._world = world
        self._speed = speed

    def monotonic(self) -> float:
        """See Clock."""
        return self._world.elapsed_ms() * self._speed / 1000


async def measure(world: World, clock: MachineClock, broker_clock: MeasuredClock) -> None:
    """Measure the broker's time, as a worker does; raises LogUnavailable."""
    asked_at = clock.monotonic()
    await world.hop("time.asked")
    if world.probe_away() or world.happens(world.weather.unavailable):
        raise LogUnavailable("no broker")
    stamped_ms = world.probe_ms()
    await world.hop("time.answered")
    broker_clock.measured(stamped_ms, asked_at)


def measured_clock(world: World) -> MeasuredClock:
    """Return a clock that knows the broker's time."""
    clock = MachineClock(world, 1.0)
    broker_clock = MeasuredClock(clock)
    broker_clock.measured(world.probe_ms(), clock.monotonic())
    return broker_clock


class _Cursor:
    def __init__(self, world: World, log: Log, offset: int) -> None:
        self._world = world
        self._log = log
        self._offset = offset
        self._looked_ms = world.elapsed_ms()

    async def next(self) -> LogSlice:
        """See Cursor: slices end anywhere, also in the middle of a batch."""
        world, log = self._world, self._log
        while True:
            await world.hop("read.asked")
            before, self._looked_ms = self._looked_ms, world.elapsed_ms()
            if self._looked_ms - before > 1000 * STOOD_STILL:
                raise StoodStill
            if world.weather.unavailable and world.choose.random() < world.weather.unavailable:
                raise LogUnavailable("no broker")
            if not log.start <= self._offset <= log.end:
                raise OffsetOutOfRange(f"{self._offset} is not between {log.start} and {log.end}")
            if self._offset < log.stable:
                break
            await world.changed(log)
            # The cursor was waiting, not idle.
            self._looked_ms = world.elapsed_ms()
        records, following = log.read(self._offset, world.choose.randint(1, SLICE))
        # The records are in flight, and the log may change.
        await world.hop("read.answered")
        self._offset = following
        return LogSlice(records, following)


class SimulatedReader:
    """Implements LogReader."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def bounds(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """See LogReader."""
        await self._world.hop("bounds.asked")
        if self._world.weather.unavailable and self._world.choose.random() < self._world.weather.unavailable:
            raise LogUnavailable("no broker")
        logs = {partition: self._world.log(partition) for partition in partitions}
        if any(log.missing for log in logs.values()):
            raise PartitionMissing("the brokers do not know the topic")
        bounds = {
            partition: Bounds(log.start, log.stable, log.end - log.stable, log.settled)
            for partition, log in logs.items()
        }
        await self._world.hop("bounds.answered")
        return bounds

    async def peek(self, partition: TopicPartition, offset: int) -> LogRecord | None:
        """See LogReader."""
        piece = await _Cursor(self._world, self._world.log(partition), offset).next()
        return piece.records[0] if piece.records else None

    @asynccontextmanager
    async def read(self, partition: TopicPartition, offset: int) -> AsyncIterator[_Cursor]:
        """See LogReader."""
        yield _Cursor(self._world, self._world.log(partition), offset)


class _Batch(NamedTuple):
    pairs: list[tuple[bytes, bytes | None]]


class SimulatedWriter:
    """Implements ChangelogWriter."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sequences: dict[TopicPartition, int] = {}

    def encode(
        self, partition: TopicPartition, epoch: Epoch, records: Iterable[tuple[bytes, bytes | None]]
    ) -> _Batch | None:
        """See ChangelogWriter."""
        del partition, epoch
        pairs = list(records)
        size = sum(len(key) + len(value or b"") for key, value in pairs)
        return None if size > self._world.limit else _Batch(pairs)

    async def append(self, partition: TopicPartition, epoch: Epoch, batch: Any) -> int:
        """See ChangelogWriter."""
        return await self._send("append", partition, epoch, batch.pairs)

    async def claim(self, partition: TopicPartition, epoch: Epoch, key: bytes, value: bytes) -> int:
        """See ChangelogWriter."""
        await self._world.hop("claim.asked")
        self._sequences[partition] = 0
        return await self._send("claim", partition, epoch, [(key, value)])

    async def _send(
        self, what: str, partition: TopicPartition, epoch: Epoch, pairs: list[tuple[bytes, bytes | None]]
    ) -> int:
        sequence = self._sequences[partition]
        self._sequences[partition] += len(pairs)
        # The second and later producer ids represent the next id indexes.
        request = Request(partition, (epoch.id_index, epoch.number), sequence, pairs, epoch_headers(epoch))
        answering = self._world.send(request)
        try:
            async with asyncio.timeout(APPEND_TIMEOUT):
                await self._world.hop(f"{what}.sent")
                answer = await answering
        except TimeoutError:
            raise OutcomeUnknown(f"no acknowledgement within {APPEND_TIMEOUT} s") from None
        if isinstance(answer, Refused):
            raise Fenced("the partition has a newer epoch")
        if answer is None:
            raise OutcomeUnknown("the broker answered with an error")
        await self._world.hop(f"{what}.acknowledged")
        return answer


class SimulatedDeadLetters:
    """Implements DeadLetters; the world keeps the written letters, with or without an acknowledgement."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetters."""
        world = self._world
        await world.hop("letters.asked")
        if world.letters_away or world.happens(world.weather.unavailable):
            raise LettersUndelivered("no broker")
        world.letters += [(table, source, bad.record.offset, bad.reason) for table, source, bad in letters]
        await world.hop("letters.written")
        if world.happens(world.weather.lost_acknowledgement):
            raise LettersUndelivered("no acknowledgement")


class SimulatedTurns(Turns):
    """Each turn is a hop like any other, at which anything may happen."""

    async def wait(self) -> None:
        """Wait for the scheduler."""
        await asyncio.sleep(0)
