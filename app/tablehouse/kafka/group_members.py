"""What the members of a group sent when they joined it, of which some may not be Tablehouse, or not of this release."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from tablehouse.placement.wire import MemberMetadata, WireError, check_subscription, decode_group

#: Members that are named with the reason why they are left out; what all members are sent is bounded.
MAX_NAMED = 20


class Readable(NamedTuple):
    """The members that can be placed, by Kafka's member id: their topics, and what they say of themselves.

    left_out are the other ones, and why.
    """

    subscriptions: Mapping[str, frozenset[str]]
    described: Mapping[str, MemberMetadata]
    left_out: Mapping[str, str]


def read_members(members: Iterable[tuple[Any, ...]]) -> Readable:
    """Read what the broker gives the group's leader: member id, perhaps an instance id, and the metadata of each."""
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
        except Exception as error:  # noqa: BLE001 - aiokafka's parser raises what it likes on bytes of others
            left_out[member] = f"its metadata cannot be parsed ({type(error).__name__})"
    described, unusable = decode_group(sent)
    left_out |= {member: str(error) for member, error in unusable.items()}
    readable = {member: topics for member, topics in subscriptions.items() if member in described}
    return Readable(readable, described, left_out)
