"""Watches for changelogs with too few replicas: losing the last replica loses acknowledged rows."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from aiokafka.errors import KafkaError

from tablehouse.kafka.client import Connection
from tablehouse.kafka.topic_plan import insync_of
from tablehouse.kafka.topics import Topics, replica_counts
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.telemetry import Metrics

log = structlog.get_logger(__name__)

#: Seconds between checks; replicas are added by an operator.
_INTERVAL = 60.0


class ReplicaWatch:
    """Compares each changelog's replicas with the required number; `reasons` describes those with too few.

    `current` returns the topics of the tables that are served.
    """

    def __init__(self, connection: Connection, group: str, current: Callable[[], Topics], metrics: Metrics) -> None:
        self.reasons: Sequence[str] = ()
        self._connection = connection
        self._group = group
        self._current = current
        self._missing = metrics.changelog_replicas_missing
        #: The tables that the metric reports.
        self._reported: set[str] = set()

    async def watch(self) -> None:
        """Check periodically."""
        while True:
            try:
                topics = self._current()
                self._compare(topics, await replica_counts(self._connection, list(topics.replicas)))
            except (KafkaError, TimeoutError) as error:
                log.info("the replicas of changelogs could not be checked", error=repr(error))
            await asyncio.sleep(_INTERVAL)

    def _compare(self, topics: Topics, found: Mapping[str, int]) -> None:
        reasons = []
        tables = {changelog_topic(self._group, table): table.name for table in topics.catalog.tables.values()}
        for table in self._reported - set(tables.values()):
            self._missing.remove(table)
        self._reported.intersection_update(tables.values())
        for topic, replicas in found.items():
            table, wanted = tables[topic], topics.replicas[topic]
            self._reported.add(table)
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
