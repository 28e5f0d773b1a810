"""Leaves the group while a join is under way."""

import asyncio
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

log = structlog.get_logger(__name__)

#: Seconds that the coordinator may take to let a member go.
LEAVE_TIMEOUT = 2.0

#: The name of the connection; aiokafka has one for each broker and name.
_CONNECTION = "leaving"


async def leave_during_join(coordinator: Any) -> None:
    """Have a member of an aiokafka GroupCoordinator leave, although its JoinGroup request is not answered yet.

    A broker answers a join once every member has joined, and takes no other request from that connection before, so a
    LeaveGroup request behind it would wait for the slowest member, and the group then for the session of the one that
    has stopped. On a connection of its own the request is answered at once, and so is the join: with an error.
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
