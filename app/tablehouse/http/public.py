"""The routes of the public listener."""

from collections.abc import Mapping

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
from tablehouse.http.target import percent_decoded, without_trailing_slash
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
        overview: OverviewRoutes,
        health: HealthRoutes,
        documentation: DocumentationRoutes,
    ) -> None:
        self._fixed = {
            route.template: route
            for route in (
                reading("/", documentation.home, _PRETTY),
                reading("/tables", overview.tables, _PRETTY),
                reading("/cluster", overview.cluster, _PRETTY),
                *probe_routes(health),
                reading("/version", health.version, _PRETTY),
                reading("/openapi.json", documentation.openapi, _PRETTY),
                reading("/docs", documentation.docs),
            )
        }
        self._table = reading("/tables/{table}", overview.table, _PRETTY)
        self._row = Route(
            ROW_TEMPLATE,
            {
                "GET": Operation(rows.by_path, _PRETTY | PARAMETERS),
                "PUT": Operation(writes.put_by_path, _PRETTY | WRITE_PARAMETERS),
                "DELETE": Operation(writes.delete_by_path, _PRETTY | WRITE_PARAMETERS),
            },
            writes.lacks,
        )
        self._methods = {
            "get": Route(
                "/tables/{table}:get",
                {
                    "GET": Operation(rows.by_parameter, _PRETTY | _KEY | PARAMETERS),
                    "PUT": Operation(writes.put_by_parameter, _PRETTY | _KEY | WRITE_PARAMETERS),
                    "DELETE": Operation(writes.delete_by_parameter, _PRETTY | _KEY | WRITE_PARAMETERS),
                },
                writes.lacks,
            ),
            "batch-put": Route(
                "/tables/{table}:batch-put", {"POST": Operation(batch_put.batch_put, _PRETTY)}, writes.lacks
            ),
            "batch-get": Route("/tables/{table}:batch-get", {"POST": Operation(batch.batch_get, _PRETTY | PARAMETERS)}),
            "locate": reading("/tables/{table}:locate", rows.locate, _PRETTY | _KEY),
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
                return self._row, {"table": percent_decoded(table), "key": percent_decoded(key)}
            if not key:
                name, colon, method = percent_decoded(table).rpartition(b":")
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
