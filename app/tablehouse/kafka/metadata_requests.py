"""Metadata requests that create no topic, for every aiokafka client of the process.

A broker with auto.create.topics.enable, which is the default, creates the topics named in a Metadata request unless the
request forbids it. aiokafka's requests never do.
"""

from typing import Any

from aiokafka import client
from aiokafka.admin import client as admin_client
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.metadata import MetadataRequest

#: The first version that can forbid it, introduced in Apache Kafka 0.11.
_CAN_FORBID_CREATION = 4


class ReadOnlyMetadataRequest(MetadataRequest):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's request without topic creation; None requests all topics, an empty list requests none."""

    def __init__(self, topics: list[str] | None = None) -> None:
        super().__init__(topics, allow_auto_topic_creation=False)

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in the newest version that both sides support; raises IncompatibleBrokerVersion."""
        if request_struct_class.API_VERSION < _CAN_FORBID_CREATION:
            raise IncompatibleBrokerVersion(
                f"the broker supports Metadata requests only up to version {request_struct_class.API_VERSION}, which "
                "may create the topics they name; Apache Kafka 2.5 or newer is required"
            )
        return super().build(request_struct_class)


client.MetadataRequest = ReadOnlyMetadataRequest
admin_client.MetadataRequest = ReadOnlyMetadataRequest
