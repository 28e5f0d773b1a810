"""Unreadable offsets of sources that an operator has decided to skip.

A decision is a record of the group's skip topic, which is compacted and has one partition. It cannot be revoked. Each
reader of sources looks there when it reaches unreadable records, and continues after the range, as after offsets
removed by compaction: the position of the table's next batch covers them. So every owner of a partition, and every
table built from the topic later, skips the same offsets, and never a readable one.
"""

import asyncio

import msgspec
import structlog

from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LogReader, LogRecord, LogUnavailable, OffsetOutOfRange

log = structlog.get_logger(__name__)

#: The log line when a decision is applied.
SKIPPED = "unreadable offsets are skipped, as decided by an operator"

#: Seconds that reading new decisions may take.
_TIMEOUT_SECONDS = 5.0


class Skip(msgspec.Struct, frozen=True):
    """A decision to skip the offsets from `first` to `last` of a partition because of `problem`.

    `time_ms` is when it was made, in milliseconds since 1970.
    """

    topic: str
    partition: int
    first: int
    last: int
    problem: str
    time_ms: int
    v: int = 1

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return f"{self.topic}:{self.partition}:{self.first}".encode()

    def encode(self) -> bytes:
        """Return the value of its record."""
        return msgspec.json.encode(self)

    @property
    def source(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


_decoder = msgspec.json.Decoder(Skip)


def skip_topic(group: str) -> str:
    """Return the topic of a group's decisions."""
    return f"{group}-skips"


class Skips:
    """The decisions of a group read so far. `reader` must not use this object itself."""

    def __init__(self, reader: LogReader, group: str) -> None:
        self._reader = reader
        self._place = TopicPartition(skip_topic(group), 0)
        self._reached = 0
        self._known: dict[TopicPartition, list[Skip]] = {}
        self._turn = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    def after(self, source: TopicPartition, offset: int, error: UnreadableBatch) -> int | None:
        """Return the offset to continue at instead of an unreadable one; None if no decision covers it.

        This is after the offsets that are unreadable now, since a decision may be older than the topic's contents. If
        the broker itself cannot read them, their range is unknown, and that of the decision is used.
        """
        ends = [skip.last + 1 for skip in self._known.get(source, ()) if skip.first <= offset <= skip.last]
        if not ends:
            return None
        return max(ends) if error.is_refused else min(max(ends), error.last + 1)

    def decision(self, source: TopicPartition, first: int, last: int) -> Skip | None:
        """Return a decision that covers all of these offsets; None if there is none."""
        known = self._known.get(source, ())
        return next((skip for skip in known if skip.first <= first and last <= skip.last), None)

    async def look_up(self, source: TopicPartition, offset: int, error: UnreadableBatch) -> int | None:
        """Return the result of after() once new decisions are read."""
        await self.refresh()
        return self.after(source, offset, error)

    def refresh_soon(self) -> None:
        """Start reading new decisions, without waiting for it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self.refresh())

    async def refresh(self) -> None:
        """Read new decisions, within seconds; known ones are kept if this fails."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS), self._turn:
                await self.read()
        except (LogUnavailable, OffsetOutOfRange, TimeoutError) as error:
            log.warning("the skip topic cannot be read", topic=self._place.topic, error=str(error) or repr(error))

    async def read(self) -> None:
        """Read new decisions; raises LogUnavailable and OffsetOutOfRange."""
        bounds = (await self._reader.bounds([self._place]))[self._place]
        if not bounds.start <= self._reached <= bounds.end:
            self._reached = bounds.start
        if self._reached >= bounds.end:
            return
        async with self._reader.read(self._place, self._reached) as cursor:
            while self._reached < bounds.end:
                piece = await cursor.next()
                for record in piece.records:
                    self._learn(record)
                self._reached = piece.next_offset

    def _learn(self, record: LogRecord) -> None:
        try:
            skip = _decoder.decode(record.value or b"")
        except msgspec.MsgspecError as error:
            log.error("not a decision to skip offsets", topic=self._place.topic, offset=record.offset, error=str(error))
            return
        self._known.setdefault(skip.source, []).append(skip)
