"""Liveness, readiness, and what runs here."""

import platform
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from tablehouse.http.answers import json_answer, json_body
from tablehouse.http.briefly import Briefly
from tablehouse.http.dispatch import Call
from tablehouse.model import TaskState, TaskStatus
from tablehouse.telemetry import EXPOSITION_CONTENT_TYPE, Metrics

#: The status of a worker that a load balancer should send requests to.
READY = "ready"


class WorkerHealth(Protocol):
    """What the worker knows of itself beyond its tasks."""

    def joined(self) -> bool:
        """Whether the group has given this worker its part, and its tasks exist.

        A worker that has to wait for another with the same URL has no part yet, and has not joined.
        """

    def broker_reachable(self) -> bool:
        """Whether a broker answered lately."""

    def draining(self) -> bool:
        """Whether the worker is on its way out."""

    def generation(self) -> int:
        """Return the consumer group's generation, -1 before the first."""

    def reasons(self) -> Sequence[str]:
        """Why the worker is not as it should be, in words for a person; empty when it is."""


class Readiness:
    """Whether a load balancer should send requests here.

    It takes a joined worker with every task ACTIVE or STANDBY once, except blocked ones, for which neither
    waiting nor a restart helps. From then on the worker stays ready, through rebalances, restores and broker outages,
    until it drains: each partition answers for itself, and to take every worker out at once would turn a rebalance into
    an outage. `strangers` are sentences about other workers that have no secret in common with this one.
    """

    def __init__(
        self,
        health: WorkerHealth,
        statuses: Callable[[], Sequence[TaskStatus]],
        strangers: Callable[[], Sequence[str]],
    ) -> None:
        self._health = health
        self._statuses = statuses
        self._strangers = strangers
        self._latched = False
        self._draining = False

    def drain(self) -> None:
        """Be unready from here on."""
        self._draining = True

    def draining(self) -> bool:
        """Whether this worker is on its way out."""
        return self._draining or self._health.draining()

    def _is_ready(self, behind: Sequence[TaskStatus]) -> bool:
        """Judge, and latch."""
        if not self._latched:
            self._latched = self._health.joined() and self._health.broker_reachable() and not behind
        return self._latched and not self.draining()

    def _layers(self, behind: Sequence[TaskStatus], blocked: Sequence[TaskStatus]) -> list[dict[str, Any]]:
        """List the layers of readiness as they are now, whether latched or not."""
        return [
            {"name": "listeners", "ok": True},
            {"name": "broker", "ok": self._health.broker_reachable()},
            {"name": "group", "ok": self._health.joined(), "generation": self._health.generation()},
            {"name": "tasks", "ok": not behind and not blocked, "behind": len(behind), "blocked": len(blocked)},
        ]

    def document(self, *, verbose: bool) -> dict[str, Any]:
        """Describe readiness for a person; its status is READY or another word."""
        tasks = self._statuses()
        blocked = [task for task in tasks if task.blocked]
        # A warm copy of another worker's partition is no promise of this one.
        settled = {TaskState.ACTIVE, TaskState.STANDBY}
        behind = [task for task in tasks if task.state not in settled and not task.blocked]
        described: dict[str, Any] = {
            "status": self._word(behind),
            "layers": self._layers(behind, blocked),
            "reasons": [*self._health.reasons(), *self._strangers()],
        }
        if verbose:
            described["tasks"] = [
                {
                    "table": task.table,
                    "partition": task.partition,
                    "state": task.state.name.lower(),
                    "position": task.position,
                    "lag_records": task.lag_records,
                    "staleness_ms": task.staleness_ms,
                    "restore_remaining": task.restore_remaining,
                    "rejected_records": task.rejected_records,
                    "rejection": task.rejection,
                    "suspicion": task.suspicion,
                    "blocked": task.blocked,
                    "reason": task.reason,
                }
                for task in tasks
            ]
        return described

    def _word(self, behind: Sequence[TaskStatus]) -> str:
        if self.draining():
            return "draining"
        return READY if self._is_ready(behind) else "not_ready"


class HealthRoutes:
    """The handlers of `/livez`, `/readyz`, `/metrics` and `/version`."""

    def __init__(self, readiness: Readiness, metrics: Metrics, version: str) -> None:
        self._readiness = readiness
        self._exposition = Briefly(metrics.exposition)
        self._verbose = Briefly(self._verbose_document)
        self._version = {"version": version, "python": platform.python_version()}

    async def livez(self, _call: Call) -> web.Response:
        """Answer, which is all that liveness means: the event loop runs."""
        return json_answer({"status": "alive"})

    async def readyz(self, call: Call) -> web.Response:
        """Answer 200 when ready, else 503, with the layers."""
        is_ready, body = await self._verbose.get() if "verbose" in call.parameters else self._document(verbose=False)
        response = json_body(body, 200 if is_ready else 503)
        if response.status != 200:  # noqa: PLR2004 - the status set above
            response.headers["Retry-After"] = "1"
        return response

    async def metrics(self, _call: Call) -> web.Response:
        """Answer in Prometheus' text format."""
        return web.Response(
            body=await self._exposition.get(),
            headers={"Content-Type": EXPOSITION_CONTENT_TYPE, "Cache-Control": "no-cache"},
        )

    async def _verbose_document(self) -> tuple[bool, bytes]:
        return self._document(verbose=True)

    def _document(self, *, verbose: bool) -> tuple[bool, bytes]:
        """Return whether the worker is ready, and the document that says so."""
        document = self._readiness.document(verbose=verbose)
        return document["status"] == READY, msgspec.json.encode(document)

    async def version(self, _call: Call) -> web.Response:
        """Answer with the versions of the project and of Python."""
        return json_answer(self._version)
