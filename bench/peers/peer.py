"""What a measurement asks of a program, whoever wrote it."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import msgspec

from bench.http_client import Client
from bench.machine import Cores
from bench.usage import Usage, usage
from tablehouse.errors import SetupError
from tablehouse.testing import processes

if TYPE_CHECKING:
    import subprocess

#: Seconds that a program may take to leave before it is killed.
_STOP_GRACE = 40.0
_PAUSE = 0.05
#: A program that uses less of a core than this is idle; RocksDB rests between two compactions, so it is at rest when it
#: was idle in so many looks in a row, that many seconds apart.
_IDLE = 0.1
_LOOKS_IDLE = 4
_BETWEEN_LOOKS = 0.5
#: A pause between two looks is at least so many times as long as a look took.
_RARITY = 20


class Progress(msgspec.Struct, frozen=True):
    """How far a program is.

    applied counts source records that its table holds. assigned says that the group has given it partitions,
    caught_up that it serves every one of them. assigned_at is set by a program that knows better than a look
    from outside when that was.
    """

    applied: int
    assigned: bool
    caught_up: bool
    assigned_at: Usage | None = None


class Peer(Protocol):
    """One program over one source topic; the same object can be started again on what the last process left."""

    name: str
    #: Of 127.0.0.1, where it serves rows at /tables/table/<key>; 0 when it serves none.
    port: int

    @property
    def pid(self) -> int:
        """The id of the process, which holds all that the program uses."""

    def start(self) -> None:
        """Start the process."""

    async def stop(self) -> None:
        """Let the process leave as it would on SIGTERM."""

    def kill(self) -> None:
        """End the process with SIGKILL."""

    def wipe(self) -> None:
        """Delete what it keeps on disk; it must not run."""

    async def progress(self) -> Progress | None:
        """Return how far it is; None while it cannot say."""


AnyPeer = TypeVar("AnyPeer", bound=Peer)


class ServerProcess:
    """The process of a peer, with a folder for its state and its log."""

    def __init__(self, folder: Path, cores: Cores) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.log = folder / "log"
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process; SetupError, with the end of its log, when it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise SetupError(f"a measured program has ended; the last lines of {self.log}:\n{self.last_lines()}")
        return self._process.pid

    def spawn(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        """Start it on the server's core."""
        self._process = processes.spawn(self._cores.command(command), log=self.log, env=env)

    async def stop(self) -> None:
        """Send SIGTERM and wait."""
        if self._process is not None:
            await asyncio.to_thread(processes.end, [self._process], grace=_STOP_GRACE)

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wipe(self) -> None:
        """Delete its state."""
        shutil.rmtree(self.state, ignore_errors=True)

    def last_lines(self) -> str:
        """Return the end of its log."""
        return processes.last_lines(self.log)


@asynccontextmanager
async def running(peer: AnyPeer) -> AsyncIterator[AnyPeer]:
    """Start a peer, and stop it at the end."""
    peer.start()
    try:
        yield peer
    finally:
        await peer.stop()


class Look(NamedTuple):
    """How far a program was, and what it had used until then."""

    progress: Progress
    usage: Usage


async def looks(peer: Peer, pause: float, patience: float) -> AsyncIterator[Look]:
    """Look at a program whenever it can say how far it is, until the caller has seen enough.

    Pauses are in seconds and get longer when the answers take long, so that looking costs a program with thousands of
    tasks no more than a few percent. Raises TimeoutError, with how far it came, when it was looked at for longer than
    `patience`, and SetupError when it has ended.
    """
    deadline = time.monotonic() + patience
    progress: Progress | None = None
    while True:
        asked = time.monotonic()
        progress = await peer.progress()
        used = usage(peer.pid)
        if progress is not None:
            yield Look(progress, used)
        if used.at > deadline:
            raise TimeoutError(f"{peer.name} was not done after {patience:.0f} s: {progress}")
        await asyncio.sleep(max(pause, _RARITY * (used.at - asked)))


async def until_caught_up(peer: Peer, records: int, patience: float = 300.0) -> None:
    """Wait until a peer serves everything and has applied `records`; raises as looks() does."""
    async for look in looks(peer, _PAUSE, patience):
        if look.progress.caught_up and look.progress.applied >= records:
            return


async def until_at_rest(peer: Peer, patience: float = 60.0) -> None:
    """Wait until a peer that is caught up hardly uses its core: RocksDB compacts for some time after a big load.

    Raises TimeoutError when it does not come to rest within `patience` seconds.
    """
    before, idle = usage(peer.pid), 0
    deadline = before.at + patience
    while idle < _LOOKS_IDLE:
        if before.at > deadline:
            raise TimeoutError(f"{peer.name} was still busy {patience:.0f} s after it had caught up")
        await asyncio.sleep(_BETWEEN_LOOKS)
        now = usage(peer.pid)
        idle = idle + 1 if now.cpu - before.cpu < _IDLE * (now.at - before.at) else 0
        before = now


async def check_rows(peer: Peer, last: Mapping[int, tuple[bytes, bytes]]) -> None:
    """Read the last record of each partition back; raises AssertionError for any that is not the row."""
    async with Client(peer.port) as client:
        for partition, (key, value) in last.items():
            status, body = await client.get(f"/tables/table/{key.decode()}")
            if (status, body) != (200, value):
                raise AssertionError(
                    f"{peer.name}: the last record of partition {partition} is {key!r} {value!r}, and the answer was "
                    f"{status} {body!r}"
                )
