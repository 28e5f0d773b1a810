"""An engine in the test's own process, on a real broker."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tablehouse.catalog.load import load_catalog
from tablehouse.catalog.spec import Catalog
from tablehouse.catalog.view import CatalogView
from tablehouse.config.settings import Settings
from tablehouse.formats.schemas import NoSchemas
from tablehouse.kafka.consumer import LaneConsumer
from tablehouse.model import DEFAULT_CONSISTENCY, TaskState
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.digests import digest
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.tasks.questions import Get
from tablehouse.tasks.reads import ReadResult
from tablehouse.telemetry import Metrics
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.worker.assembly import engine_of
from tablehouse.worker.engine import SchemaSource
from tests.support.kafka import create_topic, unique
from tests.support.oracle import FORMS, Content, contents, replay_source
from tests.support.polling import until
from tests.support.positions import at
from tests.support.worker import table, tables


async def new_source(kafka: EmbeddedKafka, partitions: int = 1, **settings: str) -> tuple[str, str, str]:
    """Create a source topic; return it, a group, and a definition of table `t` over it.

    Settings of the topic are spelled with _ for a dot.
    """
    topic = unique("source")
    config = {name.replace("_", "."): value for name, value in settings.items()}
    await create_topic(kafka.bootstrap_servers, topic, partitions, config)
    return topic, unique("group"), tables(table("t", topic))


class RunningEngine:
    """An engine, and what tests want to know of it. Its tables have string keys and rows as they were produced."""

    def __init__(
        self,
        kafka: EmbeddedKafka,
        folder: Path,
        tables: str,
        group: str,
        schemas: SchemaSource | None = None,
        **settings: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = file = folder / "tables.yaml"
        self.bootstrap = kafka.bootstrap_servers
        self.metrics = Metrics("test")
        self._view = CatalogView(self._load(tables))
        values: Mapping[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "tables": str(file),
            "group": group,
            "data_dir": str(folder / "data"),
            "session_timeout": "3s",
            "advertised_url": "http://127.0.0.1:1",
            "memory_budget": "64MiB",
            **settings,
        }
        loaded = Settings(**values)
        directory = DataDirectory.acquire(loaded.data_dir)
        self.engine = engine_of(loaded, self._view, directory, self.metrics, ClusterView(), schemas or NoSchemas())

    def _load(self, tables: str) -> Catalog:
        self._file.write_text(tables, "utf-8")
        return load_catalog(self._file)

    def swap(self, tables: str) -> None:
        """Have the running engine take other tables."""
        self._view.swap(self._load(tables))

    @property
    def catalog(self) -> Catalog:
        """The tables that it has now."""
        return self._view.current

    @property
    def consumer(self) -> LaneConsumer:
        """The group's consumer."""
        consumer: LaneConsumer = self.engine.app.consumer
        return consumer

    def states(self) -> dict[tuple[str, int], TaskState]:
        """Return the state of every task."""
        return {(task.table, task.partition): task.state for task in self.engine.local.statuses()}

    def reason(self, table: str, partition: int = 0) -> str:
        """Return why a task is not active; empty when it is."""
        found = {(task.table, task.partition): task.reason for task in self.engine.local.statuses()}
        return found.get((table, partition)) or ""

    async def wait_active(self, tasks: int) -> None:
        """Wait until that many tasks are there, and all of them active."""

        async def active() -> bool:
            statuses = self.engine.local.statuses()
            assert len(statuses) == tasks, statuses
            assert all(task.state is TaskState.ACTIVE for task in statuses), statuses
            return True

        await until(active, f"{tasks} tasks are active")

    async def wait_position(self, table: str, partition: int, offset: int) -> None:
        """Wait until a task has applied everything up to a source offset."""

        async def applied() -> bool:
            positions = {(task.table, task.partition): int(task.position) for task in self.engine.local.statuses()}
            assert positions.get((table, partition), -1) >= offset, self.engine.local.statuses()
            return True

        await until(applied, f"{table}[{partition}] is at {offset}")

    def read(self, table: str, key: bytes, partition: int = 0) -> ReadResult:
        """Read a row here; raises what a reader would be told."""
        return self.engine.local.answer(table, partition, Get(key), DEFAULT_CONSISTENCY)

    async def check_equal(self, table: str, partitions: int) -> dict[int, Content]:
        """Check every partition of a table against a replay of its source, and return what it holds."""
        topic = self.catalog.tables[table].source.topic
        expected = await replay_source(self.bootstrap, topic, partitions)
        for partition, end in expected.ends.items():
            await self.wait_position(table, partition, end - 1)
        right = contents(expected, FORMS["string"])
        for partition, content in right.items():
            found = await digest(self.engine.local, table, partition)
            assert found.position_after == at(partition, expected.ends[partition] - 1)
            assert (found.rows, found.rows_hash) == content.digest(), f"{table}[{partition}] differs from its source"
        return right

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric; 0 when it has not been counted yet."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running_engine(
    kafka: EmbeddedKafka,
    folder: Path,
    tables: str,
    group: str,
    schemas: SchemaSource | None = None,
    **settings: str,
) -> AsyncIterator[RunningEngine]:
    """Run an engine; run again over the same folder, it is the same worker with its data."""
    running = RunningEngine(kafka, folder, tables, group, schemas, **settings)
    engine = running.engine
    await engine.start()
    await engine.app.start()
    try:
        yield running
    finally:
        engine.drain()
        await engine.app.stop()
        await engine.stop()
