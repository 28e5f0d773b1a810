"""How several workers share the partitions of a table."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

from bench.http_client import Client
from bench.peers.tablehouse import Tablehouse

_PAUSE = 0.1


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
