"""Finds brokers whose addresses have changed, by asking the bootstrap servers again.

aiokafka's clients ask the bootstrap servers once and then only the last advertised addresses. Once all of these have
changed, they never recover. Java clients also ask the bootstrap servers again (metadata.recovery.strategy=rebootstrap,
KIP-899).
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

#: Minimum seconds between a client's requests to the bootstrap servers.
_MIN_INTERVAL = 1.0

#: Minimum seconds between metadata updates of a client; as retry.backoff.ms of Kafka's own clients.
MIN_UPDATE_INTERVAL = 0.1


def rebootstrap(client: AIOKafkaClient, connection: Connection) -> None:
    """Make a client ask the bootstrap servers if no known broker answers its metadata requests.

    Host names are resolved each time. The outcome is that of any other update: aiokafka's callers wait for it and retry
    if it failed.

    Updates are rate-limited. aiokafka's producers would otherwise retry at once, thousands of times a second, while a
    partition has no leader, as after its topic was deleted, or no broker answers.
    """
    update = client._metadata_update
    asking = asyncio.Lock()
    asked_at = updated_at = float("-inf")

    async def paced(cluster: ClusterMetadata, topics: Collection[str] | None) -> bool:
        nonlocal updated_at
        await asyncio.sleep(max(0.0, updated_at + MIN_UPDATE_INTERVAL - monotonic()))
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
            # Another update may have found them in the meantime.
            if client.cluster.brokers() == known:
                # A broker that is back at its old address is found by the next update, which may be immediate.
                if monotonic() < asked_at + _MIN_INTERVAL:
                    return False
                asked_at = monotonic()
                brokers = await advertised_brokers(connection)
                if not brokers:
                    return False
                _adopt(client, brokers)
        return await paced(cluster, topics)

    client._metadata_update = update_or_ask


async def advertised_brokers(connection: Connection) -> set[BrokerMetadata]:
    """Ask all bootstrap servers, and return the brokers of the first response; none if no server answers."""
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
    except Exception:  # noqa: BLE001 - the server at this address is not a usable broker
        return set()
    finally:
        await client.close()


def _adopt(client: AIOKafkaClient, brokers: Collection[BrokerMetadata]) -> None:
    """Replace the addresses that a client knows; close connections to other addresses and those without an answer."""
    client.cluster._brokers = {broker.nodeId: broker for broker in brokers}
    for (node, group), connection in list(client._conns.items()):
        broker: Any = client.cluster.broker_metadata(node)
        moved = broker is None or (broker.host, broker.port) != (connection.host, connection.port)
        # aiokafka sends metadata requests over connections of the default group.
        if moved or group == ConnectionGroup.DEFAULT:
            connection.close()
