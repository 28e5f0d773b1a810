"""Every metric with its name.

Labels hold values from bounded sets only: tables, partitions, routes, codes. Never a key, a URL or a client's text.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from tablehouse.model import TaskStatus
from tablehouse.positions import Position
from tablehouse.tallies import Counts, Histograms

# The creation times of counters are of no use in Prometheus' text format, and would be a quarter of its lines.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client has no type for it

#: The value of a `Content-Type` header for `Metrics.exposition`.
EXPOSITION_CONTENT_TYPE = CONTENT_TYPE_LATEST

# Point reads take fractions of a millisecond, forwarded ones about a millisecond, slow ones up to a deadline of
# seconds.
_READ_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0)
_STALL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MINUTES_BUCKETS = (0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Metrics:
    """All metrics of one worker, in a separate registry, so that two workers can run in one process.

    Events are counted in the fields of this class; the tasks' own values are read at scrape time, through
    `watch_tasks`, so that applying a batch updates no gauge.
    """

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._tasks: _TaskCollector | None = None
        self.http_requests = self._counts("http_requests", "HTTP answers.", "method", "route", "code")
        self.http_request_duration = self._times("http_request_duration_seconds", "Time to an HTTP response.", "route")
        self.http_in_flight = self._gauge("http_in_flight_requests", "HTTP requests being processed.")
        self.http_connections = self._gauge("http_connections", "Open connections of a listener.", "listener")
        self.http_held_bytes = self._gauge(
            "http_held_bytes", "Bytes of requests in progress and of responses that clients have not read yet."
        )
        self.http_connections_closed = self._counter(
            "http_connections_closed",
            "Connections closed by the worker: limit, memory, slow_head or slow_reader.",
            "reason",
        )
        self.reads = self._counts(
            "read",
            "Reads of a row, including those in batches: hit, miss, stale (not answered by the active) or unavailable.",
            "table",
            "result",
        )
        self.read_duration = self._times(
            "read_duration_seconds", "Time of a read: local, forwarded, or standby if one answered.", "table", "path"
        )
        self.rows_scanned = self._counter(
            "scanned_rows", "Rows read for scans and counts, by the worker that was called.", "table"
        )
        self.writes = self._counter(
            "writes",
            "Callers' writes: written, unavailable (nothing was written) or unknown (it may have been written).",
            "table",
            "result",
        )
        self.write_duration = self._histogram(
            "write_duration_seconds", "Time to the acknowledgement of a caller's write.", "table"
        )
        self.forwards = self._counts(
            "forward_requests",
            "Hops to another worker: ok, not_owner, refused or unreachable.",
            "outcome",
        )
        self.forward_duration = self._times("forward_duration_seconds", "Time of one hop to another worker.")
        self.links = self._gauge("links", "Open links to and from other workers: asking or answering.", "side")
        self.generation = self._gauge("generation", "Generation of the consumer group that routing follows.")
        self.rebalances = self._counter("rebalances", "Rebalances of this worker.")
        self.group_members_left_out = self._gauge(
            "group_members_left_out",
            "Members of the group that got no shards because their metadata is invalid.",
        )
        self.rebalance_duration = self._histogram(
            "rebalance_duration_seconds",
            "Time from the revocation to the new assignment.",
            buckets=_MINUTES_BUCKETS,
        )
        self.restore_records = self._counter("restore_records", "Rows written while restoring.", "table")
        self.restore_duration = self._histogram(
            "restore_duration_seconds",
            "Time from opening a task to ACTIVE.",
            "table",
            buckets=_MINUTES_BUCKETS,
        )
        self.store_size = self._gauge("store_size_bytes", "Size of a shard's store on disk.", "topic", "partition")
        self.store_quarantines = self._counter("store_quarantines", "Stores deleted and rebuilt.", "table")
        self.writes_stalled = self._gauge(
            "writes_stalled", "Writes to stores that are waiting for memtables to be flushed."
        )
        self.write_stall_duration = self._histogram(
            "write_stall_duration_seconds",
            "Time that a write to a store waited for memtables to be flushed.",
            buckets=_STALL_BUCKETS,
        )
        self.disk_free = self._gauge("disk_free_bytes", "Free space of the data directory's file system.")
        self.disk_size = self._gauge("disk_size_bytes", "Size of the data directory's file system.")
        self.ingest_records = self._counter("ingest_records", "Source records applied.", "table")
        self.records_skipped = self._counter(
            "records_skipped", "Source records that could not become rows and were skipped.", "table", "reason"
        )
        self.dead_letters = self._counter(
            "dead_letters",
            "Source records that could not become rows and were written to the dead letters.",
            "table",
            "reason",
        )
        self.dead_letter_errors = self._counter(
            "dead_letter_errors", "Dead letters that could not be written; they are retried.", "table"
        )
        self.waiting_for_schemas = self._gauge(
            "partitions_waiting_for_schemas", "Partitions that are waiting until a schema can be fetched.", "table"
        )
        self.schema_registry_requests = self._counter(
            "schema_registry_requests", "Requests to the schema registry.", "outcome"
        )
        self.schemas_cached = self._gauge("schemas_cached", "Schemas in the cache.")
        self.changelog_produce_errors = self._counter(
            "changelog_produce_errors", "Changelog batches that failed or are overdue.", "table"
        )
        self.changelog_replicas_missing = self._gauge(
            "changelog_replicas_missing", "Replicas that a table's changelog lacks.", "table"
        )
        self.claims = self._counter(
            "claims",
            "Claims of a changelog partition: held, refused (the broker knew a newer one) or lost (to another claim).",
            "table",
            "outcome",
        )
        self.batches_fenced = self._counter(
            "changelog_batches_fenced",
            "Changelog batches refused because another owner had claimed the partition.",
            "table",
        )
        self.foreign_changelog_writes = self._counter(
            "foreign_changelog_writes", "Changelog records of an older owner that were ignored.", "table"
        )
        self.misses_in_doubt = self._gauge(
            "misses_in_doubt",
            "1 for a table whose misses are 503, or that is not served, because keys may be in other partitions; else "
            "0.",
            "table",
        )
        self.log_lines_dropped = self._counter(
            "log_lines_dropped", "Log lines dropped because earlier ones were not read."
        )
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop runs a timer.", buckets=_READ_BUCKETS
        )
        self._gauge("build_info", "Always 1; the labels have the versions.", "version", "python").labels(
            version, platform.python_version()
        ).set(1)

    def watch_tasks(self, statuses: Callable[[], Sequence[TaskStatus]]) -> None:
        """Read the tasks' own values at each scrape; to be called once."""
        self._tasks = _TaskCollector(statuses)
        self.registry.register(self._tasks)

    async def exposition(self) -> bytes:
        """Render all metrics in Prometheus' text format, in a thread: with 1,000 tasks that takes 0.1 s."""
        if self._tasks is not None:
            self._tasks.look()
        return await asyncio.to_thread(generate_latest, self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="tablehouse", registry=self.registry)

    def _counts(self, name: str, text: str, *labels: str) -> Counts:
        made = Counts(f"tablehouse_{name}", text, labels)
        self.registry.register(made)
        return made

    def _times(self, name: str, text: str, *labels: str) -> Histograms:
        made = Histograms(f"tablehouse_{name}", text, labels, _READ_BUCKETS)
        self.registry.register(made)
        return made

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="tablehouse", registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = _READ_BUCKETS) -> Histogram:
        return Histogram(name, text, labels, namespace="tablehouse", registry=self.registry, buckets=buckets)


class _TaskCollector(Collector):
    """The tasks' own values; look() reads them, and collect() may run in another thread."""

    def __init__(self, statuses: Callable[[], Sequence[TaskStatus]]) -> None:
        self._statuses = statuses
        self._seen: Sequence[TaskStatus] = ()

    def look(self) -> None:
        self._seen = self._statuses()

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterator[Metric]:
        families = _families()
        state, applied, lag, staleness, remaining, stopped, blocked, held_back, rejected, suspicious = families
        for task in self._seen:
            place = (task.table, str(task.partition))
            state.add_metric((*place, task.state.name.lower()), 1)
            applied.add_metric(place, Position.from_json(task.partition, task.position).total)
            if task.lag_records is not None:
                lag.add_metric(place, task.lag_records)
            if task.staleness_ms is not None:
                staleness.add_metric(place, task.staleness_ms / 1000)
            if task.restore_remaining is not None:
                remaining.add_metric(place, task.restore_remaining)
            stopped.add_metric(place, float(task.stopped))
            blocked.add_metric(place, float(task.blocked))
            held_back.add_metric(place, task.held_back_seconds)
            rejected.add_metric(place, task.rejected_records)
            suspicious.add_metric(place, float(task.suspicion is not None))
        yield from families


def _families() -> list[GaugeMetricFamily]:
    families = {
        "partition_state": "1 for the state of a task; its other states are absent.",
        "applied_offset": "The last source offset applied, -1 before the first.",
        "lag_records": "Source records not applied yet; absent if unknown.",
        "staleness_seconds": "Time since the task had last applied all records; absent if it never had.",
        "restore_remaining_records": "Records left to apply before the task has caught up.",
        "partition_stopped": "1 for a task that has stopped at a record that cannot become a row; else 0.",
        "partition_blocked": "1 for a task that needs manual action, as neither waiting nor a restart helps; else 0.",
        "partition_held_back_seconds": "Time for which the same open transaction has held back source records; else 0.",
        "partition_rejected_records": "Source records that could not become rows since the table was built.",
        "partition_suspicious_keys": "1 if keys probably have a different format than the table's; else 0.",
    }
    return [
        GaugeMetricFamily(
            f"tablehouse_{name}",
            text,
            labels=("table", "partition", "state") if name == "partition_state" else ("table", "partition"),
        )
        for name, text in families.items()
    ]


async def measure_event_loop_lag(metrics: Metrics, interval: float) -> None:
    """Observe how late the loop runs a timer of `interval` seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        metrics.event_loop_lag.observe(max(0.0, loop.time() - due))
