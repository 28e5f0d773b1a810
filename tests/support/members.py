"""Members of a consumer group that are no workers, and say and send what a test has them."""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from app.placement.wire import PROTOCOL

NO_ASSIGNMENT: bytes = ConsumerProtocolMemberAssignment(0, [], b"").encode()


def joining(topics: Collection[str], user_data: bytes | None) -> bytes:
    """Return the metadata of a JoinGroup request in Kafka's own form around some user data."""
    return bytes(ConsumerProtocolMemberMetadata(0, sorted(topics), user_data).encode())


class Invented(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """Joins with some bytes; as the leader it sends every other member what `lead` returns."""

    name = PROTOCOL

    def __init__(self, metadata: bytes, lead: Callable[[], bytes]) -> None:
        super().__init__()
        self._metadata = metadata
        self._lead = lead
        self.member_id: Callable[[], str] = str
        #: How often it has led.
        self.led = 0

    def metadata(self, topics: Any) -> bytes:
        """Return what goes into the JoinGroup request."""
        del topics
        return self._metadata

    def assign(self, cluster: Any, members: Any) -> dict[str, bytes]:
        """Return what each member is sent."""
        del cluster
        self.led += 1
        own = self.member_id()
        return {member: NO_ASSIGNMENT if member == own else self._lead() for member in members}

    def on_assignment(self, assignment: Any) -> None:
        """Nothing."""


@contextlib.asynccontextmanager
async def invented_member(
    bootstrap: str, group: str, topic: str, metadata: bytes, lead: Callable[[], bytes] = lambda: NO_ASSIGNMENT
) -> AsyncIterator[Invented]:
    """Be in a group; leaves it at the end."""
    assignor = Invented(metadata, lead)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        partition_assignment_strategy=[assignor],
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=200,
    )
    await consumer.start()
    assignor.member_id = lambda: str(consumer._coordinator.member_id)  # noqa: SLF001
    consumer.subscribe([topic])
    try:
        yield assignor
    finally:
        await consumer.stop()
