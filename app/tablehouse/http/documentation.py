"""What a person or a program finds first: what this is, its tables, and how it is asked."""

from collections.abc import Mapping
from html import escape
from importlib import resources

import msgspec
from aiohttp import web

from tablehouse.errors import NotAcceptable
from tablehouse.http.answers import JSON_HEADERS
from tablehouse.http.conditions import preferred
from tablehouse.http.dispatch import Call
from tablehouse.http.pages import HTML_HEADERS, link, page, table
from tablehouse.http.reference import reference_page
from tablehouse.routing.tables import RoutedTable

_PRODUCT = "Tablehouse"

#: What there is besides rows, by name: its path, and what it is.
_LINKS: Mapping[str, tuple[str, str]] = {
    "docs": ("/docs", "The reference of the API"),
    "openapi": ("/openapi.json", "The same for programs, in OpenAPI"),
    "tables": ("/tables", "The tables and their state"),
    "cluster": ("/cluster", "The workers, and which partitions they hold"),
    "readiness": ("/readyz", "Whether this worker is ready"),
    "metrics": ("/metrics", "Metrics of this worker, for Prometheus"),
    "version": ("/version", "The versions of Tablehouse and Python"),
}

_JSON = "application/json"
_HTML = "text/html"


class DocumentationRoutes:
    """The handlers of `/`, and of `/docs` and `/openapi.json`, which answer the same as long as the worker runs."""

    def __init__(self, tables: Mapping[str, RoutedTable], version: str) -> None:
        self._openapi = resources.files("tablehouse.http").joinpath("openapi.json").read_bytes()
        self._docs = reference_page(msgspec.json.decode(self._openapi))
        self._tables = tables
        self._version = version

    async def home(self, call: Call) -> web.Response:
        """Answer with the tables and with links, as a page for a browser and as JSON for everything else."""
        media_type = preferred(call.headers.get("Accept"), (_JSON, _HTML))
        if media_type is None:
            raise NotAcceptable(
                f"this is {_JSON} or {_HTML}, which the Accept header leaves out", available=[_JSON, _HTML]
            )
        if media_type == _JSON:
            return web.Response(body=_home_document(self._tables, self._version), headers=JSON_HEADERS)
        return web.Response(body=_home_page(self._tables, self._version), headers=HTML_HEADERS)

    async def docs(self, _call: Call) -> web.Response:
        """Answer with the reference of the API, as a page."""
        return web.Response(body=self._docs, headers=HTML_HEADERS)

    async def openapi(self, _call: Call) -> web.Response:
        """Answer with the OpenAPI document of the public listener."""
        return web.Response(body=self._openapi, headers=JSON_HEADERS)


def _home_document(tables: Mapping[str, RoutedTable], version: str) -> bytes:
    described = [
        {"name": name, "description": table.spec.description, "url": _url(name)} for name, table in tables.items()
    ]
    links = {name: target for name, (target, _) in _LINKS.items()}
    return msgspec.json.encode({"product": _PRODUCT, "version": version, "tables": described, "links": links})


def _home_page(tables: Mapping[str, RoutedTable], version: str) -> bytes:
    rows = [(link(_url(name), name), escape(routed.spec.description)) for name, routed in tables.items()]
    links = [(link(target), escape(what)) for target, what in _LINKS.values()]
    return page(
        _PRODUCT,
        f"<h1>{_PRODUCT} {escape(version)}</h1>\n<p>Kafka topics as tables: the latest row for a key, from any "
        f"worker.</p>\n<h2>Tables</h2>\n{table(('table', 'what it is'), rows)}<p>A row is at "
        f"<code>/tables/{{table}}/{{key}}</code>.</p>\n<h2>More</h2>\n{table(('link', 'what it is'), links)}",
    )


def _url(table: str) -> str:
    return f"/tables/{table}"
