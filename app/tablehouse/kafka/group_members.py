"""Parses the metadata of group members, which may belong to other applications or releases."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from tablehouse.placement.wire import MemberMetadata, WireError, check_subscription, decode_group

#: Maximum number of excluded members that an assignment names with a reason, which bounds its size.
MAX_NAMED = 20


class Readable(NamedTuple):
    """The members that can be placed, by Kafka's member id: their topics and their metadata.

    left_out maps the others to the reason.
    """

    subscriptions: Mapping[str, frozenset[str]]
    described: Mapping[str, MemberMetadata]
    left_out: Mapping[str, str]


def read_members(members: Iterable[tuple[Any, ...]]) -> Readable:
    """Parse what the group's leader gets of each member: member id, optional instance id, and metadata."""
    left_out: dict[str, str] = {}
    subscriptions: dict[str, frozenset[str]] = {}
    sent: dict[str, bytes] = {}
    for member, *_, data in members:
        try:
            metadata = ConsumerProtocolMemberMetadata.decode(data)
            subscriptions[member] = check_subscription(metadata.subscription)
            sent[member] = metadata.user_data or b""
        except WireError as error:
            left_out[member] = str(error)
        except Exception as error:  # noqa: BLE001 - aiokafka's parser may raise anything on malformed bytes
            left_out[member] = f"its metadata cannot be parsed ({type(error).__name__})"
    described, unusable = decode_group(sent)
    left_out |= {member: str(error) for member, error in unusable.items()}
    readable = {member: topics for member, topics in subscriptions.items() if member in described}
    return Readable(readable, described, left_out)
