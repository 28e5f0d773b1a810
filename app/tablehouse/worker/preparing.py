"""Prepares brokers, topics and memory for tables: at a worker's start, and when tables are added later."""

from tablehouse.catalog.spec import Catalog
from tablehouse.kafka import broker_time
from tablehouse.kafka.client import Connection
from tablehouse.kafka.login import check_login
from tablehouse.kafka.probe import probe_epochs
from tablehouse.kafka.topics import Replication, Topics, prepare
from tablehouse.stores.memory import memory_for_rows
from tablehouse.tasks.built_with import check_changelogs
from tablehouse.tasks.log import LogReader
from tablehouse.worker.brokers import Brokers


class Preparing:
    """Prepares the topics that the tables of a catalog need; see the settings of the same names."""

    def __init__(
        self,
        connection: Connection,
        brokers: Brokers,
        *,
        group: str,
        dead_letter_topic: str,
        replication_factor: int | None,
        memory_budget: int,
    ) -> None:
        self._connection = connection
        self._brokers = brokers
        self._group = group
        self._dead_letter_topic = dead_letter_topic
        self._replication = Replication(replication_factor)
        self._memory_budget = memory_budget

    async def at_start(self, catalog: Catalog) -> Topics:
        """Check the brokers, measure their clock, and prepare the topics of all tables.

        Raises SetupError for errors that only an operator can fix, and the errors in UNREACHABLE.
        """
        await check_login(self._connection)
        await probe_epochs(self._connection, self._group, self._replication)
        await broker_time.prepare_probe(self._connection, self._group, self._replication)
        await self._brokers.measure_clock()
        return await prepare(self._connection, self._group, catalog, self._dead_letter_topic, self._replication)

    async def more(self, topics: Topics, catalog: Catalog, changelog: LogReader) -> Topics:
        """Prepare the topics of the tables of a catalog that are not among `topics`; return those of all its tables.

        Raises the same as at_start(). After an error, only the changelogs may have been created.
        """
        new = {name: table for name, table in catalog.tables.items() if name not in topics.catalog.tables}
        # The partition counts of a table depend on the other tables that are sharded together with it.
        shards = {table.shard_name for table in new.values()}
        concerned = Catalog({name: table for name, table in catalog.tables.items() if table.shard_name in shards})
        found = await prepare(
            self._connection,
            self._group,
            concerned,
            self._dead_letter_topic,
            self._replication,
            in_use=topics.counts.shards,
        )
        every = topics.with_more(found).only(catalog, self._group)
        self.memory_for_rows(every)
        await check_changelogs(self._group, found.only(Catalog(new), self._group).served, changelog)
        return every

    def memory_for_rows(self, topics: Topics) -> int:
        """Return the bytes of the memory budget that are left for rows; raises ConfigError if there are too few."""
        shards = topics.counts.shards
        tasks = sum(shards[table.shard_name] for table in topics.catalog.tables.values())
        return memory_for_rows(self._memory_budget, sum(shards.values()), tasks)
