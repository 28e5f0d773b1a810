"""Reads from outside of the pods all the time, and what became of these reads.

As a script it reads and writes a line for each read into a file. On a node it goes through that node's kube-proxy.
"""

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from tablehouse.testing import processes
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import Node
from tests.support.polling import wait_until

KEYS = 200
_SECONDS_BETWEEN = 0.02  # reads of one reader, so that the workers have the CPU
_TIMEOUT = 10.0  # more than a worker may take for an answer
_NO_ANSWER = 0
_WRONG_ROW = 1

#: The ports that new connections come from, in turn, and how many of them are passed over in a second: far more than
#: are used. So none is used again within four minutes. A connection from a port of one that was not closed in order,
#: up to two minutes before, would be sent by the kernel to the pod of that one, which may be gone: no fault of workers.
_PORTS = range(10_000, 60_000)
_PORTS_PER_SECOND = 200

#: What readers ask: the name, the query, and whether the keys have rows.
_KINDS = {
    "default": ("", True),
    "active": ("&read=active", True),
    "missing": ("", False),
}


@dataclass
class Step:
    """What readers saw while one thing happened."""

    name: str
    began: float = 0.0
    ended: float = 0.0
    reads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def count(self, kind: str) -> int:
        """Return how many reads of a kind there were."""
        return len(self.reads.get(kind, []))

    def slowest(self, kind: str = "default") -> float:
        """Return what the slowest read of a kind took, in milliseconds."""
        return max((read["ms"] for read in self.reads.get(kind, [])), default=0.0)

    def failures(self, kind: str = "default") -> list[dict[str, Any]]:
        """Return the reads that got another answer than a row, or of missing keys another one than 404."""
        right = 404 if kind == "missing" else 200
        return [read for read in self.reads.get(kind, []) if read["status"] != right]

    def unanswered(self) -> list[dict[str, Any]]:
        """Return the reads that got no answer, since their worker was gone."""
        return [read for reads in self.reads.values() for read in reads if read["status"] == _NO_ANSWER]

    def wrong(self) -> list[dict[str, Any]]:
        """Return the answers that no reader may get, such as 404 for a row that is there, or another row."""
        later = {503, 504, _NO_ANSWER}
        allowed = {"default": {200} | later, "active": {200} | later, "missing": {404} | later}
        return [read for kind, reads in self.reads.items() for read in reads if read["status"] not in allowed[kind]]

    def line(self) -> str:
        """Return its row of the table of steps."""
        refused = f"{len(self.failures('active'))} | {len(self.failures('missing'))}"
        seconds = self.ended - self.began
        return (
            f"| {self.name} | {self.count('default')} | {len(self.failures())} | {self.slowest():.0f} ms "
            f"| {refused} | {seconds:.0f} s |"
        )


HEADER = """\
| step | default reads | failed | slowest | `read=active` refused | misses refused | took |
|---|---|---|---|---|---|---|"""


class Judge:
    """Has readers read for as long as it is entered; steps take from them what happened meanwhile."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._file = folder / "reads.jsonl"
        self.steps: list[Step] = []

    @contextmanager
    def reading(self, url: str, node: Node | None = None) -> Iterator[None]:
        """Have readers ask this URL while the context lasts, from the first node unless another one is given."""
        script = [sys.executable, "-m", "tests.kubernetes.judge", url, str(self._file)]
        # On a node, a command begins in the root folder.
        command = (node or self._cluster.nodes[0]).enter("env", f"--chdir={Path.cwd()}", *script)
        process = self._cluster.spawn("judge", command)
        try:
            yield
        finally:
            processes.end([process], grace=5)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Collect what is read until the context ends."""
        step = Step(name, began=time.time())
        yield step
        step.ended = time.time()
        # A reader that has begun a later read has written down all that it began before.
        reads = wait_until(lambda: self._reads_beyond(step.ended), "every reader reads on", _TIMEOUT * 2)
        for read in reads:
            if step.began <= read["at"] <= step.ended:
                step.reads.setdefault(read["kind"], []).append(read)
        self.steps.append(step)

    def _reads_beyond(self, end: float) -> list[dict[str, Any]] | None:
        text = self._file.read_text("utf-8") if self._file.exists() else ""
        reads = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        beyond = {(read["kind"], read["connection"]) for read in reads if read["at"] > end}
        return reads if len(beyond) == 2 * len(_KINDS) else None


async def _read_on(session: aiohttp.ClientSession, url: str, kind: str, connection: str, output: TextIO) -> None:
    query, existing = _KINDS[kind]
    number = 0
    while True:
        number += 1
        key = f"key-{number % KEYS}" if existing else f"none-{number}"
        began, at = time.monotonic(), time.time()
        said = ""
        try:
            async with session.get(f"{url}:get?key={key}{query}") as answer:
                body = await answer.text()
                status = answer.status
                if status != 200:
                    said = body[:2000]
                elif json.loads(body)["key"] != key:
                    status, said = _WRONG_ROW, body[:300]
        except (aiohttp.ClientError, TimeoutError) as error:
            status, said = _NO_ANSWER, f"{type(error).__name__} {getattr(error, 'errno', '')}: {error}"
        read = {"at": at, "kind": kind, "connection": connection, "status": status, "said": said}
        output.write(json.dumps({**read, "ms": (time.monotonic() - began) * 1000}) + "\n")
        await asyncio.sleep(_SECONDS_BETWEEN)


def _from_new_ports() -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return what makes the socket of a connection: each has a port of its own."""
    first = int(time.monotonic() * _PORTS_PER_SECOND) % len(_PORTS)
    ports = itertools.cycle((*_PORTS[first:], *_PORTS[:first]))

    def make(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in ports:
            try:
                made.bind(("", port))
            except OSError:  # another socket has it
                continue
            break
        return made

    return make


async def _main(url: str, file: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    with file.open("a", encoding="utf-8", buffering=1) as output:
        connector = aiohttp.TCPConnector(force_close=True, socket_factory=_from_new_ports())
        async with (
            aiohttp.ClientSession(timeout=timeout) as kept,
            aiohttp.ClientSession(timeout=timeout, connector=connector) as new,
            asyncio.TaskGroup() as group,
        ):
            for kind in _KINDS:
                group.create_task(_read_on(kept, url, kind, "kept", output))
                group.create_task(_read_on(new, url, kind, "new", output))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
