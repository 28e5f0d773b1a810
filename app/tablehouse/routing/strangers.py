"""Workers of the group that were found to have no secret in common with this one."""

from collections.abc import Collection
from typing import NamedTuple

import structlog

from tablehouse.model import HostInfo
from tablehouse.recurring import Recurring

log = structlog.get_logger("routing")

#: Workers that are remembered; processes that have ended are among them.
_MAX_REMEMBERED = 1000


class _Stranger(NamedTuple):
    reason: str
    warnings: Recurring


class Strangers:
    """Remembers them until they prove themselves, and logs them."""

    def __init__(self) -> None:
        self._known: dict[HostInfo, _Stranger] = {}

    def found(self, host: HostInfo, reason: str) -> None:
        """Record that a worker has no secret in common with this one."""
        stranger = self._known.get(host)
        if stranger is None:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            stranger = self._known[host] = _Stranger(reason, Recurring(log))
        stranger.warnings.warn(
            host,
            "another worker has no secret in common with this one",
            url=host.url,
            peer=host.worker_id,
            reason=reason,
        )

    def met(self, host: HostInfo) -> None:
        """Record that a worker has proven itself, or needs to prove nothing."""
        self._known.pop(host, None)

    def among(self, members: Collection[HostInfo]) -> list[str]:
        """Return a sentence about each of these workers that has none; others are forgotten."""
        self._known = {host: stranger for host, stranger in self._known.items() if host in members}
        return [stranger.reason for stranger in self._known.values()]
