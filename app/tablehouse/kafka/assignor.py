"""The group's assignor: placement's pure function behind aiokafka's assignor protocol."""

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import msgspec
import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from tablehouse.catalog.spec import DEFAULT_STANDBYS
from tablehouse.kafka.group_members import MAX_NAMED, Readable, read_members
from tablehouse.placement.assign import assignments, place
from tablehouse.placement.eligible import eligible
from tablehouse.placement.wire import (
    PROTOCOL,
    Assignment,
    MemberAssignment,
    MemberMetadata,
    WireError,
    decode_assignment,
    encode_assignments,
    encode_metadata,
)

log = structlog.get_logger(__name__)

_NOTHING = MemberAssignment(actives={}, standbys={})


class TableAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """Reports the shards of this worker, places shards when it leads the group, and keeps the last assignment.

    aiokafka accepts an object where it documents a class; Faust relies on this too. `latest` is the last valid
    assignment, None before the first. `refused` is the reason why the last assignment was rejected, None if it was
    valid. `partitions` returns the partition counts that this worker has checked, `standbys` the number of standbys per
    shard, by shard name; both are called when needed, and their results are never changed. A standby at most
    `acceptable_lag` records behind may become an active.
    """

    name = PROTOCOL
    version = 0

    def __init__(
        self,
        describe: Callable[[], MemberMetadata],
        partitions: Callable[[], Mapping[str, int]],
        standbys: Callable[[], Mapping[str, int]],
        acceptable_lag: int,
    ) -> None:
        super().__init__()
        self._describe = describe
        self._standbys = standbys
        self._acceptable_lag = acceptable_lag
        self._partitions = partitions
        self.latest: Assignment | None = None
        self.refused: str | None = None
        #: The members of the generation that this worker places as its leader.
        self._members = Readable({}, {}, {})

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
        """Intercept what an aiokafka GroupCoordinator exchanges with the group; see DESIGN.md.

        The coordinator only sees checked bytes of members and leaders, and runs the placement in a thread.
        """
        perform, complete = coordinator._perform_assignment, coordinator._on_join_complete

        async def perform_in_thread(response: Any) -> dict[str, bytes]:
            admitted = copy.copy(response)
            admitted.members = await asyncio.to_thread(self.admit, response.members)
            while True:
                placing = await perform(admitted)
                counts = coordinator._metadata_snapshot
                placed = await _with_heartbeats(coordinator, placing)
                # aiokafka drops the rebalance that a changed count requested once it has the assignments.
                if not placed or coordinator._metadata_snapshot == counts:
                    return placed
                log.info("partition counts changed during the placement; placing again")

        async def accept_first(generation: int, member_id: str, protocol: str, member_assignment_bytes: bytes) -> None:
            await complete(generation, member_id, protocol, self.accept(member_assignment_bytes))

        coordinator._perform_assignment = perform_in_thread
        coordinator._on_join_complete = accept_first

    def admit(self, members: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the members of a JoinGroup response that can be placed; assign() gives the others nothing."""
        sent = list(members)
        self._members = read_members(sent)
        for member, reason in islice(self._members.left_out.items(), MAX_NAMED):
            log.error("a member of the group is left out of the placement", member=member, reason=reason)
        return [member for member in sent if member[0] in self._members.described]

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> Callable[[], dict[str, bytes]]:
        """Return a function that places all shards and encodes the assignments; called on the group's leader.

        aiokafka calls this on the event loop, with the admitted members. The returned function may take seconds
        (measured by bench/placement.py) and must run in a thread: it shares no mutable state with the loop.

        Partition counts are those that this worker has checked against the changelogs. Topics that only other members
        read, as during a rolling deployment, use the cluster's counts and the default number of standbys.
        """
        del members
        checked, partitions = self._partitions(), dict[str, int]()
        for topic in sorted(frozenset().union(*self._members.subscriptions.values())):
            partitions[topic] = checked[topic] if topic in checked else len(cluster.partitions_for_topic(topic) or ())
        return partial(self._assignments, self._members, partitions, self._standbys())

    def accept(self, data: bytes) -> bytes:
        """Accept the leader's assignment and return it; return an empty assignment if it is invalid."""
        try:
            self.latest = self._decode(data)
        except WireError as error:
            self.refused = f"the assignment of the group's leader cannot be used: {error}"
            log.error("this worker has no partitions", reason=self.refused)
            return bytes(ConsumerProtocolMemberAssignment(self.version, [], b"").encode())
        self.refused = None
        return data

    def on_assignment(self, assignment: Any) -> None:
        """Do nothing: accept() has handled it."""

    def _decode(self, data: bytes) -> Assignment:
        try:
            sent = ConsumerProtocolMemberAssignment.decode(data)
            given = {topic: list(partitions) for topic, partitions in sent.assignment}
        except Exception as error:
            # aiokafka's parser may raise any exception on malformed bytes.
            raise WireError(f"it cannot be parsed ({type(error).__name__})") from error
        assignment = decode_assignment(sent.user_data or b"")
        own = assignment.own
        if given != own.actives:
            raise WireError("the partitions for Kafka's consumer differ from those given to this worker")
        unread = sorted({*own.actives, *own.standbys, *own.warming} - self._partitions().keys())
        if unread:
            raise WireError(f"it gives this worker partitions of topics that it does not read: {', '.join(unread[:5])}")
        return assignment

    def _assignments(
        self, members: Readable, partitions: Mapping[str, int], standbys: Mapping[str, int]
    ) -> dict[str, bytes]:
        """Return the encoded assignment of each member."""
        described = members.described
        placed = dict(self._place(described, partitions, standbys, members.subscriptions))
        log.info("placed", members=len(described), left_out=len(members.left_out), shards=sum(partitions.values()))
        messages = assignments(described, placed, partitions, dict(islice(members.left_out.items(), MAX_NAMED)))
        if messages:
            # Workers of a newer version can decode this and use it for routing.
            shared = next(iter(messages.values()))
            messages |= {member: msgspec.structs.replace(shared, own=_NOTHING) for member in members.left_out}
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version, sorted(messages[member].own.actives.items()), data
            ).encode()
            for member, data in encode_assignments(messages).items()
        }

    def _place(
        self,
        members: Mapping[str, MemberMetadata],
        partitions: Mapping[str, int],
        standbys: Mapping[str, int],
        subscriptions: Mapping[str, frozenset[str]],
    ) -> dict[str, MemberAssignment]:
        """Place each topic on the members that subscribe to it; they differ only during a rolling deployment.

        Eligible members are chosen from the whole group: among the subscribers of one topic alone, a ghost whose
        successor does not subscribe to that topic would not be recognized.
        """
        chosen = eligible(members)
        readers: dict[frozenset[str], dict[str, int]] = {}
        for topic, count in partitions.items():
            subscribed = frozenset(member for member in chosen if topic in subscriptions[member])
            readers.setdefault(subscribed, {})[topic] = count
        placed = {member: MemberAssignment(actives={}, standbys={}) for member in members}
        for subscribed, counts in readers.items():
            wanted = {topic: standbys.get(topic, DEFAULT_STANDBYS) for topic in counts}
            described = {member: members[member] for member in subscribed}
            for member, part in place(described, counts, wanted, self._acceptable_lag).items():
                placed[member] = MemberAssignment(
                    actives={**placed[member].actives, **part.actives},
                    standbys={**placed[member].standbys, **part.standbys},
                    warming={**placed[member].warming, **part.warming},
                )
        return placed


async def _with_heartbeats(coordinator: Any, placing: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
    """Run `placing` in a thread while sending heartbeats, whose responses are handled as usual.

    Returns no assignments if the consumer stops, which leaves the group at once, or if the group has removed this
    member, which rejoins at once. In both cases the thread runs to its end unobserved.
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
        # The broker no longer knows this member and would reject its assignments.
        return {}
    finally:
        placed.cancel()
        beating.cancel()


async def _heartbeats(coordinator: Any) -> None:
    """Send heartbeats until a response says that the member is not in this generation; raises KafkaError."""
    generation = coordinator.generation
    while coordinator.generation == generation:
        await asyncio.sleep(coordinator._heartbeat_interval_ms / 1000)
        # Reconnect if the connection was lost; aiokafka's own heartbeat task is not running now.
        await coordinator.ensure_coordinator_known()
        await coordinator._do_heartbeat()
