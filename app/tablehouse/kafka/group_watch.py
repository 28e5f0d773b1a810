"""Tells what of the group's coordination passes from what ends the worker; aiokafka goes on in silence with either."""

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

#: Seconds for which the group's coordinator may answer with what aiokafka has no way to deal with. Some of that passes,
#: as when the coordinator cannot write the group down in time, and ends with the next assignment.
PATIENCE = 10.0

#: Answers of the coordinator that trying again does not change, and what would.
_REMEDIES: Mapping[type[KafkaError], str] = {
    GroupAuthorizationFailedError: "allow this worker Read on the group",
    InconsistentGroupProtocolError: "another application is in it, so the workers need another one (group)",
    InvalidGroupIdError: "the workers need another one (group)",
    InvalidSessionTimeoutError: "session_timeout has to be within group.min.session.timeout.ms and "
    "group.max.session.timeout.ms of the brokers",
}


class GroupFailed(Exception):
    """This process cannot take part in the group any more, and its worker has to end."""


class GroupWatch:
    """Watches a consumer's part in a group."""

    def __init__(self, group: str, client: AIOKafkaConsumer) -> None:
        self._group = group
        self._client = client
        #: When the coordinator began to answer with what nobody expects; None since the last assignment.
        self._odd_since: float | None = None

    def assigned(self) -> None:
        """Take note that the coordinator has given an assignment."""
        self._odd_since = None

    def check(self) -> None:
        """Raise an error when the consumer is out of the group.

        That is GroupFailed when it is for good, GroupRefused when it may not be in it, and KafkaError when it may yet
        come back. aiokafka waits for this call after each error, and only then goes on.
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
            if self._odd_since is None:
                self._odd_since = now
            seconds = now - self._odd_since
            if seconds >= PATIENCE:
                raise GroupFailed(
                    f"group {self._group}: nothing but errors for {seconds:.0f} s, the last one: {error!r}"
                ) from error
            raise
