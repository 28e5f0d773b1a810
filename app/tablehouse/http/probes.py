"""The routes of the listener for probes and metrics."""

from collections.abc import Mapping

from tablehouse.access.policy import Right
from tablehouse.errors import RouteNotFound
from tablehouse.http.dispatch import PRETTY, Route, reading
from tablehouse.http.health import HealthRoutes
from tablehouse.http.target import without_trailing_slash

_NONE: Mapping[str, bytes] = {}


class ProbeRoutes:
    """What a kubelet and Prometheus ask for, and nothing of the tables' contents."""

    def __init__(self, health: HealthRoutes) -> None:
        self._routes = {route.template: route for route in probe_routes(health)}

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route of a raw path; raises RouteNotFound."""
        route = self._routes.get(without_trailing_slash(raw_path))
        if route is None:
            raise RouteNotFound(f"no such route on this port: it has {', '.join(self._routes)}")
        return route, _NONE


def probe_routes(health: HealthRoutes) -> tuple[Route, ...]:
    """Return the routes that the listener for probes and the public one have in common."""
    return (
        reading("/livez", health.livez, None),
        reading("/readyz", health.readyz, None, frozenset({"verbose", PRETTY})),
        reading("/metrics", health.metrics, Right.ADMIN),
    )
