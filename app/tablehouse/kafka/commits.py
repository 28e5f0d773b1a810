"""Commits offsets to the group without affecting its membership.

aiokafka's own commit is retried until a broker accepts it, cannot be cancelled, and makes the member rejoin the group
when it is rejected. Here a commit is one request on a separate connection, so that no heartbeat or join waits behind
it, and its response only updates the offsets known to be committed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.conn import CloseReason
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.structs import OffsetAndMetadata

from tablehouse.recurring import Recurring

log = structlog.get_logger(__name__)

#: Seconds after which a commit is abandoned.
COMMIT_TIMEOUT = 3.0

#: The name of the connection; aiokafka opens one per broker and name.
_CONNECTION = "commits"

#: aiokafka's value for a partition without a committed offset.
_NOTHING_COMMITTED = OffsetAndMetadata(-1, "")


class OffsetCommits:
    """Commits for one consumer, and keeps its coordinator from fetching committed offsets, which no lane needs."""

    def __init__(self, client: AIOKafkaConsumer) -> None:
        self._client = client
        self._refused = Recurring(log)
        coordinator = client._coordinator
        coordinator._maybe_refresh_commit_offsets = _report_nothing_committed

    async def commit(self, offsets: Mapping[KafkaPartition, int]) -> dict[KafkaPartition, int]:
        """Commit and return the offsets that the broker accepted; the reasons for the others are logged."""
        coordinator = self._client._coordinator
        broker = coordinator.coordinator_id
        if broker is None:
            return {}
        topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for partition, offset in offsets.items():
            topics[partition.topic].append((partition.partition, offset, ""))
        request = OffsetCommitRequest(
            coordinator.group_id,
            coordinator.generation,
            coordinator.member_id,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(topics.items()),
        )
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                answer = await self._client._client.send(broker, request, group=_CONNECTION)
        except TimeoutError:
            # The next request would wait behind it.
            self._disconnect(broker)
            self._report(len(offsets), f"no response from broker {broker} within {COMMIT_TIMEOUT:.0f} s")
            return {}
        except KafkaError as error:
            self._report(len(offsets), repr(error))
            return {}
        refused = {
            KafkaPartition(topic, partition): for_code(code).__name__
            for topic, answers in answer.topics
            for partition, code in answers
            if code
        }
        if refused:
            first, why = min(refused.items())
            self._report(len(refused), f"{first.topic}[{first.partition}]: {why}")
        else:
            self._refused.end("commit", "offsets are committed again")
        return {partition: offset for partition, offset in offsets.items() if partition not in refused}

    def _report(self, partitions: int, reason: str) -> None:
        self._refused.warn("commit", "offsets not committed; they are advisory", partitions=partitions, reason=reason)

    def _disconnect(self, broker: int) -> None:
        connection = self._client._client._conns.get((broker, _CONNECTION))
        if connection is not None:
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


async def _report_nothing_committed(assignment: Assignment) -> bool:
    """Report that nothing is committed without asking a broker, as aiokafka does for a consumer without a group.

    A broker's error, for example about a topic that does not exist or may not be read, would end the membership.
    """
    for partition in assignment.requesting_committed():
        state: Any = assignment.state_value(partition)
        state.update_committed(_NOTHING_COMMITTED)
    return True
