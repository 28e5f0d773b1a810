"""The group's assignor: placement's pure function behind aiokafka's assignor protocol."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from app.placement.assign import assignments, place
from app.placement.wire import (
    PROTOCOL,
    Assignment,
    MemberAssignment,
    MemberMetadata,
    decode_assignment,
    decode_metadata,
    encode_assignment,
    encode_metadata,
)

log = structlog.get_logger(__name__)


class TableAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """Sends what this worker holds, places when it leads, and keeps what it was given.

    aiokafka takes an object for what it documents as a class, as Faust relies on too. `latest` is the last assignment
    received, None before the first; `partitions` are the counts that this worker has checked.
    """

    name = PROTOCOL
    version = 0

    def __init__(self, describe: Callable[[], MemberMetadata], partitions: Mapping[str, int]) -> None:
        super().__init__()
        self._describe = describe
        self.partitions = partitions
        self.latest: Assignment | None = None

    def metadata(self, topics: set[str]) -> ConsumerProtocolMemberMetadata:
        """Return what goes into the JoinGroup request."""
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), encode_metadata(self._describe()))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Place all shards; called on the worker that leads the group.

        Partition counts are those this worker has checked against the changelogs; for topics that only others read, as
        in the middle of a rolling deployment, they are the cluster's.
        """
        subscriptions = {member: frozenset(metadata.subscription) for member, metadata in members.items()}
        partitions = dict(self.partitions)
        for topic in sorted(frozenset().union(*subscriptions.values())):
            if topic not in partitions:
                partitions[topic] = len(cluster.partitions_for_topic(topic) or ())
        described = {member: decode_metadata(metadata.user_data) for member, metadata in members.items()}
        catalogs = {metadata.worker_id: metadata.catalog_digest for metadata in described.values()}
        if len(set(catalogs.values())) > 1:
            # As it should be in the middle of a rolling deployment, and at no other time.
            log.warning("workers of the group have different tables.yaml files", catalogs=catalogs)
        placed = _place_by_subscription(described, partitions, subscriptions)
        log.info("placed", members=len(members), shards=sum(partitions.values()))
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version, sorted(assignment.own.actives.items()), encode_assignment(assignment)
            )
            for member, assignment in assignments(described, placed, partitions).items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """Take up what the leader has sent."""
        self.latest = decode_assignment(assignment.user_data)


def _place_by_subscription(
    members: Mapping[str, MemberMetadata], partitions: Mapping[str, int], subscriptions: Mapping[str, frozenset[str]]
) -> dict[str, MemberAssignment]:
    """Place each topic on the members that read it; all read the same, but in the middle of a rolling deployment."""
    readers: dict[frozenset[str], dict[str, int]] = {}
    for topic, count in partitions.items():
        subscribed = frozenset(member for member in members if topic in subscriptions[member])
        readers.setdefault(subscribed, {})[topic] = count
    placed = {member: MemberAssignment(actives={}, standbys={}) for member in members}
    for subscribed, counts in readers.items():
        for member, part in place({member: members[member] for member in subscribed}, counts).items():
            placed[member] = MemberAssignment(
                actives={**placed[member].actives, **part.actives},
                standbys={**placed[member].standbys, **part.standbys},
            )
    return placed
