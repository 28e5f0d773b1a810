"""The health of a worker, and the reasons if it is not healthy."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tablehouse.catalog.view import CatalogView
from tablehouse.kafka.lease import GroupLease
from tablehouse.model import TaskStatus
from tablehouse.routing.cluster import ClusterView
from tablehouse.worker.local_side import LocalSide

#: Maximum lines about tasks in reasons(), and partitions named in a line. `/readyz?verbose` lists all.
_MAX_LINES, _MAX_PARTITIONS = 20, 8


def task_reasons(statuses: Sequence[TaskStatus]) -> list[str]:
    """Return why partitions make no progress, one line per table and reason; those for an operator come first."""
    kept: dict[tuple[str, bool, str, str], list[int]] = {}
    for task in statuses:
        if task.reason is not None:
            state = "blocked" if task.blocked else task.state.name.lower()
            kept.setdefault((task.table, task.blocked, state, task.reason), []).append(task.partition)
    lines = []
    for (table, _, state, reason), partitions in sorted(kept.items(), key=lambda one: not one[0][1]):
        named = ", ".join(map(str, sorted(partitions)[:_MAX_PARTITIONS]))
        more = f" and {len(partitions) - _MAX_PARTITIONS} more" if len(partitions) > _MAX_PARTITIONS else ""
        what = f"partition {named}" if len(partitions) == 1 else f"partitions {named}{more}"
        verb = "is" if len(partitions) == 1 else "are"
        lines.append(f"{what} of table {table} {verb} {state}: {reason}")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES} more like this: GET /readyz?verbose lists all partitions"]
    return lines


def content_reasons(statuses: Sequence[TaskStatus]) -> list[str]:
    """Return one line for each table whose records probably do not match its definition."""
    lines: dict[str, str] = {}
    rows = Counter[str]()
    for task in statuses:
        rows[task.table] += task.rows_estimate
    for task in statuses:
        if task.suspicion is not None:
            lines.setdefault(task.table, f"table {task.table}: {task.suspicion}")
        elif task.rejected_records and not rows[task.table]:
            latest = task.rejection or f"see `tablehouse dead-letters list --table {task.table}`"
            lines.setdefault(
                task.table, f"table {task.table} has no rows here, only records that could not become rows: {latest}"
            )
    return list(lines.values())


class Health:
    """The state of a worker, for readiness and for operators.

    The engine sets the attributes. `trouble` is why the worker does not take part in the group, and `outage` why it has
    lost the brokers since; None if neither applies. `differences` describes the tables.yaml files of other workers that
    differ. `replication` returns the changelogs with too few replicas. `left_out` maps the members that the leader
    cannot place to the reason, by Kafka's member id; `is_left_out` is set if this worker is one of them.

    `url` is the one at which peers reach this worker. The brokers count as unreachable after session_timeout seconds
    without an answer of the coordinator. registry_trouble returns what is wrong with the schema registry, or None.
    """

    def __init__(
        self,
        catalog: CatalogView,
        view: ClusterView,
        lease: GroupLease,
        local: LocalSide,
        *,
        worker_id: str,
        url: str,
        session_timeout: float,
        registry_trouble: Callable[[], str | None],
    ) -> None:
        self.trouble: str | None = "starting"
        self.outage: str | None = None
        self.differences: Sequence[str] = ()
        self.replication: Callable[[], Sequence[str]] = tuple
        self.left_out: Mapping[str, str] = {}
        self.is_left_out = False
        self._catalog = catalog
        self._worker_id = worker_id
        self._url = url
        self._session_timeout = session_timeout
        self._view = view
        self._lease = lease
        self._local = local
        self._registry_trouble = registry_trouble

    def joined(self) -> bool:
        """Return whether the group has assigned partitions to this worker, possibly none.

        False while another worker has the same URL: the ghost of a process without a persistent data directory, which
        must leave the group first. Also false while the leader cannot place this worker.
        """
        current = self._view.current
        rivals = [
            member.worker_id
            for member in current.members
            if member.url == self._url and member.worker_id != self._worker_id
        ]
        return current.generation >= 0 and not rivals and not self.is_left_out

    def broker_reachable(self) -> bool:
        """Return whether the group's coordinator answered recently."""
        return self._lease.age() < self._session_timeout

    def draining(self) -> bool:
        """Return whether the worker is stopping."""
        return self._local.draining

    def generation(self) -> int:
        """Return the group's generation, -1 before the first."""
        return self._view.current.generation

    def reasons(self) -> Sequence[str]:
        """Return the problems of the worker, one line each."""
        # Tables of one topic may have the same reason.
        of_tables = dict.fromkeys(
            reason for table in self._catalog.current.tables if (reason := self._local.table_reason(table)) is not None
        )
        registry, statuses = self._registry_trouble(), self._local.statuses()
        return [
            *(trouble for trouble in (self.trouble, self.outage) if trouble is not None),
            *([] if registry is None else [f"the schema registry does not answer: {registry}"]),
            *self.differences,
            *self.replication(),
            *(
                f"member {member} of the group is left out of the placement: {reason}"
                for member, reason in self.left_out.items()
            ),
            *of_tables,
            *task_reasons(statuses),
            *content_reasons(statuses),
        ]
