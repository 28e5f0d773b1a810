"""What every worker says of its tasks, asked of all of them at once, within a bound."""

import asyncio
from dataclasses import dataclass

from tablehouse.errors import RequestError
from tablehouse.model import HostInfo, TaskStatus
from tablehouse.routing.cluster import ClusterSnapshot
from tablehouse.routing.ports import LocalTables, Peer

#: Workers asked at the same time.
CONCURRENT_QUESTIONS = 8


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One worker's tasks; None when it could not be asked, and then reason says why."""

    host: HostInfo
    tasks: tuple[TaskStatus, ...] | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """A picture of the cluster; complete is False when a worker is missing in it."""

    snapshot: ClusterSnapshot
    reports: tuple[MemberReport, ...]

    @property
    def complete(self) -> bool:
        """Whether there is a distribution, and everybody in it answered."""
        return self.snapshot.generation >= 0 and all(report.tasks is not None for report in self.reports)


async def survey(snapshot: ClusterSnapshot, me: HostInfo, local: LocalTables, peer: Peer, *, seconds: float) -> Survey:
    """Ask every member of the snapshot for its tasks, for `seconds` at most.

    A member that does not answer is in the result, with the reason; nothing is raised.
    """
    gate = asyncio.Semaphore(CONCURRENT_QUESTIONS)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds

    async def ask(host: HostInfo) -> MemberReport:
        if host.worker_id == me.worker_id:
            await local.count_rows()
            return MemberReport(host, tuple(local.statuses()), None)
        try:
            async with asyncio.timeout_at(deadline), gate:
                tasks = await peer.statuses(host, max(0.001, deadline - loop.time()))
            return MemberReport(host, tuple(tasks), None)
        except RequestError as error:
            return MemberReport(host, None, error.detail)
        except TimeoutError:
            return MemberReport(host, None, f"no answer within {seconds:g} s")

    hosts = snapshot.members
    if all(host.worker_id != me.worker_id for host in hosts):
        hosts = (*hosts, me)
    return Survey(snapshot, tuple(await asyncio.gather(*map(ask, hosts))))
