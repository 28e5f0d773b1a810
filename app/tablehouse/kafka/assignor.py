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
    """Sends what this worker holds, places when it leads, and keeps what it was given.

    aiokafka takes an object for what it documents as a class, as Faust relies on too. `latest` is the last assignment
    received that could be used, None before the first; `refused` says why the last one could not be, else it is
    None. `partitions` are the counts that this worker has checked. `standbys` are how many the shards of each source
    topic should have; who lacks `acceptable_lag` records at most may become an active.
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
        #: Replaced as a whole when the catalog changes, since a thread may be reading it.
        self.standbys = standbys
        self._acceptable_lag = acceptable_lag
        self.partitions = partitions
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
        """Stand between an aiokafka GroupCoordinator and the group, from here on; DESIGN.md says what that takes.

        The coordinator sees only what has been checked, of members as of leaders, and places in a thread.
        """
        perform, complete = coordinator._perform_assignment, coordinator._on_join_complete

        async def perform_in_thread(response: Any) -> dict[str, bytes]:
            admitted = copy.copy(response)
            admitted.members = await asyncio.to_thread(self.admit, response.members)
            while True:
                placing = await perform(admitted)
                counts = coordinator._metadata_snapshot
                placed = await _with_heartbeats(coordinator, placing)
                # A change would have asked for a rebalance, which aiokafka forgets when it is given assignments.
                if not placed or coordinator._metadata_snapshot == counts:
                    return placed
                log.info("partition counts have changed while shards were placed; placing again")

        async def take_up_first(generation: int, member_id: str, protocol: str, member_assignment_bytes: bytes) -> None:
            await complete(generation, member_id, protocol, self.take_up(member_assignment_bytes))

        coordinator._perform_assignment = perform_in_thread
        coordinator._on_join_complete = take_up_first

    def admit(self, members: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return those members of a JoinGroup's response that can be placed; assign() gives the others nothing."""
        sent = list(members)
        self._members = read_members(sent)
        for member, reason in islice(self._members.left_out.items(), MAX_NAMED):
            log.error("a member of the group is left out of the placement", member=member, reason=reason)
        return [member for member in sent if member[0] in self._members.described]

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> Callable[[], dict[str, bytes]]:
        """Return what places all shards and encodes the assignments; called on the worker that leads the group.

        aiokafka calls it on the event loop, with the members that were admitted. What is returned may take seconds
        (bench/placement.py measures that) and is for a thread: it shares nothing with the loop that either of them
        changes.

        Partition counts are those this worker has checked against the changelogs; for topics that only others read, as
        in the middle of a rolling deployment, they are the cluster's, and these have the default number of standbys.
        """
        del members
        partitions = dict(self.partitions)
        for topic in sorted(frozenset().union(*self._members.subscriptions.values())):
            if topic not in partitions:
                partitions[topic] = len(cluster.partitions_for_topic(topic) or ())
        return partial(self._assignments, self._members, partitions)

    def take_up(self, data: bytes) -> bytes:
        """Take up what the leader has sent; return it, or an assignment of nothing when it cannot be right."""
        try:
            self.latest = self._checked(data)
        except WireError as error:
            self.refused = f"the assignment of the group's leader cannot be used: {error}"
            log.error("this worker has no partitions", reason=self.refused)
            return bytes(ConsumerProtocolMemberAssignment(self.version, [], b"").encode())
        self.refused = None
        return data

    def on_assignment(self, assignment: Any) -> None:
        """Nothing: take_up() has."""

    def _checked(self, data: bytes) -> Assignment:
        try:
            sent = ConsumerProtocolMemberAssignment.decode(data)
            given = {topic: list(partitions) for topic, partitions in sent.assignment}
        except Exception as error:
            # aiokafka's parser raises what it likes on bytes of others.
            raise WireError(f"it cannot be parsed ({type(error).__name__})") from error
        assignment = decode_assignment(sent.user_data or b"")
        own = assignment.own
        if given != own.actives:
            raise WireError("what it tells Kafka's consumer to read is not what it gives to this worker")
        unread = sorted({*own.actives, *own.standbys, *own.warming} - self.partitions.keys())
        if unread:
            raise WireError(f"it gives this worker partitions of topics that it does not read: {', '.join(unread[:5])}")
        return assignment

    def _assignments(self, members: Readable, partitions: Mapping[str, int]) -> dict[str, bytes]:
        """Return what each member is sent."""
        described = members.described
        placed = dict(self._place(described, partitions, members.subscriptions))
        log.info("placed", members=len(described), left_out=len(members.left_out), shards=sum(partitions.values()))
        messages = assignments(described, placed, partitions, dict(islice(members.left_out.items(), MAX_NAMED)))
        if messages:
            # A newer worker understands this, and routes by it.
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
            standbys = {topic: self.standbys.get(topic, DEFAULT_STANDBYS) for topic in counts}
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
