"""Finds brokers again that are not where they were, by asking the bootstrap list as at the start.

aiokafka's clients ask that list once and then only the addresses that the brokers last named. When the last of these
has moved they ask in vain for as long as they live. Java's clients ask the list again, too
(metadata.recovery.strategy=rebootstrap, KIP-899).
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from time import monotonic
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.structs import BrokerMetadata

from tablehouse.kafka.client import Connection

#: Seconds between two times that a client asks the bootstrap list, at least.
_INTERVAL = 1.0

#: Seconds from one update of a client to its next one, at least; retry.backoff.ms of Kafka's own clients.
UPDATE_DISTANCE = 0.1


def rebootstrap(client: AIOKafkaClient, connection: Connection) -> None:
    """Have a client ask the bootstrap list when no broker that it knows tells it about the cluster, from here on.

    Names are resolved each time. The outcome is that of any other update: aiokafka's callers wait for it and try again
    when there was none.

    Updates have a distance. aiokafka's producers ask again at once, thousands of times a second, as long as a partition
    has no leader, as when its topic was deleted, or no broker answers.
    """
    update = client._metadata_update
    asking = asyncio.Lock()
    asked_at = updated_at = float("-inf")

    async def paced(cluster: ClusterMetadata, topics: Collection[str] | None) -> bool:
        nonlocal updated_at
        await asyncio.sleep(max(0.0, updated_at + UPDATE_DISTANCE - monotonic()))
        try:
            return bool(await update(cluster, topics))
        finally:
            updated_at = monotonic()

    async def update_or_ask(cluster: ClusterMetadata, topics: Collection[str] | None) -> bool:
        nonlocal asked_at
        known = client.cluster.brokers()
        if await paced(cluster, topics):
            return True
        async with asking:
            # Another update may have found them meanwhile.
            if client.cluster.brokers() == known:
                # A broker that is back where it was is found by the next update, which may be at once.
                if monotonic() < asked_at + _INTERVAL:
                    return False
                asked_at = monotonic()
                brokers = await advertised_brokers(connection)
                if not brokers:
                    return False
                _adopt(client, brokers)
        return await paced(cluster, topics)

    client._metadata_update = update_or_ask


async def advertised_brokers(connection: Connection) -> set[BrokerMetadata]:
    """Ask all of the bootstrap list, and return the brokers that the first to answer names; none when none answers."""
    asked = [
        asyncio.ensure_future(_brokers_named_by(replace(connection, bootstrap_servers=server)))
        for server in connection.bootstrap_servers.split(",")
    ]
    try:
        for answer in asyncio.as_completed(asked):
            if brokers := await answer:
                return brokers
        return set()
    finally:
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


async def _brokers_named_by(connection: Connection) -> set[BrokerMetadata]:
    client = AIOKafkaClient(**connection.arguments())
    try:
        await client.bootstrap()
        return set(client.cluster.brokers())
    except Exception:  # noqa: BLE001 - whatever answers there, it is no broker
        return set()
    finally:
        await client.close()


def _adopt(client: AIOKafkaClient, brokers: Collection[BrokerMetadata]) -> None:
    """Replace the addresses that a client knows; connections that lead elsewhere, or gave no answer, are closed."""
    client.cluster._brokers = {broker.nodeId: broker for broker in brokers}
    for (node, group), connection in list(client._conns.items()):
        broker: Any = client.cluster.broker_metadata(node)
        moved = broker is None or (broker.host, broker.port) != (connection.host, connection.port)
        # Over those of the default group aiokafka asks about the cluster.
        if moved or group == ConnectionGroup.DEFAULT:
            connection.close()
