"""Source partitions that cannot be read at present; each one only suspends its own lane."""

from collections.abc import Collection
from typing import NamedTuple

import structlog

from tablehouse.kafka.record_batches import UnreadableBatch
from tablehouse.masking import in_words
from tablehouse.model import TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.tasks.log import OUTAGE_LASTS_SECONDS, SKIP_ADVICE, Clock, LaneOutage

log = structlog.get_logger(__name__)

#: Seconds between attempts to read a failed partition.
RETRY_SECONDS = 1.0


class _Outage(NamedTuple):
    offset: int
    cause: str
    unreadable: UnreadableBatch | None
    since: float
    again_at: float
    warnings: Recurring


class LaneOutages:
    """Keeps the outage of each partition and the time of its next retry; logs outages at growing intervals."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._outages: dict[TopicPartition, _Outage] = {}
        self._waiting: set[TopicPartition] = set()

    def failed(self, source: TopicPartition, offset: int, error: Exception) -> None:
        """Record that a partition could not be read at an offset: it is retried after RETRY_SECONDS."""
        now, known = self._clock.monotonic(), self._outages.get(source)
        since = now if known is None else known.since
        cause = error.problem if isinstance(error, UnreadableBatch) else in_words(error)
        warnings = Recurring(log, self._clock.monotonic) if known is None else known.warnings
        # The first outage of each kind is logged at once.
        warnings.warn(
            type(error).__name__,
            "a partition cannot be read; its lane waits and retries every second",
            source=str(source),
            offset=offset,
            error=cause,
        )
        unreadable = error if isinstance(error, UnreadableBatch) else None
        self._outages[source] = _Outage(offset, cause, unreadable, since, now + RETRY_SECONDS, warnings)
        self._waiting.add(source)

    def waits(self, source: TopicPartition) -> bool:
        """Return whether a partition waits for its next retry."""
        return source in self._waiting

    def unreadable_at(self, source: TopicPartition, offset: int) -> UnreadableBatch | None:
        """Return the unreadable batch at `offset`, the next offset of its lane; None if there is none."""
        outage = self._outages.get(source)
        return outage.unreadable if outage is not None and outage.offset == offset else None

    def of(self, source: TopicPartition) -> LaneOutage | None:
        """Return the outage of a partition; None if there is none."""
        outage = self._outages.get(source)
        if outage is None:
            return None
        lasts = self._clock.monotonic() - outage.since >= OUTAGE_LASTS_SECONDS
        if outage.unreadable is not None:
            reason = f"{outage.cause}; {SKIP_ADVICE}"
            return LaneOutage(reason, lasts or not outage.unreadable.is_refused)
        reason = f"{source} cannot be read at offset {outage.offset}; it is retried every second: {outage.cause}"
        return LaneOutage(reason, lasts)

    def take_due(self) -> list[TopicPartition]:
        """Return the partitions whose retry is due, and end their wait."""
        now = self._clock.monotonic()
        due = [source for source in self._waiting if self._outages[source].again_at <= now]
        self._waiting.difference_update(due)
        return due

    def delivered(self, source: TopicPartition) -> None:
        """Record that a partition was read, which ends its outage if there was one."""
        outage = self._outages.pop(source, None)
        if outage is not None:
            self._waiting.discard(source)
            seconds = round(self._clock.monotonic() - outage.since, 1)
            log.info("a partition can be read again", source=str(source), offset=outage.offset, seconds=seconds)

    def keep(self, sources: Collection[TopicPartition]) -> None:
        """Forget all partitions but these."""
        self._outages = {source: outage for source, outage in self._outages.items() if source in sources}
        self._waiting.intersection_update(sources)
