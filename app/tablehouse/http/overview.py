"""The tables and the cluster as a whole: what every worker says of its tasks, put together."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from tablehouse.http.answers import json_answer, json_body
from tablehouse.http.briefly import Briefly
from tablehouse.http.dispatch import Call
from tablehouse.model import HostInfo, TaskState, TaskStatus
from tablehouse.routing.survey import Survey
from tablehouse.routing.tables import RoutedTable, table_named

_ACTIVE = TaskState.ACTIVE.name.lower()


class OverviewRoutes:
    """The handlers of `/tables`, `/tables/{table}` and `/cluster`.

    An answer has `complete: false` when a worker could not be asked; what that worker would know is then
    null. table_reason is that of LocalTables.
    """

    def __init__(
        self,
        tables: Mapping[str, RoutedTable],
        survey: Callable[[], Awaitable[Survey]],
        table_reason: Callable[[str], str | None],
    ) -> None:
        self._tables = tables
        self._table_reason = table_reason
        self._survey = Briefly(survey)
        self._all_tables = Briefly(self._tables_document)
        self._cluster = Briefly(self._cluster_document)

    async def tables(self, _call: Call) -> web.Response:
        """List the tables."""
        return json_body(await self._all_tables.get())

    async def _tables_document(self) -> bytes:
        seen = await self._survey.get()
        return msgspec.json.encode(
            {
                "generation": seen.snapshot.generation,
                "complete": seen.complete,
                "tables": [self._table(table, self._partitions(table, seen)) for table in self._tables.values()],
            }
        )

    async def table(self, call: Call) -> web.Response:
        """Describe one table with every partition."""
        table = table_named(self._tables, call.table)
        seen = await self._survey.get()
        partitions = self._partitions(table, seen)
        return json_answer(
            {
                **self._table(table, partitions),
                "generation": seen.snapshot.generation,
                "complete": seen.complete,
                "partition_details": partitions,
            }
        )

    async def cluster(self, _call: Call) -> web.Response:
        """Describe the members and the partitions that each holds."""
        return json_body(await self._cluster.get())

    async def _cluster_document(self) -> bytes:
        seen = await self._survey.get()
        return msgspec.json.encode(
            {
                "generation": seen.snapshot.generation,
                "complete": seen.complete,
                "members": [
                    {
                        "worker": report.host.worker_id,
                        "incarnation": report.host.incarnation,
                        "url": report.host.url,
                        "reachable": report.tasks is not None,
                        "reason": report.reason,
                        "different_tables": seen.snapshot.differences.get(report.host.worker_id),
                    }
                    for report in seen.reports
                ],
                "tables": {name: self._partitions(table, seen) for name, table in self._tables.items()},
            }
        )

    def _partitions(self, table: RoutedTable, seen: Survey) -> list[dict[str, Any]]:
        return _partitions(table, seen, self._table_reason(table.spec.name))

    def _table(self, table: RoutedTable, partitions: list[dict[str, Any]]) -> dict[str, Any]:
        return _table(table, partitions, self._table_reason(table.spec.name))


def _partitions(table: RoutedTable, seen: Survey, table_reason: str | None) -> list[dict[str, Any]]:
    """Describe each partition by what its active says of it; the figures are null when no worker could say."""
    asked = {report.host.worker_id for report in seen.reports if report.tasks is not None}
    said = {
        (report.host.worker_id, task.partition): task
        for report in seen.reports
        for task in report.tasks or ()
        if task.table == table.spec.name
    }
    described = []
    for partition in range(seen.snapshot.partitions.get(table.spec.shard_name, 0)):
        shard = table.spec.shard(partition)
        active = seen.snapshot.actives.get(shard)
        task = said.get((active.worker_id, partition)) if active else None
        standbys = seen.snapshot.standbys.get(shard, ())
        described.append(_partition(partition, active, [host.worker_id for host in standbys], task, table_reason))
        if task is None and table_reason is not None and active is not None and active.worker_id in asked:
            described[-1]["state"] = "not_served"
    return described


def _partition(
    partition: int, active: HostInfo | None, standbys: list[str], task: TaskStatus | None, table_reason: str | None
) -> dict[str, Any]:
    # As in answers: how far behind rows are is not known while later ones may lie where nothing reads them.
    measured = task if table_reason is None else None
    return {
        "partition": partition,
        "active": active.worker_id if active else None,
        "standbys": standbys,
        "state": _partition_state(active, task),
        "position": task.position if task else None,
        "lag_records": measured.lag_records if measured else None,
        "staleness_ms": measured.staleness_ms if measured else None,
        "restore_remaining": task.restore_remaining if task else None,
        "rows_estimate": task.rows_estimate if task else None,
        "rejected_records": task.rejected_records if task else None,
        "rejection": task.rejection if task else None,
        "suspicion": task.suspicion if task else None,
        "reason": (task.reason if task else None) or table_reason,
    }


def _partition_state(active: HostInfo | None, task: TaskStatus | None) -> str:
    if task is not None:
        return task.state.name.lower()
    return "unassigned" if active is None else "unknown"


def _table_state(states: list[str]) -> str:
    active = states.count(_ACTIVE)
    if active and active == len(states):
        return _ACTIVE
    return "partial" if active else "unavailable"


def _table(table: RoutedTable, partitions: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    """Describe a table; rows_estimate and rejected_records are null unless every partition's active could be asked."""
    spec = table.spec
    rows = [partition["rows_estimate"] for partition in partitions]
    rejected = [partition["rejected_records"] for partition in partitions]
    return {
        "name": spec.name,
        "description": spec.description,
        "version": spec.version,
        "source": ", ".join(spec.topics),
        "key": str(spec.source.key),
        "value": str(spec.source.value),
        "content_type": table.content_type,
        "partitioner": spec.source.partitioner,
        "partitions": len(partitions) or None,
        "rows_estimate": None if not rows or None in rows else sum(rows),
        "rejected_records": None if not rejected or None in rejected else sum(rejected),
        "state": _table_state([partition["state"] for partition in partitions]),
        "reason": reason or _first_reason(partitions),
    }


def _first_reason(partitions: list[dict[str, Any]]) -> str | None:
    """Return what keeps the first partition that something keeps from being active; None when nothing does."""
    kept = (partition for partition in partitions if partition["state"] != _ACTIVE and partition["reason"] is not None)
    return next((f"partition {partition['partition']}: {partition['reason']}" for partition in kept), None)
