"""A query of one worker over the fakes of a cluster."""

from collections.abc import Mapping

import pytest

from tablehouse.errors import RequestError
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import DEFAULT_CONSISTENCY, Consistency, Freshness, Role
from tablehouse.routing.asking import Asker
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.here import Here
from tablehouse.routing.query import Answer, Query
from tablehouse.routing.tables import RoutedTable, routed_tables
from tablehouse.stores.rows import Row
from tablehouse.tasks.reads import ReadResult
from tablehouse.telemetry import Metrics
from tablehouse.turns import Turns
from tests.support.cluster_fakes import CATALOG, FakeClock, FakeTables, Placed, ScriptedPeer, snapshot
from tests.support.positions import at
from tests.support.schemas import NO_REGISTRY

ROW = Row(b'{"seats":55}', 1_700_000_000_000, 41)
PARTITION = partition_of("murmur2", b"N10156", 4)


class Setting:
    """One worker `me` of a cluster, and its query."""

    def __init__(self, *members: Placed, peer: ScriptedPeer | None = None) -> None:
        self.view = ClusterView()
        self.view.swap(snapshot(*members))
        self.local = FakeTables()
        self.peer = peer or ScriptedPeer()
        self.clock = FakeClock()
        self.metrics = Metrics("0")
        self.asker = Asker(
            view=self.view,
            here=Here(self.local, Turns(), self.clock, "me"),
            peer=self.peer,
            worker_id="me",
            clock=self.clock,
            metrics=self.metrics,
        )
        self.query = self.query_of(routed_tables(CATALOG, "g", NO_REGISTRY))

    def query_of(self, tables: Mapping[str, RoutedTable]) -> Query:
        """Make a query of some tables."""
        return Query(
            tables=tables,
            view=self.view,
            local=self.local,
            asker=self.asker,
            worker_id="me",
            clock=self.clock,
            metrics=self.metrics,
        )

    async def read(
        self,
        key: bytes = b"N10156",
        table: str = "planes",
        within: float = 5.0,
        asked: Consistency = DEFAULT_CONSISTENCY,
        wait: float | None = None,
    ) -> Answer:
        """Read with a deadline `within` seconds from now."""
        deadline = self.clock.now + within
        return await self.query.read(table, key, deadline=deadline, request_id="r1", consistency=asked, wait=wait)

    async def error(
        self,
        key: bytes = b"N10156",
        table: str = "planes",
        within: float = 5.0,
        asked: Consistency = DEFAULT_CONSISTENCY,
        wait: float | None = None,
    ) -> RequestError:
        """Read, and return the error that has to come."""
        with pytest.raises(RequestError) as raised:
            await self.read(key, table, within, asked, wait)
        return raised.value

    @property
    def asked_hosts(self) -> list[str]:
        """Who was asked by a hop, in order."""
        return [host for host, _ in self.peer.hops]

    def durations(self, path: str) -> float:
        """How many reads were timed under this path."""
        labels = {"table": "planes", "path": path}
        return self.metrics.registry.get_sample_value("tablehouse_read_duration_seconds_count", labels) or 0

    def counted(self, result: str) -> float:
        """How many reads had this result."""
        return (
            self.metrics.registry.get_sample_value("tablehouse_read_total", {"table": "planes", "result": result}) or 0
        )

    def forwards(self, outcome: str) -> float:
        """How many hops had this outcome."""
        return self.metrics.registry.get_sample_value("tablehouse_forward_requests_total", {"outcome": outcome}) or 0


def found(role: Role = Role.ACTIVE, row: Row | None = ROW) -> ReadResult:
    return ReadResult(row, Freshness(PARTITION, at(PARTITION, 99), role, 0, 0))
