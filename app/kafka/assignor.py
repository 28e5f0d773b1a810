"""The group's assignor: placement's pure function behind aiokafka's assignor protocol."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocol,
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

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


@dataclass(frozen=True, slots=True)
class _Group:
    """What is placed: the partition counts by topic, and by member its topics and what it says of itself."""

    partitions: Mapping[str, int]
    subscriptions: Mapping[str, frozenset[str]]
    described: Mapping[str, bytes]


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
        #: A group for which the messages were made ahead.
        self._ahead: tuple[_Group, dict[str, ConsumerProtocolMemberAssignment]] | None = None

    def attach(self, coordinator: Any) -> None:
        """Have an aiokafka GroupCoordinator wait while a thread places, from here on.

        aiokafka calls assign() on the event loop and takes no awaitable, and a large group takes seconds
        (bench/README.md): reads and heartbeats of the leader would stand still. A thread of Python takes its turns with
        the loop, some milliseconds each.
        """
        perform = coordinator._perform_assignment

        async def place_and_perform(response: Any) -> Any:
            members = {member[0]: ConsumerProtocol.METADATA.decode(member[-1]) for member in response.members}
            group = self._group(coordinator._cluster, members)
            self._ahead = group, await asyncio.to_thread(self._messages, group)
            return await perform(response)

        coordinator._perform_assignment = place_and_perform

    def metadata(self, topics: set[str]) -> ConsumerProtocolMemberMetadata:
        """Return what goes into the JoinGroup request."""
        described = self._describe()
        if self.latest is not None:
            had = self.latest.own
            described = msgspec.structs.replace(
                described, actives=had.actives, standbys=had.standbys, warming=had.warming
            )
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), encode_metadata(described))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Give out what was placed ahead; called on the worker that leads the group.

        It places here and now where the group is another than it was: where aiokafka has learnt of a topic meanwhile,
        which only others read.
        """
        group = self._group(cluster, members)
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == group else self._messages(group)

    def _group(self, cluster: Any, members: Mapping[str, Any]) -> _Group:
        """Describe the group.

        Partition counts are those this worker has checked against the changelogs; for topics that only others read, as
        in the middle of a rolling deployment, they are the cluster's, and these have the default number of standbys.
        """
        subscriptions = {member: frozenset(metadata.subscription) for member, metadata in members.items()}
        partitions = dict(self.partitions)
        for topic in sorted(frozenset().union(*subscriptions.values())):
            if topic not in partitions:
                partitions[topic] = len(cluster.partitions_for_topic(topic) or ())
        return _Group(partitions, subscriptions, {member: metadata.user_data for member, metadata in members.items()})

    def _messages(self, group: _Group) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Place all shards and make the message to each member; in any thread."""
        described = {member: decode_metadata(data) for member, data in group.described.items()}
        catalogs = {metadata.worker_id: metadata.catalog_digest for metadata in described.values()}
        if len(set(catalogs.values())) > 1:
            # As it should be in the middle of a rolling deployment, and at no other time.
            log.warning("workers of the group have different tables.yaml files", catalogs=catalogs)
        placed = self._place(described, group.partitions, group.subscriptions)
        log.info("placed", members=len(described), shards=sum(group.partitions.values()))
        encoded = encode_assignments(assignments(described, placed, group.partitions))
        return {
            member: ConsumerProtocolMemberAssignment(self.version, sorted(placed[member].actives.items()), data)
            for member, data in encoded.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """Take up what the leader has sent."""
        self.latest = decode_assignment(assignment.user_data)

    def _place(
        self,
        members: Mapping[str, MemberMetadata],
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, frozenset[str]],
    ) -> dict[str, MemberAssignment]:
        """Place each topic on the members that read it: all the same, but in the middle of a rolling deployment.

        Who may hold shards is decided over the whole group: a ghost may be its worker's only member that reads a topic.
        """
        chosen = frozenset(eligible(members))
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
