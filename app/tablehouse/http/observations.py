"""What is counted, timed and logged of every answer, whichever way it was given."""

from collections.abc import Callable

from tablehouse.http.access_log import AccessLog
from tablehouse.telemetry import Metrics


class Observations:
    """Records answers. The metrics of a method, route and status are looked up once and not for every answer."""

    def __init__(self, metrics: Metrics, access_log: AccessLog) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._known = dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]]()

    def answered(
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
        """Record one answer; method and route are from bounded sets."""
        known = self._known.get((method, route, status))
        if known is None:
            known = self._known[method, route, status] = (
                self._metrics.http_requests.labels(method, route, status).inc,
                self._metrics.http_request_duration.labels(route).observe,
            )
        count, observe_duration = known
        count()
        observe_duration(seconds)
        self._access_log.write(
            method=method,
            route=route,
            status=status,
            seconds=seconds,
            request_id=request_id,
            key=key,
            served_by=served_by,
        )
