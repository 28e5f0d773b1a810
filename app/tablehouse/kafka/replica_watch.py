"""Watches for changelogs with too few replicas: losing the last replica loses acknowledged rows."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from aiokafka.errors import KafkaError

from tablehouse.catalog.spec import Catalog
from tablehouse.kafka.client import Connection
from tablehouse.kafka.topic_plan import insync_of
from tablehouse.kafka.topics import replica_counts
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

#: Seconds between checks; replicas are added by an operator.
_INTERVAL = 60.0


class ReplicaWatch:
    """Compares each changelog's replicas with the required number; `reasons` describes those with too few."""

    def __init__(
        self, connection: Connection, group: str, catalog: Catalog, wanted: Mapping[str, int], metrics: Metrics
    ) -> None:
        self.reasons: Sequence[str] = ()
        self._connection = connection
        self._tables = {changelog_topic(group, table): table.name for table in catalog.tables.values()}
        self._wanted = wanted
        self._missing = metrics.changelog_replicas_missing

    async def watch(self) -> None:
        """Check periodically."""
        while True:
            try:
                self._compare(await replica_counts(self._connection, list(self._wanted)))
            except (KafkaError, TimeoutError) as error:
                log.info("the replicas of changelogs could not be checked", error=repr(error))
            await asyncio.sleep(_INTERVAL)

    def _compare(self, found: Mapping[str, int]) -> None:
        reasons = []
        for topic, replicas in found.items():
            table, wanted = self._tables[topic], self._wanted[topic]
            self._missing.labels(table).set(max(0, wanted - replicas))
            if replicas < wanted:
                reasons.append(
                    f"changelog {topic} of table {table} has {replicas} {'replica' if replicas == 1 else 'replicas'} "
                    f"and should have {wanted}: add some with kafka-reassign-partitions.sh, then set "
                    f"min.insync.replicas={insync_of(wanted)}"
                )
        for reason in reasons:
            if reason not in self.reasons:
                log.warning("a changelog has too few replicas", reason=reason)
        self.reasons = reasons
