"""Tells transient errors of the group coordination from fatal ones; aiokafka silently continues after both."""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
)

from tablehouse.errors import GroupRefused

#: Seconds for which the group's coordinator may answer with errors that aiokafka cannot handle. Some are transient, as
#: when the coordinator cannot persist the group in time, and end with the next assignment.
UNEXPECTED_TIMEOUT_SECONDS = 10.0

#: Errors of the coordinator that retrying does not resolve, and their remedies.
_REMEDIES: Mapping[type[KafkaError], str] = {
    GroupAuthorizationFailedError: "allow this worker Read on the group",
    InconsistentGroupProtocolError: "another application uses this group; configure a different one (setting group)",
    InvalidGroupIdError: "configure a different one (setting group)",
    InvalidSessionTimeoutError: "session_timeout must be between group.min.session.timeout.ms and "
    "group.max.session.timeout.ms of the brokers",
}


class GroupFailed(Exception):
    """This process can no longer take part in the group, and its worker must end."""


class GroupWatch:
    """Watches a consumer's group membership."""

    def __init__(self, group: str, client: AIOKafkaConsumer) -> None:
        self._group = group
        self._client = client
        #: Time of the first unexpected error of the coordinator since the last assignment, None if there was none.
        self._failing_since: float | None = None

    def assigned(self) -> None:
        """Record that the coordinator has sent an assignment."""
        self._failing_since = None

    def check(self) -> None:
        """Raise an error if the consumer is out of the group.

        GroupFailed if it cannot rejoin, GroupRefused if it is not allowed to join, KafkaError if it may still rejoin.
        After an error, aiokafka only continues once this was called.
        """
        coordinator = self._client._coordinator
        tasks = {"coordination": coordinator._coordination_task, "fetching": self._client._fetcher.error_future}
        for name, task in tasks.items():
            ended = task.exception() if task.done() and not task.cancelled() else None
            if ended is not None:
                raise GroupFailed(f"group {self._group}: {name} has ended: {ended.__cause__ or ended!r}") from ended
        try:
            coordinator.check_errors()
        except tuple(_REMEDIES) as error:
            remedy = _REMEDIES[type(error)]
            raise GroupRefused(f"group {self._group} cannot be joined: {error!r}; {remedy}") from error
        except KafkaError as error:
            now = asyncio.get_running_loop().time()
            if self._failing_since is None:
                self._failing_since = now
            seconds = now - self._failing_since
            if seconds >= UNEXPECTED_TIMEOUT_SECONDS:
                raise GroupFailed(
                    f"group {self._group}: only errors for {seconds:.0f} s, last one: {error!r}"
                ) from error
            raise
