"""Several workers that share the partitions of a table."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from bench.http_client import Client
from bench.peers.peer import running, until_at_rest
from bench.peers.tablehouse import Tablehouse

_PAUSE = 0.1


@asynccontextmanager
async def settled(workers: Sequence[Tablehouse], partitions: int) -> AsyncIterator[None]:
    """Start workers, stop them at the end; in between they share the partitions, and began at rest."""
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(running(worker))
        await until_shared(workers, partitions)
        for worker in workers:
            await until_at_rest(worker)
        yield


async def until_shared(workers: Sequence[Tablehouse], partitions: int, patience: float = 60.0) -> float:
    """Wait until each worker owns as many of the partitions as any other, and each has its one standby elsewhere.

    Returns when that was, in seconds of the monotonic clock. Raises TimeoutError, with the last that was seen.
    """
    wanted = [("active", partitions // len(workers)), ("standby", partitions // len(workers))]
    deadline = time.monotonic() + patience
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(worker.port)) for worker in workers]
        while True:
            tasks = await asyncio.gather(
                *(worker.tasks(client) for worker, client in zip(workers, clients, strict=True))
            )
            now = time.monotonic()
            seen = [sorted(Counter(task.state for task in each).items()) for each in tasks]
            if all(each == wanted for each in seen):
                return now
            if now > deadline:
                raise TimeoutError(f"{len(workers)} workers do not share the table after {patience:.0f} s: {seen}")
            await asyncio.sleep(_PAUSE)


async def keys_by_owner(asked: Tablehouse, keys: Iterable[bytes]) -> Mapping[str, Sequence[bytes]]:
    """Divide keys of the table by the internal URL of the worker that owns them, as one that is asked says."""
    owned: defaultdict[str, list[bytes]] = defaultdict(list)
    async with Client(asked.port) as client:
        for key in keys:
            _, body = await client.get(f"/tables/table:locate?key={key.decode()}")
            owned[msgspec.json.decode(body)["locations"][0]["active"]["url"]].append(key)
    return owned
