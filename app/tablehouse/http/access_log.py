"""One log line for each request, within a bound: a flood of requests must not become a flood of lines."""

import hashlib
import logging
from collections.abc import Callable
from http import HTTPStatus

import structlog

#: Lines in one second; what is over it is counted, and the next line that is written says how many were not.
LINES_PER_SECOND = 100

#: Answers that a person should look into. A 503 is how a restore or a rebalance looks from outside; metrics count it.
_FAULTS = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.GATEWAY_TIMEOUT})


class AccessLog:
    """Writes faults of ours, 500 and 504, at info level and the rest at debug. clock is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._log = structlog.get_logger("access").bind()
        self._clock = clock
        self._second = 0
        self._written = 0
        self._suppressed = 0

    def write(
        self,
        *,
        method: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        key: bytes | None,
        served_by: str | None,
    ) -> None:
        """Write the line of one answered request. The key goes in as a hash only."""
        level = logging.INFO if status in _FAULTS else logging.DEBUG
        if not self._log.is_enabled_for(level):
            return
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= LINES_PER_SECOND:
            self._suppressed += 1
            return
        self._written += 1
        optional: dict[str, str | int] = {}
        if key is not None:
            optional["key_hash"] = hashlib.blake2b(key, digest_size=8).hexdigest()
        if served_by is not None:
            optional["served_by"] = served_by
        if self._suppressed:
            optional["suppressed_lines"] = self._suppressed
            self._suppressed = 0
        self._log.log(
            level,
            "request",
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            **optional,
        )
