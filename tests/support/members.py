"""Members of a consumer group that are no workers, and say and send what a test has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from tablehouse.placement.wire import PROTOCOL

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


def answer_of_nobody(partition: int) -> bytes:
    """Return an answer as a worker might give, with a row that no topic has."""
    headers = {
        "Tablehouse-Internal-Version": "1",
        "Tablehouse-Position": f"{partition}:99",
        "Tablehouse-Role": "active",
        "Tablehouse-Lag-Records": "0",
        "Tablehouse-Staleness-Ms": "0",
        "Tablehouse-Row-Offset": "1",
        "Tablehouse-Row-Timestamp-Ms": "1",
        "Tablehouse-Served-By": "invented",
        "Tablehouse-Challenge": "00",
        "Tablehouse-Proof": "00",
        "Content-Length": "4",
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", "evil"]).encode()


@contextlib.asynccontextmanager
async def recording_listener(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer every request with the same bytes; return the URL and the requests that come."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                received.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
    finally:
        server.close()
