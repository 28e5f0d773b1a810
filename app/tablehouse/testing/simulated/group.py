"""The consumer group: members, heartbeats, session timeouts, rebalances that wait for all members."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tablehouse.model import TopicPartition
from tablehouse.tasks.log import LeaseLost

SESSION_TIMEOUT = 6.0
REBALANCE_TIMEOUT = 20.0
HEARTBEAT_INTERVAL = 0.5

_TICK = 0.25


@dataclass
class _Member:
    seen_at: float
    waiting: asyncio.Future[None] | None = None


@dataclass
class Group:
    """The coordinator. ends() is called at each new generation, for the offsets that its owners must reach."""

    choose: random.Random
    sources: Sequence[TopicPartition]
    ends: Callable[[], Mapping[TopicPartition, tuple[int, int]]]
    generation: int = 0
    assignment: dict[TopicPartition, str] = field(default_factory=dict)
    #: The standbys of each source, and the probability that a member that does not own it is one.
    standbys: dict[TopicPartition, set[str]] = field(default_factory=dict)
    follows: float = 0.0
    #: By generation, the ends of the sources when it began, and their last stable offsets.
    ends_at: dict[int, Mapping[TopicPartition, tuple[int, int]]] = field(default_factory=dict)
    #: Chooses the member of a source, if set by a test; random otherwise.
    place: Callable[[TopicPartition, Sequence[str]], str] | None = None
    _members: dict[str, _Member] = field(default_factory=dict)
    _due: float | None = None

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Expire sessions and finish rebalances, indefinitely."""
        while True:
            await asyncio.sleep(_TICK)
            now = self._now()
            for name, member in list(self._members.items()):
                if member.waiting is None and now - member.seen_at > SESSION_TIMEOUT:
                    del self._members[name]
                    self.rebalance()
            if self._due is not None:
                if now >= self._due:
                    for name in [name for name, member in self._members.items() if member.waiting is None]:
                        del self._members[name]
                if all(member.waiting is not None for member in self._members.values()):
                    self._finish()

    def rebalance(self) -> None:
        """Make every member rejoin."""
        if self._due is None:
            self._due = self._now() + REBALANCE_TIMEOUT

    def heartbeat(self, name: str, generation: int) -> str:
        """Answer a heartbeat: good, rebalancing or unknown."""
        member = self._members.get(name)
        if member is None or generation != self.generation:
            return "unknown"
        member.seen_at = self._now()
        return "good" if self._due is None else "rebalancing"

    def join(self, name: str) -> asyncio.Future[None]:
        """Wait for the next generation."""
        member = self._members.setdefault(name, _Member(self._now()))
        if member.waiting is None:
            member.waiting = asyncio.get_running_loop().create_future()
        self.rebalance()
        return member.waiting

    def leave(self, name: str) -> None:
        """Leave at once."""
        if self._members.pop(name, None) is not None:
            self.rebalance()

    def members(self) -> list[str]:
        """Return the members, including dead ones whose session has not expired."""
        return list(self._members)

    def assigned(self, name: str) -> list[TopicPartition]:
        """Return the current generation's assignment of a member."""
        return [source for source, owner in self.assignment.items() if owner == name]

    def followed(self, name: str) -> list[TopicPartition]:
        """Return the standbys of a member in the current generation."""
        return [source for source, followers in self.standbys.items() if name in followers]

    def _finish(self) -> None:
        self._due = None
        self.generation += 1
        self.ends_at[self.generation] = dict(self.ends())
        names = list(self._members)
        place = self.place or (lambda _source, members: self.choose.choice(members))
        self.assignment = {source: place(source, names) for source in self.sources} if names else {}
        self.standbys = {
            source: {name for name in names if name != owner and self.follows and self.choose.random() < self.follows}
            for source, owner in self.assignment.items()
        }
        for member in self._members.values():
            member.seen_at = self._now()
            waiting, member.waiting = member.waiting, None
            if waiting is not None and not waiting.done():
                waiting.set_result(None)


class MemberLease:
    """Implements Lease for one member; `beat` is one heartbeat and its response."""

    def __init__(self, member: str, group: Group, hop: Callable[[str], Awaitable[None]]) -> None:
        self.generation = -1
        self._member = member
        self._group = group
        self._hop = hop
        self._good: tuple[int, float] | None = None

    async def beat(self) -> str:
        """Send a heartbeat and return its answer."""
        loop = asyncio.get_running_loop()
        sent_at, generation = loop.time(), self.generation
        await self._hop("heartbeat.sent")
        answer = self._group.heartbeat(self._member, generation)
        await self._hop("heartbeat.answered")
        if answer == "good":
            self._good = (generation, sent_at)
        return answer

    async def confirm(self, generation: int) -> None:
        """See Lease."""
        asked_at = asyncio.get_running_loop().time()
        while True:
            if self.generation != generation:
                raise LeaseLost(f"generation {generation} has ended; the current one is {self.generation}")
            if self._good is not None and self._good[0] == generation and self._good[1] >= asked_at:
                return
            await self.beat()
            await asyncio.sleep(0.05)

    def holds(self, generation: int) -> bool:
        """See Lease."""
        return self._good is not None and self._good[0] == generation and self.age() < SESSION_TIMEOUT / 2

    def age(self) -> float:
        """See Lease."""
        return float("inf") if self._good is None else asyncio.get_running_loop().time() - self._good[1]
