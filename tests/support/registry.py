"""A stand-in for a schema registry, for what a real one cannot be made to do."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from tablehouse.testing import processes

#: Status, headers and text.
Answer = tuple[int, Mapping[str, str], str]


class StandInRegistry:
    """Answers for schemas by id and by GUID, and for versions of subjects; each request is kept with its headers.

    `answer`, when it is set, is what every request gets instead: status, headers and text. `silent` answers nothing.
    """

    def __init__(self, port: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.port = processes.free_port() if port is None else port
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        #: The ids of schemas by their GUIDs; None for a registry that looks none up by them.
        self.guids: dict[str, int] | None = {}
        self.answer: Answer | None = None
        self.silent = False
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._runner = web.ServerRunner(web.Server(self._respond), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def register(self, subject: str, schema_id: int, text: str, **members: Any) -> None:
        """Register a schema as the next version of a subject."""
        self.schemas[schema_id] = {"schema": text, **members}
        self.subjects.setdefault(subject, []).append(schema_id)

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [path for path, _ in self.requests]

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.raw_path, dict(request.headers)))
        if self.silent:
            await asyncio.sleep(3600)
        if self.answer is not None:
            status, headers, text = self.answer
            return web.Response(status=status, headers=headers, text=text)
        try:
            return web.json_response(
                self._find([unquote(part) for part in request.raw_path.partition("?")[0].strip("/").split("/")])
            )
        except _NotThere as error:
            return web.json_response({"error_code": error.code, "message": str(error)}, status=404)

    def _find(self, path: list[str]) -> Any:
        match path:
            case ["subjects"]:
                return list(self.subjects)
            case ["schemas", "ids", number]:
                return self._schema(int(number))
            case ["schemas", "guids", guid] if self.guids is not None:
                return self._schema(self.guids.get(guid, 0))
            case ["subjects", subject, "versions"]:
                return list(range(1, len(self._ids(subject)) + 1))
            case ["subjects", subject, "versions", number]:
                ids = self._ids(subject)
                version = len(ids) if number == "latest" else int(number)
                if not 0 < version <= len(ids):
                    raise _NotThere(40402, "Version not found")
                return {
                    "subject": subject,
                    "version": version,
                    "id": ids[version - 1],
                    **self._schema(ids[version - 1]),
                }
        raise _NotThere(404, "HTTP 404 Not Found")

    def _schema(self, schema_id: int) -> dict[str, Any]:
        if schema_id not in self.schemas:
            raise _NotThere(40403, "Schema not found")
        return self.schemas[schema_id]

    def _ids(self, subject: str) -> list[int]:
        if subject not in self.subjects:
            raise _NotThere(40401, "Subject not found")
        return self.subjects[subject]


class _NotThere(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
