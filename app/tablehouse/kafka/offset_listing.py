"""Lists the bounds of logs from the partitions' leaders, without waiting for partitions that have no leader.

aiokafka's own listing is all or nothing, and retries for 10 s while one partition is unavailable.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError, RequestTimedOutError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.offset import OffsetRequest

from tablehouse.kafka.held_back import HeldBack
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds

_EARLIEST, _LATEST = -2, -1
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_NO_REPLICA = -1

NO_LEADER = -1

#: Number of attempts, and seconds between them, for transient answers of leaders, for example that a broker
#: does not lead the partition, until all brokers have the new metadata.
_ATTEMPTS, _PAUSE = 5, 0.1


class Unlisted(NamedTuple):
    """Why a partition has no bounds: `transient` if a retry may help, `missing` if it does not exist."""

    why: str
    transient: bool = False
    missing: bool = False


class _Cluster(ClusterMetadata):  # type: ignore[misc]  # aiokafka is not typed
    """The brokers' metadata of topics. `refused` has the error of each topic that they do not describe."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, type[KafkaError]] = {}

    def update_metadata(self, metadata: Any) -> None:
        """Record a response, which covers some topics."""
        super().update_metadata(metadata)
        for code, topic, *_ in metadata.topics:
            if code:
                self.refused[topic] = for_code(code)
            else:
                self.refused.pop(topic, None)


class OffsetListing:
    """Lists offsets over a client's connections."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        # Separate from the client's metadata, which only covers the topics that it subscribes to.
        self._cluster = _Cluster()
        self._topics: set[str] = set()
        self._held_back = HeldBack(client)
        #: Whether a broker answered the last request.
        self._learned = True
        #: Partitions whose leader did not answer the last request; the leader may have changed.
        self._silent: set[TopicPartition] = set()

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaError if no broker is reachable."""
        await self._client.bootstrap()

    async def stop(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Bounds | Unlisted]:
        """Return the bounds of each partition, or the reason why they are unavailable.

        Takes as long as the slowest leader of these partitions, at most a request timeout if it does not answer: call
        this for one leader() at a time.
        """
        silent = self._silent.intersection(partitions)
        if silent:
            await self._learn_leaders({partition.topic for partition in silent})
        found = await self._ask(partitions, first=True)
        for attempt in range(_ATTEMPTS):
            missing = [
                partition for partition, answer in found.items() if isinstance(answer, Unlisted) and answer.transient
            ]
            if not missing:
                break
            if attempt:
                await asyncio.sleep(_PAUSE)
            await self._learn_leaders({partition.topic for partition in missing})
            found.update(await self._ask(missing, first=False))
        return found

    def leader(self, partition: TopicPartition) -> int:
        """Return the last known leader of a partition, NO_LEADER if none is known."""
        leader = self._cluster.leader_for_partition(KafkaPartition(*partition))
        return NO_LEADER if leader is None else int(leader)

    async def _learn_leaders(self, topics: Collection[str]) -> None:
        self._topics.update(topics)
        self._learned = bool(await self._client._metadata_update(self._cluster, self._topics))
        # Topics that do not exist are looked up again at the next call for them.
        self._topics = {topic for topic in self._topics if self._cluster.partitions_for_topic(topic)}

    async def _ask(
        self, partitions: Iterable[TopicPartition], *, first: bool
    ) -> dict[TopicPartition, Bounds | Unlisted]:
        found: dict[TopicPartition, Bounds | Unlisted] = {}
        led: dict[int, list[TopicPartition]] = defaultdict(list)
        for partition in partitions:
            leader = self._cluster.leader_for_partition(KafkaPartition(*partition))
            # At first no leader is known; later, a missing leader may have been elected in the meantime.
            if leader is None:
                found[partition] = (
                    Unlisted("it is not known yet", transient=True) if first else self._unknown(partition)
                )
            elif leader == NO_LEADER:
                found[partition] = Unlisted("it has no leader", transient=first)
            else:
                led[leader].append(partition)
        for answers in await asyncio.gather(*(self._ask_leader(node, asked) for node, asked in led.items())):
            found.update(answers)
        return found

    def _unknown(self, partition: TopicPartition) -> Unlisted:
        """Return why the latest metadata has nothing about a partition."""
        if not self._learned:
            return Unlisted(f"no broker can be reached at its advertised address: {self._addresses()}")
        topic, number = partition
        refusal = self._cluster.refused.get(topic)
        if refusal is UnknownTopicOrPartitionError:
            return Unlisted(f"the brokers do not know topic {topic} (deleted?)", missing=True)
        if refusal is not None:
            return Unlisted(f"the brokers do not show topic {topic} to this worker: {refusal.__name__}")
        count = len(self._cluster.partitions_for_topic(topic) or ())
        return Unlisted(
            f"topic {topic} has no partition {number}, only those up to {count - 1} (created again?)", missing=True
        )

    def _addresses(self) -> str:
        return ", ".join(f"{broker.host}:{broker.port}" for broker in self._client.cluster.brokers())

    async def _ask_leader(
        self, node: int, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Bounds | Unlisted]:
        try:
            # Each offset is listed after the one that it can never be less than. The last stable offset comes last: it
            # is less than an earlier high watermark only if a transaction is open.
            starts = await self._offsets(node, partitions, _EARLIEST)
            watermarks = await self._offsets(node, partitions, _LATEST, _READ_UNCOMMITTED)
            ends = await self._offsets(node, partitions, _LATEST)
        except KafkaError as error:
            self._silent.update(partitions)
            leader = self._client.cluster.broker_metadata(node)
            at = "" if leader is None else f" at {leader.host}:{leader.port}, which it advertises"
            unlisted = Unlisted(
                f"its leader, broker {node}, does not answer{at}: {error!r}",
                transient=not isinstance(error, RequestTimedOutError),
            )
            return dict.fromkeys(partitions, unlisted)
        self._silent.difference_update(partitions)
        found: dict[TopicPartition, Bounds | Unlisted] = {}
        for partition in partitions:
            start, watermark, end = starts[partition], watermarks[partition], ends[partition]
            if isinstance(start, int) and isinstance(watermark, int) and isinstance(end, int):
                found[partition] = await self._bounds(node, partition, start, end, watermark)
                continue
            for refusal in (start, watermark, end):
                if not isinstance(refusal, int):
                    why = f"its leader, broker {node}, answers {refusal.__name__}"
                    found[partition] = Unlisted(why, refusal.retriable)
        return found

    async def _bounds(self, node: int, partition: TopicPartition, start: int, end: int, watermark: int) -> Bounds:
        if watermark <= end:
            self._held_back.forget(partition)
            return Bounds(start, end)
        settled = await self._held_back.is_settled(node, partition, end, watermark)
        return Bounds(start, end, watermark - end, settled)

    async def _offsets(
        self, node: int, partitions: Iterable[TopicPartition], timestamp: int, isolation: int = _READ_COMMITTED
    ) -> dict[TopicPartition, int | type[KafkaError]]:
        wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for topic, partition in partitions:
            wanted[topic].append((partition, timestamp))
        request = OffsetRequest(_NO_REPLICA, isolation, list(wanted.items()))
        answer = await self._client.send(node, request)
        return {
            TopicPartition(topic, partition): for_code(code) if code else offset
            for topic, found in answer.topics
            for partition, code, _, offset in found
        }
