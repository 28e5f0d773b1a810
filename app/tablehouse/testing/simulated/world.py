"""The world of a history: partitions, a network with delays and losses, the group, workers, and random events."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from tablehouse.model import TopicPartition
from tablehouse.tasks.records import CLAIM_KEY, Claim, decode
from tablehouse.testing.simulated.broker import EpochRefused, Log, Pair, Refused
from tablehouse.testing.simulated.group import Group
from tablehouse.testing.simulated.loop import PROCESS, Process, VirtualLoop

#: Speed of the wall clock relative to the loop's, so that compaction lags pass within a session.
WALL_SPEED = 300
_WALL_START_MS = 1_700_000_000_000

#: Seconds that a writer waits for an acknowledgement.
APPEND_TIMEOUT = 2.0

#: Calls that take time in a thread, and the maximum time in seconds.
_IN_THREADS = {"store.open", "store.add", "store.flush", "store.close", "store.destroy", "store.wipe"}
_LONG_IN_A_THREAD = 6.0

#: Maximum delay of an append in seconds.
LATEST = 40.0


@dataclass(frozen=True, slots=True)
class Weather:
    """The state of network and disks: probabilities per append, hop and store call; delays in seconds."""

    late: float = 0.0
    never: float = 0.0
    lost_acknowledgement: float = 0.0
    sent_again: float = 0.0
    unavailable: float = 0.0
    slow_hop: float = 0.0
    slow_thread: float = 0.1
    disk_full: float = 0.0
    hop: float = 0.01


FAIR = Weather()


@dataclass(frozen=True, slots=True)
class Request:
    """An append in flight to the broker."""

    partition: TopicPartition
    producer: tuple[int, int]
    sequence: int
    pairs: Sequence[Pair]
    headers: Sequence[tuple[str, bytes]]

    @property
    def claims(self) -> bool:
        """Return whether this is a claim."""
        return self.pairs[0][0] == CLAIM_KEY


Answer = int | Refused | None


class World:
    """Everything outside of the workers. `limit` is the maximum size of a changelog batch in bytes."""

    def __init__(
        self, seed: int, sources: Sequence[TopicPartition], changelogs: Sequence[TopicPartition], limit: int = 5000
    ) -> None:
        self.choose = random.Random(seed)
        self.weather = FAIR
        self.limit = limit
        self.sources = {source: Log(self.wall_ms) for source in sources}
        self.changelogs = {changelog: Log(self.wall_ms) for changelog in changelogs}
        self.group = Group(
            self.choose,
            sources,
            lambda: {name: (log.end if log.settled else log.stable, log.stable) for name, log in self.sources.items()},
        )
        #: Counts of the protocol paths that were taken.
        self.paths: Counter[str] = Counter()
        #: Called with the process and the point at every hop.
        self.on_hop: Callable[[Process, str], None] | None = None
        #: Seconds that some points take, if set by a test; and how many coroutines are at them.
        self.takes: dict[str, float] = {}
        self.under_way: Counter[str] = Counter()
        #: Called with a source, the offset committed by its worker, and the positions of its tables.
        self.on_commit: Callable[[TopicPartition, int, Mapping[str, int]], None] = lambda *_: None
        #: Selects appends that stay in flight, in `held`, until a test delivers them.
        self.hold: Callable[[Request], bool] = lambda _request: False
        self.held: list[Request] = []
        #: Time on the loop's clock until which no schema registry answers.
        self.no_registry_until = 0.0
        #: Every append that was sent, with its process.
        self.sent: list[tuple[Process | None, Request]] = []
        #: Contents of the dead-letter topic: table, source partition, offset and reason; and whether it can be written.
        self.letters: list[tuple[str, TopicPartition, int, str]] = []
        self.letters_away = False
        #: Milliseconds by which the brokers' clocks were set forward.
        self.broker_set_ms = 0
        #: Milliseconds by which the clock of the probed broker is ahead of those of the changelogs' brokers; and the
        #: time on the loop's clock until which it does not answer.
        self.probe_ahead_ms = 0
        self.no_probe_until = 0.0
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            loop.hop = self.hop
        self._outside: Context = copy_context()
        self._coordinator = self.outside(self.group.run())

    def wall_ms(self) -> int:
        """Return the time of the changelogs' brokers, used for timestamps and compaction."""
        return _WALL_START_MS + self.elapsed_ms() + self.broker_set_ms

    def probe_ms(self) -> int:
        """Return the time of the broker that workers probe."""
        return self.wall_ms() + self.probe_ahead_ms

    def probe_away(self) -> bool:
        """Return whether the probed broker does not answer."""
        return asyncio.get_running_loop().time() < self.no_probe_until

    @staticmethod
    def elapsed_ms() -> int:
        """Return the elapsed time at the speed of the brokers' clocks, regardless of steps."""
        return int(asyncio.get_running_loop().time() * 1000 * WALL_SPEED)

    def outside(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine outside of all workers."""
        return asyncio.get_running_loop().create_task(coroutine, context=self._outside.copy())

    def log(self, partition: TopicPartition) -> Log:
        """Return a partition."""
        return self.sources[partition] if partition in self.sources else self.changelogs[partition]

    async def hop(self, point: str) -> None:
        """Take some time, in which anything may happen to the worker."""
        process = PROCESS.get()
        if process is not None and self.on_hop is not None:
            self.on_hop(process, point)
        delay = self.choose.random() * self.weather.hop
        if point in _IN_THREADS:
            delay += self.choose.random() * (_LONG_IN_A_THREAD if self.happens(self.weather.slow_thread) else 0.5)
        if self.weather.slow_hop and self.choose.random() < self.weather.slow_hop:
            delay += self.choose.random()
        if point not in self.takes:
            await asyncio.sleep(delay)
            return
        self.under_way[point] += 1
        await asyncio.sleep(self.takes[point])
        self.under_way[point] -= 1

    def registry_away(self) -> bool:
        """Return whether no schema registry answers."""
        return asyncio.get_running_loop().time() < self.no_registry_until

    def happens(self, chance: float) -> bool:
        """Return whether an event with a probability happens now."""
        return bool(chance) and self.choose.random() < chance

    async def until(self, condition: Callable[[], bool], what: str, patience: float = 600.0) -> None:
        """Run the world until a condition holds."""
        deadline = asyncio.get_running_loop().time() + patience
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"never came: {what}")
            await asyncio.sleep(0.05)

    async def changed(self, log: Log) -> None:
        """Wait until a partition changes."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def changed() -> None:
            if not change.done():
                change.set_result(None)

        log.watchers.append(changed)
        await change

    # The network

    def send(self, request: Request) -> "asyncio.Future[Answer]":
        """Send an append; the answer is an offset, the broker's refusal, or None for an error."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.sent.append((PROCESS.get(), request))
        if self.hold(request):
            self.held.append(request)
            return answer
        weather, choose = self.weather, self.choose
        delay = choose.random() * weather.hop
        if choose.random() < weather.never:
            return answer
        if choose.random() < weather.late:
            delay = choose.random() * (1 if choose.random() < 0.5 else LATEST)
        heard = choose.random() >= weather.lost_acknowledgement
        self._later(delay, request, answer if heard else None)
        if choose.random() < weather.sent_again:
            self._later(delay + choose.random() * (LATEST - delay), request, None)
        return answer

    def deliver(self, request: Request) -> Answer:
        """Make the broker append now."""
        log = self.changelogs[request.partition]
        duplicates = log.duplicates
        try:
            offset = log.produce(request.producer, request.sequence, request.pairs, request.headers)
        except EpochRefused as refused:
            self.paths["fenced"] += 1
            return refused
        except Refused:
            return None
        self._note(request, offset, again=log.duplicates > duplicates)
        return offset

    def _later(self, delay: float, request: Request, answer: "asyncio.Future[Answer] | None") -> None:
        def arrive() -> None:
            result = self.deliver(request)
            if answer is not None:
                asyncio.get_running_loop().call_later(
                    self.choose.random() * self.weather.hop, tell, result, context=self._outside
                )

        def tell(result: Answer) -> None:
            if answer is not None and not answer.done():
                answer.set_result(result)

        asyncio.get_running_loop().call_later(delay, arrive, context=self._outside)

    def _note(self, request: Request, offset: int, *, again: bool) -> None:
        if not request.claims:
            return
        value = request.pairs[0][1]
        claim = decode(Claim, value or b"")
        if again:
            there = self.changelogs[request.partition].at(offset)
            if there is not None and there.value != value:
                self.paths["claim answered as another"] += 1
        elif claim.seals:
            self.paths["seal"] += 1
        else:
            self.paths["claim"] += 1

    def calm(self) -> None:
        """Disable all further faults."""
        self.weather = FAIR
        self.no_registry_until = self.no_probe_until = 0.0
        self.on_hop = None
