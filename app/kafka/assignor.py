"""The group's assignor: placement's pure function behind aiokafka's assignor protocol."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from app.catalog.spec import DEFAULT_STANDBYS
from app.placement.assign import assignments, place
from app.placement.eligible import eligible
from app.placement.wire import (
    PROTOCOL,
    Assignment,
    MemberAssignment,
    MemberMetadata,
    decode_assignment,
    decode_metadata,
    encode_assignments,
    encode_metadata,
)

log = structlog.get_logger(__name__)


class TableAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """Sends what this worker holds, places when it leads, and keeps what it was given.

    aiokafka takes an object for what it documents as a class, as Faust relies on too. `latest` is the last assignment
    received, None before the first; `partitions` are the counts that this worker has checked. `standbys` are how many
    the shards of each source topic should have; who lacks `acceptable_lag` records at most may become an active.
    """

    name = PROTOCOL
    version = 0

    def __init__(
        self,
        describe: Callable[[], MemberMetadata],
        partitions: Mapping[str, int],
        standbys: Mapping[str, int],
        acceptable_lag: int,
    ) -> None:
        super().__init__()
        self._describe = describe
        self._standbys = standbys
        self._acceptable_lag = acceptable_lag
        self.partitions = partitions
        self.latest: Assignment | None = None

    def metadata(self, topics: set[str]) -> ConsumerProtocolMemberMetadata:
        """Return what goes into the JoinGroup request."""
        described = self._describe()
        if self.latest is not None:
            had = self.latest.own
            described = msgspec.structs.replace(
                described, actives=had.actives, standbys=had.standbys, warming=had.warming
            )
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), encode_metadata(described))

    def attach(self, coordinator: Any) -> None:
        """Have an aiokafka GroupCoordinator place in a thread, from here on; DESIGN.md says what that takes."""
        perform = coordinator._perform_assignment

        async def perform_in_thread(response: Any) -> dict[str, bytes]:
            while True:
                placing = await perform(response)
                counts = coordinator._metadata_snapshot
                placed = await _with_heartbeats(coordinator, placing)
                # A change would have asked for a rebalance, which aiokafka forgets when it is given assignments.
                if not placed or coordinator._metadata_snapshot == counts:
                    return placed
                log.info("partition counts have changed while shards were placed; placing again")

        coordinator._perform_assignment = perform_in_thread

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> Callable[[], dict[str, bytes]]:
        """Return what places all shards and encodes the assignments; called on the worker that leads the group.

        aiokafka calls it on the event loop. What is returned may take seconds (bench/placement.py measures that) and
        is for a thread: it shares nothing with the loop that either of them changes.

        Partition counts are those this worker has checked against the changelogs; for topics that only others read, as
        in the middle of a rolling deployment, they are the cluster's, and these have the default number of standbys.
        """
        partitions = dict(self.partitions)
        for topic in sorted(frozenset().union(*(metadata.subscription for metadata in members.values()))):
            if topic not in partitions:
                partitions[topic] = len(cluster.partitions_for_topic(topic) or ())
        return partial(self._assignments, dict(members), partitions)

    def on_assignment(self, assignment: Any) -> None:
        """Take up what the leader has sent."""
        self.latest = decode_assignment(assignment.user_data)

    def _assignments(self, members: Mapping[str, Any], partitions: Mapping[str, int]) -> dict[str, bytes]:
        """Return what each member is sent."""
        described = {member: decode_metadata(metadata.user_data) for member, metadata in members.items()}
        subscriptions = {member: frozenset(metadata.subscription) for member, metadata in members.items()}
        placed = self._place(described, partitions, subscriptions)
        log.info("placed", members=len(members), shards=sum(partitions.values()))
        encoded = encode_assignments(assignments(described, placed, partitions))
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version, sorted(placed[member].actives.items()), data
            ).encode()
            for member, data in encoded.items()
        }

    def _place(
        self,
        members: Mapping[str, MemberMetadata],
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, frozenset[str]],
    ) -> dict[str, MemberAssignment]:
        """Place each topic on the members that read it: all the same, but in the middle of a rolling deployment.

        Who may hold shards is chosen from the whole group: among the readers of a topic that its successor does not
        read, a ghost would not be known for one.
        """
        chosen = eligible(members)
        readers: dict[frozenset[str], dict[str, int]] = {}
        for topic, count in partitions.items():
            subscribed = frozenset(member for member in chosen if topic in subscriptions[member])
            readers.setdefault(subscribed, {})[topic] = count
        placed = {member: MemberAssignment(actives={}, standbys={}) for member in members}
        for subscribed, counts in readers.items():
            standbys = {topic: self._standbys.get(topic, DEFAULT_STANDBYS) for topic in counts}
            described = {member: members[member] for member in subscribed}
            for member, part in place(described, counts, standbys, self._acceptable_lag).items():
                placed[member] = MemberAssignment(
                    actives={**placed[member].actives, **part.actives},
                    standbys={**placed[member].standbys, **part.standbys},
                    warming={**placed[member].warming, **part.warming},
                )
        return placed


async def _with_heartbeats(coordinator: Any, placing: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
    """Run it in a thread; what a heartbeat's answer says of the group is taken up as at any other time.

    Returns nothing for anybody when the consumer stops, which leaves the group at once, and when the group has dropped
    this member, which joins again at once. The thread then ends by itself.
    """
    placed = asyncio.create_task(asyncio.to_thread(placing))
    beating = asyncio.create_task(_heartbeats(coordinator))
    closing = coordinator._closing
    try:
        await asyncio.wait({placed, beating, closing}, return_when=asyncio.FIRST_COMPLETED)
        if placed.done():
            return placed.result()
        if closing.done():
            await coordinator._maybe_leave_group()
        else:
            beating.result()
        # To the broker this is nobody now, and it refuses what is sent.
        return {}
    finally:
        placed.cancel()
        beating.cancel()


async def _heartbeats(coordinator: Any) -> None:
    """Send heartbeats until one is answered with that the member is none of this generation; raises KafkaError."""
    generation = coordinator.generation
    while coordinator.generation == generation:
        await asyncio.sleep(coordinator._heartbeat_interval_ms / 1000)
        # A connection may be lost meanwhile, which nobody else would mend.
        await coordinator.ensure_coordinator_known()
        await coordinator._do_heartbeat()
