"""The Kafka clients of one worker, besides the group's consumer, and what each of them may fetch ahead."""

from dataclasses import dataclass

from tablehouse.catalog.spec import Catalog
from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.kafka.client import Connection
from tablehouse.kafka.consumer import LANE_FETCH_BYTES
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.log_reader import SLICE_FETCH_BYTES, KafkaLogReader
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.skips import Skips
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.kafka.topics import Topics
from tablehouse.tasks.clock import MeasuredClock

#: The part of the memory budget that may be fetched ahead, should this worker hold everything; the clients that fetch
#: (lane, restores, catching up); and the bytes that are fetched of each partition all the same. Brokers send a larger
#: batch whole.
FETCHED_SHARE = 5
_FETCHING_CLIENTS = 3
_MIN_FETCH_BYTES = 64 * 1024

Client = KafkaChangelogWriter | KafkaLogReader | KafkaSourceWriter | KafkaDeadLetters


@dataclass(frozen=True, slots=True)
class KafkaClients:
    """The clients, not started yet.

    The writers of sources are None where no table is writable, letters where no table sends dead letters. The owner's
    writer starts by itself.
    """

    changelog: KafkaLogReader
    skips: Skips
    sources: KafkaLogReader
    writer: KafkaChangelogWriter
    source_writer: KafkaSourceWriter | None
    owner_writer: KafkaOwnerWriter | None
    letters: KafkaDeadLetters | None

    @property
    def startable(self) -> list[Client]:
        """Every client that is to be started and stopped, in the order of their start."""
        clients = (self.changelog, self.sources, self.writer, self.source_writer, self.letters)
        return [client for client in clients if client is not None]


def kafka_clients(
    connection: Connection,
    group: str,
    catalog: Catalog,
    topics: Topics,
    budget: int,
    broker_clock: MeasuredClock,
) -> KafkaClients:
    """Make the clients for a catalog and its topics; budget is in bytes, for everything that the worker holds."""
    tables = catalog.tables.values()
    ahead = _fetch_bytes(budget, sum(topics.counts.shards[table.shard_name] for table in tables), SLICE_FETCH_BYTES)
    changelog = KafkaLogReader(connection, ahead)
    skips = Skips(changelog, group)
    written = {table.source.topic: topics.source_limits[table.source.topic] for table in tables if table.writable}
    return KafkaClients(
        changelog=changelog,
        skips=skips,
        sources=KafkaLogReader(connection, ahead, skips),
        writer=KafkaChangelogWriter(connection, max(topics.batch_limits.values()), limits=topics.batch_limits),
        source_writer=KafkaSourceWriter(connection, written, broker_clock) if written else None,
        owner_writer=KafkaOwnerWriter(connection, written, broker_clock) if written else None,
        letters=None
        if topics.dead_letters is None
        else KafkaDeadLetters(connection, topics.dead_letters, group, connection.client_id, broker_clock),
    )


def lane_fetch_bytes(budget: int, topics: Topics) -> int:
    """Return what the group's consumer may fetch ahead of each partition."""
    return _fetch_bytes(budget, sum(topics.counts.shards.values()), LANE_FETCH_BYTES)


def _fetch_bytes(budget: int, partitions: int, most: int) -> int:
    """Return what a client may fetch ahead of each of so many partitions within its share of the memory budget."""
    return max(_MIN_FETCH_BYTES, min(most, budget // FETCHED_SHARE // _FETCHING_CLIENTS // partitions))
