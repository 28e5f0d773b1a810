"""Who waits for whom when the bounds of many partitions are asked for at once."""

import asyncio
from collections.abc import Collection

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.metadata import MetadataResponse_v1

from tablehouse.kafka.client import Connection
from tablehouse.kafka.log_reader import KafkaLogReader
from tablehouse.kafka.offset_listing import OffsetListing, Unlisted
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds, LogUnavailable

HEALTHY = [TopicPartition("t", number) for number in (0, 2)]
SILENT = TopicPartition("t", 1)


class Leaders:
    """Broker 0 leads the partitions of even number and answers; broker 1 answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[set[TopicPartition]] = []
        self.answers = asyncio.Event()

    def leader(self, partition: TopicPartition) -> int:
        """Return the broker's number."""
        return partition.partition % 2

    async def stop(self) -> None:
        """Nothing is open."""

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Bounds | Unlisted]:
        """Answer for the partitions of one leader."""
        self.asked.append(set(partitions))
        if SILENT in partitions:
            await self.answers.wait()
            return {SILENT: Unlisted("its leader does not answer")}
        return {partition: Bounds(0, 5) for partition in partitions}


async def test_a_leader_that_does_not_answer_holds_up_only_who_asks_for_its_partitions() -> None:
    reader, leaders = KafkaLogReader(Connection("127.0.0.1:1", "test")), Leaders()
    reader._offsets = leaders  # type: ignore[assignment]  # noqa: SLF001 - no broker of one machine falls silent alone
    silent = asyncio.create_task(reader.bounds([SILENT]))
    healthy = await asyncio.wait_for(
        asyncio.gather(*(asyncio.create_task(reader.bounds([one])) for one in (*HEALTHY, *HEALTHY))), 5
    )
    assert healthy == [{one: Bounds(0, 5)} for one in (*HEALTHY, *HEALTHY)]
    assert sorted(map(len, leaders.asked)) == [1, 2]
    assert not silent.done()
    leaders.answers.set()
    with pytest.raises(LogUnavailable, match=r"t\[1\]: its leader does not answer"):
        await silent
    await reader.stop()


class Unreachable:
    """A client that was told of a leader, and cannot reach it."""

    _TOLD = MetadataResponse_v1([(7, "kafka-7.internal", 9092, None)], 7, [(0, "t", False, [(0, 1, 7, [7], [7])])])

    def __init__(self) -> None:
        self.cluster = ClusterMetadata()

    async def _metadata_update(self, cluster: ClusterMetadata, topics: Collection[str]) -> bool:
        del topics
        for told in (cluster, self.cluster):
            told.update_metadata(self._TOLD)
        return True

    async def send(self, node: int, request: object) -> None:
        """Fail."""
        raise NodeNotReadyError(f"{node} does not get {request}")


async def test_a_leader_that_cannot_be_reached_is_named_with_the_address_that_it_advertises() -> None:
    (answer,) = (await OffsetListing(Unreachable()).bounds([SILENT])).values()

    assert isinstance(answer, Unlisted)
    assert answer.why.startswith(
        "its leader, broker 7, does not answer at kafka-7.internal:9092, which it advertises: NodeNotReadyError"
    )
