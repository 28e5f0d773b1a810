"""Whether a partition's owner still applies what is written to its source, asked before something is written.

A table whose source or changelog is refused shows no later write until a person has given it a new version. Its owner
is asked as for a row, since its refusal of reads says so.
"""

from collections.abc import Callable, Iterable, Mapping
from math import inf

from app.errors import WriteRefused
from app.routing.query import Query
from app.routing.tables import RoutedTable
from app.tasks.reads import REFUSED

#: Seconds for which an owner counts as asked, unless it has refused.
BELIEVED_SECONDS = 1.0

#: How long an owner is waited for at most, in seconds and as a share of the time that the write has too.
MAX_WAIT_SECONDS, SHARE = 1.0, 0.25

#: Seconds after which trying again may help: a person has to act first.
_RETRY_AFTER = 60


class WriteCheck:
    """Asks owners, each partition once a second; clock is monotonic, in seconds, and deadlines are points on it."""

    def __init__(self, query: Query, clock: Callable[[], float]) -> None:
        self._query = query
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
        """Return which of some partitions have owners that say that they apply no write; each owner is asked once.

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
        errors = await self._query.ask_owners(routed, due, seconds=seconds, request_id=request_id)
        refused = {}
        for partition in due:
            reason = errors[partition].details.get(REFUSED) if partition in errors else None
            if reason is None:
                self._asked_at[name, partition] = self._clock()
                continue
            self._asked_at.pop((name, partition), None)
            refused[partition] = WriteRefused(
                f"nothing was written to partition {partition} of table {name}, since no read would show it: {reason}",
                retry_after=_RETRY_AFTER,
                table=name,
                partition=partition,
            )
        return refused
