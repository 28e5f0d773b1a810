"""The Kafka clients of a worker except the group's consumer, and how much each of them may fetch ahead."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tablehouse.kafka.changelog_writer import KafkaChangelogWriter
from tablehouse.kafka.client import Connection
from tablehouse.kafka.consumer import LANE_FETCH_BYTES
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.log_reader import SLICE_FETCH_BYTES, KafkaLogReader
from tablehouse.kafka.owner_writer import KafkaOwnerWriter
from tablehouse.kafka.skips import Skips
from tablehouse.kafka.source_writer import KafkaSourceWriter
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.tasks.clock import MeasuredClock

#: One part in FETCHED_SHARE of the memory budget may be fetched ahead if this worker holds all partitions. The clients
#: that fetch (lanes, restores, catching up) share it equally, but each fetches at least _MIN_FETCH_BYTES per partition.
#: Brokers send a larger batch whole.
FETCHED_SHARE = 5
_FETCHING_CLIENTS = 3
_MIN_FETCH_BYTES = 64 * 1024

Client = KafkaChangelogWriter | KafkaLogReader | KafkaSourceWriter | KafkaDeadLetters


@dataclass(frozen=True, slots=True)
class KafkaClients:
    """The clients, not started yet.

    `needed` are those that tables may need at once, and that must be started. The writers of sources and dead letters
    otherwise connect with their first record.
    """

    changelog: KafkaLogReader
    skips: Skips
    sources: KafkaLogReader
    writer: KafkaChangelogWriter
    source_writer: KafkaSourceWriter
    owner_writer: KafkaOwnerWriter
    letters: KafkaDeadLetters
    needed: Sequence[Client]

    def fetch_ahead(self, budget: int, topics: Topics) -> None:
        """Adjust the fetch size of the readers to a new budget or other topics."""
        for reader in (self.changelog, self.sources):
            reader.fetch_ahead(_slice_fetch_bytes(budget, topics))

    async def stop(self, started: Iterable[Client]) -> None:
        """Stop the clients that were started, and those that may have connected with a record."""
        await self.owner_writer.stop()
        await asyncio.gather(*(client.stop() for client in dict.fromkeys((*started, self.source_writer, self.letters))))


def kafka_clients(
    connection: Connection,
    group: str,
    view: TopicsView,
    budget: int,
    broker_clock: MeasuredClock,
) -> KafkaClients:
    """Create the clients for the tables of a view; `budget` is in bytes, for everything that the worker holds."""
    topics = view.current
    tables = topics.catalog.tables.values()
    ahead = _slice_fetch_bytes(budget, topics)
    changelog = KafkaLogReader(connection, ahead)
    skips = Skips(changelog, group)
    sources, writer = KafkaLogReader(connection, ahead, skips), KafkaChangelogWriter(connection, view.batch_limit)
    source_writer = KafkaSourceWriter(connection, view.source_limit, broker_clock)
    letters = KafkaDeadLetters(connection, topics.dead_letters, group, connection.client_id, broker_clock)
    needed: list[Client] = [changelog, sources, writer]
    if any(table.writable for table in tables):
        needed.append(source_writer)
    if topics.dead_letters is not None:
        needed.append(letters)
    return KafkaClients(
        changelog=changelog,
        skips=skips,
        sources=sources,
        writer=writer,
        source_writer=source_writer,
        owner_writer=KafkaOwnerWriter(connection, view.source_limit, broker_clock),
        letters=letters,
        needed=needed,
    )


def _slice_fetch_bytes(budget: int, topics: Topics) -> int:
    """Return the bytes that a reader of changelogs, or of sources outside the lanes, may fetch ahead per partition."""
    shards = topics.counts.shards
    tasks = sum(shards[table.shard_name] for table in topics.catalog.tables.values())
    return _fetch_bytes(budget, tasks, SLICE_FETCH_BYTES)


def lane_fetch_bytes(budget: int, topics: Topics) -> int:
    """Return the bytes that the group's consumer may fetch ahead per partition."""
    return _fetch_bytes(budget, sum(topics.counts.shards.values()), LANE_FETCH_BYTES)


def _fetch_bytes(budget: int, partitions: int, max_bytes: int) -> int:
    """Return the bytes that a client may fetch ahead per partition, within its share of the memory budget."""
    share = budget // FETCHED_SHARE // _FETCHING_CLIENTS
    return max(_MIN_FETCH_BYTES, min(max_bytes, share // max(1, partitions)))
