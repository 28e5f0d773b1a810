"""Whether a partition's owner still applies what is written to its source, asked before something is written.

A table whose source or changelog is refused shows no later write until a person has given it a new version. Its owner
is asked as for a row, since its refusal of reads says so.
"""

from collections.abc import Callable

from app.errors import RequestError, WriteRefused
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
        """Raise WriteRefused where the partition's owner says that it applies no write.

        An owner that does not answer, or is not known yet, keeps no record from being written.
        """
        place, now = (routed.spec.name, partition), self._clock()
        asked_at = self._asked_at.get(place)
        if asked_at is not None and now - asked_at < BELIEVED_SECONDS:
            return
        seconds = min(MAX_WAIT_SECONDS, (deadline - now) * SHARE)
        try:
            await self._query.ask_owner(routed, partition, seconds=seconds, request_id=request_id)
        except RequestError as error:
            reason = error.details.get(REFUSED)
            if reason is not None:
                self._asked_at.pop(place, None)
                raise WriteRefused(
                    f"nothing was written to partition {partition} of table {routed.spec.name}, since no read would "
                    f"show it: {reason}",
                    retry_after=_RETRY_AFTER,
                    table=routed.spec.name,
                    partition=partition,
                ) from None
        self._asked_at[place] = self._clock()
