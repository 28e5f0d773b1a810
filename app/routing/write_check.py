"""Whether a partition's owner applies what is written to its source, asked before something is written.

An owner that is blocked shows no later write until a person acts.
"""

from collections.abc import Callable

from app.errors import RequestError, WriteRefused
from app.routing.query import Query
from app.routing.tables import RoutedTable

#: Seconds for which an owner counts as asked, unless it has refused.
BELIEVED_SECONDS = 1.0

#: How long an owner is waited for at most, in seconds and as a share of the time that the write has too.
MAX_WAIT_SECONDS, SHARE = 1.0, 0.25


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
            await self._query.require_applied(routed, partition, seconds=seconds, request_id=request_id)
        except RequestError as error:
            if isinstance(error, WriteRefused):
                self._asked_at.pop(place, None)
                raise
        self._asked_at[place] = self._clock()
