"""Whether a partition's owner applies what is written to its source, asked before something is written.

An owner that is blocked shows no later write until a person acts.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from math import inf

from tablehouse.errors import RequestError, WriteRefused
from tablehouse.routing.asking import Asker
from tablehouse.routing.tables import RoutedTable
from tablehouse.tasks.questions import Applied

#: Seconds for which an owner counts as asked, unless it has refused.
BELIEVED_SECONDS = 1.0

#: How long an owner is waited for at most, in seconds and as a share of the time that the write has too.
MAX_WAIT_SECONDS, SHARE = 1.0, 0.25

#: Owners that are asked at once for one request.
_AT_ONCE = 32


class WriteCheck:
    """Asks owners, each partition once a second; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(self, asker: Asker, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._clock = clock
        self._asked_at: dict[tuple[str, int], float] = {}

    async def require_applied(self, routed: RoutedTable, partition: int, *, deadline: float, request_id: str) -> None:
        """Raise WriteRefused where the partition's owner says that it applies no write."""
        refused = await self.refusals(routed, [partition], deadline=deadline, request_id=request_id)
        if refused:
            raise refused[partition]

    async def refusals(
        self, routed: RoutedTable, partitions: Iterable[int], *, deadline: float, request_id: str
    ) -> Mapping[int, WriteRefused]:
        """Return which of some partitions have owners that say that they apply no write.

        An owner that does not answer, or is not known yet, keeps no record from being written.
        """
        name, now = routed.spec.name, self._clock()
        due = [
            partition
            for partition in partitions
            if now - self._asked_at.get((name, partition), -inf) >= BELIEVED_SECONDS
        ]
        if not due:
            return {}
        seconds = min(MAX_WAIT_SECONDS, (deadline - now) * SHARE)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def ask(partition: int) -> WriteRefused | None:
            async with turns:
                try:
                    await self._asker.ask_active(routed, partition, Applied(), seconds=seconds, request_id=request_id)
                except WriteRefused as error:
                    self._asked_at.pop((name, partition), None)
                    return error
                except RequestError:
                    pass
            self._asked_at[name, partition] = self._clock()
            return None

        answers = await asyncio.gather(*map(ask, due))
        return {partition: error for partition, error in zip(due, answers, strict=True) if error is not None}
