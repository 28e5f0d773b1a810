"""Metadata requests that create no topic, for every aiokafka client of the process.

A broker with auto.create.topics.enable, which is its default, creates the topics that a Metadata request names, unless
the request says otherwise. aiokafka's never do.
"""

from typing import Any

from aiokafka import client
from aiokafka.admin import client as admin_client
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.metadata import MetadataRequest

#: The first version that can say so, of Apache Kafka 0.11.
_CAN_FORBID_CREATION = 4


class LookingRequest(MetadataRequest):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's request, which only looks; without topics it is about all of them, with an empty list about none."""

    def __init__(self, topics: list[str] | None = None) -> None:
        super().__init__(topics, allow_auto_topic_creation=False)

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in the newest version that both sides know; raises IncompatibleBrokerVersion."""
        if request_struct_class.API_VERSION < _CAN_FORBID_CREATION:
            raise IncompatibleBrokerVersion(
                f"the broker knows Metadata requests up to version {request_struct_class.API_VERSION} only, with which "
                "looking for a topic may create it; Apache Kafka 2.5 or newer is needed"
            )
        return super().build(request_struct_class)


client.MetadataRequest = LookingRequest
admin_client.MetadataRequest = LookingRequest
