"""Which workers may answer a read, in the order in which they are asked."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tablehouse.errors import RequestError
from tablehouse.model import HostInfo, ReadMode, Role, ShardId
from tablehouse.routing.cluster import ClusterSnapshot
from tablehouse.routing.ports import Unresponsive

#: Seconds for which an unresponsive worker is asked last. Then one request asks it in its turn again, while the others
#: go on without it: those that were out when it ended pay for finding out, and then one a second for looking again.
AVOIDED_SECONDS = 1.0

#: Seconds after which a worker that was not tried again is forgotten; most are processes that ended.
_REMEMBERED_SECONDS = 60.0


class Candidate(NamedTuple):
    """A worker to ask, and the role in which the snapshot has it."""

    host: HostInfo
    role: Role


class Candidates:
    """Orders candidates; clock is monotonic, in seconds."""

    def __init__(self, worker_id: str, clock: Callable[[], float]) -> None:
        self._worker_id = worker_id
        self._clock = clock
        #: When each worker that was found unresponsive, and was not heard of since, is to be tried again.
        self._avoided: dict[HostInfo, float] = {}

    def of(self, shard: ShardId, snapshot: ClusterSnapshot, mode: ReadMode) -> list[Candidate]:
        """List the workers that may answer for a partition, each once.

        The active, then the standbys, this worker before the others; the active alone for ReadMode.ACTIVE; for
        ReadMode.ANY this worker before all if it is one of them. Then those that held the partition until they left the
        group. A worker that was found unresponsive is last, except for the caller that is to try it again.
        """
        active = snapshot.actives.get(shard)
        found = [] if active is None else [Candidate(active, Role.ACTIVE)]
        if mode is not ReadMode.ACTIVE:
            standbys = [Candidate(host, Role.STANDBY) for host in snapshot.standbys.get(shard, ())]
            found += sorted(standbys, key=self._is_elsewhere)
        if mode is ReadMode.ANY:
            found.sort(key=self._is_elsewhere)
        if self._avoided and found:
            if self._is_due(found[0]):
                self._avoid(found[0].host)
                found[1:] = sorted(found[1:], key=self._is_avoided)
            else:
                found.sort(key=self._is_avoided)
        if snapshot.former and mode is not ReadMode.ACTIVE:
            found += self._former(snapshot.former.get(shard, ()))
        return found

    def _former(self, hosts: Sequence[HostInfo]) -> Iterator[Candidate]:
        """Yield those of a shard's former holders that may still be there: most are processes that ended."""
        for candidate in (Candidate(host, Role.STANDBY) for host in hosts):
            if self._is_due(candidate):
                self._avoid(candidate.host)
            elif self._is_avoided(candidate):
                continue
            yield candidate

    def worth_waiting(self, later: Sequence[Candidate]) -> bool:
        """Return whether a candidate should be waited for until it has applied a position, with `later` still to ask.

        A standby has nothing before its active has it, so it is not waited for while its active is to be asked, unless
        that one is unlikely to answer.
        """
        return not any(other.role is Role.ACTIVE and not self._is_avoided(other) for other in later)

    def is_avoided(self, host: HostInfo) -> bool:
        """Return whether a worker was found to be unresponsive lately."""
        return host in self._avoided

    def heard(self, host: HostInfo, error: RequestError | None = None) -> None:
        """Record the outcome of a question to a worker: an answer, or an error after which the next one is asked."""
        if isinstance(error, Unresponsive):
            self._avoid(host)
        elif self._avoided:
            self._avoided.pop(host, None)

    def _avoid(self, host: HostInfo) -> None:
        now = self._clock()
        self._avoided = {other: until for other, until in self._avoided.items() if until + _REMEMBERED_SECONDS > now}
        self._avoided[host] = now + AVOIDED_SECONDS

    def _is_elsewhere(self, candidate: Candidate) -> bool:
        return candidate.host.worker_id != self._worker_id

    def _is_avoided(self, candidate: Candidate) -> bool:
        return self.is_avoided(candidate.host)

    def _is_due(self, candidate: Candidate) -> bool:
        return self._avoided.get(candidate.host, math.inf) <= self._clock()
