"""The routes of the public listener."""

from collections.abc import Mapping

from tablehouse.access.policy import Right
from tablehouse.errors import RouteNotFound
from tablehouse.http.batch import BatchRoutes
from tablehouse.http.batch_put import BatchPutRoutes
from tablehouse.http.consistency import PARAMETERS
from tablehouse.http.dispatch import PRETTY, Operation, Route, reading
from tablehouse.http.documentation import DocumentationRoutes
from tablehouse.http.health import HealthRoutes
from tablehouse.http.overview import OverviewRoutes
from tablehouse.http.probes import probe_routes
from tablehouse.http.rows import RowRoutes
from tablehouse.http.scan import COUNT_PARAMETERS, SCAN_PARAMETERS, ScanRoutes
from tablehouse.http.target import percent_decoded, raw_bytes, without_trailing_slash
from tablehouse.http.writes import PARAMETERS as WRITE_PARAMETERS
from tablehouse.http.writes import WriteRoutes

ROW_TEMPLATE = "/tables/{table}/{key}"
_TABLES = "/tables/"
_KEY = frozenset({"key"})
_PRETTY = frozenset({PRETTY})
_NONE: Mapping[str, bytes] = {}


class PublicRoutes:
    """Resolves raw paths; a table's name cannot have a colon, so the last one begins a custom method."""

    def __init__(
        self,
        rows: RowRoutes,
        batch: BatchRoutes,
        writes: WriteRoutes,
        batch_put: BatchPutRoutes,
        scans: ScanRoutes,
        overview: OverviewRoutes,
        health: HealthRoutes,
        documentation: DocumentationRoutes,
    ) -> None:
        self._fixed = {
            route.template: route
            for route in (
                reading("/", documentation.home, None, _PRETTY),
                reading("/tables", overview.tables, Right.READ, _PRETTY),
                reading("/cluster", overview.cluster, Right.ADMIN, _PRETTY),
                *probe_routes(health),
                reading("/version", health.version, None, _PRETTY),
                reading("/openapi.json", documentation.openapi, None, _PRETTY),
                reading("/docs", documentation.docs, None),
            )
        }
        self._table = reading("/tables/{table}", overview.table, Right.READ, _PRETTY)
        self._row = Route(ROW_TEMPLATE, _operations_of_row(rows, writes, _PRETTY), writes.lacks)
        batch_gets = Operation(batch.batch_get, Right.READ, _PRETTY | PARAMETERS)
        batch_puts = Operation(batch_put.batch_put, Right.WRITE, _PRETTY)
        self._methods = {
            "get": Route("/tables/{table}:get", _operations_of_row(rows, writes, _PRETTY | _KEY), writes.lacks),
            "batch-put": Route("/tables/{table}:batch-put", {"POST": batch_puts}, writes.lacks),
            "batch-get": Route("/tables/{table}:batch-get", {"POST": batch_gets}),
            "scan": reading("/tables/{table}:scan", scans.scan, Right.SCAN, _PRETTY | PARAMETERS | SCAN_PARAMETERS),
            "count": reading("/tables/{table}:count", scans.count, Right.SCAN, _PRETTY | PARAMETERS | COUNT_PARAMETERS),
            "locate": reading("/tables/{table}:locate", rows.locate, Right.READ, _PRETTY | _KEY),
        }

    def all(self) -> tuple[Route, ...]:
        """List every route of this listener."""
        return (*self._fixed.values(), self._table, self._row, *self._methods.values())

    def resolve(self, raw_path: str) -> tuple[Route, Mapping[str, bytes]]:
        """Find the route of a raw path; raises RouteNotFound and InvalidParameter.

        A slash at the end changes nothing, since no key in a path is empty. After a key it would be a part of the key,
        which has to be sent as %2F: there is no such route.
        """
        table, _, key = raw_path[len(_TABLES) :].partition("/")
        if raw_path.startswith(_TABLES) and table:
            if key and "/" not in key:
                return self._row, {"table": percent_decoded(raw_bytes(table)), "key": percent_decoded(raw_bytes(key))}
            if not key:
                name, colon, method = percent_decoded(raw_bytes(table)).rpartition(b":")
                if not colon:
                    return self._table, {"table": method}
                custom = self._methods.get(method.decode("utf-8", "replace"))
                if custom is not None and name:
                    return custom, {"table": name}
            raise RouteNotFound(
                "no such route: a row is /tables/{table}/{key} with every '/' of the key as %2F, or "
                "/tables/{table}:get?key={key}, which takes an empty key too"
            )
        fixed = self._fixed.get(without_trailing_slash(raw_path))
        if fixed is None:
            raise RouteNotFound("no such route: GET /openapi.json lists those there are")
        return fixed, _NONE


def _operations_of_row(rows: RowRoutes, writes: WriteRoutes, parameters: frozenset[str]) -> dict[str, Operation]:
    return {
        "GET": Operation(rows.row, Right.READ, parameters | PARAMETERS),
        "PUT": Operation(writes.put, Right.WRITE, parameters | WRITE_PARAMETERS),
        "DELETE": Operation(writes.delete, Right.WRITE, parameters | WRITE_PARAMETERS),
    }
