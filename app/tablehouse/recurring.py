"""Log lines about ongoing problems: the first at once, further ones at growing intervals, and one at the end."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

#: Seconds from the first line to the second; each further interval is twice the previous one, up to the maximum.
FIRST_INTERVAL, MAX_INTERVAL = 2.0, 600.0


@dataclass(slots=True)
class _Trouble:
    since: float
    seen: float
    due: float
    interval: float = FIRST_INTERVAL
    suppressed: int = 0


class Recurring:
    """Logs with a structlog logger; each subject, such as a partition or a kind of error, has separate intervals.

    Subjects are remembered until they end, so there must be few. A subject that was not reported for the longest
    interval starts over.
    """

    def __init__(self, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._troubles: dict[Hashable, _Trouble] = {}

    def warn(self, subject: Hashable, event: str, /, **fields: object) -> None:
        """Log a warning unless the last one about the subject is too recent; includes the number suppressed."""
        self._report(self._log.warning, subject, event, fields)

    def error(self, subject: Hashable, event: str, /, **fields: object) -> None:
        """Log an error, at the same intervals."""
        self._report(self._log.error, subject, event, fields)

    def end(self, subject: Hashable, event: str, /, **fields: object) -> None:
        """Log the end of a problem and its duration, if there was one."""
        trouble = self._troubles.pop(subject, None)
        if trouble is not None:
            seconds = round(self._clock() - trouble.since, 1)
            self._log.info(event, **fields, **_suppressed(trouble.suppressed), seconds=seconds)

    def _report(self, write: Callable[..., object], subject: Hashable, event: str, fields: dict[str, object]) -> None:
        now = self._clock()
        trouble = self._troubles.get(subject)
        if trouble is None or now - trouble.seen > MAX_INTERVAL:
            self._troubles[subject] = _Trouble(since=now, seen=now, due=now + FIRST_INTERVAL)
            write(event, **fields)
            return
        trouble.seen = now
        if now < trouble.due:
            trouble.suppressed += 1
            return
        trouble.interval = min(2 * trouble.interval, MAX_INTERVAL)
        trouble.due = now + trouble.interval
        suppressed, trouble.suppressed = trouble.suppressed, 0
        write(event, **fields, **_suppressed(suppressed), seconds=round(now - trouble.since, 1))


def _suppressed(count: int) -> dict[str, int]:
    return {"suppressed": count} if count else {}
