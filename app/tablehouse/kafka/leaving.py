"""Leaves the group while a join is in progress."""

import asyncio
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

log = structlog.get_logger(__name__)

#: Seconds that the coordinator may take to answer a LeaveGroup request.
LEAVE_TIMEOUT = 2.0

#: The name of the connection; aiokafka opens one per broker and name.
_CONNECTION = "leaving"


async def leave_during_join(coordinator: Any) -> None:
    """Make a member leave the group although its JoinGroup request has not been answered yet.

    A broker answers a join once every member has joined, and reads no other request from that connection before. A
    LeaveGroup request behind it would wait for the slowest member, and then the group for the session timeout of the
    stopped one. On a separate connection the request is answered at once, and so is the join, with an error.
    """
    broker, member = coordinator.coordinator_id, coordinator.member_id
    # A member without an id is not in the group.
    if broker is None or not member:
        return
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT):
            await coordinator._client.send(broker, LeaveGroupRequest(coordinator.group_id, member), group=_CONNECTION)
    except (KafkaError, TimeoutError) as error:
        log.warning("the group could not be left during a join", broker=broker, error=repr(error))
